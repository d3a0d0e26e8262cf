"""The rows that weight the feature maps of one image: M_c = sum_k row_c[k] f_k.

Where they come from depends on the head: the same for every image, the same up to one scale an image, or computed in
the graph for the image's best classes. A class-maps head has none; its feature maps are the class maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gapcam import contract as names
from gapcam.contract import HeadKind

Rows = NDArray[np.floating[Any]]

OUTPUTS_OF_EACH_IMAGE: dict[HeadKind, tuple[str, ...]] = {
    HeadKind.LAYERNORM: (names.CAM_SCALE,),
    HeadKind.NONLINEAR: (names.TOPK_CLASSES, names.TOPK_WEIGHTS),
}
"""What rows need of each inference, by the head's kind."""


class ClassRows(Protocol):
    """One image's rows. Nothing is computed before it is asked for."""

    def lacking(self, classes: Sequence[int]) -> list[int]:
        """Those of `classes` that have no row here."""

    def of(self, classes: Sequence[int]) -> Rows:
        """[n,C], the rows of these classes, in this order; none of them may be lacking."""


@dataclass(frozen=True, slots=True, eq=False)
class ConstantRows:
    """Of an affine head: row_c = W[c].

    Attributes:
        weights: [K,C], the matrix W.
    """

    weights: Rows

    def lacking(self, classes: Sequence[int]) -> list[int]:  # noqa: ARG002 - every class has its row
        """None."""
        return []

    def of(self, classes: Sequence[int]) -> Rows:
        """[n,C]."""
        return self.weights[list(classes)]


@dataclass(frozen=True, slots=True, eq=False)
class ScaledRows:
    """Of a head with a layer normalisation after the pooling: row_c = scale * W[c].

    Attributes:
        weights: [K,C], the matrix W, which every image shares.
        scale: of this image, positive.
    """

    weights: Rows
    scale: float

    def lacking(self, classes: Sequence[int]) -> list[int]:  # noqa: ARG002 - every class has its row
        """None."""
        return []

    def of(self, classes: Sequence[int]) -> Rows:
        """[n,C]."""
        return np.asarray(self.weights[list(classes)] * np.float32(self.scale))


@dataclass(frozen=True, slots=True, eq=False)
class TopkRows:
    """Of a nonlinear head: row_c is the gradient of logit_c at this image, there for its best classes only.

    Attributes:
        classes: [k] integers, the classes that have a row.
        weights: [k,C], their rows.
    """

    classes: NDArray[np.integer[Any]]
    weights: Rows

    def lacking(self, classes: Sequence[int]) -> list[int]:
        """Those that are not among the k."""
        places = self._places()
        return [index for index in classes if index not in places]

    def of(self, classes: Sequence[int]) -> Rows:
        """[n,C]."""
        places = self._places()
        return self.weights[[places[index] for index in classes]]

    def _places(self) -> dict[int, int]:
        return {index: place for place, index in enumerate(self.classes.tolist())}


def rows_of_image(weights: Rows | None, outputs: Mapping[str, NDArray[Any]], index: int) -> ClassRows | None:
    """What weights the features of one image of a run; None where they are the class maps.

    Args:
        weights: [K,C], the matrix W, or None where the head has none.
        outputs: of the run, by name: those of `OUTPUTS_OF_EACH_IMAGE` among them.
        index: of the image in the run.
    """
    if names.TOPK_WEIGHTS in outputs:
        return TopkRows(outputs[names.TOPK_CLASSES][index], outputs[names.TOPK_WEIGHTS][index])
    if weights is None:
        return None
    if names.CAM_SCALE in outputs:
        return ScaledRows(weights, float(outputs[names.CAM_SCALE][index]))
    return ConstantRows(weights)
