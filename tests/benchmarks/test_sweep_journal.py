"""A sweep's journal: finished blocks survive anything, half ones count for nothing, and two runs never share one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gapcam.errors import DataError, UsageError
from gapcam_bench.block import Block
from gapcam_bench.block_file import write_block
from gapcam_bench.cell import Cell
from gapcam_bench.sweep.journal import Begun, Journal, open_journal
from gapcam_bench.sweep.plan import Plan, PlannedCell
from gapcam_bench.sweep.prepare import Prepared
from gapcam_bench.sweep.run import request_of
from gapcam_bench.sweep.schedule import Turn
from gapcam_bench.sweep.telemetry_file import read_series, since, write_series
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series

CELLS = (Cell(model="one.onnx"), Cell(model="two.onnx"))
PLAN = Plan(cells=tuple(PlannedCell(cell=cell) for cell in CELLS), models={}, rounds=3)
BEGUN = Begun(plan=PLAN, ground={"the processor": "A, 2 cores", "numpy": "2.0"}, created="2026-01-01T00:00:00+00:00")
Make = Callable[..., Block]


def a_series(start: float, count: int = 5) -> Series:
    return Series(
        time=start + np.arange(count) / 10,
        values={"cpu": np.arange(count, dtype=np.float64), "power": np.full(count, np.nan)},
        channels=(
            Channel(name="cpu", quantity="utilisation", source="procfs"),
            Channel(name="power", quantity="power", source="rapl"),
        ),
        lacking={"nvml": "there is none"},
    )


def keep(journal: Journal, turn: Turn, make_block: Make, *, start: float = 0.0) -> None:
    with journal.unfinished() as folder:
        write_block(make_block(turn.cell, turn.round), folder)
        journal.keep(folder, turn, 1.5, a_series(start))


def test_finished_blocks_are_there_once_when_a_run_goes_on(tmp_path: Path, make_block: Make) -> None:
    folder = tmp_path / "r.json.part"
    with open_journal(folder, BEGUN) as journal:
        assert not journal.resumed
        journal.keep_idle(a_series(0.0))
        keep(journal, Turn(1, CELLS[0]), make_block, start=20.0)
        keep(journal, Turn(0, CELLS[0]), make_block, start=10.0)
        with journal.unfinished() as half:
            write_block(make_block(CELLS[1], 0), half)
    with open_journal(folder, msgspec.structs.replace(BEGUN, created="later")) as journal:
        assert journal.resumed
        assert journal.begun.created == BEGUN.created
        journal.keep_idle(a_series(30.0))
        assert [(found.turn, found.seconds) for found in journal.finished] == [
            (Turn(0, CELLS[0]), 1.5),
            (Turn(1, CELLS[0]), 1.5),
        ]
        assert journal.has(Turn(1, CELLS[0]))
        assert not journal.has(Turn(2, CELLS[0]))
        assert not journal.has(Turn(0, CELLS[1]))
        blocks = journal.blocks(CELLS[0].key)
        assert [block.facts.round for block in blocks] == [0, 1]
        expected = make_block(CELLS[0], 1)
        np.testing.assert_array_equal(blocks[1].measured.wall["total"], expected.measured.wall["total"])
        assert blocks[1].facts == expected.facts
        series = journal.series()
        np.testing.assert_allclose(series.time, np.concatenate([s + np.arange(5) / 10 for s in (0, 10, 20, 30)]))
        np.testing.assert_array_equal(series.values["cpu"], np.tile(np.arange(5.0), 4))
        assert np.isnan(series.values["power"]).all()
        assert series.lacking == {"nvml": "there is none"}
        assert journal.idle() == [(0.0, 0.4), (30.0, 30.4)]
        journal.remove()
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["block.npz", "block.json", "telemetry.npz", "took.json", "cut"])
def test_a_damaged_block_is_measured_again(tmp_path: Path, make_block: Make, damage: str) -> None:
    folder = tmp_path / "r.json.part"
    with open_journal(folder, BEGUN) as journal:
        for number in range(2):
            keep(journal, Turn(number, CELLS[0]), make_block)
        (block,) = (found.folder for found in journal.finished if found.turn.round == 1)
    if damage == "cut":
        content = (block / "telemetry.npz").read_bytes()
        (block / "telemetry.npz").write_bytes(content[: len(content) // 2])
    else:
        (block / damage).unlink()
    with open_journal(folder, BEGUN) as journal:
        assert [found.turn.round for found in journal.finished] == [0]
        keep(journal, Turn(1, CELLS[0]), make_block)
        assert len(journal.blocks(CELLS[0].key)) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rounds": 4}, "of another plan (--rounds)"),
        ({"images": "/photos", "cells": PLAN.cells[:1]}, "of another plan (combinations, --images)"),
        ({"reference_sha256": "0" * 64}, "of another plan (the model of --reference)"),
        ({"images_sha256": "0" * 64}, "of another plan (the images of --images)"),
        ({"calibrate_sha256": "0" * 64}, "of another plan (the images of --calibrate)"),
    ],
)
def test_another_plan_does_not_go_on_with_it(
    tmp_path: Path, make_block: Make, changed: dict[str, Any], said: str
) -> None:
    folder = tmp_path / "r.json.part"
    with open_journal(folder, BEGUN) as journal:
        keep(journal, Turn(0, CELLS[0]), make_block)
    other = msgspec.structs.replace(BEGUN, plan=msgspec.structs.replace(PLAN, **changed))
    with pytest.raises(UsageError) as caught, open_journal(folder, other):
        pass
    assert "holds 1 of 6 blocks of an unfinished run" in str(caught.value)
    assert said in str(caught.value)
    assert "--fresh begins anew" in str(caught.value)
    with open_journal(folder, BEGUN) as journal:  # and what is there stays
        assert journal.has(Turn(0, CELLS[0]))
    with open_journal(folder, other, fresh=True) as journal:
        assert not journal.resumed
        assert not journal.finished


@pytest.mark.parametrize("field", Plan.__struct_fields__)
def test_whatever_of_a_plan_is_another_it_does_not_go_on(tmp_path: Path, field: str) -> None:
    folder = tmp_path / "r.json.part"
    with open_journal(folder, BEGUN):
        pass
    other = msgspec.structs.replace(BEGUN, plan=msgspec.structs.replace(PLAN, **{field: ()}))
    with pytest.raises(UsageError, match=r"of another plan \([^()]+\)"), open_journal(folder, other):
        pass


def test_another_machine_or_version_does_not_go_on_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "r.json.part"
    with open_journal(folder, BEGUN):
        pass
    other = msgspec.structs.replace(BEGUN, ground={"the processor": "B, 4 cores", "scipy": "1.0"})
    with pytest.raises(UsageError) as caught, open_journal(folder, other):
        pass
    assert "numpy was 2.0, is absent; scipy was absent, is 1.0; the processor was A, 2 cores, is B" in str(caught.value)


def test_two_runs_never_share_a_journal(tmp_path: Path) -> None:
    folder = tmp_path / "r.json.part"
    with open_journal(folder, BEGUN) as journal:
        with pytest.raises(UsageError, match="another gapcam bench measures into"), open_journal(folder, BEGUN):
            pass
        with (
            pytest.raises(UsageError, match="another gapcam bench measures into"),
            open_journal(folder, BEGUN, fresh=True),
        ):
            pass
        assert journal.files.is_dir()
    with open_journal(folder, BEGUN) as journal:
        assert journal.resumed


def test_nobody_elses_folder_is_touched(tmp_path: Path) -> None:
    folder = tmp_path / "r.json.part"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(DataError, match="is no journal"), open_journal(folder, BEGUN, fresh=fresh):
            pass
    assert (folder / "thesis.tex").read_text() == "years of work"
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(DataError, match="in the way"), open_journal(folder, BEGUN):
        pass


def test_a_journal_that_another_version_left_is_no_bug(tmp_path: Path) -> None:
    folder = tmp_path / "r.json.part"
    folder.mkdir()
    (folder / "begun.json").write_text("{}")
    with pytest.raises(UsageError, match="another version of gapcam"), open_journal(folder, BEGUN):
        pass
    whole = msgspec.json.encode(BEGUN)
    for content in (b"", whole[: len(whole) // 2], b"\xff" + whole):
        (folder / "begun.json").write_bytes(content)
        with pytest.raises(UsageError, match=r"begun\.json is damaged: .* Give --fresh"), open_journal(folder, BEGUN):
            pass
    with open_journal(folder, BEGUN, fresh=True) as journal:
        assert not journal.resumed


def test_without_a_place_the_journal_is_temporary(make_block: Make) -> None:
    with open_journal(None, BEGUN) as journal:
        keep(journal, Turn(0, CELLS[0]), make_block)
        folder = journal.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_the_servers_search_goes_on_from_what_earlier_rounds_have_found(make_block: Make) -> None:
    server, camera = (Cell(model="m.onnx", scenario=scenario) for scenario in ("server", "camera"))
    plan = msgspec.structs.replace(PLAN, cells=(PlannedCell(cell=server), PlannedCell(cell=camera)), reference="/ref")
    file = Prepared(file="/made.onnx")
    with open_journal(None, msgspec.structs.replace(BEGUN, plan=plan)) as journal:
        first = request_of(plan, journal, Turn(0, server), file)
        assert (first.file, first.reference, first.cell, first.round) == ("/made.onnx", "/ref", server, 0)
        assert (first.settings.rate, first.settings.bound_ms) == (None, None)
        for number, rate in enumerate((40.0, 50.0, None)):
            with journal.unfinished() as folder:
                write_block(make_block(server, number, rate=rate, bound_ms=20.0 + number), folder)
                journal.keep(folder, Turn(number, server), 1.0, a_series(number * 10.0))
        later = request_of(plan, journal, Turn(3, server), file)
        assert (later.settings.rate, later.settings.bound_ms) == (50.0, 20.0)
        for cell in (server, camera):  # other arrivals in each round, and the same ones again in the same round
            seeds = [request_of(plan, journal, Turn(number, cell), file).settings.seed for number in range(3)]
            assert len(set(seeds)) == 3
            assert request_of(plan, journal, Turn(1, cell), file).settings.seed == seeds[1]
        assert request_of(plan, journal, Turn(3, camera), file).settings.rate is None
        assert request_of(plan, journal, Turn(3, camera), file).limits == plan.limits
        assert later.limits == plan.limits.of("server") != plan.limits


def test_a_piece_of_telemetry_is_what_came_since(tmp_path: Path) -> None:
    piece = since(a_series(100.0), 3)
    write_series(piece, tmp_path / "t.npz")
    read = read_series(tmp_path / "t.npz")
    np.testing.assert_allclose(read.time, [100.3, 100.4])
    np.testing.assert_array_equal(read.values["cpu"], [3.0, 4.0])
    assert read.channels == piece.channels
    nothing = Series(time=np.empty(0), values={}, channels=(), lacking={"all": "no"})
    write_series(nothing, tmp_path / "n.npz")
    assert read_series(tmp_path / "n.npz").lacking == {"all": "no"}
