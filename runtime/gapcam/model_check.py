"""Whether a model's tensors are those that its contract promises, before anything runs and at each run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gapcam import contract as names
from gapcam.backends.protocol import Array, Backend, TensorInfo
from gapcam.contract import Contract, HeadKind
from gapcam.errors import ModelError, VerificationError

MAP_KINDS = tuple(kind for kind in HeadKind if kind is not HeadKind.NONE)
"""The heads whose maps this version computes."""

_FLOATS = ("float32", "float16", "float64")


def check_model(backend: Backend, contract: Contract, model_name: str) -> None:
    """Compare a model's inputs and outputs, as it declares them, with its contract.

    Raises:
        ModelError: a tensor is missing or has another shape or type, or the head is of a kind that this version
            does not compute maps for.
    """
    kind = contract.head.kind
    if kind not in MAP_KINDS:
        raise ModelError(
            f"{model_name} has a head of kind {kind.value!r}; gapcam computes maps for heads of kind "
            f"{', '.join(known.value for known in MAP_KINDS)}. Export another network."
        )
    _check_input(backend.inputs, contract, model_name)
    check_outputs(backend.outputs, contract, model_name)


def check_outputs(outputs: Mapping[str, TensorInfo], contract: Contract, model_name: str) -> None:
    """Compare outputs, declared ones or those of a run, with each other and with the contract's labels.

    Raises:
        ModelError: one is missing, has another number of axes or type, or two do not fit.
    """
    logits = _tensor(outputs, names.LOGITS, 2, model_name)
    features = _tensor(outputs, names.FEATURES, 4, model_name)
    classes, channels = logits.shape[1], features.shape[1]
    if contract.labels:
        _agree(
            classes, len(contract.labels), f"{logits}, and the contract has {len(contract.labels)} labels", model_name
        )
    match contract.head.kind:
        case HeadKind.CLASS_MAPS:
            _agree(classes, channels, f"{logits} and {features}, which are its class maps", model_name)
        case HeadKind.NONLINEAR:
            _check_topk(outputs, logits, features, model_name)
        case kind:
            weights = _tensor(outputs, names.CAM_WEIGHTS, 2, model_name)
            bias = _tensor(outputs, names.CAM_BIAS, 1, model_name)
            _agree(classes, weights.shape[0], f"{logits} and {weights}", model_name)
            _agree(channels, weights.shape[1], f"{features} and {weights}", model_name)
            _agree(classes, bias.shape[0], f"{logits} and {bias}", model_name)
            if kind is HeadKind.LAYERNORM:
                scale = _tensor(outputs, names.CAM_SCALE, 1, model_name)
                _agree(logits.shape[0], scale.shape[0], f"{logits} and {scale}", model_name)


def check_run(arrays: Mapping[str, Array], frames: int, contract: Contract, model_name: str) -> None:
    """Look at what a run gave, before anything is made of it.

    Args:
        arrays: by name, those that hold something for each frame.
        frames: how many were asked about.
        contract: the model's.
        model_name: how messages call the model.

    Raises:
        ModelError: another number of results than of frames.
        VerificationError: logits or rows that are not finite, or a scale that is not finite and positive.
    """
    if any(len(array) != frames for array in arrays.values()):
        counted = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise ModelError(
            f"{model_name} gave {counted} for {frames} frames; it does not keep the batch apart. Export it again."
        )
    for name in (names.LOGITS, names.CAM_SCALE, names.TOPK_WEIGHTS):
        if name not in arrays:
            continue
        fine = np.isfinite(arrays[name]).all()
        if name == names.CAM_SCALE:
            fine = fine and (arrays[name] > 0).all()
        if not fine:
            raise unusable_output(name, contract, model_name)


def unusable_output(name: str, contract: Contract, model_name: str) -> VerificationError:
    """What is said of logits, rows or a scale from which no result can be made."""
    expected = "finite and positive" if name == names.CAM_SCALE else "finite"
    return VerificationError(
        f"{model_name} gave values of {name} that are not {expected}; its precision ({contract.precision}) may "
        "be too low for this frame. Export it in a higher one."
    )


def _check_topk(outputs: Mapping[str, TensorInfo], logits: TensorInfo, features: TensorInfo, model_name: str) -> None:
    classes = _tensor(outputs, names.TOPK_CLASSES, 2, model_name, ("int64",))
    weights = _tensor(outputs, names.TOPK_WEIGHTS, 3, model_name)
    bias = _tensor(outputs, names.TOPK_BIAS, 2, model_name)
    for axis in (0, 1):
        _agree(classes.shape[axis], weights.shape[axis], f"{classes} and {weights}", model_name)
        _agree(classes.shape[axis], bias.shape[axis], f"{classes} and {bias}", model_name)
    _agree(classes.shape[0], logits.shape[0], f"{classes} and {logits}", model_name)
    _agree(features.shape[1], weights.shape[2], f"{features} and {weights}", model_name)
    there, best = logits.shape[1], classes.shape[1]
    if there is not None and best is not None and best > there:
        raise ModelError(f"{model_name} has {logits} and {classes}, more best classes than classes. Export it again.")
    if names.MAPS in outputs:
        maps = _tensor(outputs, names.MAPS, 4, model_name)
        _agree(there, maps.shape[1], f"{logits} and {maps}", model_name)
        for axis in (2, 3):
            _agree(features.shape[axis], maps.shape[axis], f"{features} and {maps}", model_name)


def _check_input(inputs: Mapping[str, TensorInfo], contract: Contract, model_name: str) -> None:
    height, width = contract.preprocessing.size
    embedded = contract.preprocessing.embedded
    sides = (height, width, 3) if embedded else (3, height, width)
    expected = TensorInfo(names.IMAGE, (None, *sides), "uint8" if embedded else "float32")
    got = inputs.get(names.IMAGE)
    if len(inputs) != 1 or got is None:
        listed = ", ".join(map(str, inputs.values())) or "none"
        raise ModelError(f"{model_name} has the inputs {listed}; expected one: {expected}. Export it again.")
    fits = len(got.shape) == 4 and all(a in (None, b) for a, b in zip(got.shape[1:], sides, strict=True))
    if not fits or got.dtype != expected.dtype:
        raise ModelError(f"{model_name} has the input {got}; its contract says {expected}. Export it again.")
    if got.shape[0] not in (None, 1):
        raise ModelError(
            f"{model_name} has the input {got}; a batch must be symbolic or 1. Export it again without --static-batch."
        )


def _tensor(
    outputs: Mapping[str, TensorInfo], name: str, rank: int, model_name: str, dtypes: tuple[str, ...] = _FLOATS
) -> TensorInfo:
    info = outputs.get(name)
    if info is None:
        listed = ", ".join(outputs) or "none"
        raise ModelError(f"{model_name} has no output {name!r}, only {listed}; its contract needs it. Export it again.")
    if len(info.shape) != rank or 0 in info.shape or info.dtype not in dtypes:
        axes = "1 axis" if rank == 1 else f"{rank} axes"
        what = "floats" if dtypes == _FLOATS else " or ".join(dtypes)
        raise ModelError(f"{model_name} has the output {info}; expected {axes} of {what}. Export it again.")
    return info


def _agree(one: int | None, other: int | None, what: str, model_name: str) -> None:
    if None not in (one, other) and one != other:
        raise ModelError(f"{model_name} has {what}: {one} and {other} should be equal. Export it again.")
