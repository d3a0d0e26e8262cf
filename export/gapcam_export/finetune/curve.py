"""Draws the learning curve."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gapcam_export.finetune.history import Epoch


def draw_learning_curve(epochs: Sequence[Epoch], best: int) -> bytes:
    """Loss and top-1 accuracy of training and validation by epoch, as a PNG.

    Args:
        epochs: in their order, one or more.
        best: index of the one whose weights were kept; it gets a ring.
    """
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # needs no screen, and leaves pyplot's state to others
    numbers = [epoch.epoch for epoch in epochs]
    frozen = sum(epoch.frozen for epoch in epochs)
    for axes, name, title, scale in zip(
        figure.subplots(1, 2), ("loss", "top1"), ("cross-entropy (nats)", "top-1 accuracy (%)"), (1, 100), strict=True
    ):
        for part, label in (("train", "training (augmented)"), ("val", "validation")):
            values = [scale * getattr(epoch, f"{part}_{name}") for epoch in epochs]
            (line,) = axes.plot(numbers, values, marker=".", label=label)
        ring = {"marker": "o", "markersize": 10, "fillstyle": "none", "linestyle": "", "color": line.get_color()}
        axes.plot(numbers[best], values[best], label=f"best, epoch {numbers[best]}", **ring)
        if 0 < frozen < len(epochs):
            axes.axvline(frozen + 0.5, color="grey", linestyle="--", label="backbone unfrozen")
        axes.set_xlabel("epoch")
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
