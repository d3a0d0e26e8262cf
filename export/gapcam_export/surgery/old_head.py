"""Reads the head that is cut off, where it is global average pooling and an affine map already."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from gapcam_export.affine import Affine, Floats, read_affine
from gapcam_export.surgery.cut import Cut, section_of
from gapcam_export.surgery.dataflow import necessary_nodes, shape_of

_SPATIAL_AXES = {"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,), "channels-tokens": (2,)}
# float32 sums over a map, in another order.
_TOLERANCE = 1e-4


def read_old_head(traced: fx.GraphModule, cut: Cut, size: tuple[int, int]) -> Affine | None:
    """W and b where the logits are an affine map of the feature maps' mean over space; None where they are not.

    Args:
        traced: the network that was cut; it is run.
        cut: where.
        size: (H, W) that it was traced with, in pixels.
    """
    if cut.skipped_tokens:  # they hold what the logits are made of, or a share of the mean
        return None
    later = [node for node in necessary_nodes(cut.node, cut.logits) if _is_vector(node, cut.features[0])]
    image = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    values = _observe(traced, image, [cut.node, *later])
    mean = values[cut.node].mean(_SPATIAL_AXES[cut.layout])
    pooled = next((node for node in later if _close(values[node].reshape(mean.shape), mean)), None)
    tail = None if pooled is None else section_of(traced, pooled, cut.logits)
    if pooled is None or tail is None:
        return None
    shape = shape_of(pooled) or ()

    def function(vectors: Floats) -> Floats:
        with torch.no_grad():
            start = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).reshape(-1, *shape)
            answers: Floats = tail(start).numpy()
            return answers

    scale = float(mean.abs().max()) or 1.0
    drawn = np.random.default_rng(0).standard_normal((8, cut.features[0]))
    constants = {name: value.detach().numpy() for name, value in tail.state_dict().items()}
    return read_affine(function, [drawn * factor * scale for factor in (0.1, 1.0, 10.0)], constants)


class _Observer(fx.Interpreter):
    """Keeps the values of some nodes as their last readers see them: an operator between may change them in place."""

    def __init__(self, traced: fx.GraphModule, wanted: list[fx.Node]) -> None:
        super().__init__(traced)
        self.values: dict[fx.Node, Tensor] = {}
        self._wanted = set(wanted)

    def run_node(self, n: fx.Node) -> Any:
        for read in self._wanted.intersection(n.all_input_nodes):
            self.values[read] = self.env[read].clone()
        return super().run_node(n)


def _observe(traced: fx.GraphModule, image: Tensor, wanted: list[fx.Node]) -> dict[fx.Node, Tensor]:
    observer = _Observer(traced, wanted)
    with torch.no_grad():
        observer.run(image)
    return observer.values


def _is_vector(node: fx.Node, channels: int) -> bool:
    shape = shape_of(node)
    return shape is not None and prod(shape) == channels and max(shape) == channels


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE * other.abs().max())
