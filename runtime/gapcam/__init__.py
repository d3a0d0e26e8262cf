"""gapcam: explained image classification on edge devices.

    import gapcam

    with gapcam.load("model.onnx") as session:
        result = session(frame)  # H x W x 3 uint8 BGR, as OpenCV gives it
        result.top[0].label, result.top[0].score
        result.boxes(threshold=0.2)  # frame coordinates
        image = result.overlay()  # H x W x 3 uint8 BGR

The names below are the whole public API. They are loaded when first used: `import gapcam` itself imports nothing
heavier than NumPy, so that a device pays for OpenCV and an inference engine only where it needs them.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gapcam._version import __version__
    from gapcam.box import Box
    from gapcam.contract import Contract, HeadKind, Preprocessing
    from gapcam.cuda.device_array import DeviceArray
    from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
    from gapcam.cuda.device_result import DeviceResult
    from gapcam.cuda.frame_graph import FrameGraph
    from gapcam.cuda.frame_graph_result import FrameGraphResult
    from gapcam.errors import (
        BackendError,
        ClassNotFoundError,
        ContractError,
        DataError,
        ExitCode,
        FrameError,
        GapcamError,
        MapNotComputedError,
        MissingExtraError,
        ModelError,
        UsageError,
        VerificationError,
    )
    from gapcam.geometry import Placement, Rect
    from gapcam.image_file import read_image
    from gapcam.preprocessing import preprocess
    from gapcam.result import Prediction, Result
    from gapcam.session import Session, load

__all__ = [
    "BackendError",
    "Box",
    "ClassNotFoundError",
    "Contract",
    "ContractError",
    "DataError",
    "DeviceArray",
    "DeviceFrame",
    "DeviceResult",
    "ExitCode",
    "FrameError",
    "FrameGraph",
    "FrameGraphResult",
    "FrameLayout",
    "GapcamError",
    "HeadKind",
    "MapNotComputedError",
    "MissingExtraError",
    "ModelError",
    "Placement",
    "Prediction",
    "Preprocessing",
    "Rect",
    "Result",
    "Session",
    "UsageError",
    "VerificationError",
    "__version__",
    "load",
    "preprocess",
    "read_image",
]

# A camera reports to its owner only. ONNX Runtime's official builds, from 1.29 on, send what they run and how fast to
# their maker, beginning when they are imported: every module of gapcam that imports them is imported after this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_ERRORS = (name for name in __all__ if name.endswith("Error") or name == "ExitCode")
_HOME = {
    **dict.fromkeys(_ERRORS, "errors"),
    "Box": "box",
    "Contract": "contract",
    "DeviceArray": "cuda.device_array",
    "DeviceFrame": "cuda.device_frame",
    "DeviceResult": "cuda.device_result",
    "FrameGraph": "cuda.frame_graph",
    "FrameGraphResult": "cuda.frame_graph_result",
    "FrameLayout": "cuda.device_frame",
    "HeadKind": "contract",
    "Placement": "geometry",
    "Prediction": "result",
    "Preprocessing": "contract",
    "Rect": "geometry",
    "Result": "result",
    "Session": "session",
    "__version__": "_version",
    "load": "session",
    "preprocess": "preprocessing",
    "read_image": "image_file",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'gapcam' has no attribute {name!r}")
    value: object = getattr(import_module(f"gapcam.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
