"""Imports point one way: gapcam <- gapcam_export <- gapcam_bench, and gapcam needs neither torch nor onnx."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# What a device does not have: what the other extras install, and the two packages above the runtime.
ABOVE_THE_RUNTIME = {
    "gapcam_bench",
    "gapcam_export",
    "lightning",
    "matplotlib",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "safetensors",
    "skimage",
    "timm",
    "torch",
    "torchvision",
}
FORBIDDEN = {
    "runtime/gapcam": ABOVE_THE_RUNTIME,
    "export/gapcam_export": {"gapcam_bench"},
}
CAMERA_EXTRA = {"av", "fastapi", "httpx", "paho", "prometheus_client", "starlette", "uvicorn", "websockets"}
HEAVIER_THAN_NUMPY = ABOVE_THE_RUNTIME | CAMERA_EXTRA | {"click", "cv2", "onnxruntime", "rich"}


def imported_packages(source: str) -> dict[str, int]:
    """Top-level packages that a module's text imports, wherever it does so, each with a line that does."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                modules = [module]
            case _:
                continue
        for module in modules:
            found.setdefault(module.partition(".")[0], node.lineno)
    return found


def test_every_way_to_import_is_seen() -> None:
    source = (
        "import torch.nn as nn, cv2\n"
        "from onnx.helper import make_node\n"
        "from . import timm\n"
        "def f():\n"
        "    import skimage\n"
        "    importlib.import_module('torchvision.ops')\n"
        "    __import__('onnxscript')\n"
    )
    expected = {"torch": 1, "cv2": 1, "onnx": 2, "skimage": 5, "torchvision": 6, "onnxscript": 7}
    assert imported_packages(source) == expected


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_a_package_above_its_own(root: Path, package: str) -> None:
    modules = sorted((root / package).rglob("*.py"))
    assert modules
    wrong = [
        f"{module.relative_to(root)}:{line} imports {name}"
        for module in modules
        for name, line in imported_packages(module.read_text(encoding="utf-8")).items()
        if name in FORBIDDEN[package]
    ]
    assert not wrong


def test_importing_gapcam_loads_nothing_heavier_than_numpy() -> None:
    script = "import sys, gapcam; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "gapcam" in loaded
    assert not HEAVIER_THAN_NUMPY.intersection(loaded)


def test_the_runtime_and_its_commands_work_where_packages_of_export_and_camera_are_absent() -> None:
    absent = (ABOVE_THE_RUNTIME | CAMERA_EXTRA) - {"gapcam_export", "gapcam_bench"}
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(absent)!r}))\n"
        "import gapcam\n"
        "for name in gapcam.__all__: getattr(gapcam, name)\n"
        "import gapcam.camera\n"
        "for name in gapcam.camera.__all__: name == 'PageServer' or getattr(gapcam.camera, name)\n"
        "from click.testing import CliRunner\n"
        "from gapcam.cli.main import main\n"
        "assert CliRunner().invoke(main, ['camera', '--help']).exit_code == 0\n"
        "main(['run', '--help'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "MODEL" in ran.stdout
