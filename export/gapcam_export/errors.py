"""What can go wrong in an export, beside what `gapcam.errors` names."""

from __future__ import annotations

from gapcam.contract import HeadKind
from gapcam.errors import ExitCode, GapcamError, ModelError, UsageError


class SourceError(ModelError):
    """A SOURCE that cannot be found, imported, built or run."""


class NothingToQuantiseError(ModelError):
    """An int8 model was asked for of one without a layer that could be int8."""


class CheckpointError(ModelError):
    """A checkpoint that cannot be read safely, or that does not fit the network."""


class LabelsError(UsageError):
    """A labels file that cannot be read, or that has a wrong number of names."""


class ExporterError(GapcamError):
    """PyTorch's ONNX exporter could not write this network."""

    exit_code = ExitCode.MODEL


class HeadError(ModelError):
    """The network's head gives no class activation map, or not one that this version can compute.

    Attributes:
        kind: what the head is.
    """

    def __init__(self, kind: HeadKind, found: str, mend: str) -> None:
        super().__init__(f"the head is of kind {kind.value!r}: {found} {mend}")
        self.kind = kind
