"""Whether a network in PyTorch takes one image in float32: what can be told before it runs."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from gapcam_export.errors import SourceError


def check_network_input(model: nn.Module) -> None:
    """Refuse a network that needs more than one input, or whose weights are in float16, bfloat16 or float64.

    Raises:
        SourceError: it is one.
    """
    needed = _needed_arguments(model)
    if len(needed) > 1:
        raise SourceError(
            f"the network's forward takes {', '.join(needed[:-1])} and {needed[-1]}; expected one input, the image. "
            "Wrap it in a module whose forward takes the image alone and gives it the rest."
        )
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if types and torch.float32 not in types:
        found = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
        raise SourceError(f"the network's weights are {found}; expected float32. Convert the network with .float().")


def _needed_arguments(model: nn.Module) -> list[str]:
    """Names of the arguments of forward that have no default."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # compiled code has none
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is inspect.Parameter.empty and each.kind not in several]
