"""One frame's maps and pictures in NumPy and OpenCV: the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.cam import FloatArray, Normalization, class_maps, normalize
from gapcam.class_rows import ClassRows
from gapcam.frame import Frame
from gapcam.geometry import Placement
from gapcam.overlay import blend
from gapcam.step_times import StepTimes
from gapcam.upsample import on_frame, seen_part


class NumpyPostProcess:
    """A `gapcam.post_process.PostProcess` on the CPU.

    Args:
        frame: H x W x 3 uint8 BGR; kept as a reference.
        features: [C,h,w].
        rows: what weights the features, or None where they are the class maps.
        every_map: [K,h,w], the maps that the graph computed, for classes that have no row; or None.
        input_size: (H, W) of the network's input.
        placement: of the frame in that input.
        times: where it notes how long "map", "heatmap" and "overlay" took.
    """

    def __init__(
        self,
        *,
        frame: Frame,
        features: NDArray[np.floating[Any]],
        rows: ClassRows | None,
        every_map: NDArray[np.floating[Any]] | None,
        input_size: tuple[int, int],
        placement: Placement,
        times: StepTimes,
    ) -> None:
        self.frame = frame
        self.features = features
        self._rows = rows
        self._every_map = every_map
        self._input_size = input_size
        self._placement = placement
        self._times = times
        self._maps: dict[tuple[int, bool], FloatArray] = {}

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.frame.shape[0], self.frame.shape[1]

    def lacking(self, classes: Sequence[int], *, clamp_negative: bool) -> list[int]:
        """Those without a row, unless the graph computed every class's map."""
        if self._rows is None or (self._every_map is not None and not clamp_negative):
            return []
        return self._rows.lacking(classes)

    def map(self, index: int, *, clamp_negative: bool) -> FloatArray:
        """[h,w] float32."""
        key = (index, clamp_negative)
        if key not in self._maps:
            found = self.maps([index], clamp_negative=clamp_negative)[0]
            found.flags.writeable = False
            self._maps[key] = found
        return self._maps[key]

    def maps(self, classes: Sequence[int], *, clamp_negative: bool) -> FloatArray:
        """[n,h,w] float32."""
        with self._times.timed("map"):
            if self._rows is None:
                return self.features[list(classes)].astype(np.float32)
            if self._every_map is not None and self._rows.lacking(classes):
                return self._every_map[list(classes)].astype(np.float32)
            return class_maps(self.features, self._rows.of(classes), clamp_negative=clamp_negative)

    def heatmap(
        self, index: int, *, normalization: Normalization, limits: tuple[float, float] | None, clamp_negative: bool
    ) -> FloatArray:
        """[H,W] float32 in [0, 1]."""
        part = self._normalized_part(index, normalization, limits, clamp_negative)
        with self._times.timed("heatmap"):
            return on_frame(part, self.frame_size, self._placement)

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
        """H x W x 3 uint8 BGR."""
        part = self._normalized_part(index, normalization, limits, clamp_negative)
        with self._times.timed("overlay"):
            return blend(
                self.frame,
                part,
                self._placement,
                colormap=colormap,
                alpha=alpha,
                alpha_by_heat=alpha_by_heat,
                out=out,
            )

    def _normalized_part(
        self, index: int, normalization: Normalization, limits: tuple[float, float] | None, clamp_negative: bool
    ) -> FloatArray:
        raw = self.map(index, clamp_negative=clamp_negative)
        return normalize(seen_part(raw, self._input_size, self._placement), normalization, limits)
