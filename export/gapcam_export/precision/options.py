"""What a user may choose of a model's precision."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gapcam.contract import CalibrationMethod, Precision, Target
from gapcam.errors import UsageError

LOWER_PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "int8")


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions:
    """How a float32 model becomes one of lower precision.

    Attributes:
        precision: "fp16", "bf16" or "int8".
        calibrate: folder of images like those that the camera will see; "int8" needs it, and "fp16" looks there for
            values that it cannot hold, else at four photographs of scikit-image's. 16 are wanted, 100 or more are
            better.
        method: how the range of each activation is chosen from what it is on those images: "minmax", "entropy" or
            "percentile".
        target: what an int8 model is to be fast on: "tensorrt", "cpu-x86" or "cpu-arm"; None for this machine's CPU.
        reduce_range: int8 weights of seven bits, for x86 CPUs without VNNI, whose 16-bit sums would overflow.
        keep: names of layers (nodes of the graph) that an int8 model leaves in float32.
        lower_head: lower the head, too: the pooling and what follows it.
        min_map_iou: mean IoU, in (0, 1], that the boxes of an int8 model's maps are to have with those of the float32
            model's on the calibration images; the layers that hurt the map most stay in float32 until it is met.
        check: folder of images on which both models are compared; by default the calibration images, or four
            photographs of scikit-image's.
        threads: that one inference may use while both models are timed; None for every physical core.

    Raises:
        UsageError: a value is out of its range, or contradicts another.
    """

    precision: Precision
    calibrate: Path | None = None
    method: CalibrationMethod = "minmax"
    target: Target | None = None
    reduce_range: bool = False
    keep: tuple[str, ...] = ()
    lower_head: bool = False
    min_map_iou: float | None = None
    check: Path | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in LOWER_PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}; give one of {', '.join(LOWER_PRECISIONS)}.")
        for name, kind in (("method", CalibrationMethod), ("target", Target)):
            value = getattr(self, name)
            if value is not None and value not in get_args(kind):
                raise UsageError(f"{name} is {value!r}; give one of {', '.join(get_args(kind))}.")
        if self.min_map_iou is not None and not 0 < self.min_map_iou <= 1:
            raise UsageError(f"min_map_iou is {self.min_map_iou}; give a number above 0 and at most 1.")
        if self.precision == "int8":
            if self.calibrate is None:
                raise UsageError(
                    "int8 needs images to find the ranges of the activations on; give a folder of them, like those "
                    "that the camera will see, 100 or more, with --calibrate DIR."
                )
            if self.reduce_range and self.int8_target != "cpu-x86":
                raise UsageError(f"--reduce-range is for x86 CPUs without VNNI; the target is {self.int8_target}.")
            return
        defaults = PrecisionOptions.__dataclass_fields__
        only_int8 = ("method", "target", "reduce_range", "keep", "min_map_iou")
        given = [name for name in only_int8 if getattr(self, name) != defaults[name].default]
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(f"{options}: only for int8, and the precision is {self.precision}. Leave it out.")
        if self.precision == "bf16" and self.calibrate is not None:
            raise UsageError("--calibrate: bfloat16 holds all that float32 does, and needs no images. Leave it out.")

    @property
    def int8_target(self) -> Target:
        """What was asked for, or this machine's CPU."""
        if self.target is not None:
            return self.target
        return "cpu-arm" if platform.machine().lower() in ("aarch64", "arm64") else "cpu-x86"

    def check_folders(self) -> None:
        """Notice before long work that there are no images, or too few.

        Raises:
            DataError: it is so.
        """
        # Here and not above, so that a command's --help answers at once.
        from gapcam_export.photographs import photograph_paths
        from gapcam_export.precision.calibration import calibration_paths

        if self.calibrate is not None:
            calibration_paths(self.calibrate)
        if self.check is not None:
            photograph_paths(self.check, "--check")
