"""Checks the rows that a graph gives for a nonlinear head against the head's own changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam_export.affine import Floats
from gapcam_export.nonlinear import Chain

# float32 leaves some 1e-6. One value that is at a bend of its activation to the last bit may go either way, and be a
# percent of a row; what is wrong is off by far more.
GRADIENT_TOLERANCE = 1e-2

_DIRECTIONS = 8
# In parts of the pooled vector, in float64: far above its rounding, and too short to go past a bend.
_STEP = 1e-6
# Where the layers that were read are compared with the network's own, beside the image itself.
_AROUND = 0.1


class GradientCheck:
    """Central differences of a head's logits along random directions, against what its rows say of them.

    They are taken in float64 of the layers as they were read: float32 loses short steps in rounding, and long ones go
    past the activations' bends. The layers answer as the network does, or the check fails.

    Args:
        chain: the head.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain, self._random = chain, np.random.default_rng(0)
        self._difference = self._greatest = self._misread = 0.0

    def measure(self, pooled: Floats, classes: NDArray[Any], rows: Floats) -> None:
        """Take one image in.

        Args:
            pooled: [C].
            classes: [k].
            rows: [k,C], what should be d logit / d pooled of these classes.
        """
        here = pooled.astype(np.float64)
        directions = self._random.standard_normal((_DIRECTIONS, len(here))) * np.sqrt(np.mean(here**2))
        around = here + np.concatenate([np.zeros((1, len(here))), _AROUND * directions])
        answers = self._chain.answer(around)
        misread = np.abs(self._chain.value(around) - answers).max() / max(np.abs(answers).max(), np.finfo(float).tiny)
        change = self._chain.value(here + _STEP * directions) - self._chain.value(here - _STEP * directions)
        slopes = change[:, classes] / (2 * _STEP)
        self._misread = float(np.maximum(self._misread, misread))
        self._difference = float(np.maximum(self._difference, np.abs(slopes - directions @ rows.T).max()))
        self._greatest = float(np.maximum(self._greatest, np.abs(slopes).max()))

    @property
    def error(self) -> float:
        """The greatest difference over all images, over the greatest change; NaN if something is not finite."""
        difference = self._difference / self._greatest if self._greatest else self._difference
        return float(np.maximum(difference, self._misread))
