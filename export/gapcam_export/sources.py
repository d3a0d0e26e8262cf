"""Finds and builds what SOURCE names: a network in PyTorch, or an ONNX model."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError

from gapcam.contract import METADATA_KEY, Contract, Preprocessing, contract_from_metadata
from gapcam.errors import MissingExtraError, UsageError
from gapcam_export.errors import SourceError
from gapcam_export.external_data import load_external_data

if TYPE_CHECKING:
    from torch import nn

    from gapcam_export.program import ProgramRecord

SOURCE_FORMS = (
    "torchvision:NAME, timm:NAME, package.module:factory, path/to/file.py:factory, or a file network.pt2 or model.onnx"
)


@dataclass(frozen=True)
class TorchSource:
    """A network in PyTorch, in evaluation mode.

    Attributes:
        spec: what the contract calls it.
        model: the network, with its weights.
        preprocessing: its model library's record, or None.
        checkpoint: where its weights come from, as the contract has it.
        size: (H, W) in pixels of the only input that it takes; None where it is a module that may take several.
        record: what an exported program of gapcam's has on record, or None.
    """

    spec: str
    model: nn.Module
    preprocessing: Preprocessing | None
    checkpoint: str
    size: tuple[int, int] | None = None
    record: ProgramRecord | None = None


@dataclass(frozen=True)
class OnnxSource:
    """A model in a file, with its weights inside.

    Attributes:
        spec: what the contract calls it.
        model: the model.
        sha256: of the file, followed by the weights that it keeps in others.
        contract: the one that the file holds, or None.
        weight_files: the others that it keeps weights in.
    """

    spec: str
    model: onnx.ModelProto
    sha256: str
    contract: Contract | None
    weight_files: tuple[Path, ...] = ()


def load_source(spec: str, *, checkpoint: Path | None, pretrained: bool) -> TorchSource | OnnxSource:
    """Build or read what a SOURCE names.

    Args:
        spec: see `SOURCE_FORMS`.
        checkpoint: weights to load into the network.
        pretrained: let the model library load its own weights, over the network.

    Raises:
        SourceError: it cannot be found, imported, built or read.
        CheckpointError: the checkpoint does not fit.
        MissingExtraError: torch, torchvision or timm is needed and not installed.
        UsageError: weights were asked for that this form of SOURCE cannot load.
    """
    if checkpoint is not None and pretrained:
        raise UsageError("--checkpoint and --pretrained were both given; a network has one set of weights. Choose one.")
    if spec.lower().endswith(".pt2"):
        return _read_program(Path(spec), checkpoint, pretrained=pretrained)
    if spec.lower().endswith(".onnx") or (Path(spec).is_file() and not spec.endswith(".py")):
        if checkpoint is not None or pretrained:
            raise UsageError(
                f"{spec} has its weights inside; --checkpoint and --pretrained are for networks in PyTorch."
            )
        return read_onnx(Path(spec))
    origin, _, name = spec.rpartition(":")
    if not origin or not name:
        raise SourceError(f"SOURCE is {spec!r}; expected {SOURCE_FORMS}.")
    _require("torch")
    preprocessing: Preprocessing | None
    if origin == "torchvision":
        model, preprocessing = _from_torchvision(name, pretrained=pretrained)
    elif origin == "timm":
        model, preprocessing = _from_timm(name, pretrained=pretrained)
    elif pretrained:
        raise UsageError(
            f"--pretrained is for torchvision: and timm: sources; {spec} builds its own network. Load its "
            "weights in the factory, or with --checkpoint."
        )
    else:
        from gapcam_export.factory import network_from_factory

        model, preprocessing = network_from_factory(origin, name), None
    if checkpoint is not None:
        from gapcam_export.checkpoint import load_checkpoint

        load_checkpoint(model, checkpoint)
    loaded = checkpoint.name if checkpoint is not None else "pretrained" if pretrained else ""
    shown = f"{Path(origin).name}:{name}" if origin.endswith(".py") else spec
    return TorchSource(shown, model.eval(), preprocessing, loaded)


def _read_program(path: Path, checkpoint: Path | None, *, pretrained: bool) -> TorchSource:
    if pretrained:
        raise UsageError(f"{path} has its weights inside; --pretrained is for torchvision: and timm: sources.")
    _require("torch")
    from gapcam_export.checkpoint import load_checkpoint
    from gapcam_export.program import load_program

    program = load_program(path)
    if checkpoint is not None:
        load_checkpoint(program.model, checkpoint)
    return TorchSource(
        path.name,
        program.model.eval(),
        None if program.record is None else program.record.preprocessing,
        "" if checkpoint is None else checkpoint.name,
        program.size,
        program.record,
    )


def _require(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(package, "export") from error


def _from_torchvision(name: str, *, pretrained: bool) -> tuple[nn.Module, Preprocessing | None]:
    _require("torchvision")
    import torchvision.models

    from gapcam_export.factory import did_you_mean
    from gapcam_export.record import preprocessing_from_torchvision

    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise SourceError(f"torchvision has no classifier {name!r}.{did_you_mean(name, known)}")
    weights = "DEFAULT" if pretrained else None
    # These two would otherwise spend a minute on initial values that a checkpoint replaces, and warn about it.
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3") and not pretrained:
        options["init_weights"] = False
    model = _fetch(f"torchvision:{name}", lambda: torchvision.models.get_model(name, weights=weights, **options))
    return model, preprocessing_from_torchvision(name)


def _from_timm(name: str, *, pretrained: bool) -> tuple[nn.Module, Preprocessing | None]:
    timm = _require("timm")
    from timm.layers import set_fused_attn, use_fused_attn

    from gapcam_export.factory import did_you_mean
    from gapcam_export.record import preprocessing_from_timm

    if not timm.is_model(name):
        raise SourceError(f"timm has no model {name!r}.{did_you_mean(name, timm.list_models())}")
    # PyTorch's exporter cannot write every shape of its fused attention; written out, it can, with the same result.
    before = use_fused_attn(), use_fused_attn(experimental=True)
    set_fused_attn(enable=False)
    try:
        model = _fetch(f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained))
    finally:
        set_fused_attn(*before)
    return model, preprocessing_from_timm(model)


def _fetch(spec: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a library's network; its weights may come over the network."""
    try:
        return build()
    except OSError as error:  # URLError, HTTPError and huggingface's and requests' errors are all OSErrors
        raise SourceError(
            f"{spec}: its pretrained weights could not be fetched ({error}). Without a network connection, fetch the "
            "file elsewhere and give it as --checkpoint FILE."
        ) from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise SourceError(f"{spec} cannot be built: {error}") from error


def read_onnx(path: Path) -> OnnxSource:
    """Read an ONNX model, weights in other files included.

    Raises:
        SourceError: there is no such file, or it is damaged or no ONNX model.
        ContractError: it has a contract that is damaged or newer than this gapcam.
    """
    if not path.is_file():
        raise SourceError(f"there is no file {path}.")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise SourceError(
            f"{path} is no ONNX model, or is truncated ({len(content)} bytes). Write or copy it again."
        ) from error
    if not model.graph.node:
        raise SourceError(f"{path} is no ONNX model: it holds no graph ({len(content)} bytes).")
    digest = hashlib.sha256(content)
    weight_files = load_external_data(model, path, digest.update)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    contract = contract_from_metadata(metadata, path.name) if METADATA_KEY in metadata else None
    return OnnxSource(path.name, model, digest.hexdigest(), contract, weight_files)
