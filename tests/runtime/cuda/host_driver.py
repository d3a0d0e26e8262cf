"""A CUDA device that is none: `Driver` on the CPU, with the kernels compiled from their own source.

It is stricter than a GPU: memory is filled with NaN (0xFF) before its first use, every copy is checked against what
was allocated, memory that was freed faults, arguments are checked against the kernel's parameters, and nothing works
outside of `active()`. See host_shim.h for what is found inside kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gapcam.cuda.driver import Dim, KernelArgument
from gapcam.errors import BackendError

_ALIGNMENT = 256
_DTYPES = {"P": "uint64", "i": "int32", "I": "uint32", "f": "float32", "d": "float64", "q": "int64", "Q": "uint64"}
_DTYPES |= {"h": "int16", "H": "uint16", "b": "int8", "B": "uint8"}
_FOREIGN_STREAMS = (1, 2)  # the legacy default stream and the thread's own, of __cuda_array_interface__

Work = Callable[[], None]


class HostDriver:
    """`gapcam.cuda.driver.Driver` in this process, on host memory.

    Args:
        library: what `host_library` compiled.
        has_graphs: whether `capture` works.
        deferred: whether a stream's work runs only when somebody waits for it, as late as a GPU ever could, instead of
            at once. A result that is read too early is then NaN, and a pinned buffer that is written too early shows.
        alignment: of memory, in bytes. At less than 256, which drivers promise, an access right past the end faults.
    """

    name = "host"
    device = 0
    device_name = "the CPU"
    architecture = "sm_75"
    driver_version = (13, 2)

    def __init__(
        self, library: Path, *, has_graphs: bool = True, deferred: bool = False, alignment: int = _ALIGNMENT
    ) -> None:
        self.has_graphs, self.deferred, self.alignment = has_graphs, deferred, alignment
        self.launches: list[str] = []
        """The names of all kernels that ran, in their order."""
        self._path, self._library = library, _open(library)
        self._active = threading.local()
        self._live: dict[int, int] = {}
        self._lent: dict[int, NDArray[Any]] = {}
        self._pinned: list[weakref.ref[NDArray[Any]]] = []
        self._streams: list[weakref.ref[HostStream]] = []
        self._handles = itertools.count(0x1000)

    @property
    def allocated_bytes(self) -> int:
        """What was allocated and not freed."""
        return sum(self._live.values())

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        self._active.depth = getattr(self._active, "depth", 0) + 1
        try:
            yield
        finally:
            self._active.depth -= 1

    def check_active(self) -> None:
        """Fail where a GPU's driver would find no context."""
        if not getattr(self._active, "depth", 0):
            raise AssertionError("called outside of `with driver.active()`: there is no CUDA context on this thread")

    def allocate(self, nbytes: int, stream: HostStream | None = None) -> HostMemory:
        self.check_active()
        if nbytes < 1:
            raise AssertionError(f"{nbytes} bytes were asked for; memory has at least one")
        if stream is not None and stream.capturing is not None:
            raise BackendError("memory cannot be allocated in a captured stream")
        pointer = self._library.host_allocate(nbytes, self.alignment)
        if not pointer:
            raise BackendError(f"the device has no {nbytes} bytes left")
        self._live[pointer] = nbytes
        return HostMemory(self, pointer, nbytes, stream)

    def free(self, pointer: int) -> None:
        """Give memory back, poisoned."""
        del self._live[pointer]
        if self._library.host_free(pointer) != 0:
            raise AssertionError(f"something was written right before or past the memory at {pointer:#x}")

    def lend(self, array: NDArray[Any]) -> int:
        """Let a NumPy array stand for device memory of somebody else's; its address. It stays until the driver goes."""
        self._lent[array.ctypes.data] = array
        return array.ctypes.data

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        self.check_active()
        array = np.empty(tuple(shape), dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xFF
        self._pinned = [kept for kept in self._pinned if kept() is not None]
        self._pinned.append(weakref.ref(array))
        return array

    def is_pinned(self, array: NDArray[Any]) -> bool:
        """Whether all of an array is memory that `pinned` gave."""
        first, last = getattr(np.lib, "array_utils", np).byte_bounds(array)  # NumPy 1 has it at its top
        for reference in self._pinned:
            kept = reference()
            if kept is not None and kept.ctypes.data <= first and last <= kept.ctypes.data + kept.nbytes:
                return True
        return False

    def stream(self) -> HostStream:
        self.check_active()
        stream = HostStream(self, next(self._handles))
        self._streams.append(weakref.ref(stream))
        return stream

    def wrap_stream(self, handle: int) -> HostStream:
        self.check_active()
        return self._stream_of(handle) or HostStream(self, handle)

    def wait_for(self, handle: int, stream: HostStream) -> None:
        self.check_active()
        if handle == 0:
            raise AssertionError("__cuda_array_interface__ knows no stream 0")
        other = None if handle in _FOREIGN_STREAMS else self._stream_of(handle)
        if other is not None and other is not stream:
            event = self.event()
            event.record(other)
            stream.wait(event)

    def event(self, *, timing: bool = False) -> HostEvent:
        self.check_active()
        return HostEvent(self, timing)

    def load(self, cubin: bytes) -> HostModule:
        """The kernels of the host library, whatever cubin it is, as long as it is one that has them all."""
        self.check_active()
        if not cubin.startswith(b"\x7fELF"):
            raise BackendError("this is no cubin")
        module = self.module()
        missing = [name for name in module.signatures if name.encode() not in cubin]
        if missing:
            raise BackendError(f"the cubin lacks {', '.join(missing)}")
        return module

    def module(self) -> HostModule:
        """The kernels, without a cubin: compiling one takes a second."""
        names = self._library.host_kernels().decode().split()
        return HostModule({name: self._library.host_signature(name.encode()).decode() for name in names})

    def launch(
        self,
        function: object,
        grid: Dim,
        block: Dim,
        arguments: Sequence[KernelArgument],
        stream: HostStream,
        *,
        shared_bytes: int = 0,
    ) -> None:
        self.check_active()
        assert isinstance(function, HostFunction), f"{function!r} is no function of this driver's"
        expected = [_DTYPES[letter] for letter in function.signature]
        given = [str(argument.dtype) if isinstance(argument, np.generic) else repr(argument) for argument in arguments]
        if given != expected:
            raise AssertionError(f"{function.name} takes ({', '.join(expected)}); got ({', '.join(given)})")
        values = [np.array(argument) for argument in arguments]

        def work() -> None:
            params = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
            error = ctypes.create_string_buffer(512)
            self.launches.append(function.name)
            if self._library.host_launch(
                function.name.encode(), params, *grid, *block, shared_bytes, error, ctypes.sizeof(error)
            ):
                raise BackendError(self._with_line(error.value.decode()))

        stream.enqueue(work)

    def upload(self, source: NDArray[Any], pointer: int, stream: HostStream) -> None:
        if not source.flags.c_contiguous:
            raise AssertionError("the array is not C-contiguous")
        self._host_copy(source, pointer, source.nbytes, (1, source.nbytes), stream, up=True)

    def download(self, pointer: int, out: NDArray[Any], stream: HostStream) -> None:
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise AssertionError("the array is not C-contiguous, or not writeable")
        self._host_copy(out, pointer, out.nbytes, (1, out.nbytes), stream, up=False)

    def upload_rows(self, source: NDArray[Any], pointer: int, pitch: int, stream: HostStream) -> None:
        self._host_copy(source, pointer, pitch, _rows(source, pitch), stream, up=True)

    def download_rows(self, pointer: int, pitch: int, out: NDArray[Any], stream: HostStream) -> None:
        self._host_copy(out, pointer, pitch, _rows(out, pitch), stream, up=False)

    def copy(self, source: int, target: int, nbytes: int, stream: HostStream) -> None:
        self.copy_rows(source, nbytes, target, nbytes, (1, nbytes), stream)

    def copy_rows(
        self, source: int, source_pitch: int, target: int, target_pitch: int, shape: tuple[int, int], stream: HostStream
    ) -> None:
        self.check_active()

        def work() -> None:
            self._memory(target, target_pitch, shape)[:] = self._memory(source, source_pitch, shape)

        stream.enqueue(work)

    @contextlib.contextmanager
    def capture(self, stream: HostStream) -> Iterator[HostCapture]:
        self.check_active()
        if not self.has_graphs:
            raise BackendError("this driver has no graphs")
        if stream.capturing is not None:
            raise BackendError("the stream is captured already")
        capture = HostCapture(self)
        stream.capturing = capture.work
        try:
            yield capture
        finally:
            stream.capturing = None
            capture.ended = True

    def close(self) -> None:
        """Nothing: memory is its holders'."""

    def run_backwards(self, backwards: bool) -> None:
        """Run blocks and threads in descending order, of all drivers. What depends on the order has a race."""
        self._library.host_order(int(backwards))

    def run_all(self) -> None:
        """Everything that is queued anywhere."""
        for reference in self._streams:
            stream = reference()
            if stream is not None:
                stream.run()

    def _stream_of(self, handle: int) -> HostStream | None:
        self._streams = [kept for kept in self._streams if kept() is not None]
        return next((s for kept in self._streams if (s := kept()) is not None and s.handle == handle), None)

    def _host_copy(
        self, array: NDArray[Any], pointer: int, pitch: int, shape: tuple[int, int], stream: HostStream, *, up: bool
    ) -> None:
        self.check_active()
        pinned = self.is_pinned(array)
        if stream.capturing is not None and not pinned:
            raise BackendError("a copy from or to host memory that is not pinned cannot be captured")
        if up and not pinned:
            array = array.copy()

        def work() -> None:
            device = self._memory(pointer, pitch, shape)
            # The bytes of the host's array, whose rows may be any distance apart.
            host = array if array.dtype == np.uint8 and array.shape == shape else array.reshape(-1).view(np.uint8)
            if up:
                device[:] = host.reshape(shape)
            else:
                np.copyto(host.reshape(shape) if host is not array else array, device)

        stream.enqueue(work)

    def _memory(self, pointer: int, pitch: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Rows in device memory as an array, if they are allocated."""
        rows, nbytes = shape
        span = (rows - 1) * pitch + nbytes if rows and nbytes else 0
        known = itertools.chain(list(self._live.items()), ((at, array.nbytes) for at, array in self._lent.items()))
        if span and not any(at <= pointer and pointer + span <= at + size for at, size in known):
            raise BackendError(f"a copy of {span} bytes at {pointer:#x} is not within allocated memory")
        flat = np.ctypeslib.as_array((ctypes.c_uint8 * span).from_address(pointer))
        return np.lib.stride_tricks.as_strided(flat, shape, (pitch, 1))

    def _with_line(self, message: str) -> str:
        """A fault's address in the library, as a line of the source."""
        before, at, offset = message.rpartition(" at +")
        tool = shutil.which("addr2line")
        if not at or tool is None:
            return message
        line = subprocess.run([tool, "-e", str(self._path), offset], capture_output=True, text=True, check=True).stdout
        return f"{before} in {Path(line.split()[0]).name}"


class HostMemory:
    """`gapcam.cuda.driver.Memory`."""

    def __init__(self, driver: HostDriver, pointer: int, nbytes: int, stream: HostStream | None) -> None:
        self.pointer, self.nbytes = pointer, nbytes
        self._driver, self._stream, self._closed = driver, stream, False

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        free = functools.partial(self._driver.free, self.pointer)
        if self._stream is None:
            self._driver.run_all()
            free()
        elif self._stream.capturing is not None:
            raise BackendError("memory cannot be freed in a captured stream")
        else:
            self._stream.enqueue(free)

    def __del__(self) -> None:
        self.close()


class HostStream:
    """`gapcam.cuda.driver.Stream`."""

    def __init__(self, driver: HostDriver, handle: int) -> None:
        self.handle = handle
        self.capturing: list[Work] | None = None
        self._driver = driver
        self._queue: list[Work] = []
        self._done = self._queued = 0

    def enqueue(self, work: Work) -> None:
        """Capture it, keep it, or run it at once."""
        if self.capturing is not None:
            self.capturing.append(work)
            return
        self._queue.append(work)
        self._queued += 1
        if not self._driver.deferred:
            self.run()

    def run(self, until: int | None = None) -> None:
        """What is queued, or as much of it as was queued when `position` was so much."""
        while self._queue and (until is None or self._done < until):
            work = self._queue.pop(0)
            self._done += 1
            work()

    @property
    def position(self) -> int:
        """How much was ever queued."""
        return self._queued

    @property
    def idle(self) -> bool:
        """Whether all that was queued has run."""
        return not self._queue

    def synchronize(self) -> None:
        self._driver.check_active()
        if self.capturing is not None:
            raise BackendError("a captured stream cannot be waited for")
        self.run()

    def wait(self, event: HostEvent) -> None:
        self._driver.check_active()
        self.enqueue(event.bringer())


class HostEvent:
    """`gapcam.cuda.driver.Event`."""

    def __init__(self, driver: HostDriver, timing: bool) -> None:
        self.timing = timing
        self._driver = driver
        self._mark: tuple[HostStream, int] | None = None
        self._seconds: float | None = None

    def record(self, stream: HostStream) -> None:
        self._driver.check_active()
        self._seconds = None
        stream.enqueue(self._pass)
        self._mark = None if stream.capturing is not None else (stream, stream.position)

    def synchronize(self) -> None:
        self._driver.check_active()
        self.bringer()()

    def bringer(self) -> Work:
        """What runs all that comes before the mark as it is now; it may be set anew before who waits comes there.

        An event that was never recorded is passed.
        """
        mark = self._mark
        return (lambda: None) if mark is None else functools.partial(mark[0].run, mark[1])

    def milliseconds_since(self, earlier: HostEvent) -> float:
        self._driver.check_active()
        if not self.timing or not earlier.timing:
            raise AssertionError("both events must be made with timing")
        if self._seconds is None or earlier._seconds is None:
            raise BackendError("the stream has not come to the mark yet")
        return 1000 * (self._seconds - earlier._seconds)

    def _pass(self) -> None:
        self._seconds = time.perf_counter()


class HostCapture:
    """`gapcam.cuda.driver.Capture`."""

    def __init__(self, driver: HostDriver) -> None:
        self.work: list[Work] = []
        self.ended = False
        self._driver = driver

    def graph(self) -> HostGraph:
        if not self.ended:
            raise AssertionError("the graph is there after the `with` block")
        return HostGraph(self._driver, self.work)


class HostGraph:
    """`gapcam.cuda.driver.Graph`."""

    def __init__(self, driver: HostDriver, work: list[Work]) -> None:
        self._driver, self._work = driver, list(work)
        self._closed = False

    def launch(self, stream: HostStream) -> None:
        self._driver.check_active()
        if self._closed:
            raise AssertionError("the graph is closed")
        for work in self._work:
            stream.enqueue(work)

    def close(self) -> None:
        self._closed = True
        self._work.clear()


class HostFunction:
    """A kernel."""

    def __init__(self, name: str, signature: str) -> None:
        self.name, self.signature = name, signature


class HostModule:
    """`gapcam.cuda.driver.Module`."""

    def __init__(self, signatures: dict[str, str]) -> None:
        self.signatures = signatures

    def function(self, name: str) -> HostFunction:
        return HostFunction(name, self.signatures[name])


def _rows(array: NDArray[Any], pitch: int) -> tuple[int, int]:
    if array.ndim != 2 or array.dtype != np.uint8 or (array.shape[1] > 1 and array.strides[1] != 1):
        raise AssertionError("rows are [rows, nbytes] uint8, each contiguous")
    if pitch < array.shape[1]:
        raise AssertionError(f"a pitch of {pitch} bytes is less than a row of {array.shape[1]}")
    return array.shape[0], array.shape[1]


@functools.lru_cache(maxsize=4)
def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.host_kernels.restype = ctypes.c_char_p
    library.host_signature.restype = ctypes.c_char_p
    library.host_signature.argtypes = [ctypes.c_char_p]
    library.host_allocate.restype = ctypes.c_void_p
    library.host_allocate.argtypes = [ctypes.c_ulonglong, ctypes.c_uint]
    library.host_free.argtypes = [ctypes.c_void_p]
    library.host_launch.argtypes = [
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        *[ctypes.c_uint] * 7,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    return library
