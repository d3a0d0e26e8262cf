"""What is known of a model when it is loaded: its contract, its W and b, and whether its identity holds here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gapcam import contract as names
from gapcam.backends.protocol import Array, Backend, TensorInfo
from gapcam.cam import FloatArray
from gapcam.class_rows import OUTPUTS_OF_EACH_IMAGE
from gapcam.classes import ClassNames
from gapcam.contract import Contract, HeadKind, contract_from_metadata
from gapcam.errors import VerificationError
from gapcam.geometry import place
from gapcam.identity import DEVICE_TOLERANCE, GREATEST_TOLERANCE, identity_error, maps_error, tangent_error
from gapcam.model_check import check_model, check_outputs
from gapcam.preprocessing import empty_input, fill_input

_AT_LOAD = {
    HeadKind.AFFINE: (names.CAM_WEIGHTS, names.CAM_BIAS),
    HeadKind.LAYERNORM: (names.CAM_WEIGHTS, names.CAM_BIAS),
    HeadKind.NONLINEAR: (names.TOPK_BIAS,),
}
"""What the check of the identity needs beside what maps need, by the head's kind."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model that was checked against its contract on one run.

    Attributes:
        name: how messages call it.
        contract: what it says of itself.
        classes: the K classes' names.
        wanted: the outputs that each run asks for, by name.
        batched: whether it takes several images at once.
        channels: C of `features`.
        map_size: (h, w) of `features`.
        dtypes: of the outputs that were asked for, by name.
        weights: [K,C] float32, the matrix W, or None where the head has none.
        bias: [K] float32, the vector b, or None likewise.
        identity_error: of that run: see `gapcam.identity`.
        identity_tolerance: what that may be.
    """

    name: str
    contract: Contract
    classes: ClassNames
    wanted: tuple[str, ...]
    batched: bool
    channels: int
    map_size: tuple[int, int]
    dtypes: Mapping[str, np.dtype[np.generic]]
    weights: FloatArray | None
    bias: FloatArray | None
    identity_error: float
    identity_tolerance: float

    def check_identity(self, engine: str) -> None:
        """Refuse maps that would be wrong.

        Raises:
            VerificationError: the identity does not hold on this engine.
        """
        # Not "error > tolerance": NaN must fail too.
        if not self.identity_error <= self.identity_tolerance:
            raise VerificationError(
                f"{self.name} is not right on {engine}: logits differ from mean(map) + bias by "
                f"{self.identity_error:.2g} of the greatest of them; at most {self.identity_tolerance:.2g} was "
                "expected. Its maps would be wrong; export it again, or try another device."
            )


def model_from_backend(backend: Backend, name: str) -> LoadedModel:
    """Check a model's tensors, run it once on noise, and read W and b, which no later run asks for.

    Raises:
        ModelError: its tensors are not those that its contract names.
        ContractError: it has no contract, a damaged one, or one of a newer version.
        BackendError: the engine failed.
    """
    contract = contract_from_metadata(backend.metadata, name)
    check_model(backend, contract, name)
    wanted = _wanted(contract.head.kind, backend.outputs)
    arrays = _run_on_noise(backend, contract, (*wanted, *_AT_LOAD.get(contract.head.kind, ())))
    # Again on what came: a side that the model leaves open may be anything.
    found = {output: TensorInfo(output, array.shape, str(array.dtype)) for output, array in arrays.items()}
    check_outputs(found, contract, name)
    _, channels, height, width = arrays[names.FEATURES].shape
    given = contract.verification.identity_tolerance
    return LoadedModel(
        name=name,
        contract=contract,
        classes=ClassNames(contract.labels, arrays[names.LOGITS].shape[1]),
        wanted=wanted,
        batched=backend.inputs[names.IMAGE].shape[0] is None,
        channels=channels,
        map_size=(height, width),
        dtypes={output: array.dtype for output, array in arrays.items()},
        weights=_as_float32(arrays.get(names.CAM_WEIGHTS)),
        bias=_as_float32(arrays.get(names.CAM_BIAS)),
        identity_error=_error_of_identity(arrays),
        identity_tolerance=min(max(DEVICE_TOLERANCE, given), GREATEST_TOLERANCE),
    )


def _wanted(kind: HeadKind, outputs: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    wanted = (names.LOGITS, names.FEATURES, *OUTPUTS_OF_EACH_IMAGE.get(kind, ()))
    if kind is HeadKind.NONLINEAR and names.MAPS in outputs:
        wanted += (names.MAPS,)  # for the classes that have no row
    return wanted


def _run_on_noise(backend: Backend, contract: Contract, wanted: tuple[str, ...]) -> dict[str, Array]:
    height, width = contract.preprocessing.size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    tensor = empty_input(1, contract.preprocessing)
    fill_input(noise, contract.preprocessing, place((height, width), contract.preprocessing), tensor[0])
    return dict(zip(wanted, backend.run(wanted, tensor), strict=True))


def _as_float32(array: Array | None) -> FloatArray | None:
    return None if array is None else array.astype(np.float32)


def _error_of_identity(arrays: Mapping[str, Array]) -> float:
    """How far the identity is from holding, in the form that this head has it."""
    logits, features = arrays[names.LOGITS], arrays[names.FEATURES]
    if names.TOPK_WEIGHTS not in arrays:
        weights, bias = arrays.get(names.CAM_WEIGHTS), arrays.get(names.CAM_BIAS)
        return identity_error(logits, features, weights, bias, arrays.get(names.CAM_SCALE))
    classes, rows = arrays[names.TOPK_CLASSES], arrays[names.TOPK_WEIGHTS]
    error = tangent_error(logits, features, classes, rows, arrays[names.TOPK_BIAS])
    if names.MAPS in arrays and np.isfinite(error):
        error = float(np.maximum(error, maps_error(arrays[names.MAPS], features, classes, rows)))  # NaN stays NaN
    return error
