"""Two results of the same rows: what became slower or faster, and what only looks so.

A difference is real where two things hold, each by Welch's t test between processes:

1. by the clock: the row's time changed;
2. in yardsticks: the row's time in units of a fixed piece of work, which every process measured before
   (`gapcam_bench.statistics.yardstick`), changed in the same direction. The unit is of all rows that are compared:
   they were measured in turn, so that all found the same machine.

So a machine that is 8 % slower today makes no row slower, while a row that became slower on a machine that did not is
found. A difference must pass both tests, so its p is the greater of the two (an intersection-union test: Berger 1982),
and the p of all differences are adjusted together (Holm 1979): two runs of the same thing show any difference at all
with probability at most alpha. A row that is invalid because it is noisy is compared, too, and marked: the test between
processes knows the noise.

The yardstick that counts is the one that each process measured before it loaded its subject: what the subject leaves
behind, such as threads that go on working, slows the yardstick after it, and would excuse the subject's own slowness.
Where the two drift apart otherwise than they did, that is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from gapcam.errors import DataError, UsageError
from gapcam_bench.result import BenchResult, Row
from gapcam_bench.result_file import LoadedResult
from gapcam_bench.statistics.compared_times import Arrays, FloatArray, compared_times
from gapcam_bench.statistics.holm import holm
from gapcam_bench.statistics.ratio import LEAST_BLOCKS, Ratio, ratio_of_blocks, ratio_of_ratios
from gapcam_bench.statistics.same_device import device_differences, software_differences

LIMIT = 1.05
ALPHA = 0.05

Verdict: TypeAlias = Literal["faster", "slower", "no difference found", "cannot tell"]
Outcome: TypeAlias = Literal["passed", "failed", "cannot tell"]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One time of one row.

    Attributes:
        row: id of the row in the new result.
        time: which: "median of the total", "p99 of the age", "time a frame" and so on.
        old_ms: in milliseconds, the geometric mean of the blocks: of the medians, say, that each block had. Infinite
            (null in JSON) where no block has such a time.
        new_ms: likewise.
        ratio: new over old, by the clock: of these two.
        in_yardsticks: the same in units of the yardstick; None where it was not measured, or there are too few blocks.
        p: the greater of both, adjusted for the number of comparisons; None where nothing can be told.
        verdict: of it.
        why: of "cannot tell", of a difference that the machine explains, and of lost rates; else "".
        past_limit: whether it is slower, and both ratios are above the limit; or slower by blocks that were lost.
        lost: (old, new) of the server scenario: blocks in which no rate kept the bound. Where there are any, p is of
            their number.
    """

    row: str
    time: str
    old_ms: float
    new_ms: float
    ratio: Ratio
    in_yardsticks: Ratio | None
    p: float | None
    verdict: Verdict
    why: str
    past_limit: bool
    lost: tuple[int, int] = (0, 0)


class ComparedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that both results have.

    Attributes:
        old: its id in the old result.
        new: its id in the new one; another only where the model's file lies in another folder.
        blocks: (old, new) how many processes measured it.
        notes: what a reader should know: invalid, unchecked, another model's file, another engine; a phrase each.
        differences: by time; empty where one of them has no samples.
    """

    old: str
    new: str
    blocks: tuple[int, int]
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome.

    Attributes:
        limit: ratio above which a real difference fails.
        alpha: probability of any false difference.
        devices: what makes them two devices; empty for the same one.
        software: what else is not the same.
        yardstick: how much slower (above 1) the machine was in the new result; None where nothing is known.
        rows: that both have.
        only_old: ids of rows that only the old result has samples of.
        only_new: likewise.
        failed: ids of rows that failed in the new result, and that the old one measured.
        wrong: ids of rows that do not answer as the reference backend does in the new result, and were not known to do
            so in the old one.
        past_limit: how many differences are.
        outcome: "failed" where a difference is past the limit, or a row failed or is wrong; "cannot tell" where
            nothing can be told, or a server lost rates and it is not sure; else "passed".
        verdict: all of it in a sentence.
    """

    limit: float
    alpha: float
    devices: tuple[str, ...]
    software: tuple[str, ...]
    yardstick: Ratio | None
    rows: tuple[ComparedRow, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    failed: tuple[str, ...]
    wrong: tuple[str, ...]
    past_limit: int
    outcome: Outcome
    verdict: str


def compare(
    old: LoadedResult,
    new: LoadedResult,
    *,
    limit: float = LIMIT,
    alpha: float = ALPHA,
    allow_different_devices: bool = False,
) -> Comparison:
    """Compare two results row by row.

    Args:
        old: before.
        new: after.
        limit: at least 1: a real difference above it fails.
        alpha: in (0, 1): the probability of any false difference.
        allow_different_devices: compare what was measured on two devices, too.

    Raises:
        UsageError: the devices differ, or a number is out of its range.
        DataError: there are no raw samples, or no row is in both.
    """
    if not 1 <= limit < math.inf:
        raise UsageError(f"limit is {limit}; give a ratio of 1 or more, such as {LIMIT}")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}; give a probability between 0 and 1, such as {ALPHA}")
    old_arrays, new_arrays = (
        side.needed_arrays() if any(row.blocks for row in side.result.rows) else {} for side in (old, new)
    )
    devices = device_differences(old.result.machine, new.result.machine)
    if devices and not allow_different_devices:
        raise UsageError(
            f"the results are of different devices: {'; '.join(devices)}. A ratio between them compares the devices. "
            "Measure both on one, or say --allow-different-devices."
        )
    pairs = matched_rows(old.result, new.result)
    failed = _failed(old.result, new.result)
    if not pairs and not failed:
        raise DataError("no row is in both results: they have no combination in common; measure the same rows.")
    units = tuple(
        _yardsticks([pair[side].id for pair in pairs], arrays) for side, arrays in enumerate((old_arrays, new_arrays))
    )
    machine = _machine(units, 1 - alpha)
    slower_machine = machine is not None and machine.ratio > limit and machine.p <= alpha
    bounds = old.result.settings.bound_ms, new.result.settings.bound_ms
    rows = [
        _compared(
            pair,
            old_arrays,
            new_arrays,
            units,
            1 - alpha,
            unlike=_other_load(*pair, bounds),
            slower_machine=slower_machine,
        )
        for pair in pairs
    ]
    rows = _judged(rows, limit, alpha)
    differences = [difference for row in rows for difference in row.differences]
    found = Comparison(
        limit=limit,
        alpha=alpha,
        devices=devices,
        software=software_differences(old.result.machine, new.result.machine),
        yardstick=machine,
        rows=tuple(rows),
        only_old=_only(old.result, [pair[0].id for pair in pairs]),
        only_new=_only(new.result, [pair[1].id for pair in pairs]),
        failed=failed,
        wrong=tuple(after.id for before, after in pairs if _is_wrong(after) and not _is_wrong(before)),
        past_limit=sum(each.past_limit for each in differences),
        outcome="passed",
        verdict="",
    )
    return msgspec.structs.replace(found, outcome=_outcome(found), verdict=_in_a_sentence(found))


def matched_rows(old: BenchResult, new: BenchResult) -> list[tuple[Row, Row]]:
    """Rows of the same combination that both have measured, in the new order.

    The model may lie in another folder, where its name says which row is meant.
    """
    return _matched([row for row in old.rows if row.blocks], [row for row in new.rows if row.blocks])


def _matched(old: Sequence[Row], after: Sequence[Row]) -> list[tuple[Row, Row]]:
    before = {row.id: row for row in old}
    ids = {row.id for row in after}
    named: dict[bytes, list[Row]] = {}
    for row in before.values():
        if row.id not in ids:
            named.setdefault(_without_folder(row), []).append(row)
    strangers = [_without_folder(row) for row in after if row.id not in before]
    pairs = []
    for row in after:
        name = _without_folder(row)
        if row.id in before:
            pairs.append((before[row.id], row))
        elif len(named.get(name, ())) == 1 and strangers.count(name) == 1:
            pairs.append((named[name][0], row))
    return pairs


