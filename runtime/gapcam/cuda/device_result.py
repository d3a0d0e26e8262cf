"""What a model said of one frame on a CUDA device: a `Result` whose maps and pictures may stay there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gapcam.box import Box
from gapcam.cam import FloatArray, Normalization
from gapcam.classes import ClassRef
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame
from gapcam.cuda.post_process import CudaPostProcess
from gapcam.errors import UsageError
from gapcam.frame import Frame
from gapcam.geometry import Placement
from gapcam.loaded_model import LoadedModel
from gapcam.look import Look
from gapcam.result import Result
from gapcam.step_times import StepTimes


class DeviceResult(Result):
    """A `Result` with the same verbs, which download what is asked for and no more: logits, small maps, a picture.

    Its frame and features are copies on the device, so that it stays right when the next frame comes. When the session
    is closed they come to the host, where NumPy computes what is asked for later; but not overlays of frames that are
    "bgra" or "nv12", nor what should stay on the device.

    `frame` is what was handed in where that was on the host, and else the device's frame, downloaded once. `overlay`
    gives an array in the frame's format: H x W x 4 for "bgra", whose alpha channel is kept, H * 3/2 x W for "nv12".

    `timings_ms` has "upload" (the frame's copy), "preprocess" and "inference" by the device's clock, of a batch each
    frame's share, and the other steps by the host's, with the wait for the device.

    Verbs that end in `on_device` give device memory, complete when they return. It is valid as long as the object and
    the session are there; when the object is let go it is freed, which waits for the device: what was queued before may
    still read it. Each raises UsageError when the session is closed.
    """

    def __init__(
        self, model: LoadedModel, logits: FloatArray, post: CudaPostProcess, *, placement: Placement, times: StepTimes
    ) -> None:
        super().__init__(model, logits, post, placement=placement, times=times)
        self._device = post

    @property
    def frame_on_device(self) -> DeviceFrame:
        """The frame: a copy of gapcam's own."""
        return self._device.frame_on_device

    @property
    def features_on_device(self) -> DeviceArray:
        """[C,h,w], the tensor f that the network pools, as the engine gives it."""
        return self._device.features_on_device

    def map_on_device(self, target: ClassRef | None = None, *, clamp_negative: bool = False) -> DeviceArray:
        """[h,w] float32. See `map`."""
        return self._device.map_on_device(self._mapped(target, clamp_negative), clamp_negative=clamp_negative)

    def heatmap_on_device(
        self,
        target: ClassRef | None = None,
        *,
        normalization: Normalization = "minmax",
        limits: tuple[float, float] | None = None,
        clamp_negative: bool = False,
    ) -> DeviceArray:
        """[H,W] float32 in [0, 1]. See `heatmap`."""
        index = self._mapped(target, clamp_negative)
        return self._device.heatmap_on_device(
            index, normalization=normalization, limits=limits, clamp_negative=clamp_negative
        )

    def overlay_on_device(
        self,
        target: ClassRef | None = None,
        *,
        colormap: str = "jet",
        alpha: float = 0.5,
        alpha_by_heat: bool = False,
        normalization: Normalization = "minmax",
        limits: tuple[float, float] | None = None,
        clamp_negative: bool = False,
        out: object = None,
    ) -> DeviceFrame:
        """The frame with a class's map in colour over it, in the frame's format. See `overlay`.

        Args:
            target: the class.
            colormap: as in `overlay`.
            alpha: as in `overlay`.
            alpha_by_heat: as in `overlay`.
            normalization: as in `heatmap`.
            limits: as in `heatmap`.
            clamp_negative: without the negative weights.
            out: a frame of the same layout to write into, when its `stream` has done what it was given before: a
                DeviceFrame, or another's as `Session.__call__` takes it.

        Returns:
            `out`, or a DeviceFrame on its memory.

        Raises:
            UsageError: a wrong colour map, alpha, normalization or limits.
            FrameError: `out` has another layout, or is no device memory.
        """
        look = Look(colormap, alpha, alpha_by_heat, normalization, limits)
        index = self._mapped(target, clamp_negative)
        return self._device.overlay_on_device(index, look, clamp_negative=clamp_negative, out=out)

    def _check_drawn(self, boxes: Sequence[Box], caption: str) -> None:
        if self._device.layout.format == "nv12" and (boxes or caption):
            raise UsageError("boxes and captions are drawn on BGR and BGRA; got a frame of NV12. Leave them out")

    def _draw(self, image: Frame, boxes: Sequence[Box], caption: str) -> None:
        if self._device.layout.format == "bgr":
            super()._draw(image, boxes, caption)
            return
        colors = np.ascontiguousarray(image[:, :, :3])  # OpenCV would write the alpha channel, too
        super()._draw(colors, boxes, caption)
        image[:, :, :3] = colors
