"""What the scenarios measure: something that takes pictures and says how long its stages took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gapcam.frame import Frame

STAGES = (
    "decode",
    "preprocess",
    "host-to-device",
    "inference",
    "cam",
    "overlay",
    "boxes",
    "device-to-host",
)
"""In the order of the data. A subject has those that it goes through; "total" is the scenario's, around all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame to classify, in both forms.

    Attributes:
        name: of the photograph.
        jpeg: as a camera or a file gives it.
        frame: H x W x 3 uint8 BGR, what decoding gives.
    """

    name: str
    jpeg: bytes
    frame: Frame


@dataclass(slots=True)
class StageTimes:
    """How long each stage of one query took, in nanoseconds.

    Attributes:
        wall: by the host's clock, with every wait for the device.
        device: by the device's events; a stage that ran on the host is not in it.
    """

    wall: dict[str, int] = field(default_factory=dict)
    device: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add a `with` block's time to a stage."""
        began = perf_counter_ns()
        yield
        self.add(stage, perf_counter_ns() - began)

    def add(self, stage: str, nanoseconds: int) -> None:
        """Add the host's time to a stage."""
        self.wall[stage] = self.wall.get(stage, 0) + nanoseconds

    def add_device(self, stage: str, milliseconds: float) -> None:
        """Add the device's time to a stage."""
        self.device[stage] = self.device.get(stage, 0) + round(milliseconds * 1e6)


class Subject(Protocol):
    """A loaded model with all that makes an answer of a picture.

    It may have more attributes: `notes`, sentences that a reader of its row should know; `providers`, how many nodes
    each execution provider of ONNX Runtime really runs, by name; and `precision`, where it computes in another one than
    the model's file says.
    """

    @property
    def engine(self) -> str:
        """What runs the model, such as "onnxruntime 1.31.1, CPUExecutionProvider"."""

    def run(self, pictures: Sequence[Picture]) -> StageTimes:
        """Answer one query of at least one picture, in one inference.

        The result is complete when it returns: nothing is left in a queue of the device.
        """

    def answer(self, picture: Picture) -> Answer:
        """Logits and map of one picture, for the check against the reference. Not timed."""

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a subject says of one picture.

    Attributes:
        logits: [K] float32.
        map: [h,w] float32 of the class with the highest logit; None for a plain classifier.
    """

    logits: NDArray[np.float32]
    map: NDArray[np.float32] | None
