"""Stages' times against what the work itself measured, on the host; `test_device_subject` has the device's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import onnx
import pytest
from numpy.typing import NDArray
from small_models import a_contract, red_and_blue

from gapcam import host_path
from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.contract import HeadKind
from gapcam_bench.cell import WORK, Cell, Emit
from gapcam_bench.subjects import plain_subject
from gapcam_bench.subjects.open_subject import subject_of
from gapcam_bench.subjects.pictures import pictures
from gapcam_bench.subjects.protocol import Subject
from gapcam_bench.sweep.graph_outputs import write_with_outputs

FRAME = (48, 64)
SLOW_NS = 20_000_000
ROUNDING_NS = 1000
"""The path of a frame counts in milliseconds, each picture by itself."""

EMITS: tuple[Emit, ...] = ("features", "maps", "topk", "plain")


def slow(work: Callable[..., Any], took: list[int]) -> Callable[..., Any]:
    """The same work, longer, which notes its time."""

    def run(*given: Any, **named: Any) -> Any:
        began = perf_counter_ns()
        found = work(*given, **named)
        while perf_counter_ns() < began + SLOW_NS:
            pass
        took.append(perf_counter_ns() - began)
        return found

    return run


class SlowBackend(OnnxRuntimeBackend):
    """A real engine that takes a known time, and notes what it was asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, threads=1)
        self.took: list[int] = []
        self.asked: list[tuple[str, ...]] = []
        self._slow = slow(super().run, self.took)

    def run(self, outputs: Sequence[str], image: NDArray[Any]) -> list[NDArray[Any]]:
        self.asked.append(tuple(outputs))
        found: list[NDArray[Any]] = self._slow(outputs, image)
        return found


def emitting(folder: Path, emit: Emit, *, batch: int | str = "N") -> Path:
    model, made = folder / "model.onnx", folder / f"{emit}.onnx"
    red_and_blue(model, contract=a_contract((8, 8)), batch=batch)
    return made if write_with_outputs(model, made, emit, HeadKind.AFFINE) else model


def opened(file: Path, emit: Emit, batch: int) -> tuple[Subject, SlowBackend]:
    backend = SlowBackend(file)
    cell = Cell(model=str(file), emit=emit, frame=FRAME, threads=1, batch=batch, work=WORK)
    return subject_of(backend, cell, str(file)), backend


@pytest.mark.parametrize(("batch", "count", "fixed"), [(1, 1, False), (3, 3, False), (1, 2, True)])
@pytest.mark.parametrize("emit", EMITS)
def test_inference_is_all_the_time_that_the_engine_takes(
    tmp_path: Path, emit: Emit, batch: int, count: int, fixed: bool
) -> None:
    subject, backend = opened(emitting(tmp_path, emit, batch=1 if fixed else "N"), emit, batch)
    inferences, shown = count if fixed else 1, pictures(None, FRAME, count)
    unexplained, around = [], []
    for _ in range(5):
        backend.took.clear()
        began = perf_counter_ns()
        times = subject.run(shown).wall
        total, known = perf_counter_ns() - began, sum(backend.took)
        assert len(backend.took) == inferences
        assert known >= inferences * SLOW_NS
        assert times["inference"] >= known - ROUNDING_NS
        assert sum(times.values()) <= total + ROUNDING_NS, "stages do not overlap"
        around.append(times["inference"] - known)
        unexplained.append(total - sum(times.values()))
    assert min(around) < 0.2 * SLOW_NS, "the others of a busy machine may be longer"
    assert min(unexplained) < 0.2 * SLOW_NS
    subject.close()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("emit", EMITS)
def test_preprocessing_is_the_same_stage_for_all_the_filling_and_not_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emit: Emit, batch: int
) -> None:
    subject, _ = opened(emitting(tmp_path, emit), emit, batch)
    filled: list[int] = []
    made: list[int] = []
    for module in (host_path, plain_subject):
        monkeypatch.setattr(module, "fill_input", slow(module.fill_input, filled))
        monkeypatch.setattr(module, "empty_input", slow(module.empty_input, made))
    around, shown = [], pictures(None, FRAME, batch)
    for _ in range(5):
        filled.clear()
        spent = subject.run(shown).wall["preprocess"]
        assert len(filled) == batch
        assert spent >= sum(filled) - ROUNDING_NS
        around.append(spent - sum(filled))
    assert len(made) == 5
    assert min(around) < 0.5 * SLOW_NS
    subject.close()


@pytest.mark.parametrize("file_of", ["plain", "features"])
def test_a_plain_classifier_asks_for_logits_and_nothing_else(tmp_path: Path, file_of: Emit) -> None:
    """Of a file with more outputs, too; and the sweep's file for it has no more."""
    file = emitting(tmp_path, file_of)
    subject, backend = opened(file, "plain", 1)
    shown = pictures(None, FRAME, 1)
    subject.run(shown)
    subject.answer(shown[0])
    assert backend.asked == [("logits",)] * 2
    assert set(backend.outputs) == {value.name for value in onnx.load(file).graph.output}
    assert (set(backend.outputs) == {"logits"}) == (file_of == "plain")
    subject.close()
