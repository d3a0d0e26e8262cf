"""What wrong input to `gapcam export` gets: a line that says what was got, expected, and to do; nothing is written."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from networks import gap_network
from safetensors.torch import save_file

from gapcam.cli.main import main
from gapcam.errors import ExitCode

NETWORKS = Path(__file__).with_name("networks.py")
GAP_NETWORK = f"{NETWORKS}:gap_network"


def gapcam(*arguments: object) -> Result:
    """Run a command, in this process: to import PyTorch anew takes longer than most exports here."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def gapcam_process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gapcam.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)


def refused(folder: Path, code: ExitCode, *arguments: object) -> str:
    """The one line that a refused export prints; nothing may have been written."""
    before = sorted(folder.rglob("*"))
    output = () if "-o" in arguments else ("-o", folder / "model.onnx")
    done = gapcam("export", *arguments, *output)
    assert done.exit_code == code, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.rglob("*")) == before
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("resnet18", ExitCode.MODEL, "expected torchvision:NAME, timm:NAME"),
        ("torchvision:resnet19", ExitCode.MODEL, "Did you mean resnet18"),
        ("timm:mobilenetv4_conv_smal", ExitCode.MODEL, "Did you mean mobilenetv4_conv_small"),
        ("no_such_package.models:network", ExitCode.MODEL, "there is no module no_such_package.models"),
        ("no_such_file.py:network", ExitCode.MODEL, "there is no file no_such_file.py"),
        ("no_such_file.onnx", ExitCode.MODEL, "there is no file no_such_file.onnx"),
        (f"{NETWORKS}:gap_netwerk", ExitCode.MODEL, "Did you mean gap_network"),
        (f"{NETWORKS}:a_number", ExitCode.MODEL, "returned a int; expected a torch.nn.Module"),
        (f"{NETWORKS}:broken", ExitCode.MODEL, "ZeroDivisionError: this factory divides by zero"),
        (f"{NETWORKS}:two_outputs", ExitCode.MODEL, "gives a tuple for an input [2, 3, 224, 224]; expected logits"),
        (f"{NETWORKS}:with_noise", ExitCode.VERIFICATION, "Does the network draw random numbers"),
        ("torchvision:alexnet", ExitCode.MODEL, "the head is of kind 'none'"),
        (f"{NETWORKS}:leaves", ExitCode.MODEL, "leaves() failed with SystemExit"),
        (f"{NETWORKS}:depends_on_data", ExitCode.MODEL, "exporter could not write the network: GuardOnDataDependent"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(tmp_path: Path, source: str, code: ExitCode, said: str) -> None:
    assert said in refused(tmp_path, code, source)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mean", 123.7, 116.3, 103.5), "Divide pixel values by 255"),
        (("--std", 0.2, 0, 0.2), "expected values above 0"),
        (("--emit", "features,heat"), "emit is 'heat'; expected some of features, maps, topk"),
        (("--size", 0, 224), "each 1 or more"),
        (("--pretrained",), "--pretrained is for torchvision: and timm: sources"),
        (("--checkpoint", "a.pt", "--pretrained"), "Choose one"),
        (("--topk", 0), "Invalid value for '--topk'"),
        (("--resize", "stretch"), "Invalid value for '--resize'"),
        (("--labels", "no_such_file.txt"), "no_such_file.txt cannot be read"),
    ],
)
def test_options_out_of_their_range_are_refused(tmp_path: Path, options: tuple[object, ...], said: str) -> None:
    assert said in refused(tmp_path, ExitCode.USAGE, GAP_NETWORK, *options)


def test_a_size_that_the_network_cannot_take_is_said_with_its_own_words(tmp_path: Path) -> None:
    said = refused(tmp_path, ExitCode.MODEL, "timm:test_vit3")
    assert "--size" not in said or "[2, 3, 224, 224]" not in said  # the record says 160
    said = refused(tmp_path, ExitCode.MODEL, "timm:test_vit3", "--size", 224, 224)
    assert "Input height (224) doesn't match model (160)" in said
    assert "--size H W" in said


