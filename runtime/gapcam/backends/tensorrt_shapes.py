"""Which of an engine's optimisation profiles covers an input, and how large its buffers must be: arithmetic, no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from gapcam.engine_file import EngineHeader, EngineTensor, ShapeRange
from gapcam.errors import BackendError, ModelError

Shape = tuple[int, ...]
Profiles = Sequence[Mapping[str, ShapeRange]]

DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "INT8": "int8", "UINT8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
"""TensorRT's DataType, as NumPy calls them. Others have no NumPy type, and no engine of gapcam's gives them out."""


def profile_of(profiles: Profiles, image: EngineTensor, shape: Sequence[int]) -> int:
    """The number of the first profile that covers a shape of the input; 0 where the engine has no open sides.

    Raises:
        BackendError: none covers it; the message says what is covered.
    """
    wanted = tuple(shape)
    if not profiles:
        if wanted != image.shape:
            raise BackendError(f"the engine takes an input of {_sides(image.shape)}, and got {_sides(wanted)}")
        return 0
    for number, profile in enumerate(profiles):
        if covers(profile[image.name], wanted):
            return number
    ranges = " or ".join(
        f"{_sides(profile[image.name].min)} to {_sides(profile[image.name].max)}" for profile in profiles
    )
    raise BackendError(
        f"the engine was built for inputs of {ranges}, and got {_sides(wanted)}; build it for more with --batch"
    )


def covers(profile: ShapeRange, shape: Shape) -> bool:
    """Whether a shape is within a profile's least and greatest sides."""
    return len(shape) == len(profile.min) and all(
        least <= side <= greatest for least, side, greatest in zip(profile.min, shape, profile.max, strict=True)
    )


def largest_shape(profiles: Profiles, image: EngineTensor) -> Shape:
    """The greatest input of any profile: buffers for it hold every other.

    Raises:
        ModelError: the engine has open sides and no profile.
    """
    if profiles:
        return max((profile[image.name].max for profile in profiles), key=prod)
    sides = tuple(side for side in image.shape if side is not None)
    if len(sides) != len(image.shape):
        raise ModelError(f"the engine's input {image.name} is {_sides(image.shape)}, and no profile says how large")
    return sides


def batch_shape(profiles: Profiles, image: EngineTensor, batch: int) -> Shape:
    """The input's shape for so many images; sides that the model leaves open are those that a profile is tuned for.

    Raises:
        BackendError: no profile covers it.
    """
    if not profiles:
        shape = (batch, *largest_shape(profiles, image)[1:])
        profile_of(profiles, image, shape)
        return shape
    shapes = [(batch, *profile[image.name].opt[1:]) for profile in profiles]
    for profile, shape in zip(profiles, shapes, strict=True):
        if covers(profile[image.name], shape):
            return shape
    profile_of(profiles, image, shapes[0])  # raises: it says what is covered
    return shapes[0]


def nbytes(shape: Sequence[int], dtype: str) -> int:
    """What an array takes; at least one byte, since nothing else can be allocated."""
    return max(prod(shape) * np.dtype(dtype).itemsize, 1)


def known_shape(name: str, shape: Sequence[int]) -> Shape:
    """A tensor's shape when all inputs' are set.

    Raises:
        BackendError: a side depends on the values of the input.
    """
    if any(side < 0 for side in shape):
        raise BackendError(f"the engine's output {name} is {_sides(shape)}: its size is only known when it has run")
    return tuple(shape)


def check_tensors(header: EngineHeader, found: Mapping[str, str], path: object) -> None:
    """Compare an engine's tensors with those that its file's header names.

    Args:
        header: of the file.
        found: TensorRT's name of each tensor's type, by the tensor's name.
        path: how the message calls the file.

    Raises:
        ModelError: they differ.
    """
    said = {tensor.name: tensor.dtype for tensor in (*header.inputs, *header.outputs)}
    read = {name: DTYPES.get(dtype, dtype.lower()) for name, dtype in found.items()}
    foreign = {name: dtype for name, dtype in read.items() if dtype not in DTYPES.values()}
    if foreign:
        raise ModelError(f"{path} holds an engine with {_listed(foreign)}, which NumPy has no type for; build it again")
    if said != read:
        raise ModelError(
            f"{path} holds an engine with {_listed(read)}, and its header says {_listed(said)}; build it again"
        )


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in sorted(tensors.items())) or "no tensors"


def _sides(shape: Sequence[int | None]) -> str:
    return " x ".join("?" if side is None or side < 0 else str(side) for side in shape)
