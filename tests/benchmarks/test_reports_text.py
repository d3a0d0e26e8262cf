"""A result in the terminal, as CSV and as Markdown: the figures are the result's, and hostile names do nothing."""

from __future__ import annotations

import csv
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from gapcam_bench.block import Parity
from gapcam_bench.cell import Cell
from gapcam_bench.cli.report import report_command
from gapcam_bench.reports.columns import figure_columns, identity_of, stages_of
from gapcam_bench.reports.csv_file import COLUMNS, csv_of
from gapcam_bench.reports.formats import a_second, from_to, half_width, milliseconds, plus_minus
from gapcam_bench.reports.html import page_of
from gapcam_bench.reports.markdown import markdown_of
from gapcam_bench.reports.table import show
from gapcam_bench.result import BenchResult, Energy, Row
from gapcam_bench.result_file import LoadedResult, write_result
from gapcam_bench.rows import TWO_PROCESSES

HOSTILE = "=cmd|' /C calc'!A0\r\n| a | <script>alert(1)</script> [x](http://evil.example) @all `b` \x1b[31m \u202e.onnx"


def shown(result: BenchResult, width: int) -> str:
    out = io.StringIO()
    show(result, Console(file=out, width=width, highlight=False, emoji=False))
    return out.getvalue()


def with_rows(result: BenchResult, *rows: Row) -> BenchResult:
    return msgspec.structs.replace(result, rows=rows)


def changed(row: Row, **changes: Any) -> Row:
    """The row with other fields, of itself or of its cell."""
    of_cell = {name: changes.pop(name) for name in Cell.__struct_fields__ if name in changes}
    return msgspec.structs.replace(row, cell=msgspec.structs.replace(row.cell, **of_cell), **changes)


def hostile(result: BenchResult) -> BenchResult:
    """A result of which all that can come from elsewhere is hostile."""
    rows = (
        changed(result.rows[0], model=HOSTILE, reasons=(HOSTILE,), notes=(HOSTILE,), status="invalid", engine=HOSTILE),
        changed(result.rows[1], subject=HOSTILE, device=HOSTILE),
    )
    return msgspec.structs.replace(
        result, command=HOSTILE, created=HOSTILE, lacking={HOSTILE: HOSTILE}, rows=rows, complete=False
    )


