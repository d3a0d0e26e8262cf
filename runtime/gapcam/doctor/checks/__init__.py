"""One file a subject: facts in, findings out. None of them looks at the machine."""
