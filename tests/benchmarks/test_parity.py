"""Wrong answers are noticed, right ones are not complained of, and where there is no reference that is said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from engine_headers import PLAN, a_header
from onnx import numpy_helper
from small_models import a_contract, in_bfloat16, red_and_blue

import gapcam
from gapcam.engine_file import write_engine
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell, Emit
from gapcam_bench.parity import TOLERANCES, Checked, check_answers, compare, reference_of
from gapcam_bench.rows import tidy
from gapcam_bench.subjects.open_subject import open_model
from gapcam_bench.subjects.pictures import pictures
from gapcam_bench.subjects.protocol import Answer, Picture, Subject

FRAME = (48, 64)


def a_request(file: Path, reference: Path | None = None, **changed: object) -> Request:
    settings = {"model": str(file), "frame": FRAME, "threads": 1, **changed}
    return Request(
        cell=Cell(**settings),  # type: ignore[arg-type]
        file=str(file),
        reference=None if reference is None else str(reference),
    )


def checked(request: Request, subject: Subject | None = None, precision: str = "fp32") -> Checked:
    subject = subject or open_model(Path(request.file), request.cell)
    try:
        return check_answers(subject, request, precision)
    finally:
        subject.close()


@dataclass
class Wrong:
    """A subject that answers wrongly."""

    right: Subject
    logits_factor: float = 1.0
    turned: bool = False
    row: int | None = None
    nan: bool = False
    change: Callable[[np.ndarray], np.ndarray | None] = lambda raw: raw
    engine: str = "wrong"

    def answer(self, picture: Picture) -> Answer:
        answer = self.right.answer(picture)
        logits, raw = answer.logits * np.float32(self.logits_factor), answer.map
        if self.turned and raw is not None:
            raw = np.ascontiguousarray(raw[::-1])
        if self.row is not None:
            raw = self.right._path.run([picture.frame])[0].map(self.row)  # type: ignore[attr-defined]
        if self.nan:
            logits = np.full_like(logits, np.nan)
        return Answer(logits, None if raw is None else self.change(raw))

    def run(self, pictures: list[Picture]) -> object:  # noqa: ARG002 - of the protocol
        raise AssertionError("a check runs nothing that is timed")

    def close(self) -> None:
        self.right.close()


def wrong(request: Request, **how: object) -> Wrong:
    return Wrong(open_model(Path(request.file), request.cell), **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("emit", ["features", "plain"])
def test_the_reference_configuration_itself_is_checked_and_holds(tiny_model: Path, emit: Emit) -> None:
    found = checked(a_request(tiny_model, emit=emit)).parity
    assert found is not None
    assert (found.against, found.pictures, found.top1, found.holds) == (tiny_model.name, 4, 1.0, True)
    assert found.logits_error < 1e-5
    assert found.tolerance == 0.01
    if emit == "plain":
        assert found.map_correlation is None
    else:
        assert found.map_correlation == pytest.approx(1)


def test_wrong_logits_are_noticed(tiny_model: Path) -> None:
    request = a_request(tiny_model)
    found = checked(request, wrong(request, logits_factor=1.05)).parity
    assert found is not None
    assert found.logits_error == pytest.approx(0.05, rel=1e-3)
    assert not found.holds
    assert found.top1 == 1


def test_a_wrong_map_is_noticed(tiny_model: Path) -> None:
    request = a_request(tiny_model)
    found = checked(request, wrong(request, turned=True)).parity
    assert found is not None
    assert found.logits_error < 1e-5
    assert found.map_correlation is not None
    assert found.map_correlation < 0.9
    assert not found.holds


def correlating(raw: np.ndarray, correlation: float) -> np.ndarray:
    """A map with the mean and the spread of this one, and just this correlation with it."""
    ours = raw.astype(np.float64) - raw.mean()
    other = np.random.default_rng(0).standard_normal(raw.shape)
    other -= other.mean()
    other -= ours * (other * ours).sum() / (ours * ours).sum()
    other *= np.sqrt((ours * ours).sum() / (other * other).sum())
    made = raw.mean() + correlation * ours + np.sqrt(1 - correlation**2) * other
    return made.astype(np.float32)


@pytest.mark.parametrize("subject", ["gapcam", "handwritten"])
@pytest.mark.parametrize(
    ("precision", "enough", "too_little"),
    [("fp32", 0.9995, 0.998), ("fp16", 0.992, 0.985), ("bf16", 0.985, 0.975), ("int8", 0.92, 0.88)],
)
def test_a_map_that_correlates_too_little_is_noticed(
    tiny_model: Path, subject: str, precision: str, enough: float, too_little: float
) -> None:
    """Of a peer, too, whose map's scale is not compared."""
    cell, shown = a_request(tiny_model).cell, pictures(None, FRAME, 3)
    right = open_model(tiny_model, cell)
    for correlation, holds in ((enough, True), (too_little, False)):
        changed = Wrong(right, change=lambda raw, r=correlation: correlating(raw, r))  # type: ignore[misc]
        answers = [changed.answer(picture) for picture in shown]
        measured = msgspec.structs.replace(cell, subject=subject)
        found = compare(answers, shown, tiny_model, measured, TOLERANCES[precision])
        assert found is not None
        assert found.map_correlation == pytest.approx(correlation, abs=1e-5)
        assert found.holds is holds


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (lambda raw: raw * np.float32(1.03), True),
        (lambda raw: raw * np.float32(1.06), False),
        (lambda raw: raw * 100 - 5, False),
        (lambda raw: raw + np.float32(0.06 * np.sqrt((raw**2).mean())), False),
        (lambda raw: raw + np.float32(0.03 * np.sqrt((raw**2).mean())), True),
    ],
)
def test_a_maps_scale_and_offset_are_those_of_the_reference(
    tiny_model: Path, change: Callable[[np.ndarray], np.ndarray], holds: bool
) -> None:
    """A correlation sees neither. A peer's map is in a scale of its library's."""
    request = a_request(tiny_model)
    found = checked(request, wrong(request, change=change)).parity
    assert found is not None
    assert found.map_correlation == pytest.approx(1, abs=1e-5)
    assert found.holds is holds
    shown = pictures(None, FRAME, 4)
    (answer,) = [wrong(request, change=change).answer(shown[0])]
    with gapcam.load(tiny_model, device="cpu") as session:
        expected = session(shown[0].frame).map()
    assert answer.map is not None
    assert found.map_error is not None
    alone = np.linalg.norm(answer.map - expected) / np.linalg.norm(expected)
    one = compare([answer], shown[:1], tiny_model, request.cell, TOLERANCES["fp32"])
    assert one is not None
    assert one.map_error == pytest.approx(alone, rel=1e-4)
    of_a_peer = compare(
        [answer], shown[:1], tiny_model, msgspec.structs.replace(request.cell, subject="openvino"), TOLERANCES["fp32"]
    )
    assert of_a_peer is not None
    assert of_a_peer.holds
    assert of_a_peer.map_error is None


