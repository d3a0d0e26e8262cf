"""Fine-tuning as processes: killed and continued, and on several devices at once."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from digits import TinyGap, save, write_digits

from gapcam_export.finetune.settings import Hardware, Settings
from gapcam_export.finetune.steps import finetune
from gapcam_export.program import load_program

EPOCHS = 6
SETTINGS = Settings(epochs=EPOCHS, frozen_epochs=2, lr=1e-2, augment="light", flip=False)
ON_CPU = Hardware(accelerator="cpu", workers=0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "data", per_class=20, classes=3)


# The command, which goes no further than to the report of an epoch.
HELD = """
import runpy, sys, time
from gapcam_export.finetune import cli

say, number = cli._say_above_the_bar, sys.argv.pop(1)

def held(line):
    say(line)
    if line.startswith(f"epoch {number} of"):
        time.sleep(600)

cli._say_above_the_bar = held
runpy.run_module("gapcam.cli.main", run_name="__main__")
"""


def command(network: Path, data: Path, output: Path, *more: str) -> list[str]:
    options = f"--epochs {EPOCHS} --frozen-epochs 2 --lr 1e-2 --augment light --no-flip --accelerator cpu --workers 0"
    line = ["finetune", str(network), "--data", str(data), "-o", str(output)]
    return [sys.executable, "-m", "gapcam.cli.main", *line, *options.split(), *more]


def figures(output: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((output / "metrics.csv").read_text().splitlines()))
    for row in rows:
        del row["seconds"]
    return rows


def stop_after_epoch(number: int, how: signal.Signals, line: list[str]) -> tuple[int, str]:
    """Start a process, send it a signal when it reports that epoch, and return its exit code and what it wrote."""
    line = [sys.executable, "-c", HELD, str(number), *line[line.index("finetune") :]]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for written in process.stderr:
            said += written
            if written.startswith(f"epoch {number} of"):
                process.send_signal(how)
    return process.returncode, said


def test_images_are_read_by_processes_though_opencv_has_threads_here(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = save(TinyGap(), tmp_path / "network.pt2")
    code = f"""
import cv2, numpy as np
from gapcam_export.finetune.settings import Hardware, Settings
from gapcam_export.finetune.steps import finetune
cv2.setNumThreads(4)
cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (900, 900))  # starts them
hardware = Hardware(accelerator="cpu", workers=1)
finetune({str(network)!r}, {str(data)!r}, {str(tmp_path / "out")!r}, settings=Settings(epochs=1), hardware=hardware)
print(cv2.getNumThreads())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1] == "4"


@pytest.mark.slow
def test_a_run_that_was_terminated_and_killed_goes_on_and_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = save(TinyGap(), tmp_path / "network.pt2")
    finetune(network, data, tmp_path / "straight", settings=SETTINGS, hardware=ON_CPU)

    out = tmp_path / "out"
    code, said = stop_after_epoch(1, signal.SIGTERM, command(network, data, out))
    assert code == 130, said
    assert said.splitlines()[-1].startswith("error: interrupted; the same command goes on")
    code, said = stop_after_epoch(3, signal.SIGKILL, command(network, data, out))
    assert code == -signal.SIGKILL
    assert "checking" not in said, "what the first process did is done again"
    assert "epoch 1 of" not in said
    assert {"last.ckpt"} < {path.name for path in (out / ".gapcam-checkpoints").iterdir()}

    done = subprocess.run([*command(network, data, out), "--json"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["continued"]
    first = next(line for line in done.stderr.splitlines() if line.startswith("epoch "))
    assert int(first.split()[1]) >= 4
    assert [row["epoch"] for row in report["epochs"]] == list(range(1, EPOCHS + 1))

    assert figures(out) == figures(tmp_path / "straight")
    weights, expected = (
        load_program(folder / "gapnet.pt2").model.state_dict() for folder in (out, tmp_path / "straight")
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "straight").iterdir()}


@pytest.mark.slow
def test_two_devices_learn_what_one_learns(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Dropout draws something else on each device; without it the two runs compute the same sums in another order.
    network = save(TinyGap(dropout=0.0), tmp_path / "network.pt2")
    both = subprocess.run(
        command(network, data, tmp_path / "two", "--devices", "2"), check=False, capture_output=True, text=True
    )
    assert both.returncode == 0, both.stderr
    assert both.stderr.count("training on 48 images") == 1, "a helper process talks, too"
    finetune(network, data, tmp_path / "one", settings=SETTINGS, hardware=ON_CPU)
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert len(one) == len(two) == EPOCHS
    for alone, together in zip(one, two, strict=True):
        for name in ("train_loss", "val_loss", "learning_rate", "val_top1"):
            assert float(together[name]) == pytest.approx(float(alone[name]), rel=1e-5), name
    weights, expected = (load_program(tmp_path / run / "gapnet.pt2").model.state_dict() for run in ("two", "one"))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5, msg=name)
