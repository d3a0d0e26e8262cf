"""What a model's file says of it: all that can be told where it does not run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gapcam import contract as names
from gapcam.backends.onnx_file import computes_in_bfloat16
from gapcam.backends.onnx_outline import read_outline
from gapcam.backends.protocol import TensorInfo
from gapcam.contract import contract_from_metadata
from gapcam.engine_file import EngineHeader, is_engine, read_engine
from gapcam.errors import BackendError, GapcamError, MissingExtraError, ModelError
from gapcam.model_check import check_outputs


def is_described_alone(model: Path, error: GapcamError) -> bool:
    """Whether a file that did not load is whole, and only this machine cannot run it."""
    if is_engine(model):
        return isinstance(error, (BackendError, MissingExtraError))
    return isinstance(error, ModelError) and model.is_file() and computes_in_bfloat16(model)


def described(model: Path) -> dict[str, Any]:
    """The facts of `gapcam inspect` that do not come from a run.

    Raises:
        ModelError, ContractError: the file is no model, damaged, or its tensors are not those of its contract.
    """
    if is_engine(model):
        with read_engine(model) as file:
            constants = [TensorInfo(name, array.shape, str(array.dtype)) for name, array in file.tensors.items()]
            header, metadata = file.header, file.metadata
        inputs, outputs = (
            {tensor.name: TensorInfo(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors}
            for tensors in (header.inputs, header.outputs)
        )
        outputs |= {info.name: info for info in constants}
    else:
        outline = read_outline(model)
        metadata, inputs, outputs = outline.metadata, dict(outline.inputs), dict(outline.outputs)
    contract = contract_from_metadata(metadata, str(model))
    check_outputs(outputs, contract, str(model))
    return {
        "contract": msgspec.to_builtins(contract),
        "classes": outputs[names.LOGITS].shape[1],
        "map_size": list(outputs[names.FEATURES].shape[2:]),
        "inputs": [msgspec.to_builtins(info) for info in inputs.values()],
        "outputs": [msgspec.to_builtins(info) for info in outputs.values()],
        "engine": None,
        "identity": None,
    }


def build_of(model: Path) -> dict[str, Any] | None:
    """An engine file's header without what the contract says; None for an ONNX file."""
    if not is_engine(model):
        return None
    with read_engine(model) as file:
        facts: dict[str, Any] = msgspec.to_builtins(file.header)
    for part in ("metadata", "inputs", "outputs"):
        del facts[part]
    return facts


def build_rows(build: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same as a table's rows."""
    header = msgspec.convert({**build, "metadata": {}, "inputs": (), "outputs": ()}, EngineHeader)
    runs_on = ", ".join(target.replace("+", " and later") for target in header.targets)
    on = f", on {header.device}" if header.device else ", without a GPU"
    driver = f" with a driver for CUDA {'.'.join(map(str, header.cuda_driver))}" if header.cuda_driver else ""
    read = header.precision
    network, engine = (
        ", ".join(f"{count} {name}" for name, count in counts.items()) for counts in (read.network, read.engine)
    )
    return [
        ("engine for", f"{header.runtime} {header.runtime_version}, {runs_on}, {header.platform}"),
        ("built", f"by {header.producer}{on}{driver}, from {header.model}"),
        ("model sha256", header.model_sha256),
        ("profiles", "\n".join(map(_profile, header.profiles)) or "none; its sides are fixed"),
        (
            "layers",
            f"asked for {read.asked}; in the network {network or 'none'}; in the engine "
            + (engine or f"not read back: {read.not_read}"),
        ),
    ]


def _profile(profile: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {_sides(shapes.min)} to {_sides(shapes.max)}, tuned for {_sides(shapes.opt)}"
        for name, shapes in profile.items()
    )


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
