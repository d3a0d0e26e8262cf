"""What a frame graph does with a frame: the buffers, and the work in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from gapcam import contract as names
from gapcam.backends.device_protocol import DeviceBackend
from gapcam.classes import ClassRef
from gapcam.contract import HeadKind
from gapcam.cuda.cam import CamLayout, CamStatus, new_cam_arrays
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.device_model import DeviceModel
from gapcam.cuda.driver import Memory
from gapcam.cuda.frame_copy import download_frame, empty_frame, host_shape
from gapcam.cuda.inference_lane import InferenceLane
from gapcam.errors import MapNotComputedError, UsageError
from gapcam.frame import Frame
from gapcam.look import Look
from gapcam.model_check import unusable_output

Output: TypeAlias = Literal["host", "device"]

_UNUSABLE = {
    CamStatus.LOGITS_NOT_FINITE: names.LOGITS,
    CamStatus.SCALE_NOT_POSITIVE: names.CAM_SCALE,
    CamStatus.ROWS_NOT_FINITE: names.TOPK_WEIGHTS,
}


class FrameWork:
    """Everything is decided and allocated here, and stays where it is. Called inside `driver.active()`.

    Args:
        shared: the model on its device.
        backend: what runs it; a lane of its own is taken.
        layout: of the frames.
        topk: how many of the best classes get maps.
        targets: the classes that get maps instead.
        look: of the overlay; None for none.
        clamp_negative: without the negative weights.
        output: where the overlay is wanted.

    Attributes:
        lane: where the inference runs; the work is queued on its stream.
        placement: of a frame in the network's input.
        frame: where the frame must be, on the device.
        found: what comes down of each frame, [k,...] by its name in `gapcam.cuda.cam.CamArrays`, in pinned memory.
        overlay: the picture: in pinned memory, on the device, or None.

    Raises:
        ClassNotFoundError, MapNotComputedError, UsageError, BackendError: as `gapcam.cuda.frame_graph.FrameGraph` says.
    """

    def __init__(
        self,
        shared: DeviceModel,
        backend: DeviceBackend,
        layout: FrameLayout,
        *,
        topk: int,
        targets: Sequence[ClassRef] | None,
        look: Look | None,
        clamp_negative: bool,
        output: Output,
    ) -> None:
        if output not in get_args(Output):
            raise UsageError(f"output is {output!r}; give one of {', '.join(get_args(Output))}")
        if layout.format == "nv12" and (layout.height % 2 or layout.width % 2):
            raise UsageError(f"frames of {layout.height} x {layout.width} cannot be NV12; give even sides")
        self._shared, self._driver, model = shared, shared.driver, shared.model
        indices = None if targets is None else model.classes.resolve_each(targets)
        if indices is None and not 1 <= topk <= len(model.classes.labels):
            raise UsageError(f"asked for maps of the best {topk} classes; give 1 to {len(model.classes.labels)}")
        if indices == []:
            raise UsageError("targets is an empty list; name one class or more, or leave it out for the best")
        count = topk if indices is None else len(indices)
        self._preprocessor = shared.preprocessor(layout)
        self.placement = self._preprocessor.placement
        self.lane = InferenceLane(backend, model, 1)
        self._memories: list[Memory] = []
        try:
            self._outputs = dict(self.lane.outputs)
            self._clamp_negative = clamp_negative
            kind = self._kind(count, best=indices is None)
            if kind is not model.contract.head.kind:
                self._outputs[names.FEATURES] = self._outputs[names.MAPS]
            self.frame: DeviceFrame = empty_frame(layout, self._allocated)
            self._targets: DeviceArray | None = None
            if indices is not None:
                (self._targets,) = device_constants(self._driver, np.array([indices], np.int32))
            self._cam = shared.cam(kind, count=count)
            maps = CamLayout(1, count, model.map_size)
            self._maps = new_cam_arrays(maps, self._allocated)
            self._found = self._driver.pinned((maps.nbytes,), np.uint8)
            self.found = {name: view[0] for name, view in maps.on_host(self._found).items()}
            self._painter = None if look is None else shared.overlay(layout, self.placement, look)
            self._picture = None if look is None else empty_frame(layout, self._allocated)
            self._host_picture: Frame | None = None
            if look is not None and output == "host":
                self._host_picture = self._driver.pinned(host_shape(layout), np.uint8)
        except BaseException:
            self.lane.close()
            raise
        self.overlay = self._picture if self._host_picture is None else self._host_picture

    def queue(self) -> None:
        """All of it, from the frame to what is wanted on the host."""
        stream, driver = self.lane.lane.stream, self._driver
        self._preprocessor.enqueue(self.frame, self.lane.image[0], stream)
        self.lane.lane.enqueue()
        self._cam.enqueue(
            self._outputs,
            [self.placement.input_rect],
            self._maps,
            stream,
            targets=self._targets,
            clamp_negative=self._clamp_negative,
        )
        driver.download(self._maps.classes.pointer, self._found, stream)  # the first of all that lies together
        if self._painter is not None and self._picture is not None:
            maps, extremes = self._maps.maps.pointer, self._maps.extremes.pointer
            self._painter.enqueue(maps, extremes, self.frame, self._picture, stream)
            if self._host_picture is not None:
                download_frame(self._picture, self._host_picture, driver, stream)

    def check(self) -> None:
        """Look at what was found before anything is made of it.

        Raises:
            VerificationError: the logits, rows or a scale are not what they must be.
            MapNotComputedError: a nonlinear head's graph computed no row for one of the targets.
        """
        model, status = self._shared.model, self.found["status"]
        every = CamStatus(int(np.bitwise_or.reduce(status)))
        for flag, name in _UNUSABLE.items():
            if flag in every:
                raise unusable_output(name, model.contract, model.name)
        if CamStatus.NO_ROW in every:
            lacking = self.found["classes"][(status & CamStatus.NO_ROW) != 0]
            raise MapNotComputedError(
                f"the map of {model.classes.labels[lacking[0]]!r} is not in this frame's result: the model's head is "
                "nonlinear, and its graph computes the rows of the best classes only. Export it again with a greater "
                "--topk, or with --emit maps"
            )

    def close(self) -> None:
        """Free the memory and the lane, when what is queued is done."""
        self._cam.close()
        self.lane.close()
        for memory in self._memories:
            memory.close()

    def _allocated(self, nbytes: int) -> Memory:
        self._memories.append(self._driver.allocate(nbytes))
        return self._memories[-1]

    def _kind(self, count: int, *, best: bool) -> HeadKind:
        """Of the head, or "class-maps" where the maps are those that a nonlinear head's graph computed of every class.

        Whether a target is among the classes that have a row is another matter with each frame.
        """
        kind = self._shared.model.contract.head.kind
        if kind is not HeadKind.NONLINEAR:
            return kind
        listed = self._outputs[names.TOPK_CLASSES].shape[1]
        if best and count <= listed:
            return kind
        if names.MAPS in self._outputs and not self._clamp_negative:
            return HeadKind.CLASS_MAPS
        if best:
            raise MapNotComputedError(
                f"asked for the maps of the best {count} classes; the model's head is nonlinear, and its graph "
                f"computes the rows of {listed}. Export it again with --topk {count} or more"
            )
        return kind