def _failed(old: BenchResult, new: BenchResult) -> tuple[str, ...]:
    """Ids of rows that failed, also after some rounds, and did not before."""
    worked = [row for row in old.rows if row.blocks and row.status != "failed"]
    return tuple(after.id for _, after in _matched(worked, [row for row in new.rows if row.status == "failed"]))


def _is_wrong(row: Row) -> bool:
    return row.parity is not None and not row.parity.holds


def _without_folder(row: Row) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(row.cell, model=PurePath(row.cell.model).name))


def _only(result: BenchResult, matched: Sequence[str]) -> tuple[str, ...]:
    return tuple(row.id for row in result.rows if row.blocks and row.id not in matched)


def _compared(
    pair: tuple[Row, Row],
    old_arrays: Arrays,
    new_arrays: Arrays,
    units: Sequence[FloatArray],
    confidence: float,
    *,
    unlike: str,
    slower_machine: bool,
) -> ComparedRow:
    """With every difference's p as it is alone, and no verdict yet."""
    old, new = pair
    differences = []
    for time in compared_times(old, old_arrays, new, new_arrays, confidence):
        known = time.ratio.between_processes and min(len(unit) for unit in units) >= LEAST_BLOCKS
        known = known and not any(time.lost)
        scaled = ratio_of_ratios(time.new, time.old, units[1], units[0], confidence=confidence) if known else None
        why = unlike
        if any(time.lost) and not len(time.old) and not len(time.new):
            why = why or "no rate kept the bound in any block, neither in OLD nor in NEW"
        if not time.ratio.between_processes:
            why = why or (
                f"{old.blocks} and {new.blocks} blocks; at least {LEAST_BLOCKS} are needed to know how processes "
                "differ: measure more rounds"
            )
        if any(time.lost) and slower_machine:
            why = why or f"{_lost(time.lost, old.blocks, new.blocks)}, and the machine is slower, too"
        differences.append(
            Difference(
                row=new.id,
                time=time.name,
                old_ms=time.old_ms,
                new_ms=time.new_ms,
                ratio=time.ratio,
                in_yardsticks=scaled,
                p=None if why else _p_of_both(time.ratio, scaled),
                verdict="cannot tell" if why else "no difference found",
                why=why,
                past_limit=False,
                lost=time.lost,
            )
        )
    return ComparedRow(
        old=old.id,
        new=new.id,
        blocks=(old.blocks, new.blocks),
        notes=(*_notes(old, new), *_drift(old, old_arrays, new, new_arrays)),
        differences=tuple(differences),
    )


def _p_of_both(clock: Ratio, yardsticks: Ratio | None) -> float:
    if yardsticks is None:
        return clock.p
    if (clock.ratio > 1) != (yardsticks.ratio > 1):
        return 1.0
    return max(clock.p, yardsticks.p)


def _judged(rows: Sequence[ComparedRow], limit: float, alpha: float) -> list[ComparedRow]:
    """The rows with p adjusted over all their differences, and verdicts."""
    tested = [each for row in rows for each in row.differences if each.p is not None]
    adjusted = iter(holm([each.p for each in tested if each.p is not None]))
    clock_alone = iter(holm([each.ratio.p for each in tested]))
    judged = []
    for row in rows:
        differences = []
        for each in row.differences:
            if each.p is None:
                differences.append(each)
                continue
            p, p_of_clock = next(adjusted), next(clock_alone)
            differences.append(
                _with_verdict_of_lost(each, p, alpha, row.blocks)
                if any(each.lost)
                else _with_verdict(each, p, p_of_clock, limit, alpha)
            )
        judged.append(msgspec.structs.replace(row, differences=tuple(differences)))
    return judged


