"""The page: all rows are in it, it asks for nothing, hostile names do nothing, and the plots are what they say."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from gapcam_bench.block import Parity
from gapcam_bench.cell import Cell
from gapcam_bench.reports.formats import from_to, milliseconds
from gapcam_bench.reports.html import page_of
from gapcam_bench.reports.plots.pareto import Point, front_of
from gapcam_bench.reports.plots.plot import Shown
from gapcam_bench.result import BenchResult, Row
from gapcam_bench.result_file import LoadedResult
from gapcam_bench.scenarios.measured import Trial
from gapcam_bench.telemetry.reading import Channel

HOSTILE = (
    "</style></svg><script>alert(1)</script><img src=x onerror=alert(1)> $\\frac{a}$ \x1b[31m \ufffe 日本 &amp;.onnx"
)
VOID = {"meta", "link", "br", "img", "hr", "input"}
HEADINGS = ("Latency of every sample", "Where the time goes", "Samples over time", "The machine meanwhile")


class Page(HTMLParser):
    """A page that was parsed: tags must nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def changed(row: Row, **changes: Any) -> Row:
    """The row with other fields, of itself or of its cell; it keeps its id, by which its arrays are found."""
    of_cell = {name: changes.pop(name) for name in Cell.__struct_fields__ if name in changes}
    return msgspec.structs.replace(row, cell=msgspec.structs.replace(row.cell, **of_cell), **changes)


def with_rows(result: BenchResult, *rows: Row) -> BenchResult:
    return msgspec.structs.replace(result, rows=rows)


@pytest.fixture(scope="module")
def page(real: LoadedResult) -> str:
    """That `gapcam bench` itself has written."""
    return real.path.with_suffix(".html").read_text(encoding="utf-8")


def test_the_page_has_every_rows_figures(real: LoadedResult, page: str) -> None:
    words = "\n".join(Page(page).text)
    assert len(real.result.rows) == 3
    for row in real.result.rows:
        for figures in row.wall.values():
            for value in (figures.p50_ms, figures.p99_ms, figures.max_ms, figures.mean_ms):
                assert milliseconds(value) in words
            assert from_to(figures.p99_ms, figures.p99_ci_ms) in words
        assert row.engine is not None
        assert row.engine in words
    assert real.result.samples is not None
    assert real.result.samples.sha256 in words


def test_every_plot_that_can_be_drawn_is_there_with_words_for_who_does_not_see_it(page: str) -> None:
    parsed = Page(page)
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    for heading in HEADINGS:
        assert heading in headings
    drawings = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert len(drawings) == 2 * len(HEADINGS), "each in two sizes"
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert attributes["aria-labelledby"] in ids


def test_the_page_asks_for_nothing_and_forbids_everything_but_its_own_style(page: str) -> None:
    parsed = Page(page)
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "image", "base", "form", "animate")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "style", "action")
            if "href" in name:
                assert value is not None
                assert value.startswith("#")
    assert "://" not in page
    assert "@import" not in page
    assert set(re.findall(r"url\(([^)]{1,2})", page)) <= {"#" + letter for letter in "abcdefghijklmnopqrstuvwxyz"}
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    told = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policies = [a["content"] for tag, a in parsed.tags if tag == "meta" and "content-security-policy" in str(a).lower()]
    assert policies == [f"default-src 'none'; style-src 'sha256-{told}'; base-uri 'none'; form-action 'none'"]


def test_what_the_drawings_refer_to_is_there(page: str) -> None:
    parsed = Page(page)
    ids = {attributes.get("id") for _, attributes in parsed.tags}
    wanted = set(re.findall(r"url\(#([^)]+)\)", page))
    wanted |= {str(a["href"])[1:] for _, a in parsed.tags if "href" in a}
    assert wanted
    assert wanted <= ids
    used = {name for _, a in parsed.tags for name in (a.get("class") or "").split() if re.fullmatch(r"p\d+", name)}
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert used == set(re.findall(r"^\.(p\d+) ", style, re.MULTILINE))
    variables = set(re.findall(r"var\(--([\w-]+)\)", style))
    assert variables <= set(re.findall(r"--([\w-]+):", style))


def test_the_drawings_colours_are_the_pages(page: str) -> None:
    """A colour that is no variable would be unreadable on one of the two grounds."""
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    rules = re.findall(r"^\.p\d+ \{(.*)\}$", style, re.MULTILINE)
    assert rules
    for rule in rules:
        for colour in re.findall(r"(?:fill|stroke): ([^;]+)", rule):
            assert colour.strip() == "none" or colour.startswith("var(--"), rule


