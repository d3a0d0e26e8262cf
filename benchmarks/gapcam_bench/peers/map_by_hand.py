"""What peers without a map of their own share: it is made and drawn as by hand, of the network's features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.frame import Frame
from gapcam_bench.peers.handwritten import class_map, draw
from gapcam_bench.subjects.protocol import Answer

FloatArray = NDArray[np.float32]


class MapByHand(ABC):
    """The half of a `gapcam_bench.peers.peer_subject.Peer` that follows its inference.

    Args:
        weights: [K,C] of the affine layer behind the pooling.
    """

    def __init__(self, weights: FloatArray) -> None:
        self._weights = weights

    @abstractmethod
    def infer(self, image: FloatArray) -> Any:
        """Logits [1,K] and features [1,C,h,w], of the input [1,3,H,W]; the next inference may overwrite them."""

    def map(self, outputs: Any) -> FloatArray:
        """[h,w], in the logits' unit."""
        logits, features = outputs
        return class_map(logits, features, self._weights)

    def draw(self, frame: Frame, heat: FloatArray) -> Frame:
        """The frame under the map in colour."""
        return draw(frame, heat)

    def answer(self, image: FloatArray) -> Answer:
        """Logits and map."""
        outputs = self.infer(image)
        return Answer(np.array(outputs[0][0], np.float32), self.map(outputs))