def _with_verdict(difference: Difference, p: float, p_of_clock: float, limit: float, alpha: float) -> Difference:
    ratios = [r.ratio for r in (difference.ratio, difference.in_yardsticks) if r is not None]
    verdict: Verdict = "no difference found"
    why = ""
    if p <= alpha:
        verdict = "slower" if difference.ratio.ratio > 1 else "faster"
    elif p_of_clock <= alpha:
        why = "the time changed, but no more than the machine: the yardstick changed, too, or varies as much"
    return msgspec.structs.replace(
        difference, p=p, verdict=verdict, why=why, past_limit=verdict == "slower" and min(ratios) > limit
    )


def _with_verdict_of_lost(difference: Difference, p: float, alpha: float, blocks: tuple[int, int]) -> Difference:
    """Of a difference in how many blocks no rate kept the bound."""
    old, new = (lost / count for lost, count in zip(difference.lost, blocks, strict=True))
    verdict: Verdict = "cannot tell" if p > alpha else "slower" if new > old else "faster"
    why = _lost(difference.lost, *blocks)
    return msgspec.structs.replace(difference, p=p, verdict=verdict, why=why, past_limit=verdict == "slower")


def _yardsticks(rows: Sequence[str], arrays: Arrays) -> FloatArray:
    """[rounds] the logarithm of the median yardstick, as a mean over the rows' blocks of that round; may be empty."""
    found: dict[int, list[float]] = {}
    for row in rows:
        for number, log in _yardstick_logs(row, arrays, "yardstick").items():
            found.setdefault(number, []).append(log)
    return np.array([np.mean(found[number]) for number in sorted(found)])


def _yardstick_logs(row: str, arrays: Arrays, name: str) -> dict[int, float]:
    """By round the logarithm of a block's median yardstick."""
    samples, owners = (arrays.get(f"{row}/{each}", np.empty(0)) for each in (name, f"{name}_block"))
    return {int(number): float(np.log(np.median(samples[owners == number]))) for number in np.unique(owners)}


def _drift(old: Row, old_arrays: Arrays, new: Row, new_arrays: Arrays) -> list[str]:
    """A note where the yardstick after a block tells otherwise of the machine than it did in OLD."""
    sides = []
    for row, arrays in ((old, old_arrays), (new, new_arrays)):
        before, after = (_yardstick_logs(row.id, arrays, name) for name in ("yardstick", "yardstick_after"))
        sides.append(np.array([after[number] - before[number] for number in sorted(before.keys() & after.keys())]))
    if min(len(side) for side in sides) < LEAST_BLOCKS:
        return []
    drift = ratio_of_blocks(sides[1], sides[0])
    if drift.p > ALPHA or 1 / LIMIT < drift.ratio < LIMIT:
        return []
    was, now = (float(np.exp(side.mean())) for side in sides)
    return [
        f"after the row was measured, the fixed piece of work took {now:.3g} times as long as before, in OLD {was:.3g} "
        "times: the machine changed meanwhile, or the program leaves threads that work. What counts is before"
    ]


def _machine(units: Sequence[FloatArray], confidence: float) -> Ratio | None:
    old, new = units
    if not len(old) or not len(new):
        return None
    return ratio_of_blocks(new, old, confidence=confidence, between_processes=min(len(old), len(new)) >= LEAST_BLOCKS)


def _other_load(old: Row, new: Row, bounds: tuple[float | None, float | None]) -> str:
    """Why two rows of the same combination were not asked for the same; "" where they were.

    Args:
        old: row.
        new: row.
        bounds: (old, new) in milliseconds that were asked for, of the server scenario; None for the machine's own.
    """
    if old.pictures is not None and new.pictures is not None and old.pictures != new.pictures:
        return f"other pictures: {old.pictures[:12]} and {new.pictures[:12]}; measure both with the same --images"
    if new.cell.scenario == "server" and bounds[0] != bounds[1]:
        was, now = ("four times a query" if bound is None else f"{bound:.4g} ms" for bound in bounds)
        return f"another bound was asked for: {was} and {now}"
    before, after = old.scenario, new.scenario
    if before is None or after is None:
        return ""
    if before.frames_per_sample != after.frames_per_sample:
        return f"queries of {before.frames_per_sample} and {after.frames_per_sample} frames"
    if new.cell.scenario == "camera" and before.rate != after.rate:
        return f"{_number(before.rate)} and {_number(after.rate)} frames a second arrived"
    return ""


