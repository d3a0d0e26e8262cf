"""What the rest of gapcam asks of CUDA, and nothing more: one small interface, several drivers.

A driver allocates, copies, loads a module, launches, and knows streams, events and graphs. Each is a file of its own:
`cuda_core_driver` on cuda.core, `pycuda_driver` on PyCUDA inside a context that the app made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Dim: TypeAlias = tuple[int, int, int]
"""x, y, z of a grid, in blocks, or of a block, in threads."""

KernelArgument: TypeAlias = np.generic
"""A kernel's argument as a NumPy scalar of its C type: np.uint64 for a pointer, np.int32, np.float32."""


class Memory(Protocol):
    """Device memory. It is freed when it is closed or collected."""

    @property
    def pointer(self) -> int:
        """The device address, aligned to at least 256 bytes."""

    @property
    def nbytes(self) -> int:
        """Its size."""

    def close(self) -> None:
        """Free it, when the work queued before is done. Closing twice does nothing."""


class Stream(Protocol):
    """A queue of work on the device. It is never the default stream."""

    @property
    def handle(self) -> int:
        """The cudaStream_t, to hand to an inference engine."""

    def synchronize(self) -> None:
        """Wait until all that was queued is done.

        Raises:
            BackendError: something queued before failed.
        """

    def wait(self, event: Event) -> None:
        """Let what is queued from now on wait for an event that was recorded, on whatever stream."""


class Event(Protocol):
    """A mark in a stream."""

    def record(self, stream: Stream) -> None:
        """Set the mark behind what the stream has queued."""

    def synchronize(self) -> None:
        """Wait until the stream has come to the mark."""

    def milliseconds_since(self, earlier: Event) -> float:
        """The device's time between two marks that were passed, both of events made with `timing`."""


class Graph(Protocol):
    """Captured work that is launched as one."""

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""

    def close(self) -> None:
        """Free it. Closing twice does nothing."""


class Capture(Protocol):
    """What a stream queues inside `Driver.capture`."""

    def graph(self) -> Graph:
        """The captured work, after the `with` block.

        Raises:
            BackendError: something was queued that cannot be captured.
        """


class Driver(Protocol):
    """A CUDA device."""

    @property
    def name(self) -> str:
        """The library and its version, such as "cuda.core 1.2.2"."""

    @property
    def device(self) -> int:
        """Its number."""

    @property
    def device_name(self) -> str:
        """Such as "NVIDIA H100 80GB HBM3" or "Orin"."""

    @property
    def architecture(self) -> str:
        """What its code is compiled for, such as "sm_87"."""

    @property
    def driver_version(self) -> tuple[int, int]:
        """The newest CUDA that the kernel-mode driver runs, such as (13, 0)."""

    @property
    def has_graphs(self) -> bool:
        """Whether `capture` works."""

    def active(self) -> AbstractContextManager[None]:
        """Make the device's context current on this thread for a `with` block. It may be entered again inside.

        What other threads capture meanwhile, in whatever mode, goes on: this one has no part in it.

        Everything below, and every method of what it returns, is called inside one.
        """

    def allocate(self, nbytes: int) -> Memory:
        """Device memory of at least one byte, for any stream. Freeing it waits for the device; what is needed again and
        again comes from a `gapcam.cuda.memory_pool.MemoryPool`.

        Raises:
            BackendError: there is not enough.
        """

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """A page-locked array on the host, uninitialised. It is freed when it is collected."""

    def stream(self) -> Stream:
        """A new, non-blocking stream."""

    def wrap_stream(self, handle: int) -> Stream:
        """Somebody else's stream, which stays theirs.

        Raises:
            BackendError: the driver cannot; hand it this driver's streams instead.
        """

    def wait_for(self, handle: int, stream: Stream) -> None:
        """Let what is queued from now on wait for what somebody else's stream was given before.

        Args:
            handle: as in `__cuda_array_interface__`: 1 is the legacy default stream, 2 this thread's own, any other a
                cudaStream_t.
            stream: which is to wait. Where the driver cannot make it, the host waits.
        """

    def event(self, *, timing: bool = False) -> Event:
        """A new event."""

    def load(self, cubin: bytes) -> Module:
        """Load compiled code.

        Raises:
            BackendError: it is not for this device, or newer than its driver.
        """

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
        """Queue a kernel.

        Args:
            function: of a module that this driver loaded.
            grid: in blocks.
            block: in threads.
            arguments: one a parameter, each of the parameter's type.
            stream: where to.
            shared_bytes: dynamic shared memory of a block, at most 48 KiB.
        """

    def upload(self, source: NDArray[Any], pointer: int, stream: Stream) -> None:
        """Queue a copy of a C-contiguous host array to the device.

        Unless it is pinned, the array may be changed when this returns; a pinned one when the stream has come here.
        """

    def download(self, pointer: int, out: NDArray[Any], stream: Stream) -> None:
        """Queue a copy from the device into a C-contiguous host array, to be read when the stream has come here."""

    def upload_rows(self, source: NDArray[Any], pointer: int, pitch: int, stream: Stream) -> None:
        """As `upload`, of [rows, nbytes] uint8: contiguous rows, any stride apart, go to rows `pitch` apart."""

    def download_rows(self, pointer: int, pitch: int, out: NDArray[Any], stream: Stream) -> None:
        """As `download`, of rows that lie `pitch` bytes apart, into [rows, nbytes] uint8 with contiguous rows."""

    def copy(self, source: int, target: int, nbytes: int, stream: Stream) -> None:
        """Queue a copy on the device."""

    def copy_rows(
        self, source: int, source_pitch: int, target: int, target_pitch: int, shape: tuple[int, int], stream: Stream
    ) -> None:
        """As `copy`, of (rows, nbytes): rows that lie `source_pitch` bytes apart go to rows `target_pitch` apart."""

    def capture(self, stream: Stream) -> AbstractContextManager[Capture]:
        """Capture what this thread queues on a stream, instead of running it.

        Raises:
            BackendError: the driver has no graphs.
        """

    def close(self) -> None:
        """Give back what the driver itself holds. Closing twice does nothing."""


class Module(Protocol):
    """Loaded code."""

    def function(self, name: str) -> object:
        """A kernel by its name, for `Driver.launch`.

        Raises:
            KeyError: there is none.
        """