def figures_in(row: Row) -> set[str]:
    """What a table must show of a row."""
    total, scenario = row.wall["total"], row.scenario
    assert scenario is not None
    texts = {milliseconds(total.p50_ms), milliseconds(total.p99_ms), a_second(scenario.frames_a_second)}
    texts |= {milliseconds(row.wall[stage].p50_ms) for stage in stages_of([row])}
    return texts | (set() if row.price is None else {f"{row.price.inference:.3f}x"})


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.012"), (1.2345, "1.234"), (12.345, "12.35"), (123.45, "123.5"), (-0.5, "-0.500")]
)
def test_milliseconds_have_the_more_digits_the_shorter_they_are(value: float, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(("interval", "reach"), [((9.0, 10.5), 1.0), ((9.5, 12.0), 2.0), ((10.0, 10.0), 0.0)])
def test_an_interval_is_shown_by_its_wider_side(interval: tuple[float, float], reach: float) -> None:
    assert half_width(10.0, interval) == reach


@pytest.mark.parametrize(
    ("value", "interval", "shown", "both"),
    [
        (10.0, (9.0, 10.5), "1.000", "[9.000, 10.50]"),
        (10.0, (5.0, 20.0), "10.00", "[5.000, 20.00]"),
        (10.0, (9.0, 20.1), "> 2x", "[> 2x]"),
        (10.0, (4.9, 10.1), "> 2x", "[> 2x]"),
        (15.09, (0.0, 1e8), "> 2x", "[> 2x]"),
        (0.0, (0.0, 0.0), "0.000", "[0.000, 0.000]"),
        (10.0, None, "", ""),
    ],
)
def test_an_interval_that_says_nothing_is_not_shown_by_its_ends(
    value: float, interval: tuple[float, float] | None, shown: str, both: str
) -> None:
    assert plus_minus(value, interval) == shown
    assert from_to(value, interval) == both


def with_interval(row: Row, interval: tuple[float, float] | None, **more: Any) -> Row:
    """The row with another confidence interval of each total."""
    total = msgspec.structs.replace(row.wall["total"], p50_ms=10.0, p50_ci_ms=interval, p99_ci_ms=interval)
    return changed(row, wall={**row.wall, "total": total}, **more)


def test_every_form_says_of_a_wide_interval_and_of_one_process_that_it_is(real: LoadedResult) -> None:
    row = real.result.rows[0]
    wide, one, none = (
        with_interval(row, (0.001, 1e8)),
        with_interval(row, (9.75, 10.25), blocks=1),
        with_interval(row, None, blocks=1),
    )
    of_all = with_rows(real.result, wide, one, none)
    columns = {column.title: column for column in figure_columns(of_all.rows)}
    assert [columns["± ms"].text(each) for each in of_all.rows] == ["> 2x", "0.250 ?", ""]
    assert "> 2x" in shown(of_all, 120)
    assert "0.250 ?" in shown(of_all, 120)
    assert "&#62; 2x" in markdown_of(of_all)
    assert "0.250 ?" in markdown_of(of_all)
    page = page_of(of_all, {})
    assert "[&gt; 2x]" in page
    assert "[9.750, 10.25]" in page
    assert "100000000" not in "".join((page, shown(of_all, 200), markdown_of(of_all)))
    totals = [line for line in csv.DictReader(io.StringIO(csv_of(of_all), newline="")) if line["stage"] == "total"]
    names = ("p50_ci_low_ms", "p50_ci_high_ms", "p99_ci_low_ms", "p99_ci_high_ms", "metric")
    assert [[line[name] for name in names[:-1]] for line in totals] == [
        ["0.001", "100000000.0"] * 2,
        ["9.75", "10.25"] * 2,
        [""] * 4,
    ]
    assert {line["metric"] for line in totals} == {"p90 of the latency"}, "no cell is missing before it"


def test_no_report_of_two_processes_has_an_interval_and_each_says_why(real: LoadedResult) -> None:
    assert {row.blocks for row in real.result.rows} == {2}
    page = page_of(real.result, real.needed_arrays())
    assert 'class="interval"></span>' in page
    assert 'class="interval">[' not in page
    for text in (shown(real.result, 200), markdown_of(real.result), html.unescape(page)):
        assert TWO_PROCESSES in text
        assert "± ms" not in text
    for line in csv.DictReader(io.StringIO(csv_of(real.result), newline="")):
        assert [line[f"{name}_ci_{end}_ms"] for name in ("p50", "p99") for end in ("low", "high")] == [""] * 4


def test_a_price_with_a_wide_interval_is_not_shown_by_its_ends(real: LoadedResult) -> None:
    row = next(row for row in real.result.rows if row.price is not None)
    price = msgspec.structs.replace(row.price, inference=1.5, inference_ci=(1e-3, 1e6), doubts=("it is wide",))
    (text,) = [column.text(changed(row, price=price)) for column in figure_columns([row]) if "price" in column.title]
    assert text == "1.500x ± > 2x ?"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_has_every_rows_figures_and_no_line_is_wider_than_the_terminal(
    real: LoadedResult, width: int
) -> None:
    text = shown(real.result, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    words = set(text.replace(",", " ").split())
    for row in real.result.rows:
        assert figures_in(row) <= words
    assert real.result.machine.environment.cpu.split()[0] in words
    for name in real.result.lacking:
        assert name in text


def test_the_table_has_only_columns_in_which_rows_differ(real: LoadedResult) -> None:
    assert [column.title for column in identity_of(real.result.rows).varying] == ["emit"]
    heading = next(line for line in shown(real.result, 120).splitlines() if "p50 ms" in line)
    assert "emit" in heading
    assert "device" not in heading
    assert "mJ/frame" not in heading, "there is no power to read here; that is no column of zeros"


def test_power_that_was_read_is_a_column(real: LoadedResult) -> None:
    energy = Energy(millijoules_a_frame=123.4, above_idle=None, channels=("rapl/package-0",), watts=9.0, frames=10)
    row = changed(real.result.rows[0], energy=energy)
    assert "123.4" in shown(with_rows(real.result, row), 120)
    titles = [column.title for column in figure_columns([row])]
    assert "mJ/frame" in titles


def test_energies_of_different_channels_are_told_apart(real: LoadedResult) -> None:
    of_card = Energy(
        millijoules_a_frame=9.0, above_idle=None, channels=("rapl/package-0", "nvml0/energy"), watts=9.0, frames=10
    )
    of_processor = msgspec.structs.replace(of_card, channels=("rapl/package-0",))
    first, second, third = (changed(real.result.rows[0], energy=each) for each in (of_card, of_processor, None))
    mixed = with_rows(real.result, first, second, third)
    said = "mJ/frame is the energy of rapl/package-0, nvml0/energy; other rows' is that of other channels"
    assert said in " ".join(shown(mixed, 200).split())
    assert said in markdown_of(mixed)
    assert "other channels" not in shown(with_rows(real.result, first, first, third), 200)
    channels = [line["energy_channels"] for line in csv.DictReader(io.StringIO(csv_of(mixed), newline=""))]
    each = len(channels) // 3
    assert channels == ["rapl/package-0; nvml0/energy"] * each + ["rapl/package-0"] * each + [""] * each


def test_rows_that_are_not_valid_are_marked_with_the_reason(real: LoadedResult) -> None:
    invalid = changed(real.result.rows[0], status="invalid", reasons=("too noisy for words",))
    skipped = Row(id="x", cell=invalid.cell, status="skipped", reasons=("no such device",))
    for text in (
        shown(with_rows(real.result, invalid, skipped), 80),
        markdown_of(with_rows(real.result, invalid, skipped)),
    ):
        assert "INVALID: too noisy for words" in text
        assert "SKIPPED: no such device" in text


def test_rows_without_a_parity_check_are_marked(real: LoadedResult) -> None:
    unchecked = changed(real.result.rows[0], parity=None)
    wrong = Parity(
        against="m", pictures=4, top1=0.5, logits_error=0.7, map_correlation=None, holds=False, tolerance=0.1
    )
    text = shown(with_rows(real.result, unchecked, changed(real.result.rows[1], parity=wrong)), 100)
    assert "UNCHECKED: answers were not compared" in text
    assert "DIFFER from the reference backend's: logits differ by 0.7, may by 0.1" in text
    nan = msgspec.structs.replace(wrong, logits_error=1.79769313e308, map_error=1.79769313e308, map_correlation=0.0)
    for emit in ("plain", "features"):
        row = next(row for row in real.result.rows if row.cell.emit == emit)
        result = with_rows(real.result, changed(row, parity=nan, fidelity=nan))
        for form in (" ".join(shown(result, 200).split()), page_of(result, {}), markdown_of(result)):
            assert re.search("its logits, or the reference(&#39;|')s, are not finite", form)
            assert "e+308" not in form
    scaled = msgspec.structs.replace(wrong, logits_error=0.0, map_correlation=1.0, map_error=99.0)
    row = next(row for row in real.result.rows if row.cell.emit == "features")
    text = " ".join(shown(with_rows(real.result, changed(row, parity=scaled)), 200).split())
    assert "logits differ by 0, may by 0.1; maps correlate by 1 and differ by 99, root mean square" in text


def test_rows_that_are_not_valid_for_the_same_reason_share_a_line(real: LoadedResult) -> None:
    row = changed(real.result.rows[0], status="invalid", reasons=("too noisy",))
    assert re.search(r"1, 2, 3\s+INVALID: too noisy", shown(with_rows(real.result, row, row, row), 80))


def test_a_result_without_rows_is_shown(real: LoadedResult) -> None:
    empty = with_rows(real.result)
    assert "No row was measured." in shown(empty, 80)
    assert "No row was measured." in markdown_of(empty)
    assert csv_of(empty).count("\r\n") == 1


def test_nothing_in_a_name_is_a_command_to_the_terminal(real: LoadedResult) -> None:
    text = shown(hostile(real.result), 120)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b" in text


def test_the_csv_has_every_digit_of_every_stage_of_every_row(real: LoadedResult) -> None:
    text = csv_of(real.result)
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert all(None not in line and len(line) == len(COLUMNS) for line in lines)
    found = {(line["row"], line["stage"], line["clock"]): line for line in lines}
    assert len(found) == len(lines)
    for row in real.result.rows:
        for clock, by_stage in (("wall", row.wall), ("device", row.device)):
            for stage, figures in by_stage.items():
                line = found.pop((row.id, stage, clock))
                for name, value in msgspec.structs.asdict(figures).items():
                    if not name.endswith("_ci_ms"):
                        assert float(line[name]) == value
                assert line["model"] == row.cell.model
                assert line["emit"] == row.cell.emit
                assert (line["price_total_ratio"] == "") is (row.price is None)
                if row.price is not None:
                    assert float(line["price_inference_ratio"]) == row.price.inference
                assert row.scenario is not None
                assert float(line["metric_value"]) == row.scenario.value
                assert line["energy_mj_per_frame"] == "", "absent, not zero"
    assert not found


def test_every_line_of_the_csv_ends_as_rfc_4180_says_and_says_which_row_it_is_of(real: LoadedResult) -> None:
    text = csv_of(hostile(real.result))
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    assert "\r" not in text.replace("\r\n", "")
    assert len(text.splitlines()) == 1 + sum(len(row.wall) + len(row.device) for row in hostile(real.result).rows)


@pytest.mark.parametrize("begin", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_name_in_the_csv_is_a_formula(real: LoadedResult, begin: str) -> None:
    row = changed(real.result.rows[0], model=f"{begin}.onnx")
    cells = [cell for line in csv.reader(io.StringIO(csv_of(with_rows(real.result, row)), newline="")) for cell in line]
    assert f"'{begin}.onnx" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]


def test_a_row_that_was_skipped_is_in_the_csv(real: LoadedResult) -> None:
    skipped = Row(id="x", cell=real.result.rows[0].cell, status="skipped", reasons=("no such device",))
    (line,) = csv.DictReader(io.StringIO(csv_of(with_rows(real.result, skipped)), newline=""))
    assert (line["row"], line["status"], line["reasons"]) == ("x", "skipped", "no such device")
    assert line["p50_ms"] == ""


def table_lines(text: str) -> list[list[str]]:
    """The cells of all tables, without the lines below the headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r" \| ", line.strip("| ")) for line in lines if not set(line) <= set("|-: ")]


def test_the_markdown_has_every_rows_figures(real: LoadedResult) -> None:
    text = markdown_of(real.result)
    by_number: dict[str, set[str]] = {}
    for cells in table_lines(text):
        by_number.setdefault(cells[0], set()).update(word for cell in cells[1:] for word in cell.split())
    for number, row in enumerate(real.result.rows, 1):
        assert figures_in(row) <= by_number[str(number)]
    assert f"<code>{real.result.command}</code>" in text
    assert real.result.machine.environment.python in text


class Tags(HTMLParser):
    """Collects the tags of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.found.append(tag)


def test_no_name_in_the_markdown_is_markup(real: LoadedResult) -> None:
    text = markdown_of(hostile(real.result))
    tags = Tags()
    tags.feed(text)
    assert set(tags.found) == {"code"}
    columns = {len(cells) for cells in table_lines(text)}
    assert len(columns) == 2, "each of the two tables has lines of one length"
    assert not re.search(r"(?<!&)[@`\[\]]|(?<![\w;])#(?!\s|\d+;| \|)", text.replace("&#", "&"))


def test_the_command_prints_the_table_and_writes_the_files(real: LoadedResult, tmp_path: Path) -> None:
    wanted = {f"--{name}": tmp_path / f"result.{name}" for name in ("html", "csv", "markdown")}
    arguments = [str(each) for option in wanted.items() for each in option]
    done = CliRunner().invoke(report_command, [str(real.path), *arguments])
    assert done.exit_code == 0, done.output
    assert wanted["--csv"].read_bytes().decode() == csv_of(real.result)
    assert wanted["--markdown"].read_bytes().decode() == markdown_of(real.result)
    assert wanted["--html"].read_bytes().startswith(b"<!DOCTYPE html>")
    assert "p50 ms" in done.output


def test_the_command_writes_over_none_of_its_inputs_and_outputs(real: LoadedResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(real.result, real.arrays, path)
    before = path.read_bytes(), path.with_suffix(".npz").read_bytes()
    for arguments in (
        ["--csv", str(path)],
        ["--html", str(path.with_suffix(".npz"))],
        ["--csv", str(tmp_path / "a"), "--markdown", str(tmp_path / "a")],
        ["--html", str(tmp_path)],
    ):
        done = CliRunner().invoke(report_command, [str(path), *arguments])
        assert type(done.exception).__name__ == "DataError", arguments
    assert (path.read_bytes(), path.with_suffix(".npz").read_bytes()) == before