def _notes(old: Row, new: Row) -> tuple[str, ...]:
    notes = []
    for name, row in (("OLD", old), ("NEW", new)):
        if row.status != "valid":
            notes.append(f"{name} is {row.status}: {'; '.join(row.reasons)}")
        if row.parity is None:
            notes.append(f"{name} was not checked against the reference backend")
        elif not row.parity.holds:
            notes.append(f"{name} does not answer as the reference backend does")
    if old.model is not None and new.model is not None:
        given = [model.source_sha256 for model in (old.model, new.model) if model.source_sha256 is not None]
        files = given if len(given) == 2 else [old.model.sha256, new.model.sha256]
        if files[0] != files[1]:
            notes.append(f"the model's file changed: {files[0][:12]} and {files[1][:12]}")
        if old.model.precision != new.model.precision:
            notes.append(f"the precision changed: {old.model.precision} and {new.model.precision}")
    for what, before, after in (
        ("the engine", old.engine, new.engine),
        ("the nodes' providers", old.providers, new.providers),
    ):
        if before != after:
            notes.append(f"{what} changed: {before} and {after}")
    if old.scenario is not None and new.scenario is not None:
        if old.scenario.generator != new.scenario.generator:
            notes.append(f"the load is generated by {old.scenario.generator} and {new.scenario.generator}")
        if new.cell.scenario == "server" and old.scenario.bound_ms != new.scenario.bound_ms:
            notes.append(f"the bound is {_number(old.scenario.bound_ms)} and {_number(new.scenario.bound_ms)} ms")
    return tuple(notes)


def _number(value: float | None) -> str:
    return "no" if value is None else f"{value:.4g}"


def _lost(lost: tuple[int, int], old: int, new: int) -> str:
    return f"no rate kept the bound in {lost[0]} of {old} blocks of OLD and {lost[1]} of {new} of NEW"


def _outcome(found: Comparison) -> Outcome:
    differences = [difference for row in found.rows for difference in row.differences]
    if found.past_limit or found.failed or found.wrong:
        return "failed"
    untold = [each for each in differences if each.verdict == "cannot tell"]
    if len(untold) == len(differences) or any(each.lost[1] > each.lost[0] for each in untold):
        return "cannot tell"
    return "passed"


def _in_a_sentence(found: Comparison) -> str:
    differences = [difference for row in found.rows for difference in row.differences]
    failed, only_old = set(found.failed), [each for each in found.only_old if each not in found.failed]
    said = [_told(differences, found.limit)]
    for count, what in (
        (len(failed), "FAILED in NEW, and OLD has measured {}"),
        (len(found.wrong), "WRONG in NEW, which does not answer as the reference backend does"),
        (len(only_old), "only in OLD"),
        (len(found.only_new), "only in NEW"),
    ):
        if count:
            rows, them = ("row is", "it") if count == 1 else ("rows are", "them")
            said.append(f"{count} {rows} {what.format(them)}.")
    return " ".join(said)


def _told(differences: Sequence[Difference], limit: float) -> str:
    counts = {
        verdict: sum(each.verdict == verdict for each in differences)
        for verdict in ("slower", "faster", "no difference found", "cannot tell")
    }
    past = [each for each in differences if each.past_limit]
    told = len(differences) - counts["cannot tell"]
    if not told:
        return f"NOTHING CAN BE TOLD of the {len(differences)} comparisons: see why."
    said = f"Of {told} comparisons {counts['slower']} are really slower and {counts['faster']} really faster"
    said += f"; of {counts['cannot tell']} more nothing can be told" if counts["cannot tell"] else ""
    if past:
        worst = max(past, key=lambda each: each.ratio.ratio)
        how = "with rates lost" if any(worst.lost) else f"{worst.ratio.ratio:.3f} times"
        return f"{said}. TOO SLOW: {len(past)} past the limit of {limit:g}, at worst {how}."
    return f"{said}; none is past the limit of {limit:g}."
