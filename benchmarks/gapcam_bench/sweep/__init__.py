"""Every combination in fresh processes, round after round, so that a machine's drift hits all of them alike."""
