"""What is computed from one frame and its feature maps, wherever that happens.

The same verbs with the same signatures in parallel files: `gapcam.numpy_post_process`, the reference, and
`gapcam.cuda.post_process`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gapcam.cam import FloatArray, Normalization
from gapcam.frame import Frame


class PostProcess(Protocol):
    """One frame's maps and pictures. Nothing is computed before it is asked for.

    Classes are indices into the logits that exist. `gapcam.Result` has the same verbs for callers and says what their
    arguments mean.
    """

    @property
    def frame(self) -> Frame:
        """The frame, in its own format."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frame in pixels."""

    @property
    def features(self) -> NDArray[np.floating[Any]]:
        """[C,h,w], the tensor f that the network pools."""

    def lacking(self, classes: Sequence[int], *, clamp_negative: bool) -> list[int]:
        """Those of `classes` whose maps cannot be computed: a nonlinear head's graph gave no rows for them."""

    def map(self, index: int, *, clamp_negative: bool) -> FloatArray:
        """[h,w] of a class that is not lacking. Kept, and not to be written to."""

    def maps(self, classes: Sequence[int], *, clamp_negative: bool) -> FloatArray:
        """[n,h,w] of classes that are not lacking, in this order."""

    def heatmap(
        self, index: int, *, normalization: Normalization, limits: tuple[float, float] | None, clamp_negative: bool
    ) -> FloatArray:
        """[H,W] in [0, 1], of the frame's size.

        Raises:
            UsageError: a wrong normalization or limits.
        """

    def overlay(
        self,
        index: int,
        *,
        colormap: str,
        alpha: float,
        alpha_by_heat: bool,
        normalization: Normalization,
        limits: tuple[float, float] | None,
        clamp_negative: bool,
        out: Frame | None,
    ) -> Frame:
        """The frame with a class's map in colour over it: `out`, or a new array, in the frame's format.

        Raises:
            UsageError: a wrong colour map, alpha, normalization or limits.
            FrameError: `out` is not an array like the frame, or overlaps it.
        """
