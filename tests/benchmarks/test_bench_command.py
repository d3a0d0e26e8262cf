"""`gapcam bench` as people use it: real processes, real signals, bad input."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from gapcam.cli.main import main
from gapcam.errors import ExitCode
from gapcam_bench.cli import SUBCOMMANDS
from gapcam_bench.reports.formats import milliseconds
from gapcam_bench.result_file import read_result

pytestmark = pytest.mark.slow  # whole commands, in processes of their own

SMALL = ("--frame", "64x64", "--threads", "1", "--generator", "own", "--quick", "--seconds", "0.05")


@pytest.fixture
def model(tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model in the working folder, which is empty else."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(tiny_model_file, tmp_path / "m.onnx"))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gapcam.cli.main", "bench", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished_blocks(folder: Path) -> dict[str, tuple[float, float]]:
    """When each finished block in a journal was measured, by its name."""
    found = {}
    for facts in folder.glob("blocks/*/block.json"):
        content = json.loads(facts.read_text())
        found[facts.parent.name] = (content["facts"]["began_at"], content["facts"]["ended_at"])
    return found


def wait_for(holds: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in text.split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_help_shows_the_options_under_headings_and_the_commands_without_loading_what_measures() -> None:
    script = (
        "import sys\n"
        "from gapcam.cli.main import main\n"
        "try:\n    main(['bench', '--help'])\n"
        "finally:\n    print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for heading in ("Axes", "Extent:", "Scenarios:", "Models and images:", "Output:", "Commands:", "Examples:"):
        assert heading in ran.stdout
    for name in SUBCOMMANDS:
        assert f"  {name} " in ran.stdout
    assert " bench [OPTIONS] MODEL..." in ran.stdout
    heavy = {"matplotlib", "mlperf_loadgen", "onnx", "onnxruntime", "scipy", "torch", "cv2", "skimage"}
    assert not heavy & set(ran.stderr.replace("'", " ").split())


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_is_there(name: str) -> None:
    shown = invoke(name, "--help")
    assert shown.exit_code == 0, shown.output
    assert f"bench {name} " in shown.output


def test_a_model_called_like_a_subcommand_is_given_with_its_folder(model: Path) -> None:
    model.rename("compare")
    shown = invoke("./compare", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "compare, cpu, plain, single-stream, 720p" in shown.output


@pytest.mark.usefixtures("model")
def test_a_dry_run_lists_the_plan_and_an_estimate_and_writes_nothing() -> None:
    shown = invoke("m.onnx", "--precision", "as-is,bf16", "--emit", "features", "--dry-run", "--json", "r.json")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "m.onnx, cpu, features, single-stream, 720p"
    assert lines[1].endswith("skipped: ONNX Runtime does not compute in bfloat16 on the CPU")
    assert lines[2].startswith("1 combination, 5 rounds, 5 blocks: about ")
    assert [path.name for path in Path().iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ("", "no MODEL was given; make one with: gapcam export", ExitCode.USAGE),
        ("nothing.onnx", "there is no file nothing.onnx", ExitCode.MODEL),
        ("m.onnx other/m.onnx", "there is no file other/m.onnx", ExitCode.MODEL),
        ("m.onnx ./m.onnx", "m.onnx is given 2 times; once is enough", ExitCode.USAGE),
        ("text.onnx", "text.onnx is not an ONNX model", ExitCode.MODEL),
        ("m.onnx --device gpu", "there is no device 'gpu'; give one of auto, cpu", ExitCode.USAGE),
        ("m.onnx --emit heat", "--emit does not take 'heat'", ExitCode.USAGE),
        ("m.onnx --precision bf16", "nothing is left to measure: ONNX Runtime does not compute", ExitCode.USAGE),
        ("m.onnx --json m.onnx", "m.onnx would be written over m.onnx", ExitCode.DATA),
        ("m.onnx --json r.json --html r.json", "r.json would be written over r.json", ExitCode.DATA),
        ("m.onnx --json r.json --csv r.npz", "r.npz would be written over r.npz", ExitCode.DATA),
        ("m.onnx --reference n.onnx --csv n.onnx", "n.onnx would be written over n.onnx", ExitCode.DATA),
        ("m.onnx --json m.onnx/r.json", "is a file, not a folder", ExitCode.DATA),
        ("m.onnx --html folder", "folder is a folder", ExitCode.DATA),
        ("m.onnx --json taken.json", "is no journal of a benchmark", ExitCode.DATA),
        ("m.onnx --json taken.json --dry-run", "is no journal of a benchmark", ExitCode.DATA),
        ("m.onnx --json file.json", "file.json.part is in the way of this run's journal", ExitCode.DATA),
        ("m.onnx --json r.json --csv r.json.part", "r.json.part would be written over r.json.part", ExitCode.DATA),
        ("m.onnx --json r.json --csv r.json.part --dry-run", "would be written over r.json.part", ExitCode.DATA),
        ("m.onnx --json r.json --csv r.json.part/r.csv", "r.csv is in r.json.part, which goes", ExitCode.DATA),
        ("m.onnx --json .", ". is a folder", ExitCode.DATA),
        ("m.onnx --json ''", ". is a folder", ExitCode.DATA),
        (f"m.onnx --json {'a' * 246}.json", "File name too long", ExitCode.DATA),
        ("m.onnx --images nowhere", "--images nowhere: there is no such folder", ExitCode.DATA),
        ("m.onnx --precision int8 --calibrate folder", "holds no image", ExitCode.DATA),
        ("m.onnx --calibrate folder", "--calibrate is for --precision int8 or fp16", ExitCode.USAGE),
        ("m.onnx --reference nothing.onnx", "there is no file nothing.onnx", ExitCode.MODEL),
        ("m.onnx --reference text.onnx", "text.onnx is not an ONNX model", ExitCode.MODEL),
        ("m.onnx --rounds 0", "0 is not in the range", ExitCode.USAGE),
        ("m.onnx --fps nan", "--fps", ExitCode.USAGE),
        ("m.onnx --no-such-option", "No such option", ExitCode.USAGE),
    ],
)
def test_what_is_wrong_is_a_line_before_anything_is_measured(
    model: Path, arguments: str, said: str, code: ExitCode
) -> None:
    Path("text.onnx").write_text("a text, and no model")
    shutil.copy(model, "n.onnx")
    Path("folder").mkdir()
    Path("taken.json.part").mkdir()
    Path("taken.json.part/mine.txt").write_text("mine")
    Path("file.json.part").write_text("mine")
    content = model.read_bytes()
    shown = invoke(*shlex.split(arguments))
    assert shown.exit_code == code, shown.output
    (line,) = (line for line in shown.stderr.splitlines() if line.startswith("error: "))
    assert said in line
    assert "Traceback" not in shown.output
    assert "idle machine" not in shown.stderr
    assert model.read_bytes() == content


@pytest.mark.usefixtures("model")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("option", ["", "--images", "--reference", "--calibrate", "--json", "--html"])
def test_a_name_that_is_no_text_is_a_line(option: str) -> None:
    shutil.copy("m.onnx", b"bad\xff")
    process = subprocess.run(
        [sys.executable, "-m", "gapcam.cli.main", "bench", "m.onnx", *([option] if option else []), b"bad\xff"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == ExitCode.USAGE, process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: ")
    assert "bad\\xff is not UTF-8" in process.stderr


@pytest.mark.usefixtures("model")
def test_results_name_and_hash_the_users_model_and_say_what_a_precision_costs(model: Path) -> None:
    Path("old").mkdir()
    Path("new").mkdir()
    for name in ("old", "new"):
        shutil.copy(model, Path(name) / "m.onnx")
    arguments = ("--precision", "as-is,fp16", "--emit", "topk", "--rounds", "1", "--json", "r.json", "--csv", "r.csv")
    shown = invoke("old/m.onnx", "new/m.onnx", *SMALL, *arguments)
    assert shown.exit_code == 0, shown.stderr
    rows = read_result(Path("r.json")).result.rows
    assert [(row.cell.model, row.cell.precision) for row in rows] == [
        (name, precision) for name in ("old/m.onnx", "new/m.onnx") for precision in ("as-is", "fp16")
    ]
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    for row in rows:
        assert row.model is not None
        assert row.parity is not None
        assert (row.model.name, row.model.source_sha256) == (row.cell.model, digest)
        assert row.model.sha256 != digest  # outputs were added
        assert row.parity.against == row.cell.model
        if row.cell.precision == "as-is":
            assert row.fidelity is None
        else:
            assert row.fidelity is not None
            assert row.fidelity.against == row.cell.model
            assert row.fidelity.logits_error > row.parity.logits_error
    text = Path("r.json").read_text()
    assert str(Path.cwd()) not in text
    assert ".part" not in text
    assert digest in Path("r.csv").read_text()
    assert "fidelity" in shown.stdout
    assert "100% 1.000" in shown.stdout
    again = CliRunner().invoke(main, ["bench", "compare", "r.json", "r.json"])
    assert "4: new/m.onnx · fp16" in again.output  # rows are found again by their labels


@pytest.mark.usefixtures("model")
def test_a_failure_names_the_model_as_the_user_does(model: Path) -> None:
    proto = onnx.load(model)
    del proto.metadata_props[:]
    proto.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    onnx.save(proto, "two.onnx")
    shown = invoke("two.onnx", *SMALL, "--rounds", "1")
    assert shown.exit_code == ExitCode.MODEL
    assert "FAILED: two.onnx has 2 inputs" in " ".join(shown.stdout.split())
    assert str(Path.cwd()) not in shown.output


@pytest.mark.usefixtures("model")
def test_who_reads_only_the_first_line_gets_all_files() -> None:
    process = start("m.onnx", *SMALL, "--emit", "plain", "--rounds", "1", "--csv", "r.csv", "--markdown", "r.md")
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate()
    assert "Traceback" not in errors
    assert Path("r.csv").exists()
    assert Path("r.md").exists()


@pytest.mark.usefixtures("model")
def test_a_run_does_not_go_on_with_another_reference_or_other_images(model: Path) -> None:
    from skimage import data  # type: ignore[import-untyped]

    Path("photos").mkdir()
    cv2.imwrite("photos/a.png", data.chelsea())
    shutil.copy(model, "n.onnx")
    arguments = ("m.onnx", *SMALL, "--rounds", "99", "--json", "r.json", "--images", "photos", "--reference", "n.onnx")
    process = start(*arguments)
    wait_for(lambda: len(finished_blocks(Path("r.json.part"))) >= 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert invoke(*arguments, "--dry-run").exit_code == 0
    cv2.imwrite("photos/a.png", data.coffee())
    proto = onnx.load("n.onnx")
    proto.producer_name = "somebody else"
    onnx.save(proto, "n.onnx")
    for option in ([], ["--dry-run"]):
        shown = invoke(*arguments, *option)
        assert shown.exit_code == ExitCode.USAGE, shown.output
        assert "of another plan (the images of --images, the model of --reference)" in shown.stderr
    assert invoke(*arguments, "--dry-run", "--fresh").exit_code == 0


@pytest.mark.usefixtures("model")
def test_a_device_that_is_not_here_is_named_with_those_that_are() -> None:
    from gapcam.cuda.presence import presence

    if not presence().problem:
        pytest.skip("there is a GPU here")
    shown = invoke("m.onnx", "--device", "cuda")
    assert shown.exit_code == ExitCode.MISSING
    assert f"device cuda does not work here: {presence().problem}" in shown.stderr
    assert "What works here: cpu." in shown.stderr


@pytest.mark.usefixtures("model")
def test_all_outputs_are_written_and_say_the_same() -> None:
    process = start(
        "m.onnx", *SMALL, "--json", "r.json", "--html", "r.html", "--csv", "r.csv", "--markdown", "r.md", "--device",
        "cpu,cuda", "--scenario", "single-stream",
    )  # fmt: skip
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    loaded = read_result(Path("r.json"))
    rows = loaded.result.rows
    measured = [row for row in rows if row.blocks]
    assert [(row.cell.emit, row.blocks) for row in measured] == [("plain", 2), ("features", 2)]
    assert [row.status for row in rows[2:]] == ["skipped"] * 2 or not rows[2:]
    assert measured[1].price is not None
    assert measured[1].price.plain == measured[0].id
    assert "cam" in measured[1].wall
    assert "cam" not in measured[0].wall
    assert all(row.parity is not None and row.parity.holds for row in measured)
    assert loaded.result.complete
    assert loaded.result.command.startswith("gapcam bench m.onnx --frame 64x64 --threads 1")
    assert str(Path.cwd()) not in Path("r.json").read_text()
    assert loaded.arrays["telemetry/idle"].shape == (1, 2)
    assert not Path("r.json.part").exists()
    for row in measured:
        assert milliseconds(row.wall["total"].p50_ms) in output
    assert "m.onnx" in Path("r.md").read_text()
    assert len(Path("r.csv").read_text().splitlines()) > 2
    assert Path("r.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert "1/4 round 1" in errors
    assert "about" in errors


def test_a_model_without_a_contract_is_measured_as_a_plain_classifier_and_that_is_said(model: Path) -> None:
    proto = onnx.load(model)
    del proto.metadata_props[:]
    kept = [value for value in proto.graph.output if value.name == "logits"]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    onnx.save(proto, model)
    shown = invoke("m.onnx", *SMALL, "--rounds", "1", "--json", "r.json")
    assert shown.exit_code == 0, shown.stderr
    assert "m.onnx has no contract of gapcam's, or none with maps: measured as a plain classifier" in shown.stderr
    (row,) = read_result(Path("r.json")).result.rows
    assert row.cell.emit == "plain"
    assert row.blocks == 1
    assert any("no contract" in note for note in row.notes)


# Holds every worker as long as there is a file and a journal has three blocks.
HOLDER = """
import glob, os, sys, time
if "gapcam_bench.worker" in sys.orig_argv:
    parent = os.getppid()
    while os.path.exists("hold") and len(glob.glob("r.json.part/blocks/*")) >= 3:
        if os.getppid() != parent:
            os._exit(1)
        time.sleep(0.01)
