"""The network before its surgery, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, fx

from gapcam.contract import Preprocessing
from gapcam.errors import UsageError
from gapcam_export.errors import SourceError
from gapcam_export.finetune.network import move_constants
from gapcam_export.onnx_from_torch import sha256_of_weights
from gapcam_export.sources import OnnxSource, load_source


@dataclass(frozen=True)
class Original:
    """What the user names as the original network.

    Attributes:
        source: SOURCE, as `gapcam export` takes it, of a network in PyTorch; or an exported program.
        checkpoint: weights to load, or None.
        pretrained: let the model library load its own.
    """

    source: str
    checkpoint: Path | None = None
    pretrained: bool = False

    def __str__(self) -> str:
        weights = f" ({self.checkpoint.name})" if self.checkpoint else " (pretrained)" if self.pretrained else ""
        return f"{self.source}{weights}"


@dataclass(frozen=True)
class LoadedOriginal:
    """The original network, ready to be measured.

    Attributes:
        network: gives [N,K] logits, in the order of classes that was asked for, for [N,3,H,W].
        preprocessing: its own, or the other network's.
        weights: SHA-256 of its weights.
    """

    network: Callable[[Tensor], Tensor]
    preprocessing: Preprocessing
    weights: str


def load_original(
    original: Original, classes: Sequence[str], preprocessing: Preprocessing, device: torch.device
) -> LoadedOriginal:
    """Build the original network.

    Args:
        original: what it is.
        classes: in the order of the logits to compare with.
        preprocessing: for a network that says nothing of its own.
        device: to run it on.

    Raises:
        UsageError: it has other classes, or is no network in PyTorch.
        SourceError: it cannot be found, built or run.
    """
    loaded = load_source(original.source, checkpoint=original.checkpoint, pretrained=original.pretrained)
    if isinstance(loaded, OnnxSource):
        raise UsageError(f"--original is {original.source}; expected a network in PyTorch, or a .pt2 file.")
    own, model = loaded.preprocessing or preprocessing, loaded.model
    if isinstance(model, fx.GraphModule):
        move_constants(model, device)
    labels = loaded.record.labels if loaded.record else ()
    own = msgspec.structs.replace(own, size=loaded.size or own.size, embedded=False)
    weights = sha256_of_weights(model)
    model = model.to(device)
    with torch.inference_mode():
        try:
            logits = model(torch.zeros(2, 3, *own.size, device=device))
        except Exception as error:  # somebody else's network raises what it likes
            raise SourceError(
                f"--original {original} does not run on [2,3,{own.size[0]},{own.size[1]}]: "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != len(classes):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"--original {original} gives {got} for two images, the network [2,{len(classes)}]; expected the network "
            "before its surgery, trained on the same classes. Leave it out if there is none."
        )
    if labels and set(labels) == set(classes):
        order = torch.tensor([labels.index(name) for name in classes], device=device)
        return LoadedOriginal(lambda images: model(images)[:, order], own, weights)
    return LoadedOriginal(model, own, weights)
