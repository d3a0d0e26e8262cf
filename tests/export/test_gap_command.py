"""The command `gapcam gap`: what it prints and writes, and what wrong input gets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from gapcam.cli.main import main
from gapcam.errors import ExitCode
from gapcam_export.program import load_program

NETWORKS = Path(__file__).with_name("networks.py")
NETWORK = f"{NETWORKS}:gap_network"
SIZE = ("--size", 64, 64)


def gap(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in ("gap", *arguments)])
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


def test_it_prints_what_went_what_came_and_what_it_costs(tmp_path: Path) -> None:
    path = tmp_path / "gapnet.pt2"
    code, out, err = gap(NETWORK, *SIZE, "--stride", 8, "-o", path)
    assert code == ExitCode.DONE, err
    rows = [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in out.splitlines()]
    assert ["cut after", "last.2 (ReLU)"] in rows
    assert ["went", "mean"] in rows
    assert ["", "head (Linear)"] in rows
    assert ["came", "global average pooling of 8x8"] in rows
    assert ["last maps", "12 of 4x4", "12 of 8x8", ""] in rows
    costs = {row[0]: row[1:] for row in rows if row[0] in ("parameters", "FLOPs an image", "the .pt2 file")}
    assert costs["parameters"][2] == "1.00"
    assert float(costs["FLOPs an image"][2]) > 1.5
    assert costs["the .pt2 file"][1] == f"{path.stat().st_size / 1e6:.2f} MB"
    assert ["same top-1", "100%"] in rows
    for step in ("tracing the network at 64x64", "turning strides into dilation", f"writing {path}"):
        assert step in err
    assert (
        f"Next: gapcam finetune {path} --data DIR -o tuned/, or gapcam export {path} -o {tmp_path / 'gapnet.onnx'}"
        in err
    )
    assert load_program(path).record.history[1] == "strides turned into dilation, for maps of stride 8"


def test_the_report_as_json(tmp_path: Path) -> None:
    path = tmp_path / "gapnet.pt2"
    code, out, _ = gap(NETWORK, *SIZE, "--conv", 24, "--groups", 4, "--dropout", 0.25, "-o", path, "--json")
    report = json.loads(out)
    assert code == ExitCode.DONE
    assert report["path"] == str(path)
    assert report["file_bytes"] == path.stat().st_size
    assert report["after"]["features"] == [24, 4, 4]
    assert report["after"]["size"] == [64, 64]
    # 8 * 27 + 8 and 2 * 8, 8 * 8 + 8, 12 * 72 + 12 and 2 * 12, and the head's 24 * 3 * 9 + 24, 24 * 5 + 5
    assert report["after"]["parameters"] == 224 + 16 + 72 + 876 + 24 + 672 + 125
    assert report["after"]["parameters"] - report["before"]["parameters"] == 672 + 125 - 65
    assert report["initial"] == "kept"
    assert report["added"][:2] == ["3x3 convolution to 24 units in 4 groups", "ReLU"]
    assert "dropout of 0.25 in training" in report["added"]
    assert report["agreement"]["top1"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((NETWORK, "--preset", "vgg17"), ExitCode.USAGE, "there is no preset 'vgg17'"),
        ((NETWORK, "--preset", "vgg16"), ExitCode.USAGE, "preset vgg16 expects 512 channels"),
        ((NETWORK, "--groups", "5", "--conv", "12"), ExitCode.USAGE, "--groups 5 does not divide"),
        ((NETWORK, "--calibrate", "nowhere"), ExitCode.DATA, "there is no such folder"),
        ((NETWORK, "--labels", "nowhere.txt"), ExitCode.USAGE, "nowhere.txt cannot be read"),
        ((NETWORK, "--stride", "5"), ExitCode.USAGE, "stride"),
        (("nowhere.pt2",), ExitCode.MODEL, "there is no file nowhere.pt2"),
        (("nowhere.onnx",), ExitCode.MODEL, "there is no file nowhere.onnx"),
        ((f"{NETWORKS}:two_outputs",), ExitCode.MODEL, "gives a tuple of 2; expected logits [N,K]"),
        ((f"{NETWORKS}:depends_on_data",), ExitCode.MODEL, "torch.export cannot trace the network"),
        ((f"{NETWORKS}:broken",), ExitCode.MODEL, "ZeroDivisionError: this factory divides by zero"),
    ],
)
def test_wrong_input_gets_a_line_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    got, out, err = gap(*arguments, *SIZE, "-o", tmp_path / "gapnet.pt2")
    assert (got, out) == (code, ""), err
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_noticed_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output, said in (
        (tmp_path / "file" / "gapnet.pt2", "is a file, not a folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "gapnet.onnx", "expected a name that ends in .pt2"),
        (os.devnull, "is no regular file"),
    ):
        code, _, err = gap(NETWORK, "-o", output)
        assert code in (ExitCode.DATA, ExitCode.USAGE)
        assert said in err
        assert "building" not in err