"""


@pytest.mark.usefixtures("model")
def test_a_sweep_that_is_killed_again_and_again_goes_on_and_measures_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("modules").mkdir()
    Path("modules/sitecustomize.py").write_text(HOLDER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(Path("modules").absolute()))
    Path("hold").touch()  # or it might be done before it is killed
    journal = Path("r.json.part")
    arguments = ("m.onnx", *SMALL, "--rounds", "3", "--json", "r.json")
    kept: dict[str, tuple[float, float]] = {}
    for wanted in (0, 3):
        process = start(*arguments)
        wait_for(lambda: (journal / "begun.json").exists(), process)
        wait_for(lambda least=wanted: len(finished_blocks(journal)) >= least, process)  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not Path("r.json").exists()
        now = finished_blocks(journal)
        assert {name: now[name] for name in kept} == kept
        kept = now
    assert len(kept) == 3
    Path("hold").unlink()
    process = start(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f": {len(kept)} of 6 blocks are there; --fresh begins anew" in errors
    loaded = read_result(Path("r.json"))
    assert loaded.result.complete
    assert [row.blocks for row in loaded.result.rows] == [3, 3]
    for row in loaded.result.rows:
        spans = [tuple(span) for span in loaded.arrays[f"{row.id}/span"]]
        assert len(spans) == 3
        for name, span in kept.items():
            if name.startswith(row.id):
                np.testing.assert_allclose(spans[int(name.rpartition("-")[2])], span, rtol=0, atol=1e-6)
    assert not journal.exists()


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_reports_what_it_has_and_ends_its_processes(number: signal.Signals) -> None:
    arguments = ("m.onnx", *SMALL, "--rounds", "200", "--json", "r.json")
    process = start(*arguments, "--csv", "r.csv")
    journal = Path("r.json.part")
    wait_for(lambda: len(finished_blocks(journal)) >= 2, process)
    other = invoke(*arguments, "--fresh")
    assert other.exit_code == ExitCode.USAGE
    assert "another gapcam bench measures into r.json.part" in other.stderr
    children = children_of(process.pid)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert all(is_gone(child) for child in children)
    loaded = read_result(Path("r.json"))
    assert not loaded.result.complete
    assert {row.status for row in loaded.result.rows} == {"interrupted"}
    assert sum(row.blocks for row in loaded.result.rows) == len(finished_blocks(journal)) >= 2
    assert Path("r.csv").exists()
    assert "INTERRUPTED" in output
    assert "of 400 blocks; the same command goes on from there" in errors
    assert "Traceback" not in errors
    other = invoke("m.onnx", *SMALL, "--rounds", "3", "--json", "r.json")
    assert other.exit_code == ExitCode.USAGE
    assert "of another plan (--rounds)" in other.stderr
