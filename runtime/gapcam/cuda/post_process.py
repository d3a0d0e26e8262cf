"""One frame's maps and pictures by gapcam's kernels, from what its inference left on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam import contract as names
from gapcam.backends.protocol import CLOSED
from gapcam.cam import FloatArray, Normalization
from gapcam.class_rows import ClassRows
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout, as_device_frame
from gapcam.cuda.device_model import DeviceModel
from gapcam.cuda.frame_copy import download_frame, host_shape
from gapcam.cuda.memory_pool import give_away
from gapcam.cuda.overlay import CannotDrawError
from gapcam.cuda.workbench import DeviceMaps, Workbench, first
from gapcam.errors import FrameError, UsageError
from gapcam.frame import Frame
from gapcam.geometry import Placement
from gapcam.look import Look
from gapcam.numpy_post_process import NumpyPostProcess
from gapcam.overlay import check_out
from gapcam.step_times import StepTimes


class CudaPostProcess:
    """A `gapcam.post_process.PostProcess` on a CUDA device. It downloads what is asked for, and keeps small maps.

    Every verb waits for its work, so that its memory may go to somebody else when this is collected; but not what stays
    on the device for the caller, who may queue work on it. When the session closes, what is needed comes to the host,
    and NumPy takes over; it also draws what the kernels cannot.

    Args:
        shared: the model on its device.
        frame: in memory of this frame's own.
        host_frame: the same on the host, if it came from there.
        outputs: on the device, [1,...] each, in memory of its own: logits, features, what rows are made of, `maps`.
        rows: what weights the features, or None where they are the class maps.
        placement: of the frame in the network's input.
        times: where it notes how long "map", "heatmap" and "overlay" took, with the wait for the device.
    """

    def __init__(
        self,
        shared: DeviceModel,
        *,
        frame: DeviceFrame,
        host_frame: Frame | None,
        outputs: Mapping[str, DeviceArray],
        rows: ClassRows | None,
        placement: Placement,
        times: StepTimes,
    ) -> None:
        self._shared = shared
        self._frame = frame
        self._host_frame = host_frame
        self._outputs = outputs
        self._rows = rows
        self._placement = placement
        self._times = times
        self._features: NDArray[np.floating[Any]] | None = None
        self._maps: dict[tuple[int, bool], FloatArray] = {}
        self._device_maps: dict[tuple[int, bool], DeviceMaps] = {}
        self._lock = RLock()
        self._numpy: NumpyPostProcess | None = None  # when the session is closed
        self._drawn_on_host: NumpyPostProcess | None = None
        shared.add(self)

    @property
    def frame(self) -> Frame:
        """The array that was handed in, or the device's frame, downloaded once."""
        with self._lock:
            if self._host_frame is None:
                self._host_frame = self._downloaded_frame(self._frame, None)
            return self._host_frame

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._frame.layout.height, self._frame.layout.width

    @property
    def features(self) -> NDArray[np.floating[Any]]:
        """[C,h,w], downloaded once."""
        with self._lock:
            if self._features is None:
                self._features = self._downloaded(self._outputs[names.FEATURES])[0]
            return self._features

    def lacking(self, classes: Sequence[int], *, clamp_negative: bool) -> list[int]:
        """Those without a row, unless the graph computed every class's map."""
        if self._rows is None or (names.MAPS in self._outputs and not clamp_negative):
            return []
        return self._rows.lacking(classes)

    def map(self, index: int, *, clamp_negative: bool) -> FloatArray:
        """[h,w] float32."""
        key = (index, clamp_negative)
        with self._lock:
            if key not in self._maps:
                if self._numpy is not None:
                    return self._numpy.map(index, clamp_negative=clamp_negative)
                with self._times.timed("map"), self._bench() as bench:
                    found = self._downloaded(first(self._device_map(bench, index, clamp_negative).maps), bench)
                found.flags.writeable = False
                self._maps[key] = found
            return self._maps[key]

    def maps(self, classes: Sequence[int], *, clamp_negative: bool) -> FloatArray:
        """[n,h,w] float32."""
        with self._lock:
            if self._numpy is not None:
                return self._numpy.maps(classes, clamp_negative=clamp_negative)
            with self._times.timed("map"), self._bench() as bench:
                if not classes:
                    return np.empty((0, *self._shared.model.map_size), np.float32)
                found = self._computed(bench, classes, clamp_negative)  # held until its work is done
                return self._downloaded(found.maps, bench)

    def heatmap(
        self, index: int, *, normalization: Normalization, limits: tuple[float, float] | None, clamp_negative: bool
    ) -> FloatArray:
        """[H,W] float32 in [0, 1]."""
        with self._lock:
            if self._numpy is not None:
                return self._numpy.heatmap(
                    index, normalization=normalization, limits=limits, clamp_negative=clamp_negative
                )
            try:
                with self._bench() as bench:
                    one = self._timed_map(bench, index, clamp_negative)
                    with self._times.timed("heatmap"):
                        on_device = bench.heatmap(one, self._frame.layout, self._placement, normalization, limits)
                        return self._downloaded(on_device, bench)
            except CannotDrawError:
                return self._on_host().heatmap(
                    index, normalization=normalization, limits=limits, clamp_negative=clamp_negative
                )

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
        """An array in the frame's format."""
        look = Look(colormap, alpha, alpha_by_heat, normalization, limits)
        if out is not None:
            check_out(out, host_shape(self.layout))
        with self._lock:
            on_host = self._numpy
            if on_host is None:
                try:
                    with self._bench() as bench:
                        one = self._timed_map(bench, index, clamp_negative)
                        with self._times.timed("overlay"):
                            on_device = bench.overlay(one, self._frame, self._placement, look, None)
                            return self._downloaded_frame(on_device, out, bench)
                except CannotDrawError:
                    if self.layout.format != "bgr":
                        raise
                    on_host = self._on_host()
            elif self.layout.format != "bgr":
                raise UsageError(f"{CLOSED}. Overlays of {self.layout.format} frames need its device")
            return on_host.overlay(
                index,
                colormap=colormap,
                alpha=alpha,
                alpha_by_heat=alpha_by_heat,
                normalization=normalization,
                limits=limits,
                clamp_negative=clamp_negative,
                out=out,
            )

    # What stays on the device.

    @property
    def layout(self) -> FrameLayout:
        """The frame's format and size."""
        return self._frame.layout

    @property
    def frame_on_device(self) -> DeviceFrame:
        """The frame."""
        with self._lock:
            self._check_opened()
            give_away(self._frame)
            return self._frame

    @property
    def features_on_device(self) -> DeviceArray:
        """[C,h,w]."""
        with self._lock:
            self._check_opened()
            features = first(self._outputs[names.FEATURES])
            give_away(features)
            return features

    def map_on_device(self, index: int, *, clamp_negative: bool) -> DeviceArray:
        """[h,w] float32."""
        with self._lock:
            self._check_opened()
            with self._bench() as bench:
                found = first(self._timed_map(bench, index, clamp_negative).maps)
                give_away(found)
                return found

    def heatmap_on_device(
        self, index: int, *, normalization: Normalization, limits: tuple[float, float] | None, clamp_negative: bool
    ) -> DeviceArray:
        """[H,W] float32 in [0, 1]."""
        with self._lock:
            self._check_opened()
            with self._bench() as bench:
                one = self._timed_map(bench, index, clamp_negative)
                with self._times.timed("heatmap"):
                    found = bench.heatmap(one, self._frame.layout, self._placement, normalization, limits)
                    bench.stream.synchronize()
                    give_away(found)
                    return found

    def overlay_on_device(self, index: int, look: Look, *, clamp_negative: bool, out: object) -> DeviceFrame:
        """In the frame's format."""
        target = None if out is None else _checked_out(out, self.layout)
        with self._lock:
            self._check_opened()
            with self._bench() as bench:
                one = self._timed_map(bench, index, clamp_negative)
                with self._times.timed("overlay"):
                    found = bench.overlay(one, self._frame, self._placement, look, target)
                    bench.stream.synchronize()
                    if target is None:
                        give_away(found)
                    return out if isinstance(out, DeviceFrame) else found

    def detach(self) -> None:
        """Bring to the host what NumPy needs, and let the device's memory go. The session is being closed."""
        with self._lock:
            _ = self.frame  # downloaded, if there is no array of the caller's
            self._numpy = self._on_host()
            self._outputs = {name: DeviceArray(0, array.shape, array.dtype) for name, array in self._outputs.items()}
            self._frame = DeviceFrame(self._frame.layout, ())
            self._device_maps.clear()

    def _on_host(self) -> NumpyPostProcess:
        """The same by NumPy; overlays of "bgr" frames only."""
        if self._drawn_on_host is None:
            every_map = self._outputs.get(names.MAPS)
            if self.layout.format == "bgr":  # the device's copy: a camera may have changed the caller's array
                frame = self._downloaded_frame(self._frame, None)
            else:  # all that is computed without the frame's colours
                frame = np.broadcast_to(np.uint8(0), (*self.frame_size, 3))
            self._drawn_on_host = NumpyPostProcess(
                frame=frame,
                features=self.features,
                rows=self._rows,
                every_map=None if every_map is None else self._downloaded(every_map)[0],
                input_size=self._shared.model.contract.preprocessing.size,
                placement=self._placement,
                times=self._times,
            )
        return self._drawn_on_host

    def _check_opened(self) -> None:
        if self._numpy is not None:
            raise UsageError(CLOSED)

    @contextmanager
    def _bench(self) -> Iterator[Workbench]:
        with self._shared.driver.active(), self._shared.benches.lent(None) as bench, bench.finished():
            yield bench

    def _timed_map(self, bench: Workbench, index: int, clamp_negative: bool) -> DeviceMaps:
        if (index, clamp_negative) in self._device_maps:
            return self._device_maps[index, clamp_negative]
        with self._times.timed("map"):
            found = self._device_map(bench, index, clamp_negative)
            bench.stream.synchronize()
            return found

    def _device_map(self, bench: Workbench, index: int, clamp_negative: bool) -> DeviceMaps:
        key = (index, clamp_negative)
        if key not in self._device_maps:
            self._device_maps[key] = self._computed(bench, [index], clamp_negative)
        return self._device_maps[key]

    def _computed(self, bench: Workbench, classes: Sequence[int], clamp_negative: bool) -> DeviceMaps:
        return bench.maps(self._outputs, self._rows, classes, self._placement, clamp_negative=clamp_negative)

    def _downloaded(self, array: DeviceArray, bench: Workbench | None = None) -> NDArray[Any]:
        out = np.empty(array.shape, array.dtype)
        if bench is None:
            with self._bench() as bench:
                return self._downloaded(array, bench)
        self._shared.driver.download(array.pointer, out, bench.stream)
        bench.stream.synchronize()
        return out

    def _downloaded_frame(self, frame: DeviceFrame, out: Frame | None, bench: Workbench | None = None) -> Frame:
        if bench is None:
            with self._bench() as bench:
                return self._downloaded_frame(frame, out, bench)
        image = np.empty(host_shape(frame.layout), np.uint8) if out is None else out
        download_frame(frame, image, self._shared.driver, bench.stream)
        bench.stream.synchronize()
        return image


def _checked_out(out: object, layout: FrameLayout) -> DeviceFrame:
    """Where to draw a frame of this layout, whoever's memory it is.

    Raises:
        FrameError: it has another layout, or is no device memory.
    """
    try:
        found = as_device_frame(out, layout.format)
    except FrameError as error:
        raise FrameError(f"as out, {error}") from error
    if found.layout != layout:
        raise FrameError(f"as out, got a frame of {found.layout}; expected one like the frame, {layout}")
    return found
