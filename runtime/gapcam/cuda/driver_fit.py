"""Which CUDA from Python fits a driver of NVIDIA's: a driver loads code of its own major version of CUDA, or an older.

Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility", table 1.
"""

from __future__ import annotations

from gapcam.errors import BackendError

OLDEST_CUDA = 12
"""cuda.core 1.x works with cuda.bindings 12 and 13. Source: its installation page."""

DRIVER_OF_CUDA = {11: "450", 12: "525", 13: "580"}
"""The oldest desktop driver, by CUDA's major version."""

CUDA_COMMAND = {
    12: "pip install 'cuda-core[cu12]' nvidia-cuda-nvrtc-cu12",
    13: "pip install 'gapcam[cuda]'",
}
"""CUDA from Python, by the driver's major version. Source: cuda-core's metadata (extras cu12 and cu13)."""


def check_fits(driver: tuple[int, int], what: str, version: str) -> None:
    """See that a driver runs what is made for a version of CUDA.

    Args:
        driver: the newest CUDA that it runs, such as (12, 6).
        what: "cuda-bindings" or "NVRTC".
        version: of it, such as "13.5.0".

    Raises:
        BackendError: the driver is for an older major version of CUDA.
    """
    major = int(version.partition(".")[0])
    if driver[0] >= major:
        return
    update = f"update the driver ({DRIVER_OF_CUDA.get(major, DRIVER_OF_CUDA[13])} or newer)"
    command = CUDA_COMMAND.get(driver[0])
    raise BackendError(
        f"NVIDIA's driver runs CUDA {driver[0]}.{driver[1]}, and {what} {version} wants {major}: {update}"
        + (f", or {command}" if command else "")
    )
