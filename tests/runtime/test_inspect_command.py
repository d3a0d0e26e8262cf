"""`gapcam inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_models import WEIGHTS, a_contract, red_and_blue

from gapcam.cli.main import main
from gapcam.contract import HeadKind


def gapcam_inspect(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_the_table_shows_contract_head_shapes_size_preprocessing_and_verification(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract((6, 8), resize="crop", crop_pct=0.875))
    done = gapcam_inspect(path)
    assert done.exit_code == 0
    shown = (
        "version 1", "affine, tapped at features", "image [N, 3, 6, 8] float32", "features [N, 2, 6, 8] float32",
        "cam_weights [2, 2] float32", "6 x 8", "red, blue", "crop to 0.875", "bilinear", "rgb", "MB", "fp32",
        "tests:red_and_blue", "identity holds",
        "exact: a logit is the mean of its map", "softmax", "against onnxruntime", "CPUExecutionProvider",
    )  # fmt: skip
    for text in shown:
        assert text in done.stdout


def test_json_holds_the_same_under_stable_names(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract((6, 8), labels=()))
    done = gapcam_inspect(path, "--json")
    facts = json.loads(done.stdout)
    assert set(facts) == {
        "file", "size_bytes", "contract", "classes", "map_size", "inputs", "outputs", "engine", "identity",
    }  # fmt: skip
    assert facts["size_bytes"] == path.stat().st_size
    assert facts["contract"]["head"]["kind"] == "affine"
    assert facts["inputs"] == [{"name": "image", "shape": [None, 3, 6, 8], "dtype": "float32"}]
    assert facts["map_size"] == [6, 8]
    assert facts["classes"] == 2
    assert facts["identity"]["holds"] is True


def test_a_model_that_is_wrong_here_is_shown_and_the_exit_code_is_4(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "m.onnx", weights=WEIGHTS * 2, logits_weights=WEIGHTS)
    assert "IDENTITY DOES NOT HOLD" in gapcam_inspect(path).stdout
    done = gapcam_inspect(path, "--json")
    assert done.exit_code == 4
    assert json.loads(done.stdout)["identity"]["holds"] is False


def test_class_maps_models_are_shown_too(tmp_path: Path) -> None:
    done = gapcam_inspect(red_and_blue(tmp_path / "m.onnx", contract=a_contract(kind=HeadKind.CLASS_MAPS)))
    assert done.exit_code == 0
    assert "class-maps" in done.stdout


@pytest.mark.parametrize(("content", "message"), [(b"no model", "is not an ONNX model"), (None, "there is no file")])
def test_what_is_no_model_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    done = gapcam_inspect(path)
    assert done.exit_code == 3
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
