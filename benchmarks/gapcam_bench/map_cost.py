"""What a class activation map costs, and what showing it costs, on one thread.

| step       | what one round of it does                                                                        |
| ---------- | ------------------------------------------------------------------------------------------------ |
| `plain`    | the classifier alone: the same graph with no output but `logits`                                 |
| `features` | the classifier with `features` as a second output, and what its head's kind needs for a map      |
| `map`      | that, and the map of the class with the highest logit: M_c = sum_k row_c[k] f_k, in NumPy        |
| `copy`     | a copy of the frame into an array that is there: the least that any new picture costs            |
| `overlay`  | `result.overlay(out=...)`: resize the map, colour it, blend it (the map itself is computed)      |
| `naive`    | the same picture the obvious way: a float map of the frame's size, coloured and blended at once  |

Preprocessing is in none of them: every classifier has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import msgspec
import numpy as np

import gapcam
from gapcam import contract as names
from gapcam.cam import FloatArray, class_maps
from gapcam.class_rows import OUTPUTS_OF_EACH_IMAGE, rows_of_image
from gapcam.environment import Environment, environment
from gapcam.errors import MissingExtraError
from gapcam.frame import Frame
from gapcam.interleaved import Step, measure, one_opencv_thread
from gapcam.latency import Latency
from gapcam_bench.subjects.engine_options import SESSION_OPTIONS
from gapcam_export.photographs import photograph

if TYPE_CHECKING:
    import onnxruntime

FRAME_SIZE = (1080, 1920)
ALPHA = 0.5


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One step's latency.

    Attributes:
        median_ms: milliseconds.
        p99_ms: milliseconds, by nearest rank.
    """

    median_ms: float
    p99_ms: float


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One step's duration in units of another's.

    Attributes:
        step: the numerator.
        unit: the denominator.
        ratio: median over the samples.
        target: what it may be at most; None where it is there for comparison.
        verdict: "PASS" or "MISS"; None where there is no target.
    """

    step: str
    unit: str
    ratio: float
    target: float | None
    verdict: Literal["PASS", "MISS"] | None


class MapCost(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome.

    Attributes:
        model: name of the model's file.
        frame: (height, width) in pixels.
        threads: that each step may use.
        samples: of each step.
        environment: what they were measured on.
        latency: by step, in the order of this module's table.
        ratios: what the steps cost relative to each other.
        notes: why a ratio should not be relied on, a sentence each.
    """

    model: str
    frame: tuple[int, int]
    threads: int
    samples: int
    environment: Environment
    latency: dict[str, StepFigures]
    ratios: tuple[Ratio, ...]
    notes: tuple[str, ...] = ()


_LEAST_RATIO = 0.97
"""A step does all that its unit does, and more. Less than this is as far below 1 as the map's target is above it."""

_TARGETS = (
    ("features", "plain", None),
    ("map", "plain", 1.03),
    ("overlay", "copy", 12.0),
    ("naive", "copy", None),
)


def map_cost(
    model: Path, *, rounds: int, seconds: float, after_round: Callable[[int], None] = lambda _: None
) -> MapCost:
    """Measure all steps on one model, in one run.

    Args:
        model: that keeps gapcam's contract.
        rounds: how many at most.
        seconds: when to stop before that.
        after_round: called with the number of measured rounds.

    Raises:
        GapcamError: the model cannot be loaded.
        MissingExtraError: onnx or scikit-image is not installed.
    """
    with one_opencv_thread():
        measured = measure(steps_of(model), rounds=rounds, seconds=seconds, after_round=after_round)
    found = ratios(measured)
    return MapCost(
        model=model.name,
        frame=FRAME_SIZE,
        threads=1,
        samples=measured["plain"].count,
        environment=environment(),
        latency={name: StepFigures(median_ms=it.median_ms, p99_ms=it.p99_ms) for name, it in measured.items()},
        ratios=found,
        notes=notes_on(found),
    )


def ratios(measured: Mapping[str, Latency]) -> tuple[Ratio, ...]:
    """The ratios that matter, with their targets."""
    found = []
    for step, unit, target in _TARGETS:
        ratio = measured[step].ratio_to(measured[unit])
        verdict: Literal["PASS", "MISS"] | None = None
        if target is not None:
            verdict = "PASS" if ratio <= target else "MISS"
        found.append(Ratio(step=step, unit=unit, ratio=ratio, target=target, verdict=verdict))
    return tuple(found)


def notes_on(found: Sequence[Ratio]) -> tuple[str, ...]:
    """What a reader should know of ratios that cannot be: a step that takes less time than a part of it."""
    return tuple(
        f"{it.step} / {it.unit} is {it.ratio:.3f}, and more work cannot take less time: that is the machine's noise. "
        "Measure with more rounds, or with less running beside it."
        for it in found
        if it.ratio < _LEAST_RATIO
    )


def steps_of(model: Path) -> dict[str, Step]:
    """This module's table as functions, ready to run."""
    frame = large_photograph()
    with gapcam.load(model, device="cpu", threads=1, session_options=SESSION_OPTIONS) as session:
        result = session(frame)
        image = gapcam.preprocess(frame, session.contract.preprocessing)[None]
        weights, kind = session.weights, session.contract.head.kind
    wanted = [names.LOGITS, names.FEATURES, *OUTPUTS_OF_EACH_IMAGE.get(kind, ())]
    plain = _onnxruntime_session(plain_classifier(model))
    full = _onnxruntime_session(model.read_bytes())
    raw = result.map()
    out = np.empty_like(frame)

    def run_features() -> dict[str, FloatArray]:
        return dict(zip(wanted, full.run(wanted, {names.IMAGE: image}), strict=True))

    def run_map() -> FloatArray:
        outputs = run_features()
        features, best = outputs[names.FEATURES][0], int(outputs[names.LOGITS][0].argmax())
        rows = rows_of_image(weights, outputs, 0)
        return features[best] if rows is None else class_maps(features, rows.of([best]))

    return {
        "plain": lambda: plain.run([names.LOGITS], {names.IMAGE: image}),
        "features": run_features,
        "map": run_map,
        "copy": lambda: np.copyto(out, frame),
        "overlay": lambda: result.overlay(alpha=ALPHA, out=out),
        "naive": lambda: naive_overlay(frame, raw),
    }


def naive_overlay(frame: Frame, raw: FloatArray) -> Frame:
    """The overlay as one would first write it.

    Args:
        frame: H x W x 3 uint8 BGR.
        raw: [h,w], a class activation map.
    """
    height, width = frame.shape[:2]
    heat = cv2.resize(raw, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    colored = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_JET)
    return np.asarray(cv2.addWeighted(colored, ALPHA, frame, 1 - ALPHA, 0), np.uint8)


def plain_classifier(model: Path) -> bytes:
    """The same graph with no output but `logits`: the plain classifier. The engine drops what nothing needs."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export") from error
    proto = onnx.load(model)
    logits = [output for output in proto.graph.output if output.name == names.LOGITS]
    del proto.graph.output[:]
    proto.graph.output.extend(logits)
    return bytes(proto.SerializeToString())


def _onnxruntime_session(model: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # initializers that no output needs are dropped, which is what is wanted
    options.intra_op_num_threads = 1
    for name, value in SESSION_OPTIONS.items():
        options.add_session_config_entry(name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def large_photograph() -> Frame:
    """A photograph of a cat, of the frame's size."""
    height, width = FRAME_SIZE
    return np.asarray(cv2.resize(photograph("chelsea"), (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
