"""CUDA by PyCUDA, for apps that run it already: inside the context that the app made.

PyCUDA has no graphs, and cannot take somebody else's stream.
"""

# What each method does is in gapcam.cuda.driver:
# ruff: noqa: D102

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import numpy as np
import pycuda
from numpy.typing import DTypeLike, NDArray
from pycuda import driver as cuda

from gapcam.cuda.device_array import LEGACY_DEFAULT_STREAM
from gapcam.cuda.driver import Capture, Dim, KernelArgument, Stream
from gapcam.cuda.driver_errors import driver_error
from gapcam.cuda.driver_fit import check_fits
from gapcam.cuda.nvrtc import nvrtc_version
from gapcam.cuda.thread_state import CaptureMode, capture_mode
from gapcam.errors import BackendError, MissingExtraError

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which PyCUDA has no name."""

_NAMES = {
    "out of memory": "CUDA_ERROR_OUT_OF_MEMORY",
    "no kernel image is available for execution on the device": "CUDA_ERROR_NO_BINARY_FOR_GPU",
    "device kernel image is invalid": "CUDA_ERROR_INVALID_IMAGE",
    "the provided PTX was compiled with an unsupported toolchain.": "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
    "invalid device context": "CUDA_ERROR_INVALID_CONTEXT",
    "context is destroyed": "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "invalid device ordinal": "CUDA_ERROR_INVALID_DEVICE",
    "an illegal memory access was encountered": "CUDA_ERROR_ILLEGAL_ADDRESS",
    "misaligned address": "CUDA_ERROR_MISALIGNED_ADDRESS",
    "unspecified launch failure": "CUDA_ERROR_LAUNCH_FAILED",
    "the launch timed out and was terminated": "CUDA_ERROR_LAUNCH_TIMEOUT",
    "too many resources requested for launch": "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
    "uncorrectable ECC error encountered": "CUDA_ERROR_ECC_UNCORRECTABLE",
}
"""CUDA's names for its errors, by the texts that PyCUDA gives instead."""


