"""One camera's frames, always treated alike: captured in a CUDA graph once, replayed for each, where that can be.

    frame -> preprocess -> inference -> maps of the best classes -> overlay -> what is wanted on the host

All is decided and allocated beforehand. With a TensorRT engine, a frame then costs the host a copy into pinned memory,
a few calls and a wait. With ONNX Runtime, whose lanes cannot be captured, and with PyCUDA, which has no graphs, the
same work is queued step by step; of it, ONNX Runtime's CUDA provider replays the inference as a graph of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from types import TracebackType

import numpy as np

from gapcam.backends.device_protocol import DeviceBackend
from gapcam.classes import ClassRef
from gapcam.cuda.device_array import LEGACY_DEFAULT_STREAM
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.device_model import DeviceModel
from gapcam.cuda.driver import Graph
from gapcam.cuda.frame_copy import host_shape, upload_frame
from gapcam.cuda.frame_graph_result import FrameGraphResult
from gapcam.cuda.frame_input import FrameInput, checked_input
from gapcam.cuda.frame_work import FrameWork, Output
from gapcam.errors import BackendError, FrameError, UsageError
from gapcam.frame import Frame
from gapcam.geometry import Placement
from gapcam.look import Look

_CLOSED = "the frame graph is closed, or its session; make another with session.frame_graph"


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
        stream: the cudaStream_t on which the graph runs.
        why_not_captured: why it does not run as one CUDA graph; "" if it does.

    Raises:
        ClassNotFoundError: there is no such class among `targets`.
        MapNotComputedError: a nonlinear head's graph computes rows for fewer classes than `topk`.
        UsageError: `layout`, `topk`, `targets` or `output` is none.
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
        self._shared, self._driver = shared, shared.driver
        work = FrameWork(
            shared,
            backend,
            layout,
            topk=topk,
            targets=targets,
            look=look,
            clamp_negative=clamp_negative,
            output=output,
        )
        self._work: FrameWork | None = work
        self._stream = work.lane.lane.stream
        self.layout = layout
        self.placement: Placement = work.placement
        self.stream: int = self._stream.handle
        self._host_frame: Frame | None = None
        self._begin, self._end = self._driver.event(timing=True), self._driver.event(timing=True)
        self._lock = Lock()
        self._generation = 0
        self._graph: Graph | None = None
        try:
            self.why_not_captured = self._capture(work)
        except BaseException:
            work.close()
            raise

    @property
    def captured(self) -> bool:
        """Whether it runs as one CUDA graph. If not, the same work is queued step by step."""
        return self._graph is not None

    @property
    def closed(self) -> bool:
        """Whether it was closed, by itself or with its session."""
        return self._work is None

    @property
    def frame(self) -> DeviceFrame:
        """The graph's own frame on the device. Who writes a frame there calls the graph without one: nothing is copied.

        What writes it must be done by then, or queued on `stream`, or on the stream that the call is given as `after`.

        Raises:
            UsageError: the graph is closed.
        """
        return self._opened().frame

    @property
    def host_frame(self) -> Frame:
        """A frame in pinned memory, for a camera to write into. Handed to the graph, it is uploaded without a copy.

        Of `ok, frame = camera.read(graph.host_frame)` hand in `frame`: the same array, or a new one where the camera's
        frames have another size, which the graph refuses.
        """
        if self._host_frame is None:
            with self._driver.active():
                self._host_frame = self._driver.pinned(host_shape(self.layout), np.uint8)
        return self._host_frame

    def __call__(self, frame: object = None, *, after: int | None = None) -> FrameGraphResult:
        """Explain one frame.

        Args:
            frame: like those of `Session.__call__`, of the graph's layout: on the host, from where it goes through
                pinned memory; or on the device. None: it is in `frame` already.
            after: a cudaStream_t whose work the graph waits for, as `torch.cuda.current_stream().cuda_stream`: what
                still reads the last overlay on the device, or writes `frame`. 0 and 1 are the legacy default stream, 2
                this thread's own. By default that work must be done, or queued on `stream`.

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
            work, stream = self._opened(), self._stream
            source = self._staged(frame, work)
            self._generation += 1
            generation = self._generation
            try:
                if after is not None:
                    self._driver.wait_for(after or LEGACY_DEFAULT_STREAM, stream)
                self._begin.record(stream)
                if source is not None:
                    source.copy_to(work.frame, self._driver, stream)
                if self._graph is None:
                    work.queue()
                else:
                    self._graph.launch(stream)
                self._end.record(stream)
                stream.synchronize()
            except BaseException:
                with suppress(BackendError):  # the first error is the one to tell
                    stream.synchronize()
                raise
            work.check()
            return FrameGraphResult(
                self._shared,
                work.found,
                work.overlay,
                placement=self.placement,
                device_ms=self._end.milliseconds_since(self._begin),
                is_current=lambda: self._generation == generation and self._work is not None,
            )

    def close(self) -> None:
        """Free its memory and its lane. Of its results, copies stay. Closing twice does nothing."""
        with self._lock, self._driver.active():
            work, self._work = self._work, None
            if work is None:
                return
            if self._graph is not None:
                self._graph.close()
            work.close()

    def __enter__(self) -> FrameGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> FrameWork:
        if self._work is None:
            raise UsageError(_CLOSED)
        return self._work

    def _staged(self, frame: object, work: FrameWork) -> FrameInput | None:
        """The frame where it can be queued from: on the device, or in pinned memory. None: it is there already."""
        if frame is None or frame is work.frame:
            return None
        given = checked_input(frame, self.layout.format)
        if given.layout != self.layout:
            raise FrameError(f"got a frame of {given.layout}; this frame graph was made for {self.layout}")
        if given.host is None or given.host is self._host_frame:
            return given
        np.copyto(self.host_frame, given.host)
        return FrameInput(self.layout, self.host_frame, None)

    def _capture(self, work: FrameWork) -> str:
        """Run once, which allocates what is allocated at first use, and capture the same; why not, or ""."""
        black = np.zeros(host_shape(self.layout), np.uint8)
        upload_frame(black, work.frame, self._driver, self._stream)
        work.queue()
        self._stream.synchronize()
        if not self._driver.has_graphs:
            return f"{self._driver.name} has no graphs"
        if not work.lane.lane.capturable:
            return "the engine cannot be captured"
        try:
            with self._driver.capture(self._stream) as capture:
                work.queue()
            self._graph = capture.graph()
        except BackendError as error:
            work.queue()  # a second failure is one of the engine
            self._stream.synchronize()
            return str(error)
        return ""
