"""The search for layers to leave in float32: the fewest of the worst that make the maps good enough."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gapcam.contract import Fidelity
from gapcam.errors import VerificationError
from gapcam.latency import Latency
from gapcam_export.precision.search import Search, search_layers

LOSSES = {"stem": 0.004, "middle": 0.1, "wide": 0.02, "last": 0.3, "harmless": 0.0}
WEIGHTS = {layer: f"{layer}.weight" for layer in LOSSES}
RANKED = ("last", "middle", "wide", "stem", "harmless")


def fidelity(loss: float) -> Fidelity:
    """Of a model whose maps lose so much, in a world where what layers do adds up."""
    return Fidelity(
        images=1,
        top1_agreement=1,
        top5_agreement=1,
        logit_error=loss,
        logit_error_max=loss,
        map_pearson=1 - loss,
        map_pearson_min=1 - loss,
        map_spearman=1 - loss,
        box_iou=1 - loss,
        box_iou_min=1 - loss,
        peak_shift_px=0,
        threshold=0.2,
    )


def search(
    target: float, asked: list[tuple[str, ...]] | None = None, progress: Callable[..., None] | None = None
) -> Search:
    def kept(layers: tuple[str, ...]) -> Fidelity:
        if asked is not None:
            asked.append(layers)
        return fidelity(sum(loss for layer, loss in LOSSES.items() if layer not in layers))

    return search_layers(WEIGHTS, lambda layer: fidelity(LOSSES[layer]), kept, target, progress or (lambda *_: None))


@pytest.mark.parametrize(
    ("target", "count"), [(0.5, 0), (0.6, 1), (0.87, 1), (0.8761, 2), (0.97, 2), (0.9761, 3), (0.999, 4), (1.0, 4)]
)
def test_the_fewest_of_the_worst_layers_stay_in_float32(target: float, count: int) -> None:
    total = sum(LOSSES.values())
    enough = [n for n in range(6) if 1 - (total - sum(LOSSES[layer] for layer in RANKED[:n])) >= target - 1e-12]
    assert enough[0] == count  # the table is right
    found = search(target - 1e-12)
    assert found.kept == RANKED[:count]
    assert [len(step.kept) for step in found.steps] == sorted({len(step.kept) for step in found.steps})
    chosen = next(step for step in found.steps if step.kept == found.kept)
    assert chosen.fidelity.box_iou >= target - 1e-12
    assert all(step.fidelity.box_iou < target - 1e-12 for step in found.steps if len(step.kept) < count)


def test_layers_are_ranked_by_what_each_alone_does_to_the_map() -> None:
    found = search(0.9)
    assert tuple(harm.layer for harm in found.ranking) == RANKED
    assert [harm.weights for harm in found.ranking] == [WEIGHTS[layer] for layer in RANKED]
    assert [harm.map_loss for harm in found.ranking] == pytest.approx(sorted(LOSSES.values(), reverse=True))


def test_where_the_quantised_model_will_do_no_layer_is_looked_at() -> None:
    asked: list[tuple[str, ...]] = []
    found = search(0.4, asked)
    assert (found.ranking, found.kept, asked) == ((), (), [()])


def test_no_model_is_measured_twice() -> None:
    asked: list[tuple[str, ...]] = []
    search(0.999, asked)
    assert len(asked) == len(set(asked))


def test_what_cannot_be_had_is_refused_with_the_best_that_was_found() -> None:
    def never(layers: tuple[str, ...]) -> Fidelity:
        return fidelity(0.3 - 0.01 * len(layers))

    with pytest.raises(
        VerificationError, match=r"0\.9 .*with 5 of 5 layers in float32 it is 0\.750.*Nothing was written"
    ):
        search_layers(WEIGHTS, lambda layer: fidelity(LOSSES[layer]), never, 0.9, lambda *_: None)


def test_a_network_without_layers_that_could_be_kept_is_refused_too() -> None:
    with pytest.raises(VerificationError, match="0 of 0 layers"):
        search_layers({}, lambda _: fidelity(1), lambda _: fidelity(0.5), 0.9, lambda *_: None)


def test_progress_counts_the_layers() -> None:
    said: list[tuple[str, int, int]] = []
    search(0.9, progress=lambda *step: said.append(step))
    assert [(done, total) for step, done, total in said if "alone" in step] == [(n, 5) for n in range(5)]


def test_latencies_are_given_to_the_steps_in_their_order() -> None:
    found = search(0.97)
    float32 = Latency([8_000_000, 8_000_000])
    timed = found.with_latencies(float32, [Latency([n * 1_000_000] * 2) for n in range(1, len(found.steps) + 1)])
    assert [step.median_ms for step in timed.steps] == pytest.approx(list(range(1, len(found.steps) + 1)))
    assert timed.steps[0].speedup == pytest.approx(8)
    assert timed.kept == found.kept
