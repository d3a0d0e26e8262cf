"""CUDA by cuda.core, NVIDIA's own library, in the device's primary context, which PyTorch and ONNX Runtime share.

Where cuda.core has no verb (copies, page-locked memory, the stack of contexts), or one that will not do (captures),
cuda.bindings' driver API below it is called.
"""

# What each method does is in gapcam.cuda.driver:
# ruff: noqa: D102

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from cuda import core
from cuda.bindings import __version__ as bindings_version
from cuda.bindings import driver as cu
from cuda.core._utils.cuda_utils import CUDAError  # what cuda.core raises; it has no public name
from numpy.typing import DTypeLike, NDArray

from gapcam.cuda.driver import Dim, KernelArgument, Stream
from gapcam.cuda.driver_errors import driver_error
from gapcam.cuda.driver_fit import check_fits
from gapcam.cuda.thread_state import CaptureMode, capture_mode
from gapcam.errors import BackendError

_KNOWS_PARAMETERS = (12, 4)
"""The first CUDA whose driver tells a kernel's parameters."""


class CudaCoreDriver:
    """`gapcam.cuda.driver.Driver` by cuda.core.

    Args:
        device: its number.

    Raises:
        BackendError: there is no such device, or NVIDIA's driver cannot use it; `open_driver` says why there is none.
    """

    name = f"cuda.core {core.__version__}"
    has_graphs = True

    def __init__(self, device: int = 0) -> None:
        self._device_number = device
        self._capturing = threading.local()
        with _Doing(f"open device {device}"):
            _call(cu.cuInit(0))
            handle = _call(cu.cuDeviceGet(device))
            version = _call(cu.cuDriverGetVersion())
            self._driver_version = (version // 1000, version % 1000 // 10)
            check_fits(self._driver_version, "cuda-bindings", bindings_version)
            self._context = _call(cu.cuDevicePrimaryCtxRetain(handle))
        with self.active(), _Doing(f"open device {device}"):
            opened = self._core_device()
            self._device_name: str = opened.name
            self._architecture = f"sm_{opened.arch}"

    @property
    def device(self) -> int:
        return self._device_number

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
        with _Doing("make its context current"):
            _call(cu.cuCtxPushCurrent(self._context))
        try:
            with capture_mode(CaptureMode.THREAD_LOCAL):
                yield
        finally:
            cu.cuCtxPopCurrent()

    def allocate(self, nbytes: int) -> CudaCoreMemory:
        if self._unfreed is not None:
            raise BackendError(f"{nbytes} bytes were to be allocated during a capture; allocate them before")
        with _Doing(f"allocate {nbytes} bytes on the device"):
            return CudaCoreMemory(self, int(_call(cu.cuMemAlloc(nbytes))), nbytes)

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        # NumPy keeps the memory for as long as there is the array, or a view of it.
        return np.asarray(_PinnedMemory(self, tuple(shape), np.dtype(dtype)))

    def stream(self) -> CudaCoreStream:
        with _Doing("make a stream"):
            return CudaCoreStream(self._core_device().create_stream(options=core.StreamOptions(nonblocking=True)))

    def wrap_stream(self, handle: int) -> CudaCoreStream:
        with _Doing("take somebody else's stream"):
            return CudaCoreStream(core.Stream.from_handle(handle))

    def wait_for(self, handle: int, stream: Stream) -> None:
        with _Doing("wait for somebody else's stream"):
            event = self._core_device().create_event()
            core.Stream.from_handle(handle).record(event)
            _core_stream(stream).wait(event)

    def event(self, *, timing: bool = False) -> CudaCoreEvent:
        with _Doing("make an event"):
            return CudaCoreEvent(self._core_device().create_event(core.EventOptions(timing_enabled=timing)))

    def load(self, cubin: bytes) -> CudaCoreModule:
        with _Doing("load compiled code"):
            code = core.ObjectCode.from_cubin(cubin)
            _ = code.handle  # it is loaded only now
        return CudaCoreModule(code, self._driver_version >= _KNOWS_PARAMETERS)

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
        assert isinstance(function, CudaCoreFunction)  # noqa: S101 - of this driver's module
        function.check(arguments)
        config = core.LaunchConfig(grid=grid, block=block, shmem_size=shared_bytes)
        with _Doing(f"launch {function.name}"):
            core.launch(_core_stream(stream), config, function.kernel, *arguments)

    def upload(self, source: NDArray[Any], pointer: int, stream: Stream) -> None:
        address = self._host_address(source, contiguous=True)
        with _Doing(f"copy {source.nbytes} bytes to the device"):
            _call(cu.cuMemcpyHtoDAsync(pointer, address, source.nbytes, stream.handle))

    def download(self, pointer: int, out: NDArray[Any], stream: Stream) -> None:
        address = self._host_address(out, contiguous=True)
        with _Doing(f"copy {out.nbytes} bytes from the device"):
            _call(cu.cuMemcpyDtoHAsync(address, pointer, out.nbytes, stream.handle))

    def upload_rows(self, source: NDArray[Any], pointer: int, pitch: int, stream: Stream) -> None:
        rows = _host_rows(source, self._host_address(source, contiguous=False))
        self._copy_rows(rows, _Rows(pointer, pitch, is_host=False), source.shape, stream)

    def download_rows(self, pointer: int, pitch: int, out: NDArray[Any], stream: Stream) -> None:
        rows = _host_rows(out, self._host_address(out, contiguous=False))
        self._copy_rows(_Rows(pointer, pitch, is_host=False), rows, out.shape, stream)

    def copy(self, source: int, target: int, nbytes: int, stream: Stream) -> None:
        with _Doing(f"copy {nbytes} bytes on the device"):
            _call(cu.cuMemcpyDtoDAsync(target, source, nbytes, stream.handle))

    def copy_rows(
        self, source: int, source_pitch: int, target: int, target_pitch: int, shape: tuple[int, int], stream: Stream
    ) -> None:
        self._copy_rows(
            _Rows(source, source_pitch, is_host=False), _Rows(target, target_pitch, is_host=False), shape, stream
        )

    @contextmanager
    def capture(self, stream: Stream) -> Iterator[CudaCoreCapture]:
        # Thread-local: other threads go on allocating. What others queue on the stream by its handle, such as an
        # inference engine, is captured as well. What the garbage collector frees meanwhile on this thread would break
        # the capture; it is freed behind it. Not by cuda.core's GraphBuilder: it does not end a capture that was
        # spoilt, and ends whatever the stream captures next when it is collected.
        with _Doing("begin to capture a CUDA graph"):
            _call(cu.cuStreamBeginCapture(stream.handle, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        capture = CudaCoreCapture()
        self._capturing.unfreed = unfreed = list[_Freed]()
        try:
            yield capture
        finally:
            capture.end(stream)
            self._capturing.unfreed = None
            for freed in unfreed:
                freed.free()

    def close(self) -> None:
        """Nothing: the primary context is the process's, as it is for all who share it."""

    def free(self, memory: _Freed) -> None:
        """Free memory of this driver's on whatever thread, now or behind the capture of this thread."""
        if (unfreed := self._unfreed) is not None:
            unfreed.append(memory)
            return
        # Relaxed: the garbage collector may come here while the app captures something on this thread.
        with self.active(), capture_mode(CaptureMode.RELAXED):
            memory.free()

    @property
    def _unfreed(self) -> list[_Freed] | None:
        """What waits for the end of this thread's capture; None outside of one."""
        unfreed: list[_Freed] | None = getattr(self._capturing, "unfreed", None)
        return unfreed

    def _core_device(self) -> core.Device:
        """cuda.core's object for this thread, which wants to be told that a context is current."""
        device = core.Device(self._device_number)
        device.set_current()
        return device

    def _host_address(self, array: NDArray[Any], *, contiguous: bool) -> int:
        if contiguous and not array.flags.c_contiguous:
            raise ValueError("the array is not C-contiguous")
        address: int = array.__array_interface__["data"][0]
        if self._unfreed is not None:
            error, kind = cu.cuPointerGetAttribute(cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
            if error != cu.CUresult.CUDA_SUCCESS or int(kind) != int(cu.CUmemorytype.CU_MEMORYTYPE_HOST):
                raise BackendError("an array that is not pinned was to be copied during a capture; use Driver.pinned")
        return address

    @staticmethod
    def _copy_rows(source: _Rows, target: _Rows, shape: tuple[int, ...], stream: Stream) -> None:
        host, device = cu.CUmemorytype.CU_MEMORYTYPE_HOST, cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy = cu.CUDA_MEMCPY2D()
        copy.Height, copy.WidthInBytes = shape
        copy.srcMemoryType, copy.srcPitch = host if source.is_host else device, source.pitch
        copy.dstMemoryType, copy.dstPitch = host if target.is_host else device, target.pitch
        if source.is_host:
            copy.srcHost = source.address
        else:
            copy.srcDevice = source.address
        if target.is_host:
            copy.dstHost = target.address
        else:
            copy.dstDevice = target.address
        with _Doing(f"copy {shape[0]} rows of {shape[1]} bytes"):
            _call(cu.cuMemcpy2DAsync(copy, stream.handle))


class _Freed(Protocol):
    def free(self) -> None:
        """Free it, in a context that is current."""


class CudaCoreMemory:
    """`gapcam.cuda.driver.Memory`. CUDA frees it when all that was queued on the device is done."""

    def __init__(self, driver: CudaCoreDriver, pointer: int, nbytes: int) -> None:
        self._driver, self._pointer, self._nbytes, self._is_closed = driver, pointer, nbytes, False

    @property
    def pointer(self) -> int:
        return self._pointer

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._driver.free(_DeviceBlock(self._pointer))

    def __del__(self) -> None:
        self.close()


class _DeviceBlock:
    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    def free(self) -> None:
        cu.cuMemFree(self._pointer)  # a device that is lost has freed it already: the error says nothing new


class _HostBlock:
    def __init__(self, address: int) -> None:
        self._address = address

    def free(self) -> None:
        cu.cuMemFreeHost(self._address)  # as above


class _PinnedMemory:
    """Page-locked memory that NumPy makes an array of."""

    def __init__(self, driver: CudaCoreDriver, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        nbytes = max(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, 1)
        if driver._unfreed is not None:
            raise BackendError(f"{nbytes} bytes were to be page-locked during a capture; do so before")
        with _Doing(f"page-lock {nbytes} bytes on the host"):
            address = int(_call(cu.cuMemHostAlloc(nbytes, 0)))
        self._driver, self._block = driver, _HostBlock(address)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (address, False)}

    def __del__(self) -> None:
        if hasattr(self, "_block"):
            self._driver.free(self._block)


class CudaCoreStream:
    """`gapcam.cuda.driver.Stream`."""

    def __init__(self, stream: core.Stream) -> None:
        self.core = stream
        self._handle = int(stream.handle)

    @property
    def handle(self) -> int:
        return self._handle

    def synchronize(self) -> None:
        with _Doing("finish what was queued"):
            self.core.sync()

    def wait(self, event: object) -> None:
        with _Doing("wait for an event"):
            self.core.wait(_core_event(event))


class CudaCoreEvent:
    """`gapcam.cuda.driver.Event`."""

    def __init__(self, event: core.Event) -> None:
        self.core = event

    def record(self, stream: Stream) -> None:
        with _Doing("record an event"):
            _core_stream(stream).record(self.core)

    def synchronize(self) -> None:
        with _Doing("finish what was queued"):
            self.core.sync()

    def milliseconds_since(self, earlier: object) -> float:
        try:
            milliseconds: float = self.core - _core_event(earlier)
            return milliseconds
        except (CUDAError, RuntimeError) as error:
            raise BackendError(f"no time lies between these events: {_first_line(error)}") from error


class CudaCoreModule:
    """`gapcam.cuda.driver.Module`."""

    def __init__(self, code: core.ObjectCode, knows_parameters: bool) -> None:
        self._code, self._knows_parameters = code, knows_parameters

    def function(self, name: str) -> CudaCoreFunction:
        try:
            kernel = self._code.get_kernel(name)
        except CUDAError as error:
            raise KeyError(f"there is no kernel {name}: {_first_line(error)}") from error
        sizes = tuple(info.size for info in kernel.arguments_info) if self._knows_parameters else None
        return CudaCoreFunction(name, kernel, sizes)


class CudaCoreFunction:
    """A kernel.

    Args:
        name: in its module.
        kernel: cuda.core's.
        sizes: of its parameters, in bytes; None where they are not known.
    """

    def __init__(self, name: str, kernel: core.Kernel, sizes: tuple[int, ...] | None) -> None:
        self.name, self.kernel, self._sizes = name, kernel, sizes

    def check(self, arguments: Sequence[KernelArgument]) -> None:
        """CUDA does not count the arguments, and takes whatever lies behind them.

        Raises:
            TypeError: they are not those of its parameters.
        """
        if self._sizes is not None and (sizes := tuple(argument.itemsize for argument in arguments)) != self._sizes:
            raise TypeError(f"{self.name} takes arguments of {self._sizes} bytes, got {sizes}")


class CudaCoreCapture:
    """`gapcam.cuda.driver.Capture`."""

    def __init__(self) -> None:
        self._error: cu.CUresult | None = None
        self._graph: object = None

    def end(self, stream: Stream) -> None:
        """End it, whatever has come of it."""
        self._error, self._graph = cu.cuStreamEndCapture(stream.handle)

    def graph(self) -> CudaCoreGraph:
        with _Doing("capture a CUDA graph"):
            graph = _call((self._error, self._graph))
            return CudaCoreGraph(_call(cu.cuGraphInstantiate(graph, 0)))

    def __del__(self) -> None:
        if self._error == cu.CUresult.CUDA_SUCCESS:
            cu.cuGraphDestroy(self._graph)


class CudaCoreGraph:
    """`gapcam.cuda.driver.Graph`."""

    def __init__(self, executable: object) -> None:
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        with _Doing("launch a CUDA graph"):
            _call(cu.cuGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        executable, self._executable = self._executable, None
        if executable is not None:
            cu.cuGraphExecDestroy(executable)

    def __del__(self) -> None:
        self.close()


class _Rows:
    """Where the rows of a copy begin, and how many bytes they are apart."""

    def __init__(self, address: int, pitch: int, *, is_host: bool) -> None:
        self.address, self.pitch, self.is_host = address, pitch, is_host


def _host_rows(array: NDArray[Any], address: int) -> _Rows:
    if array.ndim != 2 or array.dtype != np.uint8 or array.strides[1] != 1 or array.strides[0] < array.shape[1]:
        raise ValueError(f"rows of uint8 wanted, each contiguous; got {array.dtype}, {array.shape}, {array.strides}")
    return _Rows(address, array.strides[0], is_host=True)


class _Doing:
    """Errors of CUDA's inside of it become BackendErrors that say what was being done."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CUDAError):
            raise driver_error(self._doing, _name(error)) from error


def _call(result: tuple[Any, ...]) -> Any:
    """What a function of cuda.bindings returns, without its error code."""
    error, *values = result
    if error != cu.CUresult.CUDA_SUCCESS:
        raise CUDAError(error.name)
    return values[0] if values else None


def _name(error: CUDAError) -> str:
    """CUDA's name of an error, with which cuda.core's message begins."""
    return str(error).partition(":")[0].strip()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _core_stream(stream: Stream) -> core.Stream:
    assert isinstance(stream, CudaCoreStream)  # noqa: S101 - of this driver
    return stream.core


def _core_event(event: object) -> core.Event:
    assert isinstance(event, CudaCoreEvent)  # noqa: S101 - of this driver
    return event.core
