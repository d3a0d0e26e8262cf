"""A stream with the kernels and their scratch memory on it: where one thread at a time computes maps and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gapcam import contract as names
from gapcam.cam import Normalization
from gapcam.class_rows import ClassRows
from gapcam.contract import HeadKind
from gapcam.cuda.cam import Cam, CamLayout, new_cam_arrays
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.frame_copy import empty_frame
from gapcam.errors import BackendError
from gapcam.geometry import Placement
from gapcam.look import Look

if TYPE_CHECKING:
    from gapcam.cuda.device_model import DeviceModel


@dataclass(frozen=True, slots=True, eq=False)
class DeviceMaps:
    """Maps of n classes of one image.

    Attributes:
        maps: [n,h,w] float32.
        extremes: [n,2] float32, of each map where the network saw the frame: see `gapcam.cuda.cam.CamArrays`.
        targets: [1,n] int32, the classes; kept, since the work that reads them may be queued still.
    """

    maps: DeviceArray
    extremes: DeviceArray
    targets: DeviceArray


class Workbench:
    """One thread at a time uses it, inside `driver.active()`, and ends with `stream.synchronize()`."""

    def __init__(self, shared: DeviceModel) -> None:
        self._shared = shared
        self.stream = shared.driver.stream()
        self._cams: dict[tuple[HeadKind, int], Cam] = {}

    @contextmanager
    def finished(self) -> Iterator[None]:
        """A `with` block after which nothing is queued any more, so that memory may go, whatever is raised in it."""
        try:
            yield
        except BaseException:
            with suppress(BackendError):  # the first error is the one to tell
                self.stream.synchronize()
            raise
        self.stream.synchronize()

    def maps(
        self,
        outputs: Mapping[str, DeviceArray],
        rows: ClassRows | None,
        classes: Sequence[int],
        placement: Placement,
        *,
        clamp_negative: bool,
    ) -> DeviceMaps:
        """Queue the maps of at least one class; those that have no row are among `maps` of the outputs.

        Args:
            outputs: of one image, as `gapcam.cuda.cam.Cam` takes them.
            rows: what weights the features.
            classes: their indices.
            placement: of the frame in the network's input.
            clamp_negative: without the negative weights.
        """
        kind, driver = self._shared.model.contract.head.kind, self._shared.driver
        if rows is not None and rows.lacking(classes):
            kind, outputs = HeadKind.CLASS_MAPS, {**outputs, names.FEATURES: outputs[names.MAPS]}
        layout = CamLayout(1, len(classes), self._shared.model.map_size)
        into = new_cam_arrays(layout, self._shared.memory.take)
        wanted = np.array([classes], np.int32)
        memory = self._shared.memory.take(wanted.nbytes)
        driver.upload(wanted, memory.pointer, self.stream)
        targets = DeviceArray(memory.pointer, wanted.shape, wanted.dtype, None, memory)
        self._cam(kind, len(classes)).enqueue(
            outputs, [placement.input_rect], into, self.stream, targets=targets, clamp_negative=clamp_negative
        )
        return DeviceMaps(first(into.maps), first(into.extremes), targets)

    def heatmap(
        self,
        one: DeviceMaps,
        layout: FrameLayout,
        placement: Placement,
        normalization: Normalization,
        limits: tuple[float, float] | None,
    ) -> DeviceArray:
        """Queue the heat map of the first of the maps: [H,W] float32 in [0, 1]."""
        look = Look(normalization=normalization, limits=limits)
        size = (layout.height, layout.width)
        memory = self._shared.memory.take(layout.height * layout.width * 4)
        out = DeviceArray(memory.pointer, size, np.dtype(np.float32), None, memory)
        painter = self._shared.heatmap(size, placement, look)
        painter.enqueue(one.maps.pointer, one.extremes.pointer, out, self.stream)
        return out

    def overlay(
        self, one: DeviceMaps, frame: DeviceFrame, placement: Placement, look: Look, out: DeviceFrame | None
    ) -> DeviceFrame:
        """Queue the overlay of the first of the maps, into a new frame, or `out`, behind what its stream was given."""
        if out is None:
            out = empty_frame(frame.layout, self._shared.memory.take)
        elif out.stream is not None:
            self._shared.driver.wait_for(out.stream, self.stream)
        painter = self._shared.overlay(frame.layout, placement, look)
        painter.enqueue(one.maps.pointer, one.extremes.pointer, frame, out, self.stream)
        return out

    def close(self) -> None:
        """Free the scratch memory. Closing twice does nothing."""
        for cam in self._cams.values():
            cam.close()
        self._cams.clear()

    def _cam(self, kind: HeadKind, count: int) -> Cam:
        capacity = 1 << (count - 1).bit_length()
        if (kind, capacity) not in self._cams:
            self._cams[kind, capacity] = self._shared.cam(kind, count=capacity)
        return self._cams[kind, capacity]


def first(array: DeviceArray) -> DeviceArray:
    """[n,...] -> [...]."""
    return DeviceArray(array.pointer, array.shape[1:], array.dtype, None, array.owner)
