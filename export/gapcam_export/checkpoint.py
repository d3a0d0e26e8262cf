"""Loads weights into a network without running anybody's pickle, and without ignoring what does not fit."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gapcam_export.errors import CheckpointError

# Where training scripts put the weights among the rest of what they save.
_WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model", "net")
_KEYS_SHOWN = 8


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load a checkpoint's weights into `model`, all of them or none.

    Args:
        model: the network.
        path: a `.safetensors` file, or what `torch.save` wrote; a state dict, or a dict that has one under
            "state_dict", "model_state_dict", "model" or "net". A prefix "module." (DataParallel) is dropped.

    Raises:
        CheckpointError: the file is absent, damaged, would run code when loaded, or its keys or shapes do not fit.
    """
    read = _read(path)
    weights = {name.removeprefix("module."): value for name, value in read.items()}
    wanted = model.state_dict()
    # BatchNorm's counter of training batches is in some checkpoints and not in others; inference does not read it.
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unknown = [key for key in weights if key not in wanted and not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} (the checkpoint has {list(weights[key].shape)}, the network {list(wanted[key].shape)})"
        for key in wanted
        if key in weights and weights[key].shape != wanted[key].shape
    ]
    problems = {
        "the network's, missing in the checkpoint": missing,
        "the checkpoint's, unknown to the network": unknown,
        "of another shape": shapes,
    }
    listed = [f"  {len(keys)} {what}: {_some(keys)}" for what, keys in problems.items() if keys]
    if listed:
        raise CheckpointError(
            f"{path.name} does not fit the network ({len(weights)} against {len(wanted)} keys). Keys that are\n"
            + "\n".join(listed)
            + "\nCheck that SOURCE builds the network (and the number of classes) that the checkpoint was trained with."
        )
    # Modules keep a version of their layout beside their weights, and some refuse weights without one; safetensors has
    # none.
    layout = getattr(read, "_metadata", wanted._metadata)  # type: ignore[attr-defined]  # torch sets it on its dicts
    wanted.update({key: weights[key] for key in wanted if key in weights})
    wanted._metadata = layout  # type: ignore[attr-defined]
    model.load_state_dict(wanted)


def _some(keys: list[str]) -> str:
    more = f", and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
    return ", ".join(keys[:_KEYS_SHOWN]) + more


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is no safetensors file, or is truncated: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of unusual protocols, which are then refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be loaded safely: it is no PyTorch checkpoint, or it holds more than tensors and would run "
            "code (it was read with weights_only=True). Save the weights alone, with torch.save(model.state_dict(), "
            "...) or safetensors.torch.save_file."
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no PyTorch checkpoint, or is damaged: {error}") from error
    for key in _WEIGHTS_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} with more than tensors; expected a state dict, or a dict with "
            f"one under {', '.join(map(repr, _WEIGHTS_KEYS))}."
        )
    return content