def test_a_rows_number_leads_into_its_details(real: LoadedResult, page: str) -> None:
    """To something inside: browsers open closed details for what is in them, not for themselves."""
    tags = Page(page).tags
    assert [attributes for tag, attributes in tags if tag == "details"] == [{}] * len(real.result.rows)
    inside = re.findall(r'<details>\n<summary>.*</summary>\n<div class="inside" id="([^"]+)">', page)
    targets = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert targets == [f"#{target}" for target in inside]


def test_the_same_result_gives_the_same_page(real: LoadedResult, page: str) -> None:
    assert page_of(real.result, real.arrays) == page


def test_hostile_names_are_text(real: LoadedResult) -> None:
    channel = Channel(name=HOSTILE, quantity="power", source="rapl")
    time = real.arrays["telemetry/time"]
    result = msgspec.structs.replace(
        real.result,
        command=HOSTILE,
        created=HOSTILE,
        lacking={HOSTILE: HOSTILE},
        channels=(*real.result.channels, channel),
        rows=(
            changed(real.result.rows[0], model=HOSTILE, reasons=(HOSTILE,), notes=(HOSTILE,), status="invalid"),
            changed(real.result.rows[1], subject=HOSTILE, device=HOSTILE, engine=HOSTILE, providers={HOSTILE: 1}),
        ),
    )
    text = page_of(result, {**real.arrays, f"telemetry/value/{HOSTILE}": np.ones(len(time))})
    parsed = Page(text)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img"})
    assert "\x1b" not in text
    assert "<script>alert(1)</script>" in "".join(parsed.text), "it is there to be read"


def test_without_samples_the_page_says_which_plots_need_them(real: LoadedResult) -> None:
    text = page_of(real.result, {}, "result.npz, the raw samples of result.json, is not there")
    words = "".join(Page(text).text)
    assert "result.npz, the raw samples of result.json, is not there" in words
    for heading in ("Latency of every sample", "Samples over time", "The machine meanwhile"):
        assert f"{heading}: needs the raw samples" in words
    assert f">{HEADINGS[1]}</h2>" in text, "stages are in the JSON"


def test_one_row_and_forty_rows_are_a_page(real: LoadedResult) -> None:
    one = page_of(with_rows(real.result, real.result.rows[1]), real.arrays)
    assert Page(one).tags.count(("details", {"open": None})) == 1
    base = real.result.rows[1]
    rows = [changed(base, id=f"r{n}", batch=n + 1) for n in range(40)]
    arrays = {
        name.replace(base.id, row.id): values
        for row in rows
        for name, values in real.arrays.items()
        if name.startswith(f"{base.id}/")
    }
    words = "".join(Page(page_of(with_rows(real.result, *rows), arrays)).text)
    for row in rows:
        assert f"batch {row.cell.batch}" in words


def test_rows_with_one_sample_or_all_the_same_are_drawn(real: LoadedResult) -> None:
    row = real.result.rows[0]
    for samples in (np.array([5_000_000]), np.full(50, 5_000_000)):
        arrays: Mapping[str, NDArray[Any]] = {
            f"{row.id}/wall/total": samples,
            f"{row.id}/at": np.arange(len(samples)),
            f"{row.id}/block": np.zeros(len(samples), np.int32),
        }
        assert HEADINGS[0] in page_of(with_rows(real.result, row), arrays)


def test_telemetry_with_gaps_is_drawn_and_what_never_answered_is_not(real: LoadedResult) -> None:
    channels = [Channel(name=f"cpu{n}/clock", quantity="clock", source="cpufreq") for n in range(9)]
    channels += [
        Channel(name="rapl/package-0", quantity="energy", source="rapl", counts=True),
        Channel(name="dead", quantity="temperature", source="thermal"),
        Channel(name="throttle", quantity="throttle", source="thermal", counts=True),
    ]
    time = 1.7e9 + np.arange(0, 60, 0.1)
    arrays = {f"telemetry/value/{each.name}": np.full(len(time), 3000.0) for each in channels}
    for values in arrays.values():
        values[100:300] = np.nan
    arrays["telemetry/value/rapl/package-0"] = 12.5 * (time - time[0])
    arrays["telemetry/value/dead"] = np.full(len(time), np.nan)
    result = msgspec.structs.replace(real.result, channels=tuple(channels))
    words = "".join(Page(page_of(result, {**arrays, "telemetry/time": time})).text)
    assert "rapl/package-0 from 12.5 to 12.5" in words, "12.5 J each second are 12.5 W"
    assert "median of 9" in words
    assert "dead" not in words


