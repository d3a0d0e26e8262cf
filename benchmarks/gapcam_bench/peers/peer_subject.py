"""A peer as the scenarios measure it: its steps in order, each with its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import gapcam
from gapcam.contract import Contract
from gapcam.errors import UsageError
from gapcam.frame import Frame
from gapcam_bench.cell import Cell
from gapcam_bench.peers.handwritten import preprocess
from gapcam_bench.subjects.protocol import Answer, Picture, StageTimes

FloatArray = NDArray[np.float32]


class Peer(Protocol):
    """A way from the network's input to a picture."""

    @property
    def engine(self) -> str:
        """What runs the network, with its version."""

    @property
    def precision(self) -> str | None:
        """What it computes in, where that is not what the model's file says; None where it is."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures should know, a sentence each; complete after the first inference."""

    def infer(self, image: FloatArray) -> Any:
        """Whatever `map` needs, of the input [1,3,H,W]."""

    def map(self, outputs: Any) -> FloatArray:
        """The best class's map, as this peer gives it: in any resolution and scale."""

    def draw(self, frame: Frame, heat: FloatArray) -> Frame:
        """The frame, H x W x 3 uint8 BGR, under that map."""

    def answer(self, image: FloatArray) -> Answer:
        """Logits, and the map in the features' resolution before anything that cannot be undone, such as ReLU."""

    def close(self) -> None:
        """Give everything back."""


class PeerSubject:
    """One peer, measured on frames.

    Preprocessing is the same for all peers: what `handwritten` does. Both stages of `cell.work` that peers have, none
    and "overlay", are measured.

    Args:
        peer: that is measured.
        cell: with a batch of 1.
        contract: of the model: what its preprocessing is.

    Raises:
        UsageError: the cell asks for what peers do not do.
    """

    def __init__(self, peer: Peer, cell: Cell, contract: Contract) -> None:
        self._peer, self._contract = peer, contract
        self._overlay = "overlay" in cell.work
        self.heat: FloatArray | None = None
        self.picture: Frame | None = None

    @property
    def engine(self) -> str:
        """What runs the model."""
        return self._peer.engine

    @property
    def precision(self) -> str | None:
        """What the peer computes in, where that is not what the model's file says; None where it is."""
        return self._peer.precision

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures should know, a sentence each."""
        return self._peer.notes

    def run(self, pictures: Sequence[Picture]) -> StageTimes:
        """Explain one picture. Its map is `heat` afterwards, and what was drawn is `picture`; None without an overlay.

        Raises:
            UsageError: there is not exactly one.
        """
        if len(pictures) != 1:
            raise UsageError(f"got {len(pictures)} pictures in one query; peers take 1")
        frame = pictures[0].frame
        preprocessing = self._contract.preprocessing
        times = StageTimes()
        with times.timed("preprocess"):
            image = preprocess(frame, preprocessing.size, *in_bytes(self._contract))
        with times.timed("inference"):
            outputs = self._peer.infer(image)
        with times.timed("cam"):
            heat = self.heat = self._peer.map(outputs)
        if self._overlay:
            with times.timed("overlay"):
                self.picture = self._peer.draw(frame, heat)
        return times

    def answer(self, picture: Picture) -> Answer:
        """Logits and map of one picture, on the very input that gapcam makes of it.

        So what is compared is the network and the map. (gapcam halves a 1080p frame before it averages: its input is
        another one by half a level of 255.)
        """
        image = gapcam.preprocess(picture.frame, self._contract.preprocessing)
        return self._peer.answer(np.ascontiguousarray(image[None], np.float32))

    def close(self) -> None:
        """Give everything back."""
        self._peer.close()


def check_cell(cell: Cell, contract: Contract) -> None:
    """Refuse what no peer does.

    Raises:
        UsageError: another device than the CPU, no number of threads, a batch, other work than an overlay, or a model
            that is not fed with squashed RGB frames or whose head is not affine.
    """
    wrong = None
    preprocessing = contract.preprocessing
    if cell.device != "cpu":
        wrong = f"the device is {cell.device}, and peers are compared on the CPU"
    elif cell.threads is None:
        wrong = "the number of threads is open, and peers are held to one number"
    elif cell.batch != 1:
        wrong = f"the batch is {cell.batch}, and peers take one frame at a time"
    elif cell.emit != "features" or cell.precision != "as-is" or set(cell.work) - {"overlay"}:
        wrong = f"got emit {cell.emit}, precision {cell.precision}, work {cell.work}; peers take a frame to an overlay"
    elif contract.head.kind != "affine":
        wrong = f"the model's head is {contract.head.kind}, and the peers' maps are those of an affine head"
    elif preprocessing.embedded or preprocessing.resize != "squash" or preprocessing.color != "rgb":
        wrong = "the peers' code squashes frames into RGB float input, and the model's contract asks for something else"
    if wrong is not None:
        raise UsageError(f"{cell.subject} cannot be measured so: {wrong}")


def in_bytes(contract: Contract) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the preprocessing in [0, 255], red, green, blue."""
    preprocessing = contract.preprocessing
    return tuple(255 * mean for mean in preprocessing.mean), tuple(255 * std for std in preprocessing.std)
