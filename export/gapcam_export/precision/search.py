"""Buys back what INT8 lost: the layers that hurt the map most stay in float32 until the maps are good enough.

Each layer is quantised alone, and what that does to the maps is measured: that ranks the layers. Then the worst one,
two, four, ... are left in float32 in an otherwise quantised model until the boxes of its maps agree well enough with
those of the float32 model; the fewest that do are found by halving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gapcam.contract import Fidelity
from gapcam.errors import VerificationError
from gapcam.latency import Latency
from gapcam_export.progress import Progress

RANKING_IMAGES = 32
"""Images on which each layer is looked at: a correlation of maps needs fewer than a mean of boxes."""


@dataclass(frozen=True)
class LayerHarm:
    """What quantising one layer alone does.

    Attributes:
        layer: name of the node.
        weights: name of its weights.
        fidelity: of the float32 model with only this layer quantised, against the float32 model.
    """

    layer: str
    weights: str
    fidelity: Fidelity

    @property
    def map_loss(self) -> float:
        """1 - correlation of the maps, in [0, 2]."""
        return 1 - self.fidelity.map_pearson


@dataclass(frozen=True)
class SearchStep:
    """A model with the worst layers left in float32.

    Attributes:
        kept: those layers, the worst first.
        fidelity: of this model against the float32 model, on the calibration images.
        median_ms: of its inference on this machine, in milliseconds; None as long as nobody has measured it.
        speedup: how many times as fast as the float32 model that is, both measured in one run; None likewise.
    """

    kept: tuple[str, ...]
    fidelity: Fidelity
    median_ms: float | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class Search:
    """What the search did.

    Attributes:
        target: mean box IoU that was asked for.
        ranking: the layers, the one whose quantisation hurts the map most first; empty where nothing had to be kept.
        steps: the models that were tried, fewest kept layers first; the first has none.
        kept: the layers that stay in float32: those of the first step that meets the target.
    """

    target: float
    ranking: tuple[LayerHarm, ...]
    steps: tuple[SearchStep, ...]
    kept: tuple[str, ...]

    def with_latencies(self, float32: Latency, latencies: Sequence[Latency]) -> Search:
        """The same with the latency of each step, measured in one run with the float32 model's."""
        steps = (
            replace(step, median_ms=latency.median_ms, speedup=float32.ratio_to(latency))
            for step, latency in zip(self.steps, latencies, strict=True)
        )
        return replace(self, steps=tuple(steps))


def search_layers(
    layers: Mapping[str, str],
    measure_alone: Callable[[str], Fidelity],
    measure_kept: Callable[[tuple[str, ...]], Fidelity],
    target: float,
    progress: Progress,
) -> Search:
    """Find the fewest layers to leave in float32.

    Args:
        layers: names of those that can be quantised, and of their weights.
        measure_alone: the fidelity of the model in which only this layer is quantised.
        measure_kept: the fidelity of the model in which all but these layers are quantised.
        target: the least mean box IoU that will do, in (0, 1].
        progress: is called with what is being done, how many times it was done, and of how many at most.

    Returns:
        What was found. More kept layers mostly agree better, not always: what is returned was measured, but that no
        smaller number would do holds only as far as that is so.

    Raises:
        VerificationError: not even with all layers in float32 it is met.
    """
    tried = {0: SearchStep((), measure_kept(()))}
    if _meets(tried[0], target):
        return Search(target, (), (tried[0],), ())
    harms = []
    for count, (layer, weights) in enumerate(layers.items()):
        progress("quantising each layer alone", count, len(layers))
        harms.append(LayerHarm(layer, weights, measure_alone(layer)))
    harms.sort(key=lambda harm: harm.map_loss, reverse=True)
    ranked = tuple(harm.layer for harm in harms)

    def step(count: int) -> SearchStep:
        if count not in tried:
            progress("keeping the worst layers in float32", len(tried) - 1, 2 * len(ranked).bit_length())
            tried[count] = SearchStep(ranked[:count], measure_kept(ranked[:count]))
        return tried[count]

    fails, meets = 0, 1
    while meets < len(ranked) and not _meets(step(meets), target):
        fails, meets = meets, 2 * meets
    meets = min(meets, len(ranked))
    if not _meets(step(meets), target):
        best = max(tried.values(), key=lambda each: each.fidelity.box_iou)
        raise VerificationError(
            f"a mean box IoU of {target:g} with the float32 model cannot be had: with {len(best.kept)} of "
            f"{len(ranked)} layers in float32 it is {best.fidelity.box_iou:.3f}, the best that was found. Nothing was "
            "written. Ask for less, or calibrate on more images."
        )
    while meets - fails > 1:
        middle = (meets + fails) // 2
        if _meets(step(middle), target):
            meets = middle
        else:
            fails = middle
    return Search(target, tuple(harms), tuple(tried[count] for count in sorted(tried)), ranked[:meets])


def _meets(step: SearchStep, target: float) -> bool:
    return step.fidelity.box_iou >= target
