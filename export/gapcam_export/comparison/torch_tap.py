"""One run of a network in PyTorch up to its features without gradients, and from there to its logits with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gapcam.errors import BackendError, VerificationError
from gapcam_export.comparison.torch_calls import Place, Watching, arranged

_UNIFORM_TOLERANCE = 1e-3
"""By how much a gradient by features that are averaged may differ over space, over its greatest value."""


@dataclass(frozen=True)
class Tapped:
    """What one image gave.

    Attributes:
        features: [C,h,w], as they were when they were made.
        logits: [K].
    """

    features: Tensor
    logits: Tensor
    _leaf: Tensor
    _as_features: Callable[[Tensor], Tensor | None]

    def row(self, index: int) -> Tensor:
        """[C], the derivative of a class's logit by the features' means over space.

        Raises:
            VerificationError: the logits do not follow from the features' means: another value than the mean was taken,
                or some other way leads from the image to the logits.
        """
        (gradient,) = torch.autograd.grad(self.logits[index], self._leaf, retain_graph=True, allow_unused=True)
        as_features = None if gradient is None else self._as_features(gradient)
        if as_features is not None:
            maps = as_features[0]
            spread = (maps - maps.mean((1, 2), keepdim=True)).abs().max()
            if spread <= _UNIFORM_TOLERANCE * maps.abs().max():
                return maps.sum((1, 2))
        raise VerificationError(
            "in PyTorch's own run the logits do not follow from the mean of the features that the export found: their "
            "gradient gives no map. Compare exported models with each other instead."
        )


class TappedNetwork:
    """A network whose features and logits are looked at while it runs.

    Args:
        network: in evaluation mode, takes [1,3,H,W] float32.
        features: where its features appear.
        feature_shape: (C, h, w).
        logits: where its logits appear.
        classes: K.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        features: Place,
        feature_shape: tuple[int, int, int],
        logits: Place,
        classes: int,
    ) -> None:
        self._network, self._features, self._logits = network, features, logits
        self.feature_shape, self.classes = feature_shape, classes

    def run(self, image: Tensor, *, with_gradients: bool) -> Tapped:
        """One image [1,3,H,W] float32.

        Args:
            image: may be changed in place.
            with_gradients: whether rows will be asked for.

        Raises:
            BackendError: PyTorch fails, or the network takes another course than when its features were found.
        """
        seen: dict[str, Tensor] = {}

        def look(call: int, part: int, tensor: Tensor) -> Tensor:
            if (call, part) == (self._features.call, self._features.part):
                seen["features"] = leaf = tensor.detach().clone()
                return _followed(tensor, leaf) if with_gradients else tensor
            if (call, part) == (self._logits.call, self._logits.part):
                seen["logits"] = tensor.clone()
            return tensor

        def as_features(tensor: Tensor) -> Tensor | None:
            return arranged(tensor, self._features.arrangement, self.feature_shape)

        try:
            with torch.no_grad(), Watching(look):
                self._network(image)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise BackendError(f"PyTorch fails to run the network on {list(image.shape)}: {reason}") from error
        features = as_features(seen["features"]) if "features" in seen else None
        logits = arranged(seen["logits"], self._logits.arrangement, (self.classes,)) if "logits" in seen else None
        if features is None or logits is None:
            raise BackendError(
                "the network takes another course through its code for this image than for the one that its features "
                "were found on, and they cannot be told. Compare exported models with each other instead."
            )
        return Tapped(features.detach()[0], logits[0], seen["features"], as_features)


def _followed(tensor: Tensor, leaf: Tensor) -> Tensor:
    """The tensor in whose place the network goes on, so that from here on autograd knows what depends on `leaf`."""
    leaf.requires_grad_()
    torch.set_grad_enabled(True)  # until the run's no_grad ends
    if tensor._is_view():  # autograd refuses to change one that was made without gradients
        return leaf.clone()
    # In place: code that has called `relu_(x)` goes on with x, not with what that returned.
    return tensor.copy_(leaf)
