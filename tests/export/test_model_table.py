"""docs/models.md is complete and true, and the command that makes it survives what models can do."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

import gapcam
from gapcam.contract import HeadKind, Preprocessing
from gapcam.errors import ExitCode, UsageError
from gapcam_export.model_table.chosen import Chosen, chosen_models, models_named
from gapcam_export.model_table.page import write_page
from gapcam_export.model_table.processes import Results
from gapcam_export.model_table.random_weights import give_random_weights
from gapcam_export.model_table.row import Row, library_versions, one_sentence

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
Cells = dict[str, str]

# Files with factories of networks that do what a network should not.
BAD_NETWORKS = """
import os, time
from torch import nn

def leaves():
    print("about to leave", flush=True)
    os._exit(7)

def sleeps():
    time.sleep(600)

class NoState(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 32, stride=32)

    def forward(self, image):
        return self.layer(image).mean((2, 3))

    def state_dict(self, *args, **kwargs):
        raise KeyError("nobody foresaw this")
"""


def rows_of(page: str) -> dict[tuple[str, str], Cells]:
    """The tables' rows by library and model; each has its cells by the columns' names."""
    rows: dict[tuple[str, str], Cells] = {}
    library, columns = "", list[str]()
    for line in page.splitlines():
        if line.startswith("## "):
            library = line.removeprefix("## ")
        if not line.startswith("| "):
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells[:1] == ["model"]:
            columns = cells
        elif cells and set(cells[0]) != {"-"}:
            key = library, cells[0].strip("`")
            assert key not in rows
            rows[key] = dict(zip(columns, cells, strict=True))
    return rows


@pytest.fixture(scope="module")
def on_disk() -> dict[tuple[str, str], Cells]:
    return rows_of(PAGE.read_text(encoding="utf-8"))


def table(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gapcam_export.model_table", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_every_family_of_torchvisions_classifiers_is_on_the_page(on_disk: dict[tuple[str, str], Cells]) -> None:
    def family(name: str) -> str:
        return torchvision.models.get_model_builder(name).__module__

    there = {family(name) for library, name in on_disk if library == "torchvision"}
    assert there == {family(name) for name in torchvision.models.list_models(torchvision.models)}


def test_forty_architectures_of_timm_are_on_the_page(on_disk: dict[tuple[str, str], Cells]) -> None:
    names = [name for library, name in on_disk if library == "timm" and timm.is_model(name)]
    assert len({timm.models.model_entrypoint(name).__module__ for name in names}) >= 40


def test_the_page_has_the_chosen_models_and_none_that_failed(on_disk: dict[tuple[str, str], Cells]) -> None:
    assert set(on_disk) == {(model.library, model.name) for model in chosen_models()}
    assert [key for key, cells in on_disk.items() if "outcome" in cells] == []
    assert [key for key, cells in on_disk.items() if not cells.get("identity") and not cells.get("why")] == []


def test_exact_heads_are_exact_on_the_page_and_others_are_not_called_so(on_disk: dict[tuple[str, str], Cells]) -> None:
    exported = {key: cells for key, cells in on_disk.items() if "identity" in cells}
    assert exported
    for key, cells in exported.items():
        if cells["head"] == "`nonlinear`":
            assert "not exact" in cells["identity"], key
        else:
            assert float(cells["identity"]) <= 1e-4, key


@pytest.mark.slow
def test_rows_made_again_are_those_on_the_page(on_disk: dict[tuple[str, str], Cells], tmp_path: Path) -> None:
    names = ("torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small", "timm:vit_tiny_patch16_224")
    only = [part for name in names for part in ("--only", name)]
    done = table(*only, "--jobs", 2, "--results", tmp_path / "rows", "--output", tmp_path / "page.md")
    assert done.returncode == 0, done.stderr
    made = rows_of((tmp_path / "page.md").read_text(encoding="utf-8"))
    assert len(made) == len(names)
    for key, cells in made.items():
        for column in cells.keys() - {"identity", "source", "seconds"}:  # these depend on the machine
            assert cells[column] == on_disk[key][column], (key, column)
    squeezenet = made["torchvision", "squeezenet1_1"]
    assert (squeezenet["head"], squeezenet["maps"], squeezenet["parameters"]) == ("`class-maps`", "13x13", "1.2")
    assert "class token" in made["timm", "vit_tiny_patch16_224"]["why"]

    again = table(*only, "--results", tmp_path / "rows")
    assert "3 of 3 rows are there already" in again.stderr
    assert again.stdout.rstrip("\n") == (tmp_path / "page.md").read_text(encoding="utf-8").rstrip("\n")


def test_a_crash_and_an_unforeseen_error_cost_a_row_each_and_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD_NETWORKS)
    page = tmp_path / "page.md"
    only = ("--only", f"{tmp_path}/bad.py:leaves", "--only", f"{tmp_path}/bad.py:NoState")
    done = table(*only, "--jobs", 2, "--results", tmp_path / "rows", "--output", page)
    assert done.returncode == ExitCode.BUG, done.stderr
    left, no_state = rows_of(page.read_text(encoding="utf-8")).values()
    assert left["outcome"] == "crash"
    assert left["what happened"] == "the process ended with exit code 7; the last it said: about to leave"
    assert no_state["outcome"] == "traceback"
    assert no_state["what happened"] == "KeyError: 'nobody foresaw this'"
    (log,) = (tmp_path / "rows").glob("*NoState.log")
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")


def test_a_model_that_takes_too_long_is_ended_and_told(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD_NETWORKS)
    done = table("--only", f"{tmp_path}/bad.py:sleeps", "--timeout", 1, "--results", tmp_path / "rows")
    assert done.returncode == ExitCode.PARTIAL, done.stderr
    ((_, cells),) = rows_of(done.stdout).items()
    assert (cells["outcome"], cells["what happened"]) == ("timeout", "not done after 1 seconds")


def test_a_model_that_nobody_has_is_refused_with_what_is_close(tmp_path: Path) -> None:
    done = table("--only", "squeezenet1_0", "--results", tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(
        "error: --only squeezenet1_0: the table has no such model. Did you mean squeezenet1_1"
    )
    assert "Traceback" not in done.stderr


def test_a_name_of_both_libraries_means_both_and_any_source_will_do() -> None:
    found = models_named(("resnet18", "timm:resnet18", "timm:resnet34"))
    assert [model.source for model in found] == ["torchvision:resnet18", "timm:resnet18", "timm:resnet34"]
    with pytest.raises(UsageError, match="timm:resnet34"):
        models_named(("resnet34",))


def test_rows_of_other_code_or_libraries_or_that_failed_are_made_anew(tmp_path: Path) -> None:
    model, results = Chosen("timm:resnet18", ""), Results(tmp_path / "rows")
    assert results.read(model) is None
    digest = hashlib.sha256(Path(gapcam.__file__).read_bytes()).hexdigest()
    row = Row(outcome="refused", code={"gapcam/__init__.py": digest}, versions=library_versions())
    results.write(model, row)
    assert results.read(model) == row
    for changed in (
        msgspec.structs.replace(row, outcome="crash"),
        msgspec.structs.replace(row, versions={**row.versions, "torch": "1.0"}),
        msgspec.structs.replace(row, code={"gapcam/__init__.py": digest[::-1]}),
        msgspec.structs.replace(row, code={"gapcam/no_such_module.py": digest}),
    ):
        results.write(model, changed)
        assert results.read(model) is None


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "the head is of kind 'none': the last feature maps are 'relu_4' [256, 6, 6], flattened into 9216 values "
            "(as in AlexNet). A class activation map needs a pool.",
            "the last feature maps are [256, 6, 6], flattened into 9216 values (as in AlexNet)",
        ),
        (
            "between the pooled vector 'mean' and the logits 'out' stand Shape, Gemm, Relu, Gemm, Relu: it bends. X.",
            "between the pooled vector and the logits stand Gemm, Relu: it bends",
        ),
        ("timm:x cannot be built: torch 2.9 is\n too old", "timm:x cannot be built: torch 2.9 is too old"),
    ],
)
def test_a_reason_is_a_sentence_without_the_exporters_names(message: str, sentence: str) -> None:
    assert one_sentence(message) == sentence


def test_the_page_rounds_so_that_it_stays_what_it_was() -> None:
    def exported(seconds: float) -> Row:
        return Row(
            outcome="exported",
            head=HeadKind.AFFINE,
            exact=True,
            size=(224, 192),
            maps=(7, 6),
            parameters=11_689_512,
            identity_error=3.26e-7,
            source_error=0.0,
            seconds=seconds,
        )

    seconds = {0.2: "1", 1.2: "1", 4.4: "5", 8.9: "10", 11.0: "10", 26.0: "30", 83.0: "70", 140.0: "100"}
    rows = {Chosen(f"timm:model{value}", "a|b"): exported(value) for value in seconds}
    page = rows_of(write_page(rows, {"torch": "2.9"}, 2))
    assert [cells["seconds"] for cells in page.values()] == list(seconds.values())
    cells = page["timm", "model0.2"]
    assert cells["what it is"] == "a|b"
    assert (cells["input"], cells["maps"], cells["parameters"]) == ("224x192", "7x6", "11.7")
    assert (cells["identity"], cells["source"], cells["head"]) == ("3e-7", "0", "`affine`")


class SwitchedOff(nn.Module):
    """What libraries make at first: a layer scale of 1e-6, a head of zeros, a BatchNorm that has seen nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 8, stride=8)
        self.norm = nn.BatchNorm2d(4)
        self.layer_scale = nn.Parameter(torch.full((4, 1, 1), 1e-6))
        self.head = nn.Linear(4, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, image: Tensor) -> Tensor:
        return self.head((self.norm(self.convolution(image)) * self.layer_scale).mean((2, 3)))


def test_random_weights_switch_nothing_off(cat: NDArray[np.uint8]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SwitchedOff().eval()
    kernel = model.convolution.weight.clone()
    preprocessing = Preprocessing(size=(32, 48))
    frames = [cat, cv2.flip(cat, 0)]
    give_random_weights(model, preprocessing, frames)

    images = torch.from_numpy(np.stack([gapcam.preprocess(frame, preprocessing) for frame in frames]))
    with torch.no_grad():
        activations = model.convolution(images).transpose(0, 1).flatten(1)
        assert min(float(p.std()) for p in (model.layer_scale, model.head.weight, model.norm.weight)) > 0.05
    torch.testing.assert_close(model.norm.running_mean, activations.mean(1) / 2)
    torch.testing.assert_close(model.norm.running_var, activations.var(1))
    assert torch.equal(model.convolution.weight, kernel)
    assert not any(module.training for module in model.modules())
    assert model.norm.momentum == 0.1