@pytest.mark.parametrize("command", ["export", "gap"])
@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("with_mask", "the network's forward takes image and mask; expected one input, the image"),
        ("in_half", "weights are float16; expected float32. Convert the network with .float()"),
        ("in_double", "weights are float64; expected float32"),
        ("in_bfloat16", "weights are bfloat16; expected float32"),
    ],
)
def test_a_network_that_takes_something_else_than_an_image_in_float32_is_refused(
    tmp_path: Path, command: str, network: str, said: str
) -> None:
    source = NETWORKS.with_name("unusual_networks.py")
    arguments = [command, f"{source}:{network}", "--size", "64", "64", "-o", str(tmp_path / "a.pt2")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == ExitCode.MODEL
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("average_plus_maximum", "pooled by the mean of their average and their maximum. A maximum looks at one point"),
        ("average_beside_maximum", "pooled by their average beside their maximum. A maximum looks at one point"),
        ("maximum_beside_average", "pooled by their maximum beside their average. A maximum looks at one point"),
        ("two_branches", "no single tensor carries all of the image. A class activation map needs such feature maps"),
        ("one_query", "[1, 3, 4], which is no grid of the image"),
    ],
)
def test_a_pooling_that_is_no_average_is_named(tmp_path: Path, source: str, said: str) -> None:
    unusual = NETWORKS.with_name("unusual_networks.py")
    line = refused(tmp_path, ExitCode.MODEL, f"{unusual}:{source}", "--size", 64, 64)
    assert said in line
    assert ("`gapcam gap SOURCE -o gapnet.pt2`" in line) == (source != "two_branches")  # it has no place to cut


def test_arguments_that_need_not_be_given_do_no_harm(tmp_path: Path) -> None:
    source = f"{NETWORKS.with_name('unusual_networks.py')}:with_scale"
    for command, name in (("export", "a.onnx"), ("gap", "a.pt2"), ("export", "b.onnx")):
        source = str(tmp_path / "a.pt2") if name == "b.onnx" else source
        arguments = [command, source, *(() if name == "b.onnx" else ("--size", "64", "64")), "-o", str(tmp_path / name)]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == ExitCode.DONE, done.stderr


def test_a_checkpoint_that_does_not_fit_lists_the_keys(tmp_path: Path) -> None:
    state = gap_network().state_dict()
    state["extra.weight"] = state.pop("head.bias")
    state["head.weight"] = torch.zeros(7, 12)
    save_file(state, tmp_path / "weights.safetensors")
    said = refused(tmp_path, ExitCode.MODEL, GAP_NETWORK, "--checkpoint", tmp_path / "weights.safetensors")
    assert "1 the network's, missing in the checkpoint: head.bias" in said
    assert "1 the checkpoint's, unknown to the network: extra.weight" in said
    assert "1 of another shape: head.weight (the checkpoint has [7, 12], the network [5, 12])" in said


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    target = tmp_path / "code_ran"
    torch.save({"state_dict": {}, "payload": _Payload(target)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Payload(target)))
    for name in ("zip.pt", "plain.pt"):
        said = refused(tmp_path, ExitCode.MODEL, GAP_NETWORK, "--checkpoint", tmp_path / name)
        assert "cannot be loaded safely" in said
        assert not target.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_damaged_or_absent_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    assert "there is no checkpoint file" in refused(
        tmp_path, ExitCode.MODEL, GAP_NETWORK, "--checkpoint", tmp_path / name
    )
    state = gap_network().state_dict()
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert name in refused(tmp_path, ExitCode.MODEL, GAP_NETWORK, "--checkpoint", tmp_path / name)


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(tmp_path, ExitCode.DATA, "torchvision:resnet18", "-o", tmp_path / "file" / "model.onnx")
    assert "is a file, not a folder" in said
    assert "building" not in said
    said = refused(tmp_path, ExitCode.DATA, "torchvision:resnet18", "-o", tmp_path)
    assert "is a folder; expected the name of a file" in said
    assert "building" not in said


def test_an_output_that_is_no_file_is_not_replaced_and_a_link_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = refused(tmp_path, ExitCode.DATA, GAP_NETWORK, "-o", tmp_path / "pipe")
    assert "is no regular file" in said
    (tmp_path / "link.onnx").symlink_to("target.onnx")
    done = gapcam("export", GAP_NETWORK, "--size", 64, 64, "-o", tmp_path / "link.onnx")
    assert done.exit_code == ExitCode.DONE, done.stderr
    assert (tmp_path / "link.onnx").is_symlink()
    assert (tmp_path / "target.onnx").stat().st_size > 1000


def test_an_empty_line_among_the_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\n\nd\ne\n")
    said = refused(tmp_path, ExitCode.USAGE, GAP_NETWORK, "--size", 64, 64, "--labels", tmp_path / "names.txt")
    assert "line 3 of" in said


