"""A backend whose maps are offered under the name of its features: what a graph computed is then a class-maps head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gapcam.backends.device_protocol import DeviceBackend, Lane
from gapcam.backends.protocol import Array, Backend, TensorInfo
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver, Stream


class RenamedOutputs:
    """A `gapcam.backends.protocol.Backend`.

    Args:
        backend: closed with this one.
        own: the backend's name of an output by the name that is offered; others keep theirs.
    """

    def __init__(self, backend: Backend, own: Mapping[str, str]) -> None:
        self._backend, self._own = backend, dict(own)
        self.engine, self.inputs, self.metadata = backend.engine, backend.inputs, backend.metadata
        self.outputs: Mapping[str, TensorInfo] = {
            **backend.outputs,
            **{
                offered: TensorInfo(offered, backend.outputs[name].shape, backend.outputs[name].dtype)
                for offered, name in own.items()
            },
        }

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names."""
        return self._backend.run([self._own.get(name, name) for name in outputs], image)

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()


class RenamedDeviceOutputs(RenamedOutputs):
    """A `gapcam.backends.device_protocol.DeviceBackend`."""

    def __init__(self, backend: DeviceBackend, own: Mapping[str, str]) -> None:
        super().__init__(backend, own)
        self._on_device = backend
        self.driver: Driver = backend.driver

    def lane(self, outputs: Sequence[str], batch: int) -> Lane:
        """A new lane for so many images."""
        lane = self._on_device.lane([self._own.get(name, name) for name in outputs], batch)
        return _RenamedLane(lane, {self._own.get(name, name): name for name in outputs})


class _RenamedLane:
    """A lane with other names of its outputs.

    Args:
        lane: closed with this one.
        offered: by the lane's own names.
    """

    def __init__(self, lane: Lane, offered: Mapping[str, str]) -> None:
        self._lane = lane
        self.stream: Stream = lane.stream
        self.image: DeviceArray = lane.image
        self.capturable: bool = lane.capturable
        self.outputs: Mapping[str, DeviceArray] = {offered[name]: array for name, array in lane.outputs.items()}

    def enqueue(self) -> None:
        self._lane.enqueue()

    def close(self) -> None:
        self._lane.close()
