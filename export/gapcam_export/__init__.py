"""gapcam_export: from a classifier to an ONNX model that keeps gapcam's contract.

Example:
    >>> import gapcam_export
    >>> report = gapcam_export.export("torchvision:resnet18", "model.onnx", pretrained=True)  # doctest: +SKIP
    >>> report.contract.verification.identity_error < 1e-4  # doctest: +SKIP
    True

The names below are the whole public API. They are loaded when first used, so that what needs neither torch nor onnx,
such as the comparison of two models, works where they are absent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import gapcam  # noqa: F401  # it keeps ONNX Runtime, which is imported after it, from reporting to its maker

if TYPE_CHECKING:
    from gapcam_export._build import build
    from gapcam_export._export import export
    from gapcam_export._fidelity import fidelity
    from gapcam_export._gap_surgery import gap_surgery
    from gapcam_export._quantize import quantize
    from gapcam_export.comparison.report import FidelityReport
    from gapcam_export.engines.options import BuildOptions
    from gapcam_export.engines.report import BuildReport
    from gapcam_export.errors import CheckpointError, ExporterError, HeadError, LabelsError, SourceError
    from gapcam_export.precision.options import PrecisionOptions
    from gapcam_export.report import Report, TensorSummary
    from gapcam_export.surgery.report import SurgeryReport

__all__ = [
    "BuildOptions",
    "BuildReport",
    "CheckpointError",
    "ExporterError",
    "FidelityReport",
    "HeadError",
    "LabelsError",
    "PrecisionOptions",
    "Report",
    "SourceError",
    "SurgeryReport",
    "TensorSummary",
    "build",
    "export",
    "fidelity",
    "gap_surgery",
    "quantize",
]

_HOME = {
    "BuildOptions": "engines.options",
    "BuildReport": "engines.report",
    "CheckpointError": "errors",
    "ExporterError": "errors",
    "FidelityReport": "comparison.report",
    "HeadError": "errors",
    "LabelsError": "errors",
    "PrecisionOptions": "precision.options",
    "Report": "report",
    "SourceError": "errors",
    "SurgeryReport": "surgery.report",
    "TensorSummary": "report",
    "build": "_build",
    "export": "_export",
    "fidelity": "_fidelity",
    "gap_surgery": "_gap_surgery",
    "quantize": "_quantize",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'gapcam_export' has no attribute {name!r}")
    value: object = getattr(import_module(f"gapcam_export.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