class PyCudaDriver:
    """`gapcam.cuda.driver.Driver` by PyCUDA.

    It lives in the context that is current on this thread, if PyCUDA made it so, and else in the device's primary
    context, which other libraries share. `active()` pushes it and pops it, on any thread. The app keeps its context
    until gapcam's sessions are closed.

    Args:
        device: its number, which must be that of a current context.

    Raises:
        BackendError: there is no such device, or the app's context is on another one.
    """

    name = f"PyCUDA {pycuda.VERSION_TEXT}"
    has_graphs = False

    def __init__(self, device: int = 0) -> None:
        with _Doing(f"open device {device}"):
            cuda.init()
            version = cuda.get_driver_version()
            self._driver_version = (version // 1000, version % 1000 // 10)
            _check_compiler(self._driver_version)
            opened = cuda.Device(device)
            current = cuda.Context.get_current()
            if current is not None and cuda.Context.get_device() != opened:
                raise BackendError(
                    f"the PyCUDA context that is current on this thread is not of device {device}; make gapcam's "
                    "session with the number of the context's device, or on a thread without a context"
                )
            self._context = current if current is not None else _primary_context(opened, device)
            major, minor = opened.compute_capability()
        self._device = device
        self._device_name: str = opened.name()
        self._architecture = f"sm_{major}{minor}"
        self._streams: WeakValueDictionary[int, PyCudaStream] = WeakValueDictionary()

    @property
    def device(self) -> int:
        return self._device

    @property
    def device_name(self) -> str:
        return self._device_name

    @property
    def architecture(self) -> str:
        return self._architecture

    @property
    def driver_version(self) -> tuple[int, int]:
        return self._driver_version

    @contextmanager
    def active(self) -> Iterator[None]:
        with _Doing("make the app's context current"):
            self._context.push()
        try:
            with capture_mode(CaptureMode.THREAD_LOCAL):
                yield
        finally:
            cuda.Context.pop()

    def allocate(self, nbytes: int) -> PyCudaMemory:
        with _Doing(f"allocate {nbytes} bytes on the device"):
            return PyCudaMemory(self, cuda.mem_alloc(nbytes), nbytes)

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        # NumPy keeps the memory for as long as there is the array, or a view of it.
        return np.asarray(_PinnedMemory(self, tuple(shape), np.dtype(dtype)))

    def stream(self) -> PyCudaStream:
        with _Doing("make a stream"):
            stream = PyCudaStream(self, cuda.Stream(_NON_BLOCKING))
        self._streams[stream.handle] = stream
        return stream

    def wrap_stream(self, handle: int) -> PyCudaStream:
        stream = self._streams.get(handle)
        if stream is None:
            raise BackendError(
                "PyCUDA cannot take somebody else's stream; hand one that this driver made to the other library, or "
                "use cuda.core: open_driver('cuda-core')"
            )
        return stream

    def wait_for(self, handle: int, stream: Stream) -> None:
        other = self._streams.get(handle)
        with _Doing("wait for somebody else's stream"):
            if other is not None or handle == LEGACY_DEFAULT_STREAM:
                event = cuda.Event(cuda.event_flags.DISABLE_TIMING)
                event.record(None if other is None else other.pycuda)  # None is the legacy default stream
                _pycuda_stream(stream).wait_for_event(event)
            else:
                cuda.Context.synchronize()  # PyCUDA has no name for this stream

    def event(self, *, timing: bool = False) -> PyCudaEvent:
        flags = cuda.event_flags.DEFAULT if timing else cuda.event_flags.DISABLE_TIMING
        with _Doing("make an event"):
            return PyCudaEvent(self, cuda.Event(flags))

    def load(self, cubin: bytes) -> PyCudaModule:
        with _Doing("load compiled code"):
            return PyCudaModule(self, cuda.module_from_buffer(cubin))

    def launch(
        self,
        function: object,
        grid: Dim,
        block: Dim,
        arguments: Sequence[KernelArgument],
        stream: Stream,
        *,
        shared_bytes: int = 0,
    ) -> None:
        assert isinstance(function, PyCudaFunction)  # noqa: S101 - of this driver's module
        with _Doing(f"launch {function.name}"):
            function.pycuda(*arguments, grid=grid, block=block, stream=_pycuda_stream(stream), shared=shared_bytes)

    def upload(self, source: NDArray[Any], pointer: int, stream: Stream) -> None:
        if not source.flags.c_contiguous:
            raise ValueError("the array is not C-contiguous")
        with _Doing(f"copy {source.nbytes} bytes to the device"):
            cuda.memcpy_htod_async(pointer, source, _pycuda_stream(stream))

    def download(self, pointer: int, out: NDArray[Any], stream: Stream) -> None:
        if not out.flags.c_contiguous:
            raise ValueError("the array is not C-contiguous")
        with _Doing(f"copy {out.nbytes} bytes from the device"):
            cuda.memcpy_dtoh_async(out, pointer, _pycuda_stream(stream))

    def upload_rows(self, source: NDArray[Any], pointer: int, pitch: int, stream: Stream) -> None:
        copy = cuda.Memcpy2D()
        copy.set_src_host(_checked_rows(source))
        copy.src_pitch = source.strides[0]
        copy.set_dst_device(pointer)
        copy.dst_pitch = pitch
        _copy_rows(copy, source.shape, stream)

    def download_rows(self, pointer: int, pitch: int, out: NDArray[Any], stream: Stream) -> None:
        copy = cuda.Memcpy2D()
        copy.set_src_device(pointer)
        copy.src_pitch = pitch
        copy.set_dst_host(_checked_rows(out))
        copy.dst_pitch = out.strides[0]
        _copy_rows(copy, out.shape, stream)

    def copy(self, source: int, target: int, nbytes: int, stream: Stream) -> None:
        with _Doing(f"copy {nbytes} bytes on the device"):
            cuda.memcpy_dtod_async(target, source, nbytes, _pycuda_stream(stream))

    def copy_rows(
        self, source: int, source_pitch: int, target: int, target_pitch: int, shape: tuple[int, int], stream: Stream
    ) -> None:
        copy = cuda.Memcpy2D()
        copy.set_src_device(source)
        copy.src_pitch = source_pitch
        copy.set_dst_device(target)
        copy.dst_pitch = target_pitch
        _copy_rows(copy, shape, stream)

    def capture(self, stream: Stream) -> AbstractContextManager[Capture]:  # noqa: ARG002 - the interface's
        raise BackendError("PyCUDA has no CUDA graphs; queue the work itself, or use cuda.core")

    def close(self) -> None:
        """Nothing: the context is the app's."""

    def end(self, end: Callable[[], object]) -> None:
        """Let go of something that is the context's, on whatever thread the garbage collector runs."""
        try:
            # Relaxed: the garbage collector may come here while the app captures something on this thread.
            with self.active(), capture_mode(CaptureMode.RELAXED):
                end()
        except BackendError:
            pass  # the app has ended its context, and all that was in it


class PyCudaMemory:
    """`gapcam.cuda.driver.Memory`. CUDA frees it when all that was queued on the device is done."""

    def __init__(self, driver: PyCudaDriver, allocation: Any, nbytes: int) -> None:
        self._driver, self._allocation, self._nbytes, self._pointer = driver, allocation, nbytes, int(allocation)

    @property
    def pointer(self) -> int:
        return self._pointer

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def close(self) -> None:
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            self._driver.end(allocation.free)

    def __del__(self) -> None:
        self.close()


class _PinnedMemory:
    """Page-locked memory that NumPy makes an array of."""

    def __init__(self, driver: PyCudaDriver, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        nbytes = max(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, 1)
        with _Doing(f"page-lock {nbytes} bytes on the host"):
            array = cuda.pagelocked_empty(nbytes, np.uint8)
        self._driver, self._allocation = driver, array.base
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (address, False)}

    def __del__(self) -> None:
        if hasattr(self, "_allocation"):
            self._driver.end(self._allocation.free)


class _Held:
    """Something of PyCUDA's that it ends when nobody holds it any more, which it can only in its context."""

    def __init__(self, driver: PyCudaDriver, held: Any) -> None:
        self._driver, self.pycuda = driver, held

    def __del__(self) -> None:
        held = [self.__dict__.pop("pycuda", None)]
        self._driver.end(held.clear)


class PyCudaStream(_Held):
    """`gapcam.cuda.driver.Stream`."""

    def __init__(self, driver: PyCudaDriver, stream: Any) -> None:
        super().__init__(driver, stream)
        self._handle = int(stream.handle)

    @property
    def handle(self) -> int:
        return self._handle

    def synchronize(self) -> None:
        with _Doing("finish what was queued"):
            self.pycuda.synchronize()

    def wait(self, event: object) -> None:
        with _Doing("wait for an event"):
            self.pycuda.wait_for_event(_pycuda_event(event))


class PyCudaEvent(_Held):
    """`gapcam.cuda.driver.Event`."""

    def record(self, stream: Stream) -> None:
        with _Doing("record an event"):
            self.pycuda.record(_pycuda_stream(stream))

    def synchronize(self) -> None:
        with _Doing("finish what was queued"):
            self.pycuda.synchronize()

    def milliseconds_since(self, earlier: object) -> float:
        try:
            return float(self.pycuda.time_since(_pycuda_event(earlier)))
        except cuda.Error as error:
            raise BackendError(f"no time lies between these events: {error}") from error


class PyCudaModule(_Held):
    """`gapcam.cuda.driver.Module`."""

    def function(self, name: str) -> PyCudaFunction:
        try:
            return PyCudaFunction(self, name, self.pycuda.get_function(name))
        except cuda.Error as error:
            raise KeyError(f"there is no kernel {name}: {error}") from error


class PyCudaFunction:
    """A kernel.

    Args:
        module: which it needs.
        name: in the module.
        function: PyCUDA's.
    """

    def __init__(self, module: PyCudaModule, name: str, function: Any) -> None:
        self.name, self.pycuda = name, function
        self._module = module


class _Doing:
    """Errors of CUDA's inside of it become BackendErrors that say what was being done."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, cuda.Error):
            _raise(self._doing, error)


_primary_contexts: dict[int, Any] = {}


def _check_compiler(driver: tuple[int, int]) -> None:
    """Code of a newer NVRTC than the driver's would be refused only when it is loaded, without a word of why."""
    try:
        major, minor = nvrtc_version()
    except (MissingExtraError, BackendError):
        return  # who compiles says so; memory and streams do without
    check_fits(driver, "NVRTC", f"{major}.{minor}")


def _primary_context(opened: Any, device: int) -> Any:
    """A device's primary context, kept until the process ends: PyCUDA fails to let go of one that is collected."""
    if device not in _primary_contexts:
        context = _primary_contexts[device] = opened.retain_primary_context()
        atexit.register(context.detach)
    return _primary_contexts[device]


def _raise(doing: str, error: Exception) -> NoReturn:
    _, _, text = str(error).partition(": ")  # "cuMemAlloc failed: out of memory"
    text = text.partition(" -")[0].strip()
    raise driver_error(doing, _NAMES.get(text, str(error))) from error


def _copy_rows(copy: Any, shape: tuple[int, ...], stream: Stream) -> None:
    copy.height, copy.width_in_bytes = shape
    with _Doing(f"copy {shape[0]} rows of {shape[1]} bytes"):
        copy(_pycuda_stream(stream))


def _checked_rows(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2 or array.dtype != np.uint8 or array.strides[1] != 1 or array.strides[0] < array.shape[1]:
        raise ValueError(f"rows of uint8 wanted, each contiguous; got {array.dtype}, {array.shape}, {array.strides}")
    return array


def _pycuda_stream(stream: Stream) -> Any:
    assert isinstance(stream, PyCudaStream)  # noqa: S101 - of this driver
    return stream.pycuda


def _pycuda_event(event: object) -> Any:
    assert isinstance(event, PyCudaEvent)  # noqa: S101 - of this driver
    return event.pycuda