@pytest.mark.parametrize("emit", ["features", "plain"])
def test_a_map_that_is_left_out_is_noticed_where_one_is_measured(tiny_model: Path, emit: Emit) -> None:
    request = a_request(tiny_model, emit=emit)
    found = checked(request, wrong(request, change=lambda _: None)).parity
    assert found is not None
    assert found.logits_error < 1e-5
    assert found.map_correlation is None
    assert found.holds is (emit == "plain")


def test_a_map_with_nan_does_not_hold_and_can_be_written(tiny_model: Path) -> None:
    request = a_request(tiny_model)
    found = checked(request, wrong(request, change=lambda raw: raw * np.float32(np.nan))).parity
    assert found is not None
    assert not found.holds
    assert found.map_correlation is not None
    assert found.map_error is not None
    assert np.isfinite([found.map_correlation, found.map_error]).all()


def test_a_map_of_another_row_of_w_is_noticed(tiny_model: Path) -> None:
    request = a_request(tiny_model)
    best = int(open_model(tiny_model, request.cell).answer(pictures(None, FRAME, 1)[0]).logits.argmax())
    found = checked(request, wrong(request, row=(best + 1) % 5)).parity
    assert found is not None
    assert not found.holds


def test_a_wrong_row_in_the_graph_that_gives_the_maps_is_noticed(tmp_path: Path) -> None:
    """Both the subject and the reference load that file, and only the reference computes maps of its features."""
    from gapcam.contract import HeadKind
    from gapcam_bench.sweep.graph_outputs import write_with_outputs

    model = red_and_blue(tmp_path / "model.onnx", contract=a_contract((8, 8)))
    file = tmp_path / "maps.onnx"
    assert write_with_outputs(model, file, "maps", HeadKind.AFFINE)
    request = a_request(file, emit="maps")
    assert checked(request).parity.holds  # type: ignore[union-attr]
    proto = onnx.load(file)
    product = next(node for node in proto.graph.node if node.op_type == "MatMul")
    rows = numpy_helper.from_array(np.array([[-1.0, 3.0], [2.0, 1.0]], np.float32), "wrong_rows")
    proto.graph.initializer.append(rows)
    product.input[0] = "wrong_rows"
    onnx.save(proto, file)
    found = checked(request).parity
    assert found is not None
    assert found.logits_error < 1e-5
    assert not found.holds


