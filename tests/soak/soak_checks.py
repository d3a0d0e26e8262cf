"""What a soak found, held against what may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

AGE_GROWTH = 1.10
MACHINE_SLOWER = 1.5
"""What is made up for at most where the machine got slower: beyond that a soak says nothing about growth."""
MEMORY_MB = 5.0
PAUSE_S = 2.0


@dataclass(frozen=True)
class Check:
    """One thing that must be so.

    Attributes:
        what: it is.
        found: a figure, or what was found, or why nothing can be said.
        limit: what it may be at most, in words.
        verdict: "PASS" or "FAIL"; "unknown" where it could not be seen, in a soak that was short or was cut short.
    """

    what: str
    found: str
    limit: str
    verdict: Literal["PASS", "FAIL", "unknown"]


@dataclass(frozen=True)
class Minute:
    """Of one cycle: how old frames were when they were handed over, milliseconds."""

    frames: int
    p50_ms: float
    p99_ms: float
    greatest_ms: float


def minute(ages_s: np.ndarray) -> Minute | None:
    """None where no frame came."""
    if not len(ages_s):
        return None
    p50, p99 = (float(value) * 1e3 for value in np.percentile(ages_s, (50, 99), method="inverted_cdf"))
    return Minute(len(ages_s), round(p50, 2), round(p99, 2), round(float(ages_s.max()) * 1e3, 2))


def at_most(what: str, found: float, limit: float, unit: str = "") -> Check:
    """A figure held against its limit, which it may reach."""
    return Check(what, f"{found:.4g}{unit}", f"at most {limit:g}{unit}", "PASS" if found <= limit else "FAIL")


def unknown(what: str, why: str, limit: float, unit: str = "") -> Check:
    """There is no figure."""
    return Check(what, why, f"at most {limit:g}{unit}", "unknown")


def at_least(what: str, found: float, limit: float) -> Check:
    """So many."""
    return Check(what, f"{found:g}", f"at least {limit:g}", "PASS" if found >= limit else "FAIL")


def nothing(what: str, found: Sequence[object]) -> Check:
    """An empty list."""
    return Check(what, ", ".join(map(str, found)) or "none", "none", "FAIL" if found else "PASS")


def growth(what: str, ages: Sequence[Minute | None], machine: Sequence[Minute | None], key: str) -> Check:
    """The last minute in units of the first; both had the same faults at the same times.

    Where the machine was slower in the last minute, by the median of a piece of work that has nothing to do with the
    pipeline, frames may be older by that factor, up to `MACHINE_SLOWER`: the check says so beside the plain ratio and
    its limit. Where it was faster, they need not be younger.
    """
    if len(ages) < 2:
        return unknown(what, "one minute has nothing to compare with; at least 2", AGE_GROWTH)
    first, last = ages[0], ages[-1]
    limit = f"at most {AGE_GROWTH:g}"
    if first is None or last is None:
        return Check(what, f"no frame came in the {'last' if first else 'first'} minute", limit, "FAIL")
    slower = slowdown(machine)
    allowed = AGE_GROWTH * min(slower, MACHINE_SLOWER)
    if slower > 1:
        limit += f"; {allowed:.3f} as the machine took {slower:.2f} times as long"
        limit += f", of which {MACHINE_SLOWER:g} counts" if slower > MACHINE_SLOWER else ""
    ratio = getattr(last, key) / getattr(first, key)
    return Check(what, f"{ratio:.3f}", limit, "PASS" if ratio <= allowed else "FAIL")


def slowdown(machine: Sequence[Minute | None]) -> float:
    """The yardstick's median of the last minute in units of the first, at least 1; 1 where it was not seen."""
    first, last = (machine[0], machine[-1]) if machine else (None, None)
    return max(1.0, last.p50_ms / first.p50_ms) if first and last else 1.0


def memory_growth(what: str, medians_mb: Sequence[float]) -> Check:
    """The last minute's median less the second's; in the first, what is kept for good is made."""
    if len(medians_mb) < 3:
        return unknown(
            what, "the first minute warms up, one more has nothing to compare with; at least 3", MEMORY_MB, " MB"
        )
    return at_most(what, round(medians_mb[-1] - medians_mb[1], 2), MEMORY_MB, " MB")


def in_a_line(checks: Sequence[Check]) -> str:
    """How it ended."""
    counts = Counter(check.verdict for check in checks)
    line = f"{'FAIL' if counts['FAIL'] else 'PASS'}: {counts['PASS']} of {len(checks)} checks passed"
    if counts["FAIL"]:
        line += f", {counts['FAIL']} failed ({'; '.join(check.what for check in checks if check.verdict == 'FAIL')})"
    if counts["unknown"]:
        silent = [check for check in checks if check.verdict == "unknown"]
        reasons = (
            f"{why} ({'; '.join(check.what for check in silent if check.found == why)})"
            for why in dict.fromkeys(check.found for check in silent)
        )
        line += f", {counts['unknown']} say nothing: {', '.join(reasons)}"
    return line


def unaccounted(rows: Sequence[Mapping[str, Any]], came: str, went: Sequence[str]) -> int:
    """Of sources or sinks: what came and neither went nor was dropped, failed or waits."""
    return sum(abs(row[came] - sum(row[key] for key in went)) for row in rows)


def as_rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    """Ready for JSON."""
    return [asdict(check) for check in checks]
