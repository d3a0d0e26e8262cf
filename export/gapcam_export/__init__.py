"""gapcam_export: from a classifier to an ONNX model that keeps gapcam's contract.

Example:
    >>> import gapcam_export
    >>> report = gapcam_export.export("torchvision:resnet18", "model.onnx", pretrained=True)  # doctest: +SKIP
    >>> report.contract.verification.identity_error < 1e-4  # doctest: +SKIP
    True
"""

from gapcam_export._export import export
from gapcam_export._gap_surgery import gap_surgery
from gapcam_export.errors import CheckpointError, ExporterError, HeadError, LabelsError, SourceError
from gapcam_export.report import Report, TensorSummary
from gapcam_export.surgery.report import SurgeryReport

__all__ = [
    "CheckpointError",
    "ExporterError",
    "HeadError",
    "LabelsError",
    "Report",
    "SourceError",
    "SurgeryReport",
    "TensorSummary",
    "export",
    "gap_surgery",
]
