"""The path of a frame from the caller to its result, wherever it leads.

The same verbs with the same signatures in parallel files: `gapcam.host_path` and `gapcam.cuda.device_path`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from gapcam.backends.protocol import Array
from gapcam.frame import FrameFormat
from gapcam.result import Result

Checked = TypeVar("Checked")


class FramePath(Protocol[Checked]):
    """Frames in, results out. Several threads may use it."""

    def checked(self, frame: object, frame_format: FrameFormat, where: str = "") -> Checked:
        """What was handed in, if it is a frame that this path takes.

        Args:
            frame: what was handed in.
            frame_format: which it should have.
            where: what messages begin with.

        Raises:
            FrameError: it is none; the message says what it seems to be.
            UsageError: there is no such format.
        """

    def run(self, frames: Sequence[Checked]) -> list[Result]:
        """One inference of at least one frame.

        Raises:
            VerificationError: the logits, rows or a scale are not what they must be.
            ModelError: the model gave another number of results than of frames.
            BackendError: the engine failed.
            UsageError: the path is closed.
        """

    def infer(self, image: Array) -> dict[str, Array]:
        """The network alone, from the host to the host: the outputs that results are made of.

        Raises:
            BackendError: the engine failed.
            UsageError: the path is closed.
        """

    def close(self) -> None:
        """Close the backend. Inferences that have begun are finished; results stay right. Twice does nothing."""
