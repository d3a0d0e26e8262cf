"""The demo, as `make demo` runs it, on real weights and a real photograph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import gapcam

# The cat's face, by eye: x0, y0, x1, y1 in the photograph of 451 x 300 pixels.
FACE = (85, 60, 350, 265)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Path:
    """What the demo writes; the model is there already, from the demo's own export."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(demo_model, folder / "model.onnx")
    demo(folder)
    return folder


def demo(folder: Path) -> str:
    command = [sys.executable, "-m", "gapcam_export.demo", "--output", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stderr


def test_the_first_label_is_a_name(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["top"][0]["label"] == "Egyptian cat"
    assert result["top"][0]["score"] > 0.5
    assert [entry["label"] for entry in result["top"][1:3]] == ["tiger cat", "tabby"]
    assert len(result["top"]) == 5
    assert {"preprocess", "inference", "map", "overlay"} <= result["timings_ms"].keys()


def test_the_box_holds_the_cats_face_and_lies_in_the_frame(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert (result["width"], result["height"]) == (451, 300)
    ((x0, y0, x1, y1),) = result["classes"][0]["boxes"]
    assert 0 <= x0 <= FACE[0]
    assert 0 <= y0 <= FACE[1]
    assert FACE[2] <= x1 <= 451
    assert FACE[3] <= y1 <= 300


def test_the_overlay_lies_on_the_cat(folder: Path, cat: NDArray[np.uint8]) -> None:
    overlay = cv2.imread(str(folder / "overlay.png"))
    assert overlay.shape == cat.shape
    with gapcam.load(folder / "model.onnx") as session:
        heat = session(cat).heatmap()
    x0, y0, x1, y1 = FACE
    assert heat[y0:y1, x0:x1].mean() > 3 * heat[:, :60].mean()
    assert heat[y0:y1, x0:x1].mean() > 3 * heat[:, -60:].mean()
    # Jet at alpha 0.5: red where it is hot, blue where it is cold.
    redness = overlay[:, :, 2].astype(int) - overlay[:, :, 0]
    assert redness[y0:y1, x0:x1].mean() > 60
    assert redness[40:, :25].mean() < -60


def test_the_second_time_the_model_is_kept(folder: Path) -> None:
    before = (folder / "model.onnx").stat().st_mtime_ns
    said = demo(folder)
    assert (folder / "model.onnx").stat().st_mtime_ns == before
    assert "model.onnx is up to date" in said
    assert "Egyptian cat" in said


@pytest.mark.slow
def test_a_damaged_model_is_made_anew(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    assert "exporting EfficientNet-Lite0" in demo(folder)
    with gapcam.load(path) as session:
        assert session.labels[285] == "Egyptian cat"
