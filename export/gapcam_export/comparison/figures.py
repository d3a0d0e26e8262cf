"""The figures of a comparison as people read them: names, formats, and what each one means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of a report.

    Attributes:
        title: what it is.
        mean: name of the mean over the images, in `gapcam.contract.Fidelity`.
        worst: name of the worst image's, or "".
        form: format of both.
        meaning: in a sentence.
    """

    title: str
    mean: str
    worst: str
    form: str
    meaning: str

    def shown(self, figures: Mapping[str, Any]) -> tuple[str, str]:
        """The mean and the worst as text; a dash where there is none."""
        mean, worst = (figures[name] if name else "" for name in (self.mean, self.worst))
        return self._text(mean), self._text(worst)

    def _text(self, value: float | str | None) -> str:
        return value if isinstance(value, str) else "-" if value is None else format(value, self.form)


FIGURES = (
    Figure("top-1 agreement", "top1_agreement", "", ".2%", "images on which both find the same class best"),
    Figure("top-5 agreement", "top5_agreement", "", ".2%", "of A's five best classes, those among B's five best"),
    Figure(
        "logit error", "logit_error", "logit_error_max", ".3g", "greatest difference of logits over A's largest logit"
    ),
    Figure(
        "map correlation, Pearson", "map_pearson", "map_pearson_min", ".4f", "linear, of the maps of A's best class"
    ),
    Figure("map correlation, Spearman", "map_spearman", "", ".4f", "of the ranks of the maps' cells"),
    Figure("box IoU", "box_iou", "box_iou_min", ".4f", "of the boxes around both maps"),
    Figure("peak shift, pixels of A's input", "peak_shift_px", "", ".2f", "distance between the maps' maxima"),
)
