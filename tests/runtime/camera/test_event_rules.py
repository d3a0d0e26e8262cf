"""Rules as people write them, and when something that flickers counts as there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam import UsageError
from gapcam.camera.event_rules import EventRule, rule_from_text
from gapcam.camera.hysteresis import Hysteresis, HysteresisLimits
from gapcam.camera.option_text import split_options


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("tabby", EventRule("tabby")),
        ("*", EventRule("*")),
        ("281:stays=10,stays=60", EventRule("281", stay_s=(10, 60))),
        (
            "tabby:enter=0.6,leave=0.4,for=0.5,gone=2,stays=10",
            EventRule("tabby", enter=0.6, leave=0.4, enter_s=0.5, leave_s=2, stay_s=(10,)),
        ),
        (" Egyptian cat : enter = 0.6 , for = 0 ", EventRule("Egyptian cat", enter=0.6, enter_s=0)),
        ("drake: male, adult", EventRule("drake: male, adult")),
        ("drake: male, adult:enter=0.9", EventRule("drake: male, adult", enter=0.9)),
        ("a:b=c:", EventRule("a:b=c")),
    ],
)
def test_texts_of_the_command_line(text: str, rule: EventRule) -> None:
    assert rule_from_text(text) == rule


labels = st.text(st.sampled_from("ab 1,:=.*-"), min_size=1, max_size=12).map(str.strip).filter(bool)


@given(
    labels, st.lists(st.tuples(st.sampled_from(["enter", "for", "x"]), st.sampled_from(["0.5", "", "y z"])), max_size=3)
)
def test_any_label_can_be_written_with_options_or_with_none(label: str, options: list[tuple[str, str]]) -> None:
    text = f"{label}:{','.join('='.join(option) for option in options)}"
    assert split_options(text) == (label, options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no class"),
        (":enter=0.5", "names no class"),
        ("tabby:size=3", "option 'size'"),
        ("tabby:enter=0.5,enter=0.6", "twice"),
        ("tabby:enter=much", "'much'"),
        ("tabby:enter=0", "enter is 0.0"),
        ("tabby:enter=1.1", "enter is 1.1"),
        ("tabby:enter=nan", "enter is nan"),
        ("tabby:enter=0.5,leave=0.6", "leave is 0.6"),
        ("tabby:leave=0", "leave is 0.0"),
        ("tabby:for=-1", "counts as there is -1.0"),
        ("tabby:gone=inf", "counts as gone is inf"),
        ("tabby:stays=0", "stay is 0.0"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        rule_from_text(text)
    assert said in str(caught.value)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"enter": "much"}, {"enter": None}, {"leave": True}, {"stay_s": 10}, {"enter_s": "1"}]
)
def test_values_of_another_type_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        EventRule("tabby", **wrong)  # type: ignore[arg-type]


def test_stays_are_told_in_their_order() -> None:
    assert EventRule("tabby", stay_s=(8, 1, 8)).stay_s == (1, 8)


def test_a_class_leaves_below_60_percent_of_where_it_enters_unless_said_otherwise() -> None:
    assert EventRule("tabby", enter=0.2).limits.leave == pytest.approx(0.12)


# Where the value is high, between the thresholds, low.
steps = st.lists(
    st.tuples(st.sampled_from([0.01, 0.25, 0.5, 1.0]), st.sampled_from([0.9, 0.5, 0.4, 0.3, 0.1])),
    min_size=1,
    max_size=60,
)
limits = st.builds(
    HysteresisLimits,
    enter=st.just(0.5),
    leave=st.just(0.3),
    enter_s=st.sampled_from([0.0, 0.5, 1.0]),
    leave_s=st.sampled_from([0.0, 0.5, 2.0]),
)


def by_definition(rows: list[tuple[float, float]], limits: HysteresisLimits) -> list[tuple[float, str, float]]:
    """Enters and leaves of (at, value) rows, each found by looking back over all rows: (at, what, seconds)."""
    found: list[tuple[float, str, float]] = []
    begun, entered = 0, None  # the row after the last leaving; the row of the first high value of what is there
    for i, (at, _) in enumerate(rows):
        if entered is None:
            j = i + 1
            while j > begun and rows[j - 1][1] >= limits.enter:
                j -= 1
            if j <= i and at - rows[j][0] >= limits.enter_s - 1e-6:
                entered = j
                found.append((at, "enters", at - rows[j][0]))
        else:
            last = max(k for k in range(entered, i + 1) if rows[k][1] >= limits.leave)
            if last < i and at - rows[last + 1][0] >= limits.leave_s - 1e-6:
                found.append((at, "leaves", rows[last][0] - rows[entered][0]))
                begun, entered = i + 1, None
    return found


@given(steps, limits)
def test_it_is_there_and_gone_as_the_definition_says(
    steps: list[tuple[float, float]], limits: HysteresisLimits
) -> None:
    rows, at = [], 100.0
    for dt, value in steps:
        at += dt
        rows.append((at, value))
    thing, found = Hysteresis(limits), []
    for at, value in rows:
        if thing.update(value, at):
            found.append((at, "enters" if thing.inside else "leaves", thing.seconds))
        assert not (thing.inside and thing.pending)
    expected = by_definition(rows, limits)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])
    assert [kind for _, kind, _ in found] == ["enters", "leaves"] * (len(found) // 2) + ["enters"] * (len(found) % 2)
    assert thing.inside == bool(len(found) % 2)


@given(st.lists(st.floats(0.3, 0.4999), max_size=50), st.booleans())
def test_a_value_that_chatters_between_the_thresholds_changes_nothing(values: list[float], inside: bool) -> None:
    thing = Hysteresis(HysteresisLimits(0.5, 0.3, 0, 0))
    if inside:
        assert thing.update(0.9, 0.0)
    assert not any(thing.update(value, number / 30) for number, value in enumerate(values, 1))
    assert thing.inside is inside


def test_a_tenth_of_a_second_ten_times_is_a_second() -> None:
    thing, at = Hysteresis(HysteresisLimits(0.5, 0.3, 1.0, 1.0)), 0.0
    changes = []
    for _ in range(11):
        changes.append(thing.update(0.9, at))
        at += 0.1  # 0.9999999999999999 after ten
    assert changes == [False] * 10 + [True]
