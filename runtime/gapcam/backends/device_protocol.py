"""What a backend offers beside `Backend` when inputs and outputs may stay on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from gapcam.backends.protocol import Backend
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver, Stream


class Lane(Protocol):
    """A place where one inference at a time runs: an execution context, a stream, buffers that keep their addresses.

    One thread uses it at a time. `gapcam.Session` takes one for each caller.
    """

    @property
    def stream(self) -> Stream:
        """Where everything of this lane is queued."""

    @property
    def image(self) -> DeviceArray:
        """The input of the whole batch, to be written before `enqueue`."""

    @property
    def outputs(self) -> Mapping[str, DeviceArray]:
        """By name, those that were asked for; overwritten by each inference."""

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` may be captured in a CUDA graph. It is called once without before it is captured."""

    def enqueue(self) -> None:
        """Queue one inference.

        Raises:
            BackendError: the engine failed.
            UsageError: the backend is closed.
        """

    def close(self) -> None:
        """Give everything back. Closing twice does nothing."""


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A loaded model on a CUDA device."""

    @property
    def driver(self) -> Driver:
        """The device that it runs on. The backend closes it."""

    def lane(self, outputs: Sequence[str], batch: int) -> Lane:
        """A new lane for so many images.

        Raises:
            BackendError: there is not enough memory, or the engine does not take this batch.
            UsageError: the backend is closed.
        """
