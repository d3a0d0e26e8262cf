"""`gapcam doctor` for people: 80 columns, devices first, then what is wrong, then the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from gapcam.doctor.facts import Facts
from gapcam.doctor.findings import Device, Finding, Level
from gapcam.doctor.fits import text

_WIDTH = 80
_NAME, _LEVEL = 14, 9
"""Columns of a device's name and of a level."""


def report(facts: Facts, devices: Sequence[Device], findings: Sequence[Finding]) -> Iterator[str]:
    """The lines. A command is never wrapped, so that it can be copied."""
    platform = facts.platform
    where = "".join(
        [
            ", virtual environment" if platform.virtual else "",
            ", WSL" if platform.wsl else "",
            f", in a container ({platform.container})" if platform.container else "",
        ]
    )
    yield from _wrapped(
        f"gapcam {facts.gapcam} on {platform.name}, {platform.machine}, Python {text(platform.python)}{where}", "", ""
    )
    yield ""
    for device in devices:
        verdict = "works" if device.works else "no"
        yield from _wrapped(device.says, f"{device.name:<{_NAME}}{verdict:<7}", " " * (_NAME + 7))
    for finding in findings:
        if finding.level is not Level.OK:
            yield ""
            yield from _explained(finding)
    yield ""
    for finding in findings:
        if finding.level is Level.OK:
            yield from _wrapped(f"{finding.subject}: {finding.found}", f"{'ok':<{_LEVEL}}", " " * _LEVEL)


def _explained(finding: Finding) -> Iterator[str]:
    indent = " " * _LEVEL
    yield from _wrapped(f"{finding.subject}: {finding.found}", f"{finding.level.value:<{_LEVEL}}", indent)
    if finding.expected:
        yield from _wrapped(f"expected: {finding.expected}", indent, indent)
    if finding.command:
        yield f"{indent}{finding.command}"


def _wrapped(words: str, first: str, other: str) -> list[str]:
    return textwrap.wrap(
        words,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )
