"""`gapcam inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from engine_headers import PLAN, a_header
from small_models import BIAS, WEIGHTS, a_contract, in_bfloat16, red_and_blue

from gapcam.cli.main import main
from gapcam.contract import METADATA_KEY, Contract, Fidelity, HeadKind, contract_to_json
from gapcam.cuda.presence import presence
from gapcam.engine_file import EngineTensor, write_engine


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


@pytest.mark.parametrize("text", ["[" * 200_000, '{"contract":1,"head":' * 100_000, '{"contract":' + "9" * 6000 + "}"])
def test_a_contract_that_is_none_is_a_line(tmp_path: Path, text: str) -> None:
    done = gapcam_inspect(red_and_blue(tmp_path / "m.onnx", metadata={METADATA_KEY: text}))
    assert done.exit_code == 3
    assert "has a damaged contract: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


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


# What this machine cannot run.

WITHOUT_A_GPU = pytest.mark.skipif(bool(presence().devices), reason="there is a GPU here")


def an_engine(path: Path, contract: Contract | None = None, **changed: object) -> Path:
    header = a_header(
        metadata={METADATA_KEY: contract_to_json(contract or a_contract((6, 8)))},
        outputs=(
            EngineTensor(name="logits", shape=(None, 2), dtype="float32"),
            EngineTensor(name="features", shape=(None, 2, None, None), dtype="float16"),
        ),
        **changed,
    )
    write_engine(path, header, {"cam_weights": WEIGHTS, "cam_bias": BIAS}, PLAN)
    return path


@WITHOUT_A_GPU
def test_an_engine_is_shown_without_its_gpu_with_all_that_its_header_says(tmp_path: Path) -> None:
    done = gapcam_inspect(an_engine(tmp_path / "m.engine"))
    assert done.exit_code == 0
    shown = " ".join(done.stdout.split())
    for text in (
        "tensorrt 10.13.3.9, sm_87, linux-aarch64",
        "by gapcam tests, on Orin with a driver for CUDA 12.6, from cat-Ä.onnx",
        "ab" * 32,
        "image 1 x 3 x 8 x 8 to 4 x 3 x 32 x 32, tuned for 2 x 3 x 8 x 16",
        "asked for fp16; in the network 3 fp16, 1 fp32; in the engine 3 fp16, 1 fp32",
        "affine, tapped at features",
        "cam_weights [2, 2] float32",
        "features [N, 2, N, N] float16",
        "? x ? (height x width)",
        "2; labels: red, blue",
        "NOT RUN: device 'tensorrt' needs an NVIDIA GPU",
    ):
        assert text in shown, text


@WITHOUT_A_GPU
def test_what_an_engine_and_its_contract_say_does_not_command_the_terminal(tmp_path: Path) -> None:
    """Not by escape sequences, line feeds that fake a row, or rich's markup."""
    contract = a_contract((6, 8), labels=("\x1b[2Jcat", "dog\x9b31m"))
    source = msgspec.structs.replace(contract.source, spec="x\nverified here  identity holds")
    path = an_engine(
        tmp_path / "m.engine",
        contract=msgspec.structs.replace(contract, source=source),
        device="\x1b]0;pwned\x07[/bold]",
        model="m\r.onnx",
        precision=msgspec.structs.replace(a_header().precision, engine={}, not_read="\x1b[8m"),
    )
    done = gapcam_inspect(path)
    assert done.exit_code == 0, done.stderr
    assert not set(done.stdout) & {"\x1b", "\x07", "\x9b", "\r"}
    shown = " ".join(done.stdout.split())
    for text in (
        r"\x1b[2Jcat, dog\x9b31m",
        r"on \x1b]0;pwned\x07[/bold]",
        r"m\r.onnx",
        r"x\nverified here",
        r"\x1b[8m",
    ):
        assert text in shown, text
    facts = json.loads(gapcam_inspect(path, "--json").stdout)
    assert facts["contract"]["labels"] == ["\x1b[2Jcat", "dog\x9b31m"]  # as it is: JSON writes it out itself


@WITHOUT_A_GPU
def test_json_of_an_engine_has_its_header_and_says_why_it_did_not_run(tmp_path: Path) -> None:
    done = gapcam_inspect(an_engine(tmp_path / "m.engine"), "--json")
    facts = json.loads(done.stdout)
    assert (facts["identity"], facts["engine"], facts["map_size"]) == (None, None, [None, None])
    assert facts["not_run"].startswith("device 'tensorrt' needs an NVIDIA GPU")
    assert facts["build"]["runtime_version"] == "10.13.3.9"
    assert facts["build"]["profiles"][0]["image"]["max"] == [4, 3, 32, 32]
    assert "metadata" not in facts["build"]
    assert [output["name"] for output in facts["outputs"]] == ["logits", "features", "cam_weights", "cam_bias"]


@WITHOUT_A_GPU
def test_an_engine_of_which_nothing_was_read_back_says_so(tmp_path: Path) -> None:
    precision = msgspec.structs.replace(a_header().precision, engine={}, not_read="there is no GPU here")
    path = an_engine(tmp_path / "m.engine", precision=precision, device="", cuda_driver=None, targets=("sm_80+",))
    shown = " ".join(gapcam_inspect(path).stdout.split())
    assert "in the engine not read back: there is no GPU here" in shown
    assert "sm_80 and later" in shown
    assert "by gapcam tests, without a GPU, from" in shown


@WITHOUT_A_GPU
def test_asked_for_a_device_an_engine_that_cannot_run_there_is_an_error(tmp_path: Path) -> None:
    done = gapcam_inspect(an_engine(tmp_path / "m.engine"), "--device", "tensorrt")
    assert done.exit_code == 6
    assert "needs an NVIDIA GPU" in done.stderr
    assert done.stdout == ""


def test_a_damaged_engine_is_an_error_and_not_shown(tmp_path: Path) -> None:
    path = an_engine(tmp_path / "m.engine")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = gapcam_inspect(path)
    assert done.exit_code == 3
    assert "checksum is wrong" in done.stderr


@WITHOUT_A_GPU
def test_a_model_in_bfloat16_is_shown_on_a_cpu_unchecked(tmp_path: Path) -> None:
    contract = msgspec.structs.replace(a_contract((6, 8)), precision="bf16")
    path = red_and_blue(tmp_path / "m.onnx", contract=contract, change=in_bfloat16)
    done = gapcam_inspect(path)
    assert done.exit_code == 0
    assert "computes in bfloat16, which ONNX Runtime does not on a CPU" in done.stdout
    facts = json.loads(gapcam_inspect(path, "--json").stdout)
    assert (facts["identity"], facts["build"], facts["map_size"], facts["classes"]) == (None, None, [6, 8], 2)
    assert facts["inputs"] == [{"name": "image", "shape": [None, 3, 6, 8], "dtype": "float32"}]
    assert gapcam_inspect(path, "--device", "cpu").exit_code == 3


def test_a_broken_model_that_says_bfloat16_is_still_an_error(tmp_path: Path) -> None:
    contract = msgspec.structs.replace(a_contract((6, 8)), precision="bf16")
    path = red_and_blue(tmp_path / "m.onnx", contract=contract, change=in_bfloat16)
    path.write_bytes(b"\x00" + path.read_bytes())
    done = gapcam_inspect(path)
    assert done.exit_code == 3
    assert "is not an ONNX model" in done.stderr