def test_the_servers_rates_are_drawn_from_what_was_tried(real: LoadedResult) -> None:
    row = real.result.rows[0]
    assert row.scenario is not None
    trials = (
        Trial(rate=100.0, p99_ms=3.25, queries=50, kept=True, certified=False),
        Trial(rate=200.0, p99_ms=44.5, queries=90, kept=False, certified=False),
        Trial(rate=400.0, p99_ms=float("inf"), queries=0, kept=False, certified=False),
    )
    scenario = msgspec.structs.replace(row.scenario, trials=trials, bound_ms=10.0, rate=100.0)
    row = msgspec.structs.replace(row, scenario=scenario)
    words = "".join(Page(page_of(with_rows(real.result, row), real.arrays)).text)
    assert "100.0/s 3.250 ms, 200.0/s 44.50 ms, over the bound" in words


def test_the_front_is_of_rows_that_no_other_row_beats(real: LoadedResult) -> None:
    """Against the definition, pair by pair."""
    random = np.random.default_rng(0)
    row = msgspec.structs.replace(real.result.rows[0], status="valid")
    for _ in range(50):
        points = [
            Point(Shown(n, row, "", ""), float(ms), float(fidelity))
            for n, (ms, fidelity) in enumerate(random.integers(0, 6, (8, 2)))
        ]
        front = front_of(points)
        for it in points:
            beaten = any(
                (other.ms < it.ms and other.fidelity >= it.fidelity)
                or (other.ms <= it.ms and other.fidelity > it.fidelity)
                for other in points
            )
            assert (it in front) is not beaten
        assert [it.ms for it in front] == sorted(it.ms for it in front)


def fidelity(correlation: float | None, *, holds: bool = True) -> Parity:
    return Parity(
        against="reference.onnx", pictures=4, top1=1.0, logits_error=0.1, map_correlation=correlation, holds=holds,
        tolerance=0.2,
    )  # fmt: skip


def test_a_row_that_does_not_count_is_on_no_front_and_says_why(real: LoadedResult) -> None:
    """The best of three in both, but noisy, or with other answers: the front is of the other two."""
    best, fast, good = (
        msgspec.structs.replace(row, status="valid", fidelity=fidelity(value))
        for row, value in zip((real.result.rows[1],) * 3, (0.99, 0.9, 0.95), strict=True)
    )
    points = [Point(Shown(n, row, "", ""), ms, row.fidelity.map_correlation) for n, (row, ms) in
              enumerate(((best, 1.0), (fast, 2.0), (good, 3.0)))]  # fmt: skip
    assert front_of(points) == points[:1]
    for change, mark in (
        ({"status": "invalid", "reasons": ("too noisy",)}, "INVALID"),
        ({"parity": fidelity(0.2, holds=False)}, "DIFFERS"),
    ):
        unreliable = msgspec.structs.replace(best, **change)
        assert front_of([Point(Shown(0, unreliable, "", ""), 1.0, 0.99), *points[1:]]) == points[1:]
        rows = [msgspec.structs.replace(row, id=f"{n:012x}") for n, row in enumerate((unreliable, fast, good))]
        text = "".join(Page(page_of(with_rows(real.result, *rows), {})).text)
        told = text[text.index("Median latency and least correlation") :].split("; ")
        assert mark in told[0]
        assert ["on the front" in of_row for of_row in told[:3]] == [False, False, True]  # all are as fast
        assert "none of them is on a front" in text


def test_fidelity_is_drawn_only_where_two_rows_that_do_the_same_have_it(real: LoadedResult) -> None:
    plain, first, second = real.result.rows
    two = changed(first, fidelity=fidelity(0.91)), changed(second, fidelity=fidelity(0.92))
    heading = ">Latency against fidelity</h2>"
    assert heading in page_of(with_rows(real.result, *two), {})
    assert "0.9200" in "".join(Page(page_of(with_rows(real.result, *two), {})).text)
    of_others = (
        second,
        changed(two[1], frame=(8, 8)),
        changed(two[1], threads=2),
        changed(two[1], work=()),
        changed(plain, fidelity=fidelity(0.9)),
    )
    for rows in (*((two[0], other) for other in of_others), (first, second)):
        text = page_of(with_rows(real.result, *rows), {})
        assert heading not in text
        assert "Latency against fidelity: needs two rows" in text
    by_class = changed(first, fidelity=fidelity(None)), changed(second, fidelity=fidelity(None))
    assert "share of pictures with the same best class" in page_of(with_rows(real.result, *by_class), {})


def test_a_result_without_rows_is_a_page(real: LoadedResult) -> None:
    for arrays in ({}, real.arrays):
        assert "No row was measured." in "".join(Page(page_of(with_rows(real.result), arrays)).text)
