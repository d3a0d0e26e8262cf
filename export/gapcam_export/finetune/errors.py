"""What can go wrong in a fine-tuning, beside what `gapcam.errors` and `gapcam_export.errors` name."""

from __future__ import annotations

from gapcam.errors import ExitCode, GapcamError


class TrainingError(GapcamError):
    """Training diverged."""

    exit_code = ExitCode.VERIFICATION


class InterruptedTrainingError(GapcamError):
    """Ctrl-C or SIGTERM; the message says how to go on."""

    exit_code = ExitCode.INTERRUPTED
