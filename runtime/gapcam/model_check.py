"""Whether a model's tensors are those that its contract promises, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping

from gapcam import contract as names
from gapcam.backends.protocol import Backend, TensorInfo
from gapcam.contract import Contract, HeadKind
from gapcam.errors import ModelError

MAP_KINDS = (HeadKind.AFFINE, HeadKind.CLASS_MAPS)
"""The heads whose maps this version computes."""


def check_model(backend: Backend, contract: Contract, model_name: str) -> None:
    """Compare a model's inputs and outputs, as it declares them, with its contract.

    Raises:
        ModelError: a tensor is missing or has another shape or type, or the head is of a kind that this version
            does not compute maps for.
    """
    kind = contract.head.kind
    if kind not in MAP_KINDS:
        raise ModelError(
            f"{model_name} has a head of kind {kind.value!r}; this version of gapcam computes maps for affine and "
            "class-maps heads. Update gapcam (pip install --upgrade gapcam) or export another network."
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
    if contract.head.kind is HeadKind.CLASS_MAPS:
        _agree(classes, channels, f"{logits} and {features}, which are its class maps", model_name)
        return
    weights = _tensor(outputs, names.CAM_WEIGHTS, 2, model_name)
    bias = _tensor(outputs, names.CAM_BIAS, 1, model_name)
    _agree(classes, weights.shape[0], f"{logits} and {weights}", model_name)
    _agree(channels, weights.shape[1], f"{features} and {weights}", model_name)
    _agree(classes, bias.shape[0], f"{logits} and {bias}", model_name)


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


def _tensor(outputs: Mapping[str, TensorInfo], name: str, rank: int, model_name: str) -> TensorInfo:
    info = outputs.get(name)
    if info is None:
        listed = ", ".join(outputs) or "none"
        raise ModelError(f"{model_name} has no output {name!r}, only {listed}; its contract needs it. Export it again.")
    if len(info.shape) != rank or 0 in info.shape or info.dtype not in ("float32", "float16", "float64"):
        raise ModelError(f"{model_name} has the output {info}; expected {rank} axes of floats. Export it again.")
    return info


def _agree(one: int | None, other: int | None, what: str, model_name: str) -> None:
    if None not in (one, other) and one != other:
        raise ModelError(f"{model_name} has {what}: {one} and {other} should be equal. Export it again.")
