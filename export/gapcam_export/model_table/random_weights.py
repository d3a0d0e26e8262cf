"""Random weights that prove something: no layer is switched off, no activation vanishes or explodes.

A network as its library makes it has heads of zeros, layer scales of 1e-6 and BatchNorm statistics of 0 and 1. Whatever
is multiplied by zero agrees with everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import gapcam
from gapcam.contract import Preprocessing

_CONSTANT = 1e-3  # deviation of a parameter that was initialised to one value
_DEVIATION = 0.2  # of what it gets instead
# BatchNorm that takes the whole mean out makes a deep network with random weights chaotic (Yang et al. 2019, "A mean
# field theory of batch normalization"): ConvMixer's rounding errors grow to 1e-3 of its logits. With half they do not.
_SHARE_OF_MEAN = 0.5


def give_random_weights(model: nn.Module, preprocessing: Preprocessing, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Replace parameters that are constant by random ones, and BatchNorm's statistics by measured ones.

    Args:
        model: in evaluation mode, and afterwards too; its other weights are kept.
        preprocessing: of its input.
        frames: each H x W x 3 uint8 BGR; BatchNorm's variances become those on these together, its means half of them.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.std() < _CONSTANT:
                noise = torch.empty_like(parameter).normal_(0, _DEVIATION, generator=generator)
                parameter.copy_(noise + (1 if parameter.mean() > 0.5 else 0))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over what it sees
            norm.train()
        with torch.no_grad():
            model(torch.from_numpy(np.stack([gapcam.preprocess(frame, preprocessing) for frame in frames])))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            if norm.running_mean is not None:  # so it is, with track_running_stats
                norm.running_mean.mul_(_SHARE_OF_MEAN)
            norm.momentum = momentum
            norm.eval()
