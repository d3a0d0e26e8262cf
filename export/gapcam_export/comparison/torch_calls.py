"""Tensors inside a network in PyTorch, found by their values and seen again at each run.

While a network runs under `torch.overrides.TorchFunctionMode`, every call of a function of torch's passes by, with what
it gives: modules, hooks and names are not asked, so that a functional ReLU, a view, or a traced graph's operators are
as good as a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Arrangement: TypeAlias = Literal["as it is", "nhwc", "tokens", "channels-tokens", "flat"]
"""How a tensor lies that is wanted as [N,C,h,w] or [N,K]: so; with the channels last; as [N,h*w,C]; as [N,C,h*w]; as
[N,K,1,1] and the like."""

FOUND_TOLERANCE = 1e-3
"""By how much a tensor may differ from what is looked for, over its greatest value: float32 sums in another order. Of
tensors of one size in a network, other ones differ by all."""


@dataclass(frozen=True)
class Place:
    """Where in a run a tensor appears.

    Attributes:
        call: how many calls come before the one that gives it.
        part: its index in what that gives, where that is a tuple or list; else 0.
        arrangement: how it lies.
    """

    call: int
    part: int
    arrangement: Arrangement


def arranged(tensor: Tensor, arrangement: Arrangement, shape: tuple[int, ...]) -> Tensor | None:
    """A tensor as [N, *shape], differentiably, or None where it is none that lies so.

    Args:
        tensor: any.
        arrangement: how it lies.
        shape: (C, h, w) or (K,).
    """
    own = tuple(tensor.shape[1:])
    if arrangement == "as it is":
        return tensor if own == shape else None
    if arrangement == "flat":
        return tensor.flatten(1) if len(shape) == 1 and own[:1] == shape and set(own[1:]) == {1} else None
    if len(shape) != 3:
        return None
    channels, height, width = shape
    if arrangement == "nhwc":
        return tensor.permute(0, 3, 1, 2) if own == (height, width, channels) else None
    if arrangement == "tokens":
        tensor, own = (tensor.transpose(1, 2), own[::-1]) if len(own) == 2 else (tensor, ())
    return tensor.reshape(len(tensor), *shape) if own == (channels, height * width) else None


class Watching(TorchFunctionMode):
    """While it is entered, shows every tensor that a call gives, in the order of the calls; for one run.

    Args:
        look: gets the number of the call, the tensor's index in what the call gives, and the tensor; what it returns
            takes the tensor's place.
    """

    def __init__(self, look: Callable[[int, int, Tensor], Tensor]) -> None:
        super().__init__()
        self._look, self._calls = look, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """One call."""
        del types
        output = func(*args, **(kwargs or {}))
        call, self._calls = self._calls, self._calls + 1
        if isinstance(output, Tensor):
            return self._look(call, 0, output)
        if isinstance(output, tuple | list) and any(isinstance(part, Tensor) for part in output):
            parts = [
                self._look(call, index, part) if isinstance(part, Tensor) else part for index, part in enumerate(output)
            ]
            return type(output)(parts)
        return output


def find_places(network: Callable[[Tensor], Any], image: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, Place]:
    """Where tensors of known values appear in a network: of several places the last, after all that acts on the values.

    Args:
        network: in evaluation mode.
        image: [N,3,H,W].
        wanted: values [N,C,h,w] or [N,K] for that image, by names of your choice.

    Returns:
        By name; a name is missing where no tensor is close to `FOUND_TOLERANCE`.
    """
    found: dict[str, Place] = {}
    limits = {name: FOUND_TOLERANCE * float(values.abs().max()) for name, values in wanted.items()}

    def look(call: int, part: int, tensor: Tensor) -> Tensor:
        for name, values in wanted.items():
            if tensor.numel() != values.numel() or not tensor.is_floating_point():
                continue
            for arrangement in get_args(Arrangement):
                candidate = arranged(tensor, arrangement, tuple(values.shape[1:]))
                # Looked at now: the next call may change the tensor in place.
                if candidate is not None and float((candidate - values).abs().max()) <= limits[name]:
                    found[name] = Place(call, part, arrangement)
                    break
        return tensor

    with torch.no_grad():
        network(image)  # a first run may prepare what later ones use
        with Watching(look):
            network(image)
    return found
