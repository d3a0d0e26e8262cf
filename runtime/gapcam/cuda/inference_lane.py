"""A backend's lane with what a run needs beside it: events that time its steps, pinned memory for what is small."""

from __future__ import annotations

from collections.abc import Mapping

from gapcam import contract as names
from gapcam.backends.device_protocol import DeviceBackend, Lane
from gapcam.backends.protocol import Array
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver, Event
from gapcam.cuda.workbench import first
from gapcam.errors import ModelError
from gapcam.loaded_model import LoadedModel

_LARGE = (names.FEATURES, names.MAPS)
"""What stays on the device."""


class InferenceLane:
    """Where one batch at a time is inferred.

    Args:
        backend: that makes the lane.
        model: what it runs.
        batch: how many images.

    Attributes:
        lane: the backend's.
        image: a slot of the lane's input for each image.

    Raises:
        BackendError: there is not enough memory, or the engine does not take this batch.
        ModelError: an output is not one for each image.
    """

    def __init__(self, backend: DeviceBackend, model: LoadedModel, batch: int) -> None:
        self._driver: Driver = backend.driver
        self.lane: Lane = backend.lane(model.wanted, batch)
        try:
            counted = {name: array.shape[0] for name, array in self.lane.outputs.items()}
            if any(count != batch for count in counted.values()):
                listed = ", ".join(f"{count} {name}" for name, count in counted.items())
                raise ModelError(
                    f"{model.name} gives {listed} for {batch} frames; it does not keep the batch apart. Export it "
                    "again."
                )
            self.image = [first(part_of_batch(self.lane.image, index)) for index in range(batch)]
            self._marks: dict[str, Event] = {}
            self._pinned = {
                name: self._driver.pinned(array.shape, array.dtype)
                for name, array in self.lane.outputs.items()
                if name not in _LARGE
            }
        except BaseException:
            self.lane.close()
            raise

    @property
    def outputs(self) -> Mapping[str, DeviceArray]:
        """Of the batch, by name; overwritten by each inference."""
        return self.lane.outputs

    def mark(self, step: str) -> None:
        """Note that what was queued so far ends this step."""
        if step not in self._marks:
            self._marks[step] = self._driver.event(timing=True)
        self._marks[step].record(self.lane.stream)

    def milliseconds(self, earlier: str, step: str) -> float:
        """The device's time between two marks that were passed."""
        return self._marks[step].milliseconds_since(self._marks[earlier])

    def download_small(self) -> None:
        """Queue the copies of all outputs but features and maps to the host."""
        for name, pinned in self._pinned.items():
            self._driver.download(self.lane.outputs[name].pointer, pinned, self.lane.stream)

    def small(self) -> dict[str, Array]:
        """Those outputs, in memory of their own, when the stream has come there."""
        return {name: pinned.copy() for name, pinned in self._pinned.items()}

    def close(self) -> None:
        """Give the lane back."""
        self.lane.close()


def part_of_batch(batch: DeviceArray, index: int) -> DeviceArray:
    """One image's part of a C-contiguous array of a batch, [N,...] -> [1,...]."""
    pointer = batch.pointer + index * (batch.nbytes // batch.shape[0])
    return DeviceArray(pointer, (1, *batch.shape[1:]), batch.dtype, None, batch.owner)
