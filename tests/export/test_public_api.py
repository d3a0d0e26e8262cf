"""What `gapcam_export` promises to its users."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest

import gapcam
import gapcam_export

PUBLIC = {
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
}


def test_the_public_names_are_exactly_these() -> None:
    assert set(gapcam_export.__all__) == PUBLIC
    here = vars(gapcam_export)
    public = {name for name in dir(gapcam_export) if name[0] != "_" and not inspect.ismodule(here.get(name))}
    assert public - {"annotations", "TYPE_CHECKING", "import_module"} == PUBLIC
    assert all(getattr(gapcam_export, name) is not None for name in PUBLIC)


def test_importing_the_package_loads_neither_torch_nor_onnx() -> None:
    code = "import sys, gapcam_export\nprint(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "gapcam_export" in loaded
    assert not {"torch", "onnx", "onnxruntime"}.intersection(loaded)


def test_every_public_name_has_a_docstring_and_every_error_an_exit_code() -> None:
    for name in PUBLIC:
        value = getattr(gapcam_export, name)
        assert inspect.getdoc(value), name
        if name.endswith("Error"):
            assert issubclass(value, gapcam.GapcamError)
            assert value.exit_code != 0


@pytest.mark.parametrize(
    "function", [gapcam_export.export, gapcam_export.fidelity, gapcam_export.gap_surgery, gapcam_export.quantize]
)
def test_every_argument_is_documented(function: Callable[..., object]) -> None:
    documented = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert f"    {name}: " in documented
