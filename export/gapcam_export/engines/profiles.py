"""The shapes that an engine is built for: its optimisation profile."""

from __future__ import annotations

from collections.abc import Sequence

from gapcam.contract import Contract
from gapcam.engine_file import BuildOptions, ShapeRange
from gapcam.errors import UsageError
from gapcam_export.engines.options import colons


def profile(
    image_shape: Sequence[int | None], contract: Contract, options: BuildOptions, name: str
) -> ShapeRange | None:
    """The shapes of `image` that an engine is to take; None of a model whose shape is fixed.

    Args:
        image_shape: the model's; None for a symbolic side.
        contract: the model's; its size stands for sides that are symbolic and were not asked for.
        options: what was asked for.
        name: how messages call the model.

    Raises:
        UsageError: what was asked for does not fit the model.
    """
    if image_shape[0] is not None and options.batch != (1, 1, 1):
        raise UsageError(
            f"--batch {colons(options.batch)} was given, and {name} has a batch of {image_shape[0]}; export it without "
            "--static-batch"
        )
    first = 1 if contract.preprocessing.embedded else 2  # where H and W stand in the shape
    sides = image_shape[first : first + 2]
    if options.sizes is not None and None not in sides:
        raise UsageError(f"--size was given, and {name} takes {sides[0]}x{sides[1]} (HxW) only; export it with --size")
    if None not in image_shape:
        return None
    sizes = options.sizes or (contract.preprocessing.size,) * 3
    shapes = []
    for batch, size in zip(options.batch, sizes, strict=True):
        shape = list(image_shape)
        shape[0] = batch if shape[0] is None else shape[0]
        for axis, side in zip((first, first + 1), size, strict=True):
            shape[axis] = side if shape[axis] is None else shape[axis]
        shapes.append(tuple(side for side in shape if side is not None))
    least, tuned, greatest = shapes
    return ShapeRange(min=least, opt=tuned, max=greatest)
