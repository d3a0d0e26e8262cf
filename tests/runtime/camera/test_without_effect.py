"""Options that change nothing, and numbers that are none, are refused before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from gapcam.camera.asked import asked_for
from gapcam.camera.cli import camera_command
from gapcam.camera.sinks.sink_kinds import CONCERNING
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.errors import UsageError

SOURCE = ("--source", "test://")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options_of(*arguments: str) -> dict[str, Any]:
    return camera_command.make_context("camera", ["model.onnx", *arguments]).params


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "NaN"])
@pytest.mark.parametrize(
    "option",
    [
        *("--duration", "--status-every", "--smooth", "--seek", "--give-up-after", "--stall", "--timeout", "--segment"),
        *("--rate", "--alpha", "--above", "--threshold", "--percentile"),
    ],
)
def test_numbers_are_finite(option: str, number: str) -> None:
    with pytest.raises(click.UsageError) as raised:
        options_of(*SOURCE, option, number)
    assert option in raised.value.format_message()


def test_limits_are_finite() -> None:
    with pytest.raises(click.UsageError, match="finite"):
        options_of(*SOURCE, "--limits", "0", "nan")


@pytest.mark.parametrize(("seconds", "taken"), [("0", 0), ("0.1", 0.1), ("7", 7)])
def test_the_status_has_a_shortest_round(seconds: str, taken: float) -> None:
    assert options_of(*SOURCE, "--status-every", seconds)["status_every"] == taken
    with pytest.raises(click.UsageError, match=r"1e-09 is too often; give 0 for never, or 0\.1 or more"):
        options_of(*SOURCE, "--status-every", "1e-9")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*SOURCE, "--origin", "https://a"], "--origin without a page"),
        ([*SOURCE, "--max-clients", "3"], "--max-clients without a page"),
        ([*SOURCE, "--keep", "3"], "--keep without a sink that it concerns"),
        ([*SOURCE, "--keep", "3", "--sink", "-"], "--keep without a sink that it concerns"),
        ([*SOURCE, "--overwrite"], "--overwrite without a sink"),
        ([*SOURCE, "--mqtt-password-file", "a"], "--mqtt-password-file without a sink"),
        ([*SOURCE, "--webhook-secret-file", "a", "--sink", "-#name=x"], "--webhook-secret-file without a"),
        ([*SOURCE, "--ca-file", "a", "--sink", "film.mp4"], "--ca-file without a sink"),
        ([*SOURCE, "--sink", "film.mp4#every=3"], "film.mp4 has no option 'every'; it has bare, keep, "),
        ([*SOURCE, "--sink", "photos/#segment=3"], "photos/ has no option 'segment'"),
        (["--source", "film.mp4#Rate=5"], "a source has no option 'Rate'"),
        (["--source", __file__, "--rate", "5", "--policy", "all"], "leave one of the two out"),
    ],
)
def test_what_would_change_nothing_is_refused(arguments: list[str], says: str) -> None:
    options = options_of(*arguments)
    with pytest.raises(UsageError) as raised:
        asked_for(options)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--serve", "127.0.0.1:0", "--origin", "https://example.org", "--max-clients", "3"),
        ("--keep", "3", "--sink", "film.mp4"),
        ("--keep", "3", "--sink", "-", "--sink", "photos/#every=3"),
        ("--overwrite", "--sink", "lines.jsonl"),
        ("--rate", "5", "--policy", "all"),  # the pattern's own times
    ],
)
def test_what_has_an_effect_is_taken(arguments: tuple[str, ...]) -> None:
    asked = asked_for(options_of(*SOURCE, *arguments))
    assert asked.server is None or asked.server.max_clients == 3


def test_each_sink_option_concerns_some_kind() -> None:
    assert frozenset.union(*CONCERNING.values()) == set(SinkOptions.__slots__)
