"""Machines as folders: what `gapcam doctor` would find on them.

They are written after NVIDIA's documentation and files that others published (names, versions, formats), not recorded
on such machines; what libraries answer there is written here, too. Nothing of this stands for a test on the hardware.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapcam.doctor.facts import Answer, Version
from gapcam.doctor.native import QUESTIONS

JETPACK5_RELEASE = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1\n"
JETPACK6_RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
    "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
    "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n"
)
THOR_RELEASE = (
    "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64, DATE: Wed Dec 31 2025\n"
    "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\nINSTALL_TYPE=\n"
)
JETPACK7_ORIN_RELEASE = (
    "# R39 (release), REVISION: 2.0, GCID: 45000000, BOARD: generic, EABI: aarch64, DATE: Mon Jun  1\n"
)
JETSON_MODULE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  "
    "(buildbrain@mobile-u64-6336-d8000)  Tue Jan  7 17:35:12 PST 2025\nGCC version:  \n"
)
DESKTOP_MODULE = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:\n"
)

CUDA_PROVIDER = (
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
    "libcudart.so.13",
    "libcuda.so.1",
    "libc.so.6",
)
TENSORRT_PROVIDER = (
    "libcublas.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10", "libcudart.so.13", "libcudnn.so.9", "libc.so.6",
)  # fmt: skip
CUDA_WHEELS = {
    "nvidia/cu13/lib": ("libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libcudart.so.13", "libnvrtc.so.13"),
    "nvidia/cudnn/lib": ("libcudnn.so.9",),
}

CPU = Answer(values={"engine": "onnxruntime 1.31.1, CPUExecutionProvider"})
KERNELS = Answer(values={"driver": "cuda.core 1.2.2"})
ABSENT = Answer(error="not there", absent=True)
NO_LIBCUDA = Answer(error="libcuda.so.1: cannot open shared object file: No such file or directory")
NUMPY, OPENCV = (
    Answer(values={"version": "2.2.6"}),
    Answer(values={"version": "4.12.0", "cuda": False, "gstreamer": True}),
)
ONNXRUNTIME = Answer(values={"version": "1.31.1", "providers": ["CPUExecutionProvider"]})


def driver(cuda: Version, *gpus: tuple[str, tuple[int, int], int], code: int = 0) -> Answer:
    """What libcuda answers: its version and (name, capability, GiB) of each device."""
    return Answer(
        values={
            "version": cuda[0] * 1000 + cuda[1] * 10,
            "code": code,
            "names": [name for name, _, _ in gpus],
            "capabilities": [number for _, capability, _ in gpus for number in capability],
            "memories": [size * 2**30 for _, _, size in gpus],
        }
    )


def nvrtc(version: str) -> Answer:
    """As NVRTC of 12.9 and 13.2 answer."""
    architectures = [75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121]
    if version.startswith("12"):
        architectures = [50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121]
    return Answer(values={"version": version, "architectures": architectures})


@dataclass
class RecordedMachine:
    """A machine in a folder. `gapcam.doctor.machine.Machine` for `gather`."""

    root: Path
    uname: tuple[str, str] = ("Linux", "x86_64")
    python: Version = (3, 12, 3)
    virtual: bool = True
    site: str = "/opt/venv/lib/python3.12/site-packages"
    environ: Mapping[str, str] = field(default_factory=dict)
    cache: str = "/home/.cache/gapcam"
    answers: dict[str, Answer] = field(default_factory=dict)
    closed: Sequence[str] = ()

    def __post_init__(self) -> None:
        usual = {"device cpu": CPU, "numpy": NUMPY, "opencv": OPENCV, "onnxruntime": ONNXRUNTIME, "driver": NO_LIBCUDA}
        self.answers = {**dict.fromkeys(QUESTIONS, ABSENT), **usual, **self.answers}
        self.write("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable:    6291456 kB\n")
        self.write("home/.keep", "")

    @property
    def search_path(self) -> Sequence[str]:
        return ["/usr/lib/python3.12", self.site]

    def may_open(self, node: Path) -> bool:
        return f"/{node.relative_to(self.root)}" not in self.closed

    def ask(self, question: str) -> Answer:
        return self.answers[question]

    def write(self, path: str, text: str | bytes) -> None:
        """A file; all folders above it are made."""
        at = self.root / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(text if isinstance(text, bytes) else text.encode())

    def install(self, name: str, version: str, *, site: str | None = None) -> None:
        """A distribution's metadata, as pip leaves it."""
        folder = f"{site or self.site}/{name.replace('-', '_')}-{version}.dist-info"
        self.write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def install_onnxruntime(
        self, package: str, version: str, *, cuda: str | None = None, providers: Mapping[str, Sequence[str]] = {}
    ) -> None:
        """ONNX Runtime: its metadata, what it says of its build, its providers as ELF files."""
        self.install(package, version)
        about = f"package_name = '{package}'\n__version__ = '{version}'\n" + (
            f"cuda_version = '{cuda}'\n" if cuda else ""
        )
        self.write(f"{self.site}/onnxruntime/capi/build_and_package_info.py", about)
        for provider, needed in providers.items():
            self.write(f"{self.site}/onnxruntime/capi/libonnxruntime_providers_{provider}.so", elf(needed))

    def libraries(self, folder: str, names: Sequence[str]) -> None:
        """Shared libraries by name."""
        for name in names:
            self.write(f"{folder}/{name}", b"")


