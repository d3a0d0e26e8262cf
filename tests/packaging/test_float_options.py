"""No option is NaN or infinite: NaN compares false with anything, so that a gate would let all through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import click

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("runtime", "export", "benchmarks")


def commands() -> Iterator[click.Command]:
    """Those of all modules that make any: of gapcam, and of what is started as `python -m`."""
    for folder in FOLDERS:
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            if "@click.command(" in file.read_text(encoding="utf-8"):
                parts = file.relative_to(REPOSITORY / folder).with_suffix("").parts
                module = import_module(".".join(parts).removesuffix(".__init__"))
                yield from {value for value in vars(module).values() if isinstance(value, click.Command)}


def test_no_option_of_any_command_takes_nan_or_infinity() -> None:
    found, taken = set(), []
    for command in commands():
        for option in command.params:
            types = option.type.types if isinstance(option.type, click.Tuple) else [option.type]
            for kind in types:
                if not isinstance(kind, click.types.FloatParamType):
                    continue
                found.add((command.name, option.name))
                for text in ("nan", "inf", "-inf", "1e400"):
                    with suppress(click.BadParameter):
                        taken.append((command.name, option.name, kind.convert(text, option, None)))
    assert taken == []
    assert {
        ("compare", "limit"),
        ("camera", "smooth"),
        ("bench", "seconds"),
        ("fidelity", "min_top1"),
        ("map-cost", "seconds"),
    } <= found


def test_no_help_shows_a_range_without_ends() -> None:
    for command in commands():
        assert "None" not in command.get_help(click.Context(command, info_name=command.name)), command.name
