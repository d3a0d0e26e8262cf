"""What fits together, as tables; what the runtime must know of it, too, is in `gapcam.cuda.driver_fit`.

Each line has its source beside it. `gapcam.doctor.judge` reads them; docs/gpu.md has the same for people.
"""

from __future__ import annotations

from typing import NamedTuple

from gapcam.doctor.facts import Version


class JetPack(NamedTuple):
    """A release of NVIDIA's software for Jetsons.

    Attributes:
        l4t: the first version of Jetson Linux that belongs to it.
        name: of it.
        python: of its Ubuntu, for which its Python modules are built.
        cuda: that it brings.
        tensorrt: that it brings.
    """

    l4t: Version
    name: str
    python: Version
    cuda: Version
    tensorrt: Version


# Sources: NVIDIA's JetPack release notes; the versions of Jetson Linux as dusty-nv/jetson-containers maps them
# (jetson_containers/l4t_version.py); JetPack 7.2: OE4T/meta-tegra #2224 (Orin and Thor, CUDA 13.2, TensorRT 10.16).
JETPACKS = (
    JetPack((32,), "4", (3, 6), (10, 2), (8, 2)),
    JetPack((34,), "5.0", (3, 8), (11, 4), (8, 4)),
    JetPack((35, 2), "5.1", (3, 8), (11, 4), (8, 5)),
    JetPack((36,), "6.0", (3, 10), (12, 2), (8, 6)),
    JetPack((36, 4), "6.1 or 6.2", (3, 10), (12, 6), (10, 3)),
    JetPack((38,), "7.0 or 7.1", (3, 12), (13, 0), (10, 13)),  # Thor only
    JetPack((39,), "7.2", (3, 12), (13, 2), (10, 16)),  # Orin, too
)

OLDEST_TENSORRT = 10
"""Strong typing and named I/O without the calls that 10 dropped; gapcam.tensorrt_module refuses older ones."""

OLDEST_CAPABILITY = {12: (5, 0), 13: (7, 5)}
"""What NVRTC compiles for, by CUDA's major version. Source: nvrtcGetSupportedArchs of 13.2; CUDA 13.0's release notes
(Maxwell, Pascal and Volta, Xavier among them, were dropped)."""

# onnxruntime-gpu of PyPI for x86-64: 1.19 to 1.26 want CUDA 12, from 1.27 on CUDA 13; all want cuDNN 9. Source: the
# extras "cuda" and "cudnn" in its metadata; 1.27's name a distribution that does not exist.
ONNXRUNTIME_GPU = {
    12: "pip install 'onnxruntime-gpu[cuda,cudnn]<1.27'",
    13: "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'",
}
"""What to install, by the driver's major version."""

ONNXRUNTIME_AARCH64_CAPABILITIES = ((8, 9), (9, 0), (12, 0), (12, 1))
"""What PyPI's aarch64 wheel of onnxruntime-gpu has CUDA code for: not Orin (8.7), not Thor (11.0). Source: what 1.31's
wheel holds."""

TENSORRT_RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Source: the members of ComputeCapability in TensorRT-RTX 1.7; its wheels are for x86-64 only."""

TENSORRT_RTX_PLUGIN = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
TENSORRT_RTX_PLUGIN_CAPABILITIES = tuple(one for one in TENSORRT_RTX_CAPABILITIES if one >= (8, 6))
"""ONNX Runtime's provider: GeForce RTX 30 and newer, a driver of CUDA 13. Source: its metadata's description."""

JETSON_CONTAINERS = "jetson-containers run $(autotag onnxruntime)"
"""ONNX Runtime with CUDA and TensorRT for Jetsons, which PyPI does not have. Source: dusty-nv/jetson-containers."""

LARGE_BUILD_BYTES = 2 * 2**30
"""A judgement, not a measurement: TensorRT's builder tries kernels beside the network's weights."""
SMALL_DISK_BYTES = 2**30
"""An engine is about as large as its network's weights, a timing cache some megabytes."""


def jetpack_of(l4t: Version) -> JetPack | None:
    """The release that a version of Jetson Linux belongs to; None for one before all that are known."""
    return next((one for one in reversed(JETPACKS) if l4t >= one.l4t), None)


def text(version: Version) -> str:
    """A version with dots."""
    return ".".join(map(str, version))
