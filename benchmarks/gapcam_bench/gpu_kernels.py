"""The kernels as things to measure: each queues itself on buffers of its own, and checks what it computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gapcam
from gapcam import contract as names
from gapcam.contract import HeadKind
from gapcam.cuda.cam import Cam, CamArrays, CamLayout, new_cam_arrays
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.driver import Driver, Module, Stream
from gapcam.cuda.frame_copy import download_frame, empty_frame, host_shape, upload_frame
from gapcam.cuda.overlay import Overlay
from gapcam.cuda.preprocess import Preprocessor
from gapcam.frame import Frame
from gapcam.geometry import place
from gapcam_bench.gpu_clock import HOLD_BYTES, Work
from gapcam_bench.gpu_figures import Check
from gapcam_bench.gpu_reference import ALPHA, COLORMAP, check_maps, check_overlay, check_preprocessed

INPUT_SIZE = (224, 224)

_SAMPLE_BYTES = 2 * HOLD_BYTES
"""What a sample's runs read and write between them, where one does not do so alone: no cache holds it."""
_MOST_IN_A_ROW = 32
_BYTES = {"bgr": 3.0, "bgra": 4.0, "nv12": 1.5}


@dataclass(frozen=True, slots=True)
class Case:
    """One of them.

    Attributes:
        name: such as "overlay bgr 1080p".
        work: queues one run; its number, less than `in_a_row`, chooses the buffers.
        in_a_row: how many buffers there are.
        bytes_moved: read and written by one run at the least; None where that is not the point.
        check: compares what run 0 computed. It is called after all measuring.
    """

    name: str
    work: Work
    in_a_row: int
    bytes_moved: int | None
    check: Callable[[], list[Check]]


@dataclass(frozen=True, slots=True)
class CamShape:
    """A network, as far as its maps go.

    Attributes:
        name: of it.
        channels: C.
        map_size: (h, w).
        classes: K.
    """

    name: str
    channels: int
    map_size: tuple[int, int]
    classes: int = 1000


