"""The comparison of peers: whose times are in units of whose, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from numpy.typing import NDArray
from rich.console import Console

from gapcam.contract import Contract
from gapcam.environment import environment
from gapcam.errors import DataError
from gapcam_bench.block import Block, Parity, ScenarioSettings
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.machine import Machine
from gapcam_bench.peers.comparison import Group, groups_of, in_doubt, name_of
from gapcam_bench.peers.names import contract_of
from gapcam_bench.peers.page import BEGIN, END, is_part_of_a_page, page_with
from gapcam_bench.peers.planned import peer_cells
from gapcam_bench.peers.tables import cells_of, markdown, show, to_know
from gapcam_bench.result import BenchResult, Row
from gapcam_bench.rows import row_of

HD, FULL_HD = (720, 1280), (1080, 1920)
MakeBlock = Callable[..., Block]


def cells_for(contract: Contract, *subjects: str, frames: tuple[tuple[int, int], ...] = (HD,)) -> list[Cell]:
    return [planned.cell for planned in peer_cells("m.onnx", contract, subjects, frames=frames, threads=1)]


@pytest.fixture
def contract(tiny_model: Path) -> Contract:
    return contract_of(tiny_model)


def test_each_frame_has_its_overlays_and_the_first_its_maps(contract: Contract) -> None:
    cells = cells_for(contract, "gapcam", "handwritten", frames=(HD, FULL_HD))
    ways = [("gapcam", "features"), ("gapcam", "topk"), ("handwritten", "features")]
    expected = [(*way, frame, ("overlay",)) for frame in (HD, FULL_HD) for way in ways]
    expected += [(*way, HD, ()) for way in [*ways[:2], ("gapcam", "plain"), *ways[2:]]]
    assert [(cell.subject, cell.emit, cell.frame, cell.work) for cell in cells] == expected
    assert {(cell.device, cell.batch, cell.threads, cell.scenario) for cell in cells} == {
        ("cpu", 1, 1, "single-stream")
    }


def test_a_peer_that_cannot_run_is_planned_as_skipped_with_its_reason(contract: Contract) -> None:
    planned = peer_cells("m.onnx", contract, ("gapcam", "torch-cam, eager"), frames=(HD,), threads=1)
    reasons = {each.cell.subject: each.skipped for each in planned}
    assert reasons["gapcam"] is None
    assert "would be of two networks" in str(reasons["torch-cam, eager"])


def measured(
    cells: list[Cell], make_block: MakeBlock, ms: dict[str, float], *, rounds: int = 3, **facts: Any
) -> tuple[BenchResult, dict[str, NDArray[Any]]]:
    """Rows with a total of so many milliseconds by the subject, and each round twice as slow as the one before."""
    rows: list[Row] = []
    arrays: dict[str, NDArray[Any]] = {}
    for cell in cells:
        if cell.subject not in ms:
            rows.append(Row(id=cell.key, cell=cell, status="skipped", reasons=("not here",)))
            continue
        stages = [{"inference": ms[cell.subject] * 2**number} for number in range(rounds)]
        blocks = [make_block(cell, number, ms=each, **facts) for number, each in enumerate(stages)]
        row, of_row = row_of(cell, blocks, rounds=rounds, limits=Limits())
        arrays |= of_row
        rows.append(row)
    result = BenchResult(
        created="2026-01-01T00:00:00+00:00",
        command="gapcam bench peers",
        complete=True,
        rounds=rounds,
        limits=Limits(),
        settings=ScenarioSettings(),
        machine=Machine(environment=environment()),
        rows=tuple(rows),
    )
    return result, arrays


def line_of(group: Group, name: str) -> Any:
    return next(line for line in group.lines if line.name == name)


def test_a_peer_is_measured_in_units_of_gapcams_time_in_the_same_round(
    contract: Contract, make_block: MakeBlock
) -> None:
    """Rounds that differ by a factor of two do not hide a ratio of three."""
    cells = cells_for(contract, "gapcam", "handwritten", "openvino, fp32")
    overlays, maps = groups_of(*measured(cells, make_block, {"gapcam": 10.0, "handwritten": 30.0}))
    assert (overlays.title, maps.title) == ("overlay, of a 1280 x 720 frame", "map alone, of a 1280 x 720 frame")
    assert [line.name for line in maps.lines] == ["gapcam", "gapcam, top-k", "no map", "handwritten", "openvino, fp32"]
    for group in (overlays, maps):
        assert line_of(group, "gapcam").ratio is None
        ratio = line_of(group, "handwritten").ratio
        assert ratio.ratio == pytest.approx(3.0, rel=0.05)
        assert 2.7 < ratio.ci_low < ratio.ratio < ratio.ci_high < 3.3
        assert ratio.between_processes
        assert line_of(group, "openvino, fp32").ratio is None


def test_the_tables_have_every_way_and_say_what_was_not_measured(contract: Contract, make_block: MakeBlock) -> None:
    cells = cells_for(contract, "gapcam", "handwritten", "openvino, fp32")
    result, arrays = measured(cells, make_block, {"gapcam": 10.0, "handwritten": 30.0}, rounds=2)
    groups = groups_of(result, arrays)
    console = Console(width=80, record=True, file=StringIO())
    show(groups, console)
    shown, page = console.export_text(), markdown(result, groups)
    for text in (shown, page):
        assert "gapcam, top-k" in text
        assert "SKIPPED" in text
        assert "Fewer than three rounds" in text
    assert "openvino, fp32: SKIPPED: not here" in to_know(groups)
    table = [line for line in page.splitlines() if line.startswith("| handwritten")]
    assert len(table) == 2
    assert all(line.count("|") == 10 for line in table)


def test_an_agreement_is_rounded_down(contract: Contract, make_block: MakeBlock) -> None:
    parity = Parity(
        against="m", pictures=4, top1=1.0, logits_error=0.0, map_correlation=0.99999, holds=True, tolerance=0.01
    )
    cells = cells_for(contract, "gapcam", "handwritten")
    result, arrays = measured(cells, make_block, {"gapcam": 10.0, "handwritten": 9.0}, parity=parity)
    page = markdown(result, groups_of(result, arrays))
    assert "| 0.9999 |" in page
    assert "| 1.0000 |" not in page


def test_what_is_said_of_many_rows_is_one_sentence(contract: Contract, make_block: MakeBlock) -> None:
    """Every row drifts by its own figures; one kind of row is skipped."""
    cells = cells_for(contract, "gapcam", "handwritten", "openvino, fp32", frames=(HD, FULL_HD))
    result, arrays = measured(cells, make_block, {"gapcam": 10.0, "handwritten": 30.0})
    measured_rows = [row for row in result.rows if row.wall]
    assert all("drift between blocks" in " ".join(row.reasons) for row in measured_rows)
    notes = {"gapcam": ("3 of 99 samples are far off",), "handwritten": ("7 of 50 samples are far off",)}
    first = next(row for row in result.rows if row.cell.subject == "handwritten")
    rows = tuple(
        msgspec.structs.replace(row, notes=notes["handwritten"] if row is first else notes.get(row.cell.subject, ())
                                if row.cell.subject == "gapcam" and row.cell.frame == FULL_HD else ())
        for row in result.rows
    )  # fmt: skip
    said = to_know(groups_of(msgspec.structs.replace(result, rows=rows), arrays))
    assert "gapcam; gapcam, top-k; handwritten; no map: INVALID: drift between blocks" in said
    assert "openvino, fp32: SKIPPED: not here" in said
    (noise,) = (sentence for sentence in said if "far off" in sentence)
    assert noise == (
        "handwritten (overlay, of a 1280 x 720 frame); gapcam (overlay, of a 1920 x 1080 frame); "
        "gapcam, top-k (overlay, of a 1920 x 1080 frame): 7 of 50 samples are far off; likewise with other figures"
    )


def parity(*, holds: bool) -> Parity:
    return Parity(against="m", pictures=4, top1=1.0, logits_error=9.0, map_correlation=0.5, holds=holds, tolerance=0.01)


def test_a_way_whose_answers_differ_is_compared_with_nobody(contract: Contract, make_block: MakeBlock) -> None:
    cells = cells_for(contract, "gapcam", "handwritten")
    result, arrays = measured(cells, make_block, {"gapcam": 10.0, "handwritten": 5.0})
    for wrong, others in (("handwritten", "gapcam, top-k"), ("gapcam", "handwritten")):
        rows = tuple(
            msgspec.structs.replace(row, status="valid", parity=parity(holds=name_of(row.cell) != wrong))
            for row in result.rows
        )
        groups = groups_of(msgspec.structs.replace(result, rows=rows), arrays)
        for group in groups:
            line = line_of(group, wrong)
            assert line.ratio is None
            assert cells_of(line)[0] == f"{wrong} (DIFFERS)"
            assert cells_of(line)[2:4] == ("-", "-")
            assert (line_of(group, others).ratio is None) == (wrong == "gapcam")
        assert (in_doubt(groups) is None) == (wrong == "handwritten")
        assert f"{wrong}: its answers DIFFER" in " ".join(to_know(groups))


def test_a_comparison_is_in_doubt_where_gapcams_own_row_is_not_valid(contract: Contract, make_block: MakeBlock) -> None:
    cells = cells_for(contract, "gapcam", "handwritten")
    result, arrays = measured(cells, make_block, {"gapcam": 10.0, "handwritten": 5.0})
    assert all(row.status == "invalid" for row in result.rows)  # each round is twice as slow as the one before
    page = markdown(result, groups_of(result, arrays))
    assert page.startswith(
        "> Not to be relied on: gapcam's own row is INVALID (overlay, of a 1280 x 720 frame; map alone"
    )
    others = tuple(
        msgspec.structs.replace(row, status="valid" if row.cell.emit == "features" else "invalid")
        if row.cell.subject == "gapcam" else row
        for row in result.rows
    )  # fmt: skip
    groups = groups_of(msgspec.structs.replace(result, rows=others), arrays)
    assert in_doubt(groups) is None
    assert markdown(result, groups).startswith("**Overlay")


def test_a_page_keeps_all_but_what_is_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    alone = f"{BEGIN}\n\ntable\n\n{END}\n"
    assert page_with(page, "table") == alone
    page.write_text(" \n", encoding="utf-8")
    assert page_with(page, "table") == alone
    page.write_text(alone, encoding="utf-8")
    assert page_with(page, "table") == alone
    assert not is_part_of_a_page(page)
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
    made = page_with(page, "table\n")
    assert made == f"before\n\n{BEGIN}\n\ntable\n\n{END}\n\nafter\n"
    assert is_part_of_a_page(page)
    page.write_text(made, encoding="utf-8")
    assert page_with(page, "table\n") == made
    for text, said in (("a page without marks\n", "all of it would be replaced"), (f"{END}\n{BEGIN}\n", "one pair")):
        page.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=said):
            page_with(page, "table")
