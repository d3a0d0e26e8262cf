"""`gapcam inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from small_models import WEIGHTS, a_contract, red_and_blue

from gapcam.cli.main import main
from gapcam.contract import Fidelity, HeadKind


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
        "passed_over", "not_run", "build",
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


@pytest.mark.parametrize("emulated", [False, True])
def test_of_a_lowered_model_the_table_says_what_was_measured_of_which(tmp_path: Path, *, emulated: bool) -> None:
    plain = a_contract()
    verified = msgspec.structs.replace(
        plain.verification, images=9, identity_error=2e-3, identity_tolerance=3e-3, identity_images=4,
        gradient_error=5e-7, gradient_tolerance=1e-4,
    )  # fmt: skip
    fidelity = Fidelity(
        images=12, top1_agreement=0.75, top5_agreement=1, logit_error=0.01, logit_error_max=0.02, map_pearson=0.875,
        map_pearson_min=0.5, map_spearman=0.8, box_iou=0.625, box_iou_min=0.25, peak_shift_px=3, threshold=0.2,
        emulated=emulated,
    )  # fmt: skip
    contract = msgspec.structs.replace(
        plain, precision="fp16", head_precision="fp16", verification=verified, fidelity=fidelity
    )
    shown = " ".join(gapcam_inspect(red_and_blue(tmp_path / "m.onnx", contract=contract)).stdout.split())
    assert "4 images: identity to 2.0e-03 (allowed 3e-03). Before, in fp32, 9 images: gradient to 5.0e-07" in shown
    how = ", emulated" if emulated else ""
    assert f"12 images{how}: same first class on 75.0%, box IoU 0.625, map correlation 0.8750" in shown
    shown = " ".join(gapcam_inspect(red_and_blue(tmp_path / "m.onnx")).stdout.split())
    assert "1 images: identity to 0.0e+00 (allowed 1e-04); against onnxruntime: " in shown


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