def test_what_a_factory_prints_is_not_in_the_report(tmp_path: Path) -> None:
    done = gapcam("export", f"{NETWORKS}:talkative", "--size", 64, 64, "-o", tmp_path / "model.onnx", "--json")
    assert json.loads(done.stdout)["contract"]["contract"] == 1
    assert "the factory prints" in done.stderr


def test_pytorchs_chatter_about_what_it_cannot_export_is_kept_from_the_user(tmp_path: Path) -> None:
    done = gapcam_process("export", f"{NETWORKS}:depends_on_data", "--size", 64, 64, "-o", tmp_path / "model.onnx")
    assert done.returncode == ExitCode.MODEL
    assert "GraphModule" not in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) < 6


def test_images_to_verify_on_must_be_there_and_readable(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    assert "there is no such folder" in refused(tmp_path, ExitCode.DATA, GAP_NETWORK, "--verify", folder)
    folder.mkdir()
    assert "holds no image" in refused(tmp_path, ExitCode.DATA, GAP_NETWORK, "--verify", folder)
    (folder / "bad.png").write_bytes(b"no picture")
    assert "bad.png" in refused(tmp_path, ExitCode.DATA, GAP_NETWORK, "--verify", folder)


def test_without_torch_an_onnx_file_is_exported_and_a_network_names_the_extra(tmp_path: Path, demo_model: Path) -> None:
    """An import hook stands for a machine on which torch, torchvision, timm and onnxscript are not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision', 'timm', 'onnxscript', 'safetensors'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = gapcam_process("export", demo_model, "-o", tmp_path / "model.onnx", "--json", env=environment)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["contract"]["head"]["kind"] == "affine"
    done = gapcam_process("export", "torchvision:resnet18", "-o", tmp_path / "b.onnx", env=environment)
    assert done.returncode == ExitCode.MISSING
    assert "pip install 'gapcam[export]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_that_cannot_be_fetched_are_said_to_be_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    done = gapcam("export", "torchvision:resnet18", "--pretrained", "-o", tmp_path / "model.onnx")
    assert done.exit_code == ExitCode.MODEL
    assert "could not be fetched" in done.stderr
    assert "--checkpoint FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model.onnx").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = gapcam("export", "torchvision:resnet19", "-o", tmp_path / "model.onnx", "--debug")
    assert done.exit_code == ExitCode.MODEL
    assert "Traceback" in done.stderr


# The command, which comes no further than to PyTorch's end of the work.
HELD = """
import runpy, time
from gapcam_export import _export
_export.find_head = lambda *_: time.sleep(600)
runpy.run_module("gapcam.cli.main", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_is_ended_leaves_no_file(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", HELD, "export", "torchvision:resnet18", "-o", tmp_path / "m.onnx"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "writing ONNX" in line:
            break
    time.sleep(1)  # into the exporter's work; it may be done with it, too
    process.send_signal(number)
    rest = process.stderr.read()
    process.stderr.close()
    code = process.wait(timeout=60)
    # Where an interrupt has passed through a text that was exec'd (a dataclass in the making, say), CPython ends itself
    # by SIGINT at its very end; a shell shows 130 for both.
    expected = (-signal.SIGKILL,) if number is signal.SIGKILL else (ExitCode.INTERRUPTED, -signal.SIGINT)
    assert code in expected
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_older_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("the older file")
    refused(tmp_path, ExitCode.VERIFICATION, f"{NETWORKS}:with_noise", "--size", 64, 64)
    assert (tmp_path / "model.onnx").read_text() == "the older file"


def test_the_report_is_a_table_for_people_and_json_for_machines(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    options = ("--size", 64, 64, "--mean", 0.5, 0.5, 0.5, "-o", folder / "model.onnx")
    done = gapcam("export", GAP_NETWORK, *options)
    assert done.exit_code == 0, done.stderr
    for shown in ("image [batch,3,64,64]", "logit = mean(map) + bias", "outputs against torch", "same top-1"):
        assert shown in done.stdout
    assert "Next: gapcam run" in done.stderr
    done = gapcam("export", GAP_NETWORK, *options, "--json")
    report = json.loads(done.stdout)
    assert report["path"] == str(folder / "model.onnx")
    assert report["contract"]["verification"]["images"] == 4
    assert report["contract"]["preprocessing"]["mean"] == [0.5, 0.5, 0.5]


def test_verify_takes_a_folder_of_the_users_own_images(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    done = gapcam("export", GAP_NETWORK, "--size", 64, 64, "-o", tmp_path / "m.onnx", "--verify", tmp_path, "--json")
    assert json.loads(done.stdout)["contract"]["verification"]["images"] == 1
