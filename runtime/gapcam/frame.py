"""What a frame is: H x W x 3, uint8, BGR, as OpenCV gives it; on a device, BGRA and NV12, too."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from gapcam.errors import FrameError, UsageError

Frame: TypeAlias = NDArray[np.uint8]
FrameFormat: TypeAlias = Literal["bgr", "bgra", "nv12"]
"""H x W x 3, H x W x 4, or H x W of luma and then H/2 x W/2 pairs (U, V), as one array of H * 3/2 x W."""

_EXPECTED = "expected a NumPy array of H x W x 3 uint8 in BGR order"


def check_frame(frame: object, where: str = "") -> Frame:
    """The frame itself, if it is one. It need not be contiguous.

    Args:
        frame: what was handed to the API.
        where: what the message begins with, such as "frame 3 of the batch: ".

    Raises:
        FrameError: it has another type, dtype or layout; the message says what it seems to be and what mends it.
    """
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"{where}got {type(frame).__name__}; {_EXPECTED}. {_cure_for_type(frame)}")
    got = f"{where}got an array of shape {frame.shape} and dtype {frame.dtype}; {_EXPECTED}"
    if 0 in frame.shape:
        raise FrameError(f"{got}. This one has no pixels: was the camera read without checking its success?")
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1):
        raise FrameError(f"{got}. This looks grey: cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)")
    if frame.ndim == 4:
        raise FrameError(f"{got}. This looks like a batch: session.batch(frames)")
    if frame.ndim != 3:
        raise FrameError(f"{got}.")
    if frame.shape[2] == 4:
        raise FrameError(f"{got}. This looks like BGRA: cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)")
    if frame.shape[2] != 3:
        hint = " This looks like channels first: np.moveaxis(frame, 0, -1)" if frame.shape[0] == 3 else ""
        raise FrameError(f"{got}.{hint}")
    if frame.dtype != np.uint8:
        raise FrameError(f"{got}. {_cure_for_dtype(frame.dtype)}")
    return frame


def check_frame_of(frame: object, frame_format: FrameFormat, where: str = "") -> tuple[int, int]:
    """(height, width) of a frame in this format, if it is one.

    Raises:
        FrameError: it has another type, dtype or layout.
        UsageError: there is no such format.
    """
    check_format(frame_format)
    if frame_format == "bgr":
        checked = check_frame(frame, where)
        return checked.shape[0], checked.shape[1]
    shape = "H x W x 4 uint8 in BGRA order" if frame_format == "bgra" else "H * 3/2 x W uint8, NV12 with even H and W"
    expected = f"expected a NumPy array of {shape}"
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"{where}got {type(frame).__name__}; {expected}. {_cure_for_type(frame)}")
    sides = frame.shape
    fits = len(sides) == 3 and sides[2] == 4 if frame_format == "bgra" else len(sides) == 2 and not sides[0] % 3
    if frame_format == "nv12":
        fits = fits and sides[1] % 2 == 0  # and H is even where the rows are three halves of it
    if not fits or 0 in sides or frame.dtype != np.uint8:
        raise FrameError(
            f"{where}got an array of shape {sides} and dtype {frame.dtype}; {expected}. For another one give its "
            "format, 'bgr', 'bgra' or 'nv12'"
        )
    return (sides[0] * 2 // 3 if frame_format == "nv12" else sides[0]), sides[1]


def check_format(frame_format: str) -> None:
    """Refuse what is no format.

    Raises:
        UsageError: it is none.
    """
    if frame_format not in get_args(FrameFormat):
        raise UsageError(f"frame format is {frame_format!r}; give one of {', '.join(get_args(FrameFormat))}")


def on_device(frame: object) -> bool:
    """Whether something says that it lies in a GPU's memory. PyTorch's tensors on the host say so, too."""
    # Not hasattr(frame): PyTorch raises of a tensor that requires a gradient.
    known = {*dir(type(frame)), *getattr(frame, "__dict__", {})}
    return bool(known & {"__cuda_array_interface__", "cudaPtr"})


def _cure_for_type(frame: object) -> str:
    if frame is None:
        return "cv2.imread and VideoCapture.read give None when they fail; gapcam.read_image says why"
    if isinstance(frame, (list, tuple)):
        return "For several frames: session.batch(frames)"
    if isinstance(frame, (str, bytes)) or hasattr(frame, "__fspath__"):
        return "To read a file: gapcam.read_image(path)"
    if on_device(frame):
        return "This one lies in a GPU's memory: load the model on that device, with post='auto', or download the frame"
    return "Convert it with np.asarray, and RGB to BGR with frame[..., ::-1]"


def _cure_for_dtype(dtype: np.dtype[np.generic]) -> str:
    if dtype.kind == "f":
        return "For floats in 0..1: (frame * 255).round().astype(np.uint8)"
    if dtype == np.uint16:
        return "For 16 bits: (frame >> 8).astype(np.uint8)"
    return "Bring the values to 0..255, then frame.astype(np.uint8)"
