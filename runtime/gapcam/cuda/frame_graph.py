"""One camera's frames, always treated alike: captured in a CUDA graph once, replayed for each.

    frame -> preprocess -> inference -> maps of the best classes -> overlay -> what is wanted on the host

All is decided and allocated beforehand. A frame then costs the host a copy into pinned memory, two calls and a wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from types import TracebackType
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
from gapcam.cuda.driver import Graph, Memory
from gapcam.cuda.frame_copy import download_frame, empty_frame, host_shape, upload_frame
from gapcam.cuda.frame_graph_result import FrameGraphResult
from gapcam.cuda.frame_input import FrameInput, checked_input
from gapcam.cuda.inference_lane import InferenceLane
from gapcam.cuda.look import Look
from gapcam.errors import BackendError, FrameError, MapNotComputedError, UsageError
from gapcam.frame import Frame
from gapcam.geometry import Placement
from gapcam.model_check import unusable_output

Output: TypeAlias = Literal["host", "device"]

_CLOSED = "the frame graph is closed, or its session; make another with session.frame_graph"

_UNUSABLE = {
    CamStatus.LOGITS_NOT_FINITE: names.LOGITS,
    CamStatus.SCALE_NOT_POSITIVE: names.CAM_SCALE,
    CamStatus.ROWS_NOT_FINITE: names.TOPK_WEIGHTS,
}


class FrameGraph:
    """`gapcam.Session.frame_graph` makes one. Use it as a context manager, or close it; closing the session does, too.

    One frame at a time, in and out; batches have `Session.batch`. Several threads may call it, but the result of one
    is overwritten by the next: give each a graph of its own.

    Args:
        shared: the model on its device.
        backend: what runs it; the graph takes a lane of its own.
        layout: of the frames.
        topk: how many of the best classes get maps.
        targets: the classes that get maps instead, in this order.
        look: of the overlay, of the first class; None for no overlay.
        clamp_negative: without the negative weights, see `gapcam.cam.class_maps`.
        output: whether the overlay comes to the host or stays on the device.

    Attributes:
        layout: of the frames.
        placement: of a frame in the network's input.
        frame: the graph's own frame on the device. Who writes a frame there calls the graph without one, when what
            writes it is done or queued on `stream`: nothing is copied then.
        stream: the cudaStream_t on which the graph runs.
        captured: whether it runs as one CUDA graph. If not, the same work is queued step by step.
        why_not_captured: why not; "" if it does.

    Raises:
        ClassNotFoundError: there is no such class among `targets`.
        MapNotComputedError: a nonlinear head's graph computes rows for fewer classes than `topk`.
        UsageError: `topk`, `targets` or `output` is none.
        BackendError: there is not enough memory, or the engine failed.
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
        self._shared, self._driver, model = shared, shared.driver, shared.model
        indices = None if targets is None else [model.classes.resolve(target) for target in targets]
        count = topk if indices is None else len(indices)
        if not 1 <= count <= len(model.classes.labels):
            raise UsageError(f"asked for maps of {count} classes; give 1 to {len(model.classes.labels)}")
        self.layout = layout
        self._preprocessor = shared.preprocessor(layout)
        self.placement: Placement = self._preprocessor.placement
        self._lane = InferenceLane(backend, model, 1)
        try:
            self._allocate(count, indices, look, output, clamp_negative=clamp_negative)
            self._capture()
        except BaseException:
            self._lane.close()
            raise

    def _allocate(
        self, count: int, indices: list[int] | None, look: Look | None, output: Output, *, clamp_negative: bool
    ) -> None:
        shared, driver, model = self._shared, self._driver, self._shared.model
        self._stream = self._lane.lane.stream
        self.stream: int = self._stream.handle
        self._memories: list[Memory] = []
        self.frame: DeviceFrame = empty_frame(self.layout, self._allocated)
        self._host_frame: Frame | None = None
        self._clamp_negative = clamp_negative
        self._outputs = dict(self._lane.outputs)
        kind = self._kind(count, indices, clamp_negative=clamp_negative)
        if kind is not model.contract.head.kind:
            self._outputs[names.FEATURES] = self._outputs[names.MAPS]
        self._targets: DeviceArray | None = None
        if indices is not None:
            (self._targets,) = device_constants(driver, np.array([indices], np.int32))
        self._cam = shared.cam(kind, count=count)
        layout = CamLayout(1, count, model.map_size)
        self._maps = new_cam_arrays(layout, self._allocated)
        self._found = driver.pinned((layout.nbytes,), np.uint8)
        self._views = {name: view[0] for name, view in layout.on_host(self._found).items()}
        self._overlay = None if look is None else shared.overlay(self.layout, self.placement, look)
        self._picture = None if look is None else empty_frame(self.layout, self._allocated)
        self._host_picture: Frame | None = None
        if look is not None and output == "host":
            self._host_picture = driver.pinned(host_shape(self.layout), np.uint8)
        self._begin, self._end = driver.event(timing=True), driver.event(timing=True)
        self._lock = Lock()
        self._generation = 0
        self._graph: Graph | None = None
        self._closed = False

    def _allocated(self, nbytes: int) -> Memory:
        self._memories.append(self._driver.allocate(nbytes))
        return self._memories[-1]

    def _kind(self, count: int, indices: list[int] | None, *, clamp_negative: bool) -> HeadKind:
        """Of the head, or "class-maps" where the maps are those that a nonlinear head's graph computed of every class.

        Whether a target is among the classes that have a row is another matter with each frame.
        """
        kind = self._shared.model.contract.head.kind
        if kind is not HeadKind.NONLINEAR:
            return kind
        listed = self._outputs[names.TOPK_CLASSES].shape[1]
        if indices is None and count <= listed:
            return kind
        if names.MAPS in self._outputs and not clamp_negative:
            return HeadKind.CLASS_MAPS
        if indices is None:
            raise MapNotComputedError(
                f"asked for the maps of the best {count} classes; the model's head is nonlinear, and its graph "
                f"computes the rows of {listed}. Export it again with --topk {count} or more"
            )
        return kind

    @property
    def captured(self) -> bool:
        """Whether it runs as one CUDA graph."""
        return self._graph is not None

    @property
    def closed(self) -> bool:
        """Whether it was closed, by itself or with its session."""
        return self._closed

    @property
    def host_frame(self) -> Frame:
        """A frame in pinned memory, for a camera to write into. Handed to the graph, it is uploaded without a copy."""
        if self._host_frame is None:
            with self._driver.active():
                self._host_frame = self._driver.pinned(host_shape(self.layout), np.uint8)
        return self._host_frame

    def __call__(self, frame: object = None) -> FrameGraphResult:
        """Explain one frame.

        Args:
            frame: like those of `Session.__call__`, of the graph's layout: on the host, from where it goes through
                pinned memory; or on the device. None: it is in `frame` already.

        Returns:
            What was found, valid until the next call.

        Raises:
            FrameError: it is no frame, or has another layout.
            VerificationError: the logits, rows or a scale are not what they must be.
            MapNotComputedError: a nonlinear head's graph computed no row for one of the targets in this frame.
            BackendError: the engine failed.
            UsageError: the graph is closed.
        """
        with self._lock, self._driver.active():
            if self._closed:
                raise UsageError(_CLOSED)
            source = self._staged(frame)
            self._generation += 1
            try:
                self._begin.record(self._stream)
                if source is not None:
                    source.copy_to(self.frame, self._driver, self._stream)
                if self._graph is None:
                    self._queue()
                else:
                    self._graph.launch(self._stream)
                self._end.record(self._stream)
                self._stream.synchronize()
            except BaseException:
                with suppress(BackendError):  # the first error is the one to tell
                    self._stream.synchronize()
                raise
            self._check()
            generation = self._generation
            return FrameGraphResult(
                self._shared,
                self._views,
                self._picture if self._host_picture is None else self._host_picture,
                placement=self.placement,
                device_ms=self._end.milliseconds_since(self._begin),
                is_current=lambda: self._generation == generation and not self._closed,
            )

    def close(self) -> None:
        """Free its memory and its lane. What is left of its results is what was copied. Twice does nothing."""
        with self._lock, self._driver.active():
            if self._closed:
                return
            self._closed = True
            if self._graph is not None:
                self._graph.close()
            self._cam.close()
            self._lane.close()
            for memory in self._memories:
                memory.close()

    def __enter__(self) -> FrameGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _staged(self, frame: object) -> FrameInput | None:
        """The frame where it can be queued from: on the device, or in pinned memory. None: it is there already."""
        if frame is None or frame is self.frame:
            return None
        given = checked_input(frame, self.layout.format)
        if given.layout != self.layout:
            raise FrameError(f"got a frame of {given.layout}; this frame graph was made for {self.layout}")
        if given.host is None or given.host is self._host_frame:
            return given
        np.copyto(self.host_frame, given.host)
        return FrameInput(self.layout, self.host_frame, None)

    def _capture(self) -> None:
        """Run once, which allocates what is allocated at first use, and then capture the same."""
        black = np.zeros(host_shape(self.layout), np.uint8)
        upload_frame(black, self.frame, self._driver, self._stream)
        self._queue()
        self._stream.synchronize()
        self.why_not_captured = ""
        if not self._driver.has_graphs:
            self.why_not_captured = f"{self._driver.name} has no graphs"
        elif not self._lane.lane.capturable:
            self.why_not_captured = "the engine cannot be captured"
        else:
            try:
                with self._driver.capture(self._stream) as capture:
                    self._queue()
                self._graph = capture.graph()
            except BackendError as error:
                self.why_not_captured = str(error)
                self._queue()  # a second failure is one of the engine
                self._stream.synchronize()

    def _queue(self) -> None:
        """All of the work, from the graph's frame to what is wanted on the host."""
        stream, driver = self._stream, self._driver
        self._preprocessor.enqueue(self.frame, self._lane.image[0], stream)
        self._lane.lane.enqueue()
        self._cam.enqueue(
            self._outputs,
            [self.placement.input_rect],
            self._maps,
            stream,
            targets=self._targets,
            clamp_negative=self._clamp_negative,
        )
        driver.download(self._maps.classes.pointer, self._found, stream)  # the first of all that lies together
        if self._overlay is not None and self._picture is not None:
            self._overlay.enqueue(
                self._maps.maps.pointer, self._maps.extremes.pointer, self.frame, self._picture, stream
            )
            if self._host_picture is not None:
                download_frame(self._picture, self._host_picture, driver, stream)

    def _check(self) -> None:
        status = CamStatus(int(np.bitwise_or.reduce(self._views["status"])))
        model = self._shared.model
        for flag, name in _UNUSABLE.items():
            if flag in status:
                raise unusable_output(name, model.contract, model.name)
        if CamStatus.NO_ROW in status:
            lacking = self._views["classes"][(self._views["status"] & CamStatus.NO_ROW) != 0]
            raise MapNotComputedError(
                f"the map of {model.classes.labels[lacking[0]]!r} is not in this frame's result: the model's head is "
                "nonlinear, and its graph computes the rows of the best classes only. Export it again with a greater "
                "--topk, or with --emit maps"
            )
