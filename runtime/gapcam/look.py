"""How a map looks over a frame."""

from __future__ import annotations

from dataclasses import dataclass

from gapcam.cam import Normalization, check_normalization
from gapcam.overlay import check_alpha, color_table


@dataclass(frozen=True, slots=True)
class Look:
    """What `gapcam.Result.overlay` takes of this name, checked.

    Attributes:
        colormap: one of `gapcam.overlay.COLORMAPS`.
        alpha: of the map, in [0, 1].
        alpha_by_heat: alpha times the heat, pixel by pixel.
        normalization: see `gapcam.cam.normalize`.
        limits: (low, high) in the logits' unit, with "fixed".

    Raises:
        UsageError: a wrong colour map, alpha, normalization or limits.
    """

    colormap: str = "jet"
    alpha: float = 0.5
    alpha_by_heat: bool = False
    normalization: Normalization = "minmax"
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        # Keys, whatever they were handed in as.
        object.__setattr__(self, "alpha", check_alpha(self.alpha))
        object.__setattr__(self, "alpha_by_heat", bool(self.alpha_by_heat))
        color_table(self.colormap)
        check_normalization(self.normalization, self.limits)
        if self.limits is not None:
            low, high = self.limits
            object.__setattr__(self, "limits", (float(low), float(high)))
