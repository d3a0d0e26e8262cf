"""What every inference engine offers the rest of gapcam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

CLOSED = "the session is closed; call it inside its 'with' block, or load the model again"
"""What `Backend.run` says after `close`."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A model's input or output.

    Attributes:
        name: as the model calls it.
        shape: None for a side that is only known when the model runs.
        dtype: NumPy's name of it, such as "float32".
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        sides = ",".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} [{sides}] {self.dtype}"


class Backend(Protocol):
    """A loaded model on a device. `gapcam.Session` takes anything that looks like this."""

    @property
    def engine(self) -> str:
        """What runs the model and where, such as "onnxruntime 1.31.0, CPUExecutionProvider"."""

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """By name."""

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """By name."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's metadata entries."""

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names, in this order, for the model's one input.

        Raises:
            BackendError: the engine failed.
            UsageError: it is closed, perhaps by another thread a moment ago.
        """

    def close(self) -> None:
        """Give the model's memory back, when the runs that have begun are done. Called once."""