def elf(needed: Sequence[str]) -> bytes:
    """A shared library of nothing but its dynamic section: 64 bit, little-endian, loaded where it lies in the file."""
    strings, offsets = b"\0", []
    for name in needed:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    headers, dynamic = 64, 64 + 2 * 56
    table = dynamic + 16 * (len(needed) + 2)
    entries = b"".join(struct.pack("<qQ", 1, offset) for offset in offsets)
    entries += struct.pack("<qQ", 5, 0x1000 + table) + struct.pack("<qQ", 0, 0)
    size = table + len(strings)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, headers, 0, 0, 64, 56, 2, 0, 0, 0
    )
    programs = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x1000, 0x1000, size, size, 4096)
    programs += struct.pack("<IIQQQQQQ", 2, 4, dynamic, 0x1000 + dynamic, 0, len(entries), len(entries), 8)
    return header + programs + entries + strings


def jetson(
    root: Path, release: str, model: str, gpu: tuple[str, tuple[int, int], int], cuda: Version, **more: Any
) -> RecordedMachine:
    """A Jetson with JetPack's driver."""
    answers = {"driver": driver(cuda, gpu), **more.pop("answers", {})}
    machine = RecordedMachine(root, uname=("Linux", "aarch64"), answers=answers, **more)
    machine.write("etc/nv_tegra_release", release)
    machine.write("proc/device-tree/model", model + "\0")
    machine.write("proc/driver/nvidia/version", JETSON_MODULE)
    for node in ("dev/nvhost-gpu", "dev/nvhost-ctrl-gpu", "dev/nvmap"):
        machine.write(node, "")
    machine.libraries("/usr/lib/aarch64-linux-gnu/nvidia", ["libcuda.so.1"])
    machine.write("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
    machine.write("etc/ld.so.conf.d/nvidia-tegra.conf", "/usr/lib/aarch64-linux-gnu/nvidia\n")
    return machine


def jetpack5(root: Path) -> RecordedMachine:
    """JetPack 5.1.2 on an Orin, with Python 3.10 from elsewhere."""
    machine = jetson(
        root,
        JETPACK5_RELEASE,
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("Orin", (8, 7), 30),
        (11, 4),
        python=(3, 10, 14),
    )
    machine.write("etc/os-release", 'PRETTY_NAME="Ubuntu 20.04.6 LTS"\n')
    machine.install("tensorrt", "8.5.2.2", site="/usr/lib/python3.8/dist-packages")
    machine.libraries("/usr/lib/aarch64-linux-gnu", ["libnvinfer.so.8", "libcudnn.so.8"])
    machine.install_onnxruntime("onnxruntime", "1.23.2")
    return machine


def jetpack6(root: Path, **more: Any) -> RecordedMachine:
    """JetPack 6.2 on an Orin Nano, a virtual environment that does not see JetPack's TensorRT."""
    machine = jetson(
        root, JETPACK6_RELEASE, "NVIDIA Jetson Orin Nano Developer Kit", ("Orin", (8, 7), 7), (12, 6),
        **{"python": (3, 10, 12), "site": "/opt/venv/lib/python3.10/site-packages", **more},
    )  # fmt: skip
    machine.write("etc/os-release", 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n')
    machine.install("tensorrt", "10.3.0", site="/usr/lib/python3.10/dist-packages")
    machine.libraries("/usr/lib/aarch64-linux-gnu", ["libnvinfer.so.10.3.0", "libcudnn.so.9"])
    machine.install_onnxruntime("onnxruntime", "1.23.2")
    return machine


def thor(root: Path) -> RecordedMachine:
    """JetPack 7.1 on a Thor, onnxruntime-gpu from PyPI, TensorRT visible."""
    tensorrt = Answer(values={"version": "10.13.3.9", "loads": True, "why": None})
    machine = jetson(
        root, THOR_RELEASE, "NVIDIA Jetson AGX Thor Developer Kit", ("NVIDIA Thor", (11, 0), 122), (13, 0),
        answers={"nvrtc": nvrtc("13.2"), "kernels": KERNELS, "tensorrt": tensorrt},
    )  # fmt: skip
    machine.write("etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n')
    machine.install("tensorrt", "10.13.3.9", site="/usr/lib/python3.12/dist-packages")
    machine.install("cuda-core", "1.2.2")
    machine.install("cuda-bindings", "13.5.0")
    machine.install_onnxruntime("onnxruntime-gpu", "1.31.1", cuda="13.0", providers={"cuda": CUDA_PROVIDER})
    return machine


def jetpack7_orin(root: Path) -> RecordedMachine:
    """JetPack 7.2 on an Orin NX, where all is well but for ONNX Runtime's GPU."""
    tensorrt = Answer(values={"version": "10.16.0", "loads": True, "why": None})
    machine = jetson(
        root, JETPACK7_ORIN_RELEASE, "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", ("Orin", (8, 7), 15),
        (13, 2), answers={"nvrtc": nvrtc("13.2"), "kernels": KERNELS, "tensorrt": tensorrt},
    )  # fmt: skip
    machine.install("cuda-core", "1.2.2")
    machine.install("cuda-bindings", "13.5.0")
    machine.install_onnxruntime("onnxruntime", "1.31.1")
    return machine


def desktop(root: Path, **more: Any) -> RecordedMachine:
    """A desktop with driver 550 (CUDA 12.4), and everything of CUDA 13 from pip."""
    machine = RecordedMachine(
        root,
        answers={
            "driver": driver((12, 4), ("NVIDIA GeForce RTX 3080", (8, 6), 10)),
            "nvrtc": nvrtc("13.2"),
            "onnxruntime": Answer(values={"version": "1.31.1", "providers": ["CUDAExecutionProvider"]}),
            "device cuda": Answer(
                error="CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
            ),
            **more.pop("answers", {}),
        },
        **more,
    )
    machine.write("etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\n')
    machine.write("proc/driver/nvidia/version", DESKTOP_MODULE)
    machine.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    machine.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n")
    machine.write("dev/nvidia0", "")
    machine.libraries("/usr/lib/x86_64-linux-gnu", ["libcuda.so.1", "libcuda.so.550.54.15"])
    machine.install("cuda-core", "1.2.2")
    machine.install("cuda-bindings", "13.5.0")
    machine.install_onnxruntime(
        "onnxruntime-gpu", "1.31.1", cuda="13.0", providers={"cuda": CUDA_PROVIDER, "tensorrt": TENSORRT_PROVIDER}
    )
    for folder, names in CUDA_WHEELS.items():
        machine.libraries(f"{machine.site}/{folder}", names)
    return machine


def new_desktop(root: Path, **more: Any) -> RecordedMachine:
    """The same with driver 580 (CUDA 13.0), where the CUDA provider works, and pip's newest TensorRT."""
    tensorrt = Answer(values={"version": "11.4.0.106", "loads": True, "why": None})
    answers = {
        "driver": driver((13, 0), ("NVIDIA GeForce RTX 3080", (8, 6), 10)),
        "device cuda": Answer(values={"engine": "onnxruntime 1.31.1, CUDAExecutionProvider"}),
        "device tensorrt": Answer(error="libnvinfer.so.10: cannot open shared object file"),
        "kernels": KERNELS,
        "tensorrt": tensorrt,
        **more.pop("answers", {}),
    }
    machine = desktop(root, answers=answers, **more)
    machine.write("proc/driver/nvidia/version", DESKTOP_MODULE.replace("550.54.15", "580.82.07"))
    machine.install("tensorrt", "11.4.0.106")
    machine.libraries(f"{machine.site}/tensorrt_libs", ["libnvinfer.so.11"])
    return machine


def wsl(root: Path, **more: Any) -> RecordedMachine:
    """WSL 2: libcuda of Windows' driver is there and not on the loader's path."""
    machine = RecordedMachine(root, **more)
    machine.write("etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\n')
    machine.write("proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n")
    machine.write("dev/dxg", "")
    machine.libraries("/usr/lib/wsl/lib", ["libcuda.so.1"])
    machine.install_onnxruntime("onnxruntime", "1.31.1")
    return machine


def container(root: Path) -> RecordedMachine:
    """A container on a machine with a GPU, started without its driver's libraries: /proc and /sys are the host's."""
    machine = RecordedMachine(root)
    machine.write(".dockerenv", "")
    machine.write("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    machine.write("proc/driver/nvidia/version", DESKTOP_MODULE)
    machine.install_onnxruntime("onnxruntime", "1.31.1")
    return machine
