"""What people may ask for, and what is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from gapcam import UsageError
from gapcam.camera.event_rules import EventRule
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.zones import Zone, rectangle
from gapcam.look import Look

DOOR = Zone("door", rectangle(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"topk": 0}, "topk is 0"),
        ({"topk": 2.5}, "topk is 2.5"),
        ({"every": 0}, "every is 0"),
        ({"every": "two"}, "every is 'two'"),
        ({"above": 1.5}, "above is 1.5"),
        ({"above": float("nan")}, "above is nan"),
        ({"above": "high"}, "above is 'high'"),
        ({"classes": "tabby"}, "classes is 'tabby'; give a list"),
        ({"only_classes": 5}, "only_classes is 5"),
        ({"smoothing_s": -1}, "smoothing_s is -1"),
        ({"smoothing_s": float("inf")}, "smoothing_s is inf"),
        ({"gap_s": 0}, "gap_s is 0"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"percentile": 0}, "percentile is 0"),
        ({"normalization": "mean"}, "give one of steady, minmax, max, fixed"),
        ({"normalization": "fixed"}, "wants limits"),
        ({"limits": (0, 1)}, "limits go with 'fixed'"),
        ({"normalization": "minmax", "limits": (0, 1)}, "'minmax' with limits"),
        ({"normalization": "fixed", "limits": (1, 0)}, "the lower first"),
        ({"look": Look(normalization="max")}, "give it to the settings"),
        ({"zones": (DOOR, DOOR)}, "2 zones are called 'door'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ExplainSettings(**wrong)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_and_numbers_of_other_types_are_taken() -> None:
    settings = ExplainSettings(topk=3.0, classes=["tabby", 5], rules=[EventRule("*")], zones=[DOOR])  # type: ignore[arg-type]
    assert settings == ExplainSettings(topk=3, classes=("tabby", 5), rules=(EventRule("*"),), zones=(DOOR,))
    assert hash(settings) == hash(ExplainSettings(topk=3, classes=("tabby", 5), rules=(EventRule("*"),), zones=(DOOR,)))


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ExplainSettings().every = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("normalization", "limits", "steady", "drawn"),
    [
        ("steady", None, True, Look("hot")),
        ("max", None, False, Look("hot", normalization="max")),
        ("fixed", (1, 2), False, Look("hot", normalization="fixed", limits=(1, 2))),
    ],
)
def test_the_normalization_is_that_of_the_look(
    normalization: str, limits: tuple[float, float] | None, steady: bool, drawn: Look
) -> None:
    settings = ExplainSettings(normalization=normalization, limits=limits, look=Look("hot"))  # type: ignore[arg-type]
    assert (settings.steady, settings.drawn) == (steady, drawn)
