"""`handwritten` as a peer: nothing but the names of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gapcam.contract import Contract
from gapcam_bench.peers.handwritten import HandWritten
from gapcam_bench.peers.map_by_hand import MapByHand
from gapcam_bench.peers.peer_subject import in_bytes
from gapcam_bench.subjects.engine_options import SESSION_OPTIONS

FloatArray = NDArray[np.float32]


class HandWrittenPeer(MapByHand):
    """What is written by hand, measured with ONNX Runtime set as it is for gapcam.

    Args:
        file: the ONNX model.
        contract: of it.
        threads: that one inference may use.
    """

    def __init__(self, file: str, contract: Contract, threads: int) -> None:
        mean, std = in_bytes(contract)
        self._hand: HandWritten | None = HandWritten(
            file,
            size=contract.preprocessing.size,
            mean=mean,
            std=std,
            threads=threads,
            settings=SESSION_OPTIONS,
        )
        super().__init__(self._hand.weights)
        self.notes: tuple[str, ...] = ()
        self.precision: str | None = None

    @property
    def engine(self) -> str:
        """Version and provider."""
        return f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider"

    def infer(self, image: FloatArray) -> Any:
        """Logits [1,K] and features [1,C,h,w]."""
        if self._hand is None:
            raise RuntimeError("closed")
        return self._hand.infer(image)

    def close(self) -> None:
        """Give the session back."""
        self._hand = None
