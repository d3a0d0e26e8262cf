"""What `import gapcam` promises, and what it costs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from small_models import red_and_blue

import gapcam

PUBLIC = {
    "BackendError", "Box", "ClassNotFoundError", "Contract", "ContractError", "DataError", "DeviceArray", "DeviceFrame",
    "DeviceResult", "ExitCode", "FrameError", "FrameGraph", "FrameGraphResult", "FrameLayout", "GapcamError",
    "HeadKind", "MapNotComputedError", "MissingExtraError", "ModelError", "Placement", "Prediction", "Preprocessing",
    "Rect", "Result", "Session", "UsageError", "VerificationError", "__version__", "load", "preprocess", "read_image",
}  # fmt: skip


def test_all_is_exact() -> None:
    assert set(gapcam.__all__) == PUBLIC
    assert gapcam.__all__ == sorted(gapcam.__all__)
    assert set(dir(gapcam)) >= PUBLIC
    assert all(getattr(gapcam, name) is not None for name in PUBLIC)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = gapcam.lod


def test_the_package_is_marked_as_typed() -> None:
    assert (files("gapcam") / "py.typed").is_file()


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.partition(".")[0] for name in done.stdout.rpartition("MODULES")[2].split()}


def test_importing_gapcam_imports_nothing_heavier_than_numpy() -> None:
    heavy = {"cv2", "onnxruntime", "onnx", "torch", "click", "rich", "gapcam_export", "gapcam_bench", "scipy"}
    assert not modules_after("import gapcam") & heavy
    assert not modules_after("import gapcam, gapcam.contract, gapcam.geometry, gapcam.cam, gapcam.identity") & heavy


def test_the_help_of_the_command_line_imports_no_engine_and_no_opencv() -> None:
    heavy = {"cv2", "onnxruntime", "onnx", "torch", "gapcam_export", "gapcam_bench"}
    run = "from gapcam.cli.main import main\ntry: main({})\nexcept SystemExit: pass"
    for arguments in (["--help"], ["--version"], ["run", "--help"], ["inspect", "--help"]):
        assert not modules_after(run.format(arguments)) & heavy


def test_explaining_a_frame_never_imports_torch_or_onnx(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "m.onnx")
    code = f"""
import gapcam, numpy as np
with gapcam.load({str(path)!r}) as session:
    result = session(np.zeros((9, 9, 3), np.uint8))
    result.overlay(boxes=result.boxes(), caption="x"), result.to_dict()
"""
    loaded = modules_after(code)
    assert not loaded & {"torch", "onnx", "gapcam_export", "gapcam_bench", "click", "rich"}
    assert loaded >= {"cv2", "onnxruntime"}  # the check sees what is imported


def test_without_onnx_runtime_loading_names_what_installs_it(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "m.onnx")
    code = f"import sys; sys.modules['onnxruntime'] = None; import gapcam; gapcam.load({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: onnxruntime is not installed" in done.stderr
    assert "pip install 'gapcam[cpu]'" in done.stderr


def test_every_docstring_example_is_true() -> None:
    import doctest
    from importlib import import_module

    attempted = 0
    for name in ("geometry", "cam", "backends.fake"):
        module = import_module(f"gapcam.{name}")
        outcome = doctest.testmod(module, extraglobs={"np": __import__("numpy")})
        assert outcome.failed == 0
        attempted += outcome.attempted
    assert attempted >= 6


def test_every_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(gapcam.MissingExtraError("onnxruntime", "cpu")))  # noqa: S301 - our own bytes
    assert isinstance(error, gapcam.MissingExtraError)
    assert str(error) == str(gapcam.MissingExtraError("onnxruntime", "cpu"))