class Workshop:
    """What all cases of one device share. Used inside `driver.active()`.

    Args:
        driver: of the device.
        kernels: loaded into it.
        sample_bytes: that a sample's runs go through.
        input_size: (H, W) of the networks' input.
    """

    def __init__(
        self,
        driver: Driver,
        kernels: Module,
        *,
        sample_bytes: int = _SAMPLE_BYTES,
        input_size: tuple[int, int] = INPUT_SIZE,
    ) -> None:
        self.driver, self.kernels, self._sample_bytes = driver, kernels, sample_bytes
        self._how = gapcam.Preprocessing(size=input_size, resize="squash", interpolation="bilinear")
        self.stream = driver.stream()
        self._random = np.random.default_rng(0)

    def in_a_row(self, nbytes: int) -> int:
        """How many runs that touch so many bytes each make a sample."""
        return min(max(self._sample_bytes // nbytes, 4), _MOST_IN_A_ROW)

    def frames(self, layout: FrameLayout, count: int) -> tuple[list[DeviceFrame], Frame]:
        """Frames on the device, all alike, and the one on the host: a smooth picture with noise."""
        shape = host_shape(layout)
        ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // 4
        noise = self._random.integers(0, 32, shape, np.uint8)
        frame = ((ramp if len(shape) == 2 else ramp[..., None]) + noise).astype(np.uint8)
        found = [empty_frame(layout, self.driver.allocate) for _ in range(count)]
        for target in found:
            upload_frame(frame, target, self.driver, self.stream)
        self.stream.synchronize()
        return found, frame

    def download(self, array: DeviceArray) -> NDArray[Any]:
        """Its values."""
        out = np.empty(array.shape, array.dtype)
        self.driver.download(array.pointer, out, self.stream)
        self.stream.synchronize()
        return out

    def download_frame(self, frame: DeviceFrame) -> Frame:
        """Its pixels."""
        out = np.empty(host_shape(frame.layout), np.uint8)
        download_frame(frame, out, self.driver, self.stream)
        self.stream.synchronize()
        return out

    @contextmanager
    def copy(self, name: str, layout: FrameLayout) -> Iterator[Case]:
        """A copy on the device of a frame: the least that any new picture costs."""
        (pointer_bytes,) = (int(layout.height * layout.width * _BYTES[layout.format]),)
        count = self.in_a_row(2 * pointer_bytes)
        sources, frame = self.frames(layout, count)
        targets = [empty_frame(layout, self.driver.allocate) for _ in range(count)]
        nbytes = sum(pitch * rows for (_, pitch), rows in zip(sources[0].planes, _rows(layout), strict=True))

        def work(stream: Stream, number: int) -> None:
            self.driver.copy(sources[number].planes[0][0], targets[number].planes[0][0], nbytes, stream)

        def check() -> list[Check]:
            wrong = np.count_nonzero(self.download_frame(targets[0]) != frame)
            return [Check(what="bytes that differ", found=float(wrong), allowed=0)]

        yield Case(f"copy {layout.format} {name}", work, count, 2 * nbytes, check)

    @contextmanager
    def preprocess(self, name: str, layout: FrameLayout) -> Iterator[Case]:
        """A frame to a network's input."""
        frame_bytes = int(layout.height * layout.width * _BYTES[layout.format])
        shape = (3, *self._how.size)
        moved = frame_bytes + 4 * int(np.prod(shape))
        count = self.in_a_row(moved)
        sources, frame = self.frames(layout, count)
        outs = device_constants(self.driver, *(np.zeros(shape, np.float32) for _ in range(count)))
        preprocessor = Preprocessor(self.driver, self.kernels, self._how, layout, np.float32)
        try:
            yield Case(
                f"preprocess {layout.format} {name}",
                lambda stream, number: preprocessor.enqueue(sources[number], outs[number], stream),
                count,
                moved,
                lambda: check_preprocessed(self.download(outs[0]), frame, layout, self._how),
            )
        finally:
            self.stream.synchronize()
            preprocessor.close()

    @contextmanager
    def cam(self, shape: CamShape, dtype: type[np.floating[Any]], count: int) -> Iterator[Case]:
        """Top `count`, their maps and extremes, of one image."""
        with self._maps(shape, dtype, count) as maps:
            yield Case(
                f"cam {shape.name} {np.dtype(dtype).name} top-{count}",
                maps.work,
                len(maps.results),
                maps.bytes_moved,
                maps.check,
            )

    @contextmanager
    def overlay(self, name: str, layout: FrameLayout, shape: CamShape) -> Iterator[Case]:
        """A map over a frame, into another frame."""
        with self._maps(shape, np.float32, 1) as maps:
            maps.work(self.stream, 0)
            drawn = self._drawn(layout, shape)
            one = maps.results[0]

            def work(stream: Stream, number: int) -> None:
                drawn.work(one, stream, number)

            moved = 2 * int(layout.height * layout.width * _BYTES[layout.format])
            yield Case(
                f"overlay {layout.format} {name}",
                work,
                len(drawn.outs),
                moved,
                lambda: [drawn.check(self.download(one.maps)[0, 0])],
            )
            self.stream.synchronize()

    @contextmanager
    def post_process(self, name: str, layout: FrameLayout, shape: CamShape) -> Iterator[Case]:
        """Cam and overlay, one after the other: all that is added to an inference."""
        drawn = self._drawn(layout, shape)
        with self._maps(shape, np.float32, 1, at_most=len(drawn.outs)) as maps:

            def work(stream: Stream, number: int) -> None:
                maps.work(stream, number)
                drawn.work(maps.results[number], stream, number)

            yield Case(
                f"cam and overlay {layout.format} {name} {shape.name} top-1",
                work,
                len(drawn.outs),
                None,
                lambda: [*maps.check(), drawn.check(self.download(maps.results[0].maps)[0, 0])],
            )
            self.stream.synchronize()

    @contextmanager
    def _maps(
        self, shape: CamShape, dtype: type[np.floating[Any]], count: int, *, at_most: int = _MOST_IN_A_ROW
    ) -> Iterator[_Maps]:
        driver, random = self.driver, self._random
        features = np.maximum(random.standard_normal((1, shape.channels, *shape.map_size)), 0).astype(dtype)
        logits = random.standard_normal((1, shape.classes)).astype(dtype)
        weights = (0.05 * random.standard_normal((shape.classes, shape.channels))).astype(np.float32)
        moved = features.nbytes + logits.nbytes + 4 * count * (shape.channels + int(np.prod(shape.map_size)))
        runs = min(self.in_a_row(moved), at_most)
        (on_device,) = device_constants(driver, weights)
        inputs = [
            dict(zip((names.FEATURES, names.LOGITS), device_constants(driver, features, logits), strict=True))
            for _ in range(runs)
        ]
        layout = CamLayout(1, count, shape.map_size)
        results = [new_cam_arrays(layout, driver.allocate) for _ in range(runs)]
        cam = Cam(
            driver,
            self.kernels,
            kind=HeadKind.AFFINE,
            map_size=shape.map_size,
            input_size=self._how.size,
            weights=on_device,
            count=count,
        )
        seen = [place(self._how.size, self._how).input_rect]

        def work(stream: Stream, number: int) -> None:
            cam.enqueue(inputs[number], seen, results[number], stream)

        def check() -> list[Check]:
            one = results[0]
            return check_maps(
                self.download(one.maps)[0],
                self.download(one.classes)[0],
                features=features[0],
                logits=logits[0],
                weights=weights,
            )

        try:
            yield _Maps(work, results, moved, check)
        finally:
            self.stream.synchronize()
            cam.close()

    def _drawn(self, layout: FrameLayout, shape: CamShape) -> _Drawn:
        nbytes = int(layout.height * layout.width * _BYTES[layout.format])
        count = self.in_a_row(2 * nbytes)
        sources, frame = self.frames(layout, count)
        outs = [empty_frame(layout, self.driver.allocate) for _ in range(count)]
        placement = place((layout.height, layout.width), self._how)
        overlay = Overlay(
            self.driver,
            self.kernels,
            layout=layout,
            placement=placement,
            input_size=self._how.size,
            map_size=shape.map_size,
            colormap=COLORMAP,
            alpha=ALPHA,
        )

        def work(one: CamArrays, stream: Stream, number: int) -> None:
            overlay.enqueue(one.maps.pointer, one.extremes.pointer, sources[number], outs[number], stream)

        def check(raw: NDArray[np.float32]) -> Check:
            return check_overlay(self.download_frame(outs[0]), frame, layout, raw, self._how.size, placement)

        return _Drawn(work, outs, check)


@dataclass(frozen=True, slots=True)
class _Maps:
    work: Work
    results: list[CamArrays]
    bytes_moved: int
    check: Callable[[], list[Check]]


@dataclass(frozen=True, slots=True)
class _Drawn:
    work: Callable[[CamArrays, Stream, int], None]
    outs: list[DeviceFrame]
    check: Callable[[NDArray[np.float32]], Check]


def _rows(layout: FrameLayout) -> tuple[int, ...]:
    return (layout.height, layout.height // 2) if layout.format == "nv12" else (layout.height,)
