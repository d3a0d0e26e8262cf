"""Whether a subject gives the answers that the same model gives where nobody doubts them: speed alone says nothing.

The reference is ONNX Runtime's CPU provider with its default options, on one thread, and gapcam's NumPy path; an
engine's is the ONNX file that it was built from. What the answers may differ by depends on the model's precision:

| precision  | logits, of the greatest | least correlation of a map | a map's values, root mean square |
| ---------- | ----------------------- | -------------------------- | -------------------------------- |
| float32    | 0.01                    | 0.999                      | 0.045                            |
| float16    | 0.02                    | 0.99                       | 0.141                            |
| bfloat16   | 0.1                     | 0.98                       | 0.2                              |
| int8       | 0.2                     | 0.9                        | 0.447                            |

A correlation does not see scale and offset, so that gapcam's own maps are compared value by value, too, in units of the
reference map's root mean square. The limit follows from the correlation's: two maps of the same mean and spread that
correlate by r are sqrt(2 (1 - r)) of their spread apart. Peers' maps are in the scale that their library gives them.
A row that computes maps and gives none where the reference has one does not hold.

Two ways to compute one float32 model on a CPU differ by some 1e-6. The tolerances leave room for what engines do within
a precision: TensorRT computes float32 with TF32's 10 bits of mantissa unless told not to, sums in float16, and rounds
int8 tensors that its fusions leave out. What is wrong, a row of W, a map of another class, is off by more.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gapcam import contract as names
from gapcam.backends.onnx_outline import read_outline
from gapcam.contract import METADATA_KEY
from gapcam.engine_file import is_engine, read_engine
from gapcam.errors import GapcamError, MapNotComputedError
from gapcam.session import load
from gapcam_bench.block import Parity, Request
from gapcam_bench.cell import GAPCAM, Cell
from gapcam_bench.file_hash import file_sha256
from gapcam_bench.subjects.open_subject import open_model
from gapcam_bench.subjects.pictures import pictures
from gapcam_bench.subjects.protocol import Answer, Picture, Subject
from gapcam_export.comparison.measures import logit_error, pearson

PICTURES = 4
"""That answers are compared on; the others of the measurement are the same, mirrored."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What answers may differ by.

    Attributes:
        logits: the greatest difference, in units of the greatest logit.
        map_correlation: the least that a map may have with the reference's.
    """

    logits: float
    map_correlation: float

    @property
    def map_error(self) -> float:
        """Root mean square difference of maps of one mean and spread with this correlation, over the spread."""
        return math.sqrt(2 * (1 - self.map_correlation))


TOLERANCES = {
    "fp32": Tolerance(0.01, 0.999),
    "fp64": Tolerance(0.01, 0.999),
    "fp16": Tolerance(0.02, 0.99),
    "bf16": Tolerance(0.1, 0.98),
    "int8": Tolerance(0.2, 0.9),
}
"""By precision; a model whose precision is not known is held to float32's."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was compared.

    Attributes:
        parity: with the same model on the reference backend; None where there is no such reference.
        fidelity: with the request's reference model; None where none was named.
        notes: why something was not compared.
    """

    parity: Parity | None
    fidelity: Parity | None
    notes: tuple[str, ...] = ()


def check_answers(
    subject: Subject,
    request: Request,
    precision: str | None,
    *,
    on_picture: Callable[[float], None] = lambda _: None,
) -> Checked:
    """Compare a subject's answers with those of the reference, on the first photographs.

    A reference that cannot be had is a note and no error: the row then stands without a check.

    Args:
        subject: that was measured.
        request: whose file it is.
        precision: of that file.
        on_picture: called with the share of the work that is done, in [0, 1].
    """
    shown = pictures(request.images, request.cell.frame, PICTURES)
    tolerance = TOLERANCES.get(precision or "fp32", TOLERANCES["fp32"])
    file = Path(request.file)
    notes: list[str] = []
    source = reference_of(file, request.reference, request.cell.model)
    if source is None:
        notes.append("not checked: the ONNX file that the engine was built from is not at hand")
    fidelity_file = None if request.reference is None else Path(request.reference)
    wanted = [path for path in (source, fidelity_file) if path is not None]
    if not wanted:
        return Checked(None, None, tuple(notes))
    answers: list[Answer] = []
    for number, picture in enumerate(shown, 1):
        answers.append(subject.answer(picture))
        on_picture(number / len(shown) / (len(wanted) + 1))
    found: dict[Path, Parity | None] = {}
    for number, path in enumerate(dict.fromkeys(wanted), 2):
        try:
            found[path] = compare(answers, shown, path, request.cell, tolerance)
            if found[path] is None:
                notes.append(f"not checked against {path.name}: it has another number of classes")
        except GapcamError as error:
            found[path] = None
            notes.append(f"not checked against {path.name} on the CPU: {error}")
        on_picture(min(1.0, number / (len(wanted) + 1)))
    return Checked(
        parity=None if source is None else found[source],
        fidelity=None if fidelity_file is None else found[fidelity_file],
        notes=tuple(notes),
    )


def compare(
    answers: Sequence[Answer], shown: Sequence[Picture], file: Path, cell: Cell, tolerance: Tolerance
) -> Parity | None:
    """How alike answers are with those of a file on the reference backend.

    Args:
        answers: of the subject.
        shown: what it answered, as many.
        file: ONNX.
        cell: of the subject; for whether maps are expected and in which scale, and for what kind of output to ask of a
            file that has no features.
        tolerance: what is held.

    Returns:
        None where the two do not have the same number of classes.

    Raises:
        GapcamError: the file does not run there.
    """
    reference = _Reference(file, cell)
    try:
        errors, same, missing = [], 0, False
        correlations: list[float] = []
        map_errors: list[float] = []
        for answer, picture in zip(answers, shown, strict=True):
            logits, map_of = reference.answer(picture)
            if logits.shape != answer.logits.shape:
                return None
            best = int(answer.logits.argmax())
            same += best == int(logits.argmax())
            errors.append(logit_error(logits, answer.logits))
            expected = None if cell.emit == "plain" else map_of(best)
            if expected is None:
                continue
            if answer.map is None:
                missing = True
                continue
            given = _resized(answer.map, expected)
            correlations.append(pearson(expected, given))
            if cell.subject == GAPCAM:
                map_errors.append(_map_error(expected, given))
    finally:
        reference.close()
    error = float(np.max(errors))  # NaN stays NaN
    least = min(correlations, default=None)
    map_error = float(np.max(map_errors)) if map_errors else None
    holds = (
        error <= tolerance.logits
        and not missing
        and (least is None or least >= tolerance.map_correlation)
        and (map_error is None or map_error <= tolerance.map_error)
    )
    return Parity(
        against=file.name,
        pictures=len(answers),
        top1=same / len(answers),
        logits_error=_finite(error),
        map_correlation=least,
        holds=holds,
        tolerance=tolerance.logits,
        map_error=None if map_error is None else _finite(map_error),
    )


def reference_of(file: Path, *others: str | None) -> Path | None:
    """What a file is compared with on the reference backend: itself, or the ONNX file that an engine was built from.

    That is known by its hash, and looked for among `others` and beside the engine.
    """
    if not is_engine(file):
        return file
    with read_engine(file) as engine:
        header = engine.header
    candidates = [*(Path(other) for other in others if other is not None), file.parent / Path(header.model).name]
    return next((path for path in candidates if path.is_file() and file_sha256(path) == header.model_sha256), None)


class _Reference:
    """A file on ONNX Runtime's CPU provider, one thread, default options.

    Where the file has features, maps are computed from them and the head's rows, also where the subject takes maps that
    the graph gives: those are then checked, too.
    """

    def __init__(self, file: Path, cell: Cell) -> None:
        outline = read_outline(file)
        self._session = self._subject = None
        if METADATA_KEY in outline.metadata and names.FEATURES in outline.outputs:
            # Whether the identity holds was checked where the subject was loaded, or it is what is asked here.
            self._session = load(file, device="cpu", threads=1, post="numpy", verify=False)
        else:
            plain = Cell(model=cell.model, device="cpu", threads=1, emit=cell.emit, frame=cell.frame)
            self._subject = open_model(file, plain, default_options=True)

    def answer(self, picture: Picture) -> tuple[NDArray[np.float32], Callable[[int], NDArray[np.float32] | None]]:
        """Logits, and what gives the map of a class; None for one that is not to be had."""
        if self._session is not None:
            result = self._session(picture.frame)

            def map_of(index: int) -> NDArray[np.float32] | None:
                try:
                    return result.map(index)
                except MapNotComputedError:  # not among the best classes here: the logits' difference shows that
                    return None

            return result.logits, map_of
        assert self._subject is not None  # noqa: S101 - one of the two
        answer = self._subject.answer(picture)
        best = int(answer.logits.argmax())
        return answer.logits, lambda index: answer.map if index == best else None

    def close(self) -> None:
        for opened in (self._session, self._subject):
            if opened is not None:
                opened.close()


def _resized(given: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map at the reference's resolution."""
    if given.shape == expected.shape:
        return given
    height, width = expected.shape
    return np.asarray(cv2.resize(given, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _map_error(expected: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """Root mean square of the difference over that of `expected`; of a map of zeros, 0 or infinity."""
    wide = expected.astype(np.float64)
    difference, own = (float(np.sqrt(np.mean(np.square(values)))) for values in (given - wide, wide))
    return difference / own if own else difference and math.inf


def _finite(error: float) -> float:
    """JSON has neither NaN nor infinity."""
    return error if np.isfinite(error) else sys.float_info.max