def test_nan_does_not_hold_and_can_be_written(tiny_model: Path) -> None:
    request = a_request(tiny_model)
    found = checked(request, wrong(request, nan=True)).parity
    assert found is not None
    assert not found.holds
    assert np.isfinite(found.logits_error)
    assert not found.finite
    assert not tidy(found).finite, "as it is in the JSON"
    right = checked(request).parity
    assert right is not None
    assert right.finite


def test_fidelity_is_to_the_model_that_was_named(tmp_path: Path) -> None:
    reference = red_and_blue(tmp_path / "reference.onnx", contract=a_contract((8, 8)))
    weights = np.array([[3.0, -1.0], [1.0, 2.5]], np.float32)
    file = red_and_blue(tmp_path / "model.onnx", contract=a_contract((8, 8)), weights=weights)
    found = checked(a_request(file, reference))
    assert found.parity is not None
    assert found.fidelity is not None
    assert found.parity.holds
    assert found.parity.against == "model.onnx"
    assert found.fidelity.against == "reference.onnx"
    frames = [picture.frame for picture in pictures(None, FRAME, 4)]
    with gapcam.load(file, device="cpu") as one, gapcam.load(reference, device="cpu") as other:
        pairs = [(one(frame).logits, other(frame).logits) for frame in frames]
    expected = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    assert found.fidelity.logits_error == pytest.approx(expected, rel=1e-4)
    assert found.fidelity.holds == (expected <= 0.01 and (found.fidelity.map_correlation or 0) >= 0.999)


def test_the_tolerance_is_of_the_precision(tiny_model: Path) -> None:
    request = a_request(tiny_model)
    for precision, tolerance in TOLERANCES.items():
        found = checked(request, wrong(request, logits_factor=1 + 0.9 * tolerance.logits), precision).parity
        assert found is not None
        assert found.holds
        found = checked(request, wrong(request, logits_factor=1 + 1.1 * tolerance.logits), precision).parity
        assert found is not None
        assert not found.holds


def test_a_model_that_the_reference_cannot_run_is_not_checked_and_that_is_said(
    tiny_model: Path, tmp_path: Path
) -> None:
    """What computes in bfloat16 runs on GPUs only."""
    bfloat = red_and_blue(tmp_path / "bf16.onnx", contract=a_contract((8, 8)), change=in_bfloat16)
    request = a_request(bfloat)
    found = checked(request, open_model(tiny_model, request.cell))
    assert found.parity is None
    assert found.fidelity is None
    assert len(found.notes) == 1
    assert "not checked against bf16.onnx" in found.notes[0]


def test_models_with_other_classes_are_not_compared(tiny_model: Path, tmp_path: Path) -> None:
    other = red_and_blue(tmp_path / "other.onnx", contract=a_contract((8, 8)))
    found = checked(a_request(tiny_model, other))
    assert found.parity is not None
    assert found.fidelity is None
    assert "classes" in found.notes[0]


def test_a_map_of_another_resolution_is_brought_to_the_references(tiny_model: Path) -> None:
    shown, cell = pictures(None, FRAME, 2), a_request(tiny_model).cell
    subject = open_model(tiny_model, cell)
    answers = []
    for picture in shown:
        answer = subject.answer(picture)
        assert answer.map is not None
        answers.append(Answer(answer.logits, np.kron(answer.map, np.ones((4, 4), np.float32))))
    found = compare(answers, shown, tiny_model, cell, TOLERANCES["fp32"])
    assert found is not None
    assert found.map_correlation == pytest.approx(1, abs=1e-6)


def test_an_engines_reference_is_the_file_that_it_was_built_from_known_by_its_hash(tmp_path: Path) -> None:
    source = red_and_blue(tmp_path / "source" / "model.onnx") if (tmp_path / "source").mkdir() is None else None
    assert source is not None
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    engine = tmp_path / "model.engine"
    write_engine(engine, a_header(model="model.onnx", model_sha256=digest), {}, PLAN)
    assert reference_of(source) == source
    assert reference_of(engine) is None
    assert reference_of(engine, None, str(source)) == source
    red_and_blue(tmp_path / "other.onnx", bias=np.zeros(2, np.float32))
    assert reference_of(engine, str(tmp_path / "other.onnx")) is None
    beside = tmp_path / "model.onnx"
    beside.write_bytes(source.read_bytes())
    assert reference_of(engine, str(tmp_path / "other.onnx")) == beside
