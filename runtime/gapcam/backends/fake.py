"""A backend without an engine, for tests: yours and gapcam's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gapcam.backends.protocol import CLOSED, Array, TensorInfo
from gapcam.errors import UsageError


class FakeBackend:
    """Runs a Python function in the place of a model, through all the code that a real one goes through.

    Args:
        compute: from the input tensor to all outputs by name. It is called twice here, on zeros, for their shapes.
        image: the input; a first side of None is a symbolic batch.
        metadata: the model's metadata entries.

    Example:
        >>> def compute(image):
        ...     return {"logits": image.mean(axis=(2, 3)), "features": image}
        >>> backend = FakeBackend(compute, TensorInfo("image", (None, 3, 8, 8), "float32"), {})
        >>> str(backend.outputs["logits"])
        'logits [?,3] float32'
    """

    engine = "fake"

    def __init__(
        self, compute: Callable[[Array], Mapping[str, Array]], image: TensorInfo, metadata: Mapping[str, str]
    ) -> None:
        self.compute, self.metadata, self.inputs = compute, metadata, {image.name: image}
        self.closed = False
        self.runs: list[tuple[str, ...]] = []  # what was asked for, run by run
        one, two = (
            compute(np.zeros((batch, *(side or 1 for side in image.shape[1:])), image.dtype)) for batch in (1, 2)
        )
        self.outputs = {name: _info(name, array, two[name]) for name, array in one.items()}

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The computed outputs of these names."""
        if self.closed:
            raise UsageError(CLOSED)
        self.runs.append(tuple(outputs))
        computed = self.compute(image)
        return [computed[name] for name in outputs]

    def close(self) -> None:
        """Remember that it was called."""
        self.closed = True


def _info(name: str, one: Array, two: Array) -> TensorInfo:
    sides = zip(one.shape, two.shape, strict=True)
    return TensorInfo(name, tuple(a if a == b else None for a, b in sides), str(one.dtype))
