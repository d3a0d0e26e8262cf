"""What a search for layers found, as tables for people."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from gapcam.cli.console import stdout
from gapcam_export.precision.search import Search

_LAYERS_SHOWN = 10


def print_search(found: Search) -> None:
    """Print the layers that hurt the maps most, where something had to be kept, and what was tried."""
    if found.ranking:
        shown = min(len(found.ranking), _LAYERS_SHOWN)
        ranking = Table(
            title=f"The {shown} layers whose quantisation hurts the map most (loss: 1 - correlation)",
            title_justify="left",
        )
        for heading in ("layer", "its weights"):
            ranking.add_column(heading, overflow="fold")
        for heading in ("loss", "box IoU", "kept"):
            ranking.add_column(heading, justify="right")
        for harm in found.ranking[:shown]:
            kept = "yes" if harm.layer in found.kept else ""
            ranking.add_row(
                Text(harm.layer), Text(harm.weights), f"{harm.map_loss:.1e}", f"{harm.fidelity.box_iou:.4f}", kept
            )
        stdout.print(ranking)
    tried = Table(title=f"Layers in float32 until the mean box IoU is {found.target:g}", title_justify="left")
    for heading in ("layers in float32", "box IoU", "correlation", "median, ms", "times as fast as float32", ""):
        tried.add_column(heading, justify="right")
    for step in found.steps:
        tried.add_row(
            str(len(step.kept)),
            f"{step.fidelity.box_iou:.4f}",
            f"{step.fidelity.map_pearson:.4f}",
            "" if step.median_ms is None else f"{step.median_ms:.2f}",
            "" if step.speedup is None else f"{step.speedup:.2f}",
            "chosen" if step.kept == found.kept else "",
        )
    stdout.print(tried)
