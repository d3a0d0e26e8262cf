"""How a convolution or pooling moves over a map, and how it must move over one that is finer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx


@dataclass(frozen=True)
class Window:
    """How a convolution or pooling moves, along h and w.

    Attributes:
        padding: before the first and after the last position.
        ceil: whether the last window may reach over the edge.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil: bool
    is_pooling: bool

    @staticmethod
    def of(arguments: dict[str, Any], values: dict[fx.Node, Any]) -> Window:
        """Of an operator's arguments by name; `values` has the shape of its weights, if it has any."""
        pooling = "kernel_size" in arguments
        kernel = pair(arguments["kernel_size"]) if pooling else tuple(map(int, values[arguments["weight"]].shape[2:]))
        dilation = pair(arguments.get("dilation", 1))
        padding = arguments["padding"]
        if padding == "same":
            totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            both = tuple((total // 2, total - total // 2) for total in totals)
        else:
            both = tuple((pad, pad) for pad in pair(0 if padding == "valid" else padding))
        return Window(
            kernel, pair(arguments["stride"] or kernel), both, dilation, bool(arguments.get("ceil_mode")), pooling
        )

    def dilated(self, factor: Sequence[int], stride: tuple[int, ...]) -> Window:
        """On a tensor that is finer by these factors, with other strides."""
        return replace(
            self,
            stride=stride,
            padding=tuple((f * first, f * last) for (first, last), f in zip(self.padding, factor, strict=True)),
            dilation=tuple(d * f for d, f in zip(self.dilation, factor, strict=True)),
        )

    def overhang(
        self,
        sides: Sequence[int],
        original_output: Sequence[int],
        factor: Sequence[int],
        output_factor: Sequence[int],
        kept: Sequence[int],
    ) -> list[int]:
        """How many positions the windows of the finer network may reach over the padded edge.

        As many as it takes for all windows that begin inside, up to a last one at which the original has none.
        """
        over = []
        for axis in range(2):
            first, last = self.padding[axis]
            span = factor[axis] * self.dilation[axis] * (self.kernel[axis] - 1)
            begins = sides[axis] + factor[axis] * (first + last) - span
            ends = min(
                int(original_output[axis]) * output_factor[axis] * kept[axis], sides[axis] + factor[axis] * first
            )
            over.append(max(0, ends - begins) if self.ceil else 0)
        return over


def pair(value: Any) -> tuple[int, ...]:
    """A number for h and w, or one for each."""
    values = tuple(value) if isinstance(value, Iterable) else (value,)
    return tuple(int(each) for each in (values * 2 if len(values) == 1 else values))
