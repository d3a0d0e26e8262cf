"""What a terminal shows of a sweep: how far it is and how long it will take, whatever its width."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from gapcam_bench.cell import Cell
from gapcam_bench.sweep.display import SweepDisplay, differing_words

MODELS = ("efficientnet-lite0-of-the-year-before-last.onnx", "[bold]resnet[/bold].onnx")
CELLS = [
    Cell(model=model, precision=precision, emit=emit, work=("decode",) if emit == "plain" else ("decode", "overlay"))
    for model in MODELS
    for precision in ("as-is", "int8")
    for emit in ("plain", "features")
]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_count_and_time_left_are_whole_at_any_width(width: int) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, color_system=None)
    with SweepDisplay(CELLS, console) as display:
        for number, cell in enumerate(CELLS):
            display.begin(cell, 3, 1000 + number, 1600, 7500.0)
            display.phase("measuring", 0.25)
            display._bar.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", written.getvalue()).replace("\r", "\n")
    lines = [line for line in text.split("\n") if "left" in line]
    assert len(lines) >= len(CELLS)
    for line in lines:
        assert re.match(r"100[0-7]/1600 [━╸╺ ]{12} about 2 h 05 min left round 4", line), line
        assert len(line) <= width
    assert any("…" in line for line in lines)
    if width == 120:
        assert any(
            line.rstrip().endswith("round 4, [bold]resnet[/bold].onnx, int8, plain: measuring 25%") for line in lines
        )


def test_only_what_differs_is_said() -> None:
    assert differing_words(CELLS[-1], CELLS) == [MODELS[1], "int8", "features"]
    assert differing_words(CELLS[0], CELLS[:1]) == []
    alone = [Cell(model="m", work=work) for work in ((), ("overlay",))]
    assert [differing_words(cell, alone) for cell in alone] == [["map alone"], ["overlay"]]
    threads = [Cell(model="m", threads=count, batch=batch) for count in (None, 1, 2) for batch in (1, 8)]
    assert [", ".join(differing_words(cell, threads)) for cell in threads[::2]] == [
        "batch 1, all threads", "batch 1, 1 thread", "batch 1, 2 threads",
    ]  # fmt: skip
