"""What can go wrong, as types; each knows the exit code with which the command line ends.

Every message says what was got, what was expected, and what to do.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a `gapcam` command ended. Documented in docs/cli.md; numbers are stable."""

    DONE = 0
    PARTIAL = 1
    """The command did what it could; some inputs were reported and skipped."""
    USAGE = 2
    """An option, argument, label or class that is not understood."""
    MODEL = 3
    """The model or its contract cannot be used."""
    VERIFICATION = 4
    """The numbers do not agree: an export, or a model on this device, is not right."""
    DATA = 5
    """Nothing to read, or nowhere to write."""
    MISSING = 6
    """A package, provider or device that the command needs is not there."""
    BUG = 70
    """An error that gapcam did not foresee; `--debug` shows the traceback."""
    INTERRUPTED = 130
    """Stopped by the user."""


class GapcamError(Exception):
    """Base of all errors that gapcam raises on purpose."""

    exit_code: ExitCode = ExitCode.USAGE


class UsageError(GapcamError, ValueError):
    """An argument is out of its range or contradicts another."""


class ClassNotFoundError(GapcamError, LookupError):
    """A class index or label that the model does not have, or a label that several classes share."""


class MapNotComputedError(UsageError):
    """A class's map is not in a frame's result: a nonlinear head's graph computes the rows of the best classes only."""


class FrameError(GapcamError, ValueError):
    """A frame with a wrong dtype, layout or size was handed to the API."""


class ModelError(GapcamError):
    """A file that is no model, is damaged, or does not keep the contract."""

    exit_code = ExitCode.MODEL


class ContractError(ModelError):
    """The model's contract is absent, damaged, or of a version that this gapcam does not know."""


class VerificationError(GapcamError):
    """The identity logit_c = mean(M_c) + b_c, or a comparison of two runtimes, does not hold."""

    exit_code = ExitCode.VERIFICATION


class DataError(GapcamError):
    """An image that cannot be read, or a place that cannot be written."""

    exit_code = ExitCode.DATA


class MissingExtraError(GapcamError, ImportError):
    """A package is absent that an extra of gapcam installs."""

    exit_code = ExitCode.MISSING

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed, and this needs it. Install it with: pip install 'gapcam[{extra}]'"
        )
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """For pickle, which would else hand the message to `__init__`."""
        return type(self), (self.package, self.extra)


class BackendError(GapcamError):
    """A device or inference engine that is not available here, or that failed."""

    exit_code = ExitCode.MISSING
