"""NVIDIA's driver and the devices that it offers."""

from __future__ import annotations

from collections.abc import Iterator

from gapcam.cuda.driver_fit import DRIVER_OF_CUDA, OLDEST_CUDA
from gapcam.doctor.facts import Driver, Facts
from gapcam.doctor.findings import GPU_DEVICES, Finding, Level, driver_too_old, has_gpu
from gapcam.doctor.fits import jetpack_of, text

# cuInit's answers. Source: CUDA Driver API, CUresult; CUDA Compatibility, "Forward Compatibility".
_OLD_DRIVER, _NO_DEVICE, _FABRIC_NOT_READY, _MISMATCH, _NO_FORWARD, _UNKNOWN = 35, 100, 802, 803, 804, 999

_ON_THE_HOST = "on the host, whose driver a container has"


def check_driver(facts: Facts) -> Iterator[Finding]:
    """Whether CUDA can be used at all."""
    driver = facts.driver
    if driver.gpus:
        yield from _working(facts)
    elif driver.cuda is None:
        yield _no_library(facts)
    elif driver.closed:
        yield _closed(driver)
    else:
        yield _no_device(facts)
    if facts.jetson:
        yield from _jetpack(facts)


def _working(facts: Facts) -> Iterator[Finding]:
    driver = facts.driver
    version = driver.cuda or (0, 0)
    gpus = "; ".join(f"{gpu.name}, SM {text(gpu.capability)}, {gpu.memory / 2**30:.1f} GiB" for gpu in driver.gpus)
    module = f"driver {driver.module}, " if driver.module else ""
    if driver_too_old(facts):
        yield Finding(
            level=Level.PROBLEM,
            subject="driver",
            found=f"{module}CUDA up to {text(version)}; {gpus}",
            expected=f"CUDA {OLDEST_CUDA} or newer, which driver {DRIVER_OF_CUDA[OLDEST_CUDA]} and later run"
            + (f"; {_ON_THE_HOST}" if facts.platform.container else ""),
            command=_install_driver(facts),
            devices=GPU_DEVICES,
        )
    else:
        yield Finding(level=Level.OK, subject="driver", found=f"{module}CUDA up to {text(version)}; {gpus}")


def _no_library(facts: Facts) -> Finding:
    problem = facts.driver.error or "libcuda does not load"
    if not has_gpu(facts):
        return Finding(
            level=Level.NOTE,
            subject="driver",
            found="no NVIDIA GPU and no driver here",
            expected="a GPU is needed for cuda, tensorrt and tensorrt-rtx only",
            devices=GPU_DEVICES,
        )
    if facts.platform.container:
        option = "--runtime nvidia" if facts.jetson else "--gpus all"
        return Finding(
            level=Level.PROBLEM,
            subject="driver",
            found=f"in a container that has not got the driver's libraries ({problem})",
            expected="NVIDIA's container toolkit on the host, and a container started with its option",
            command=f"docker run {option} ...",
            devices=GPU_DEVICES,
        )
    if facts.platform.wsl:
        if "libcuda.so.1" in facts.libraries:
            expected, command = (
                "the folder of Windows' driver on the loader's path",
                ("export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH"),
            )
        else:
            expected, command = "NVIDIA's driver in Windows (none in Linux), and a restarted WSL", "wsl.exe --shutdown"
        return Finding(
            level=Level.PROBLEM,
            subject="driver",
            found=f"WSL without CUDA ({problem})",
            expected=expected,
            command=command,
            devices=GPU_DEVICES,
        )
    return Finding(
        level=Level.PROBLEM,
        subject="driver",
        found=f"an NVIDIA GPU and no driver for it ({problem})",
        expected=f"NVIDIA's driver, {DRIVER_OF_CUDA[13]} or newer for CUDA 13",
        command=_install_driver(facts),
        devices=GPU_DEVICES,
    )


def _closed(driver: Driver) -> Finding:
    return Finding(
        level=Level.PROBLEM,
        subject="driver",
        found=f"this user may not open {', '.join(driver.closed)}",
        expected="a user in the groups that own them; log in again afterwards",
        command="sudo usermod -aG video,render $USER",
        devices=GPU_DEVICES,
    )


def _no_device(facts: Facts) -> Finding:
    driver, code = facts.driver, facts.driver.code
    said = f"cuInit answers {code}"
    what, expected, command = {
        _OLD_DRIVER: (
            f"{said}: the kernel module is older than libcuda",
            "both of the same driver; restart after an update",
            "sudo reboot",
        ),
        _NO_DEVICE: (
            f"{said}: no device",
            "a GPU that the driver can reach: look at CUDA_VISIBLE_DEVICES, and at a container's options",
            "unset CUDA_VISIBLE_DEVICES",
        ),
        _FABRIC_NOT_READY: (
            f"{said}: the fabric manager does not run",
            "NVSwitch machines need it",
            "sudo systemctl enable --now nvidia-fabricmanager",
        ),
        _MISMATCH: (
            f"{said}: libcuda and the kernel module {driver.module or ''} are of different drivers",
            "both of the same driver; restart after an update",
            "sudo reboot",
        ),
        _NO_FORWARD: (
            f"{said}: libcuda of a cuda-compat package, which this GPU does not take",
            "the driver's own libcuda first on the loader's path",
            "sudo apt remove 'cuda-compat-*'",
        ),
        _UNKNOWN: (
            f"{said}: often after the machine slept",
            "a kernel module that is loaded anew",
            "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm",
        ),
    }.get(code if code is not None else -1, (f"{said}, no device" if code else "the driver has no device", "a GPU", ""))
    absent = code in (0, _NO_DEVICE) and not has_gpu(facts)
    return Finding(
        level=Level.NOTE if absent else Level.PROBLEM,
        subject="driver",
        found="libcuda is here and no NVIDIA GPU" if absent else what,
        expected="" if absent else expected + (f"; {_ON_THE_HOST}" if facts.platform.container else ""),
        command=None if absent else command or None,
        devices=GPU_DEVICES,
    )


def _jetpack(facts: Facts) -> Iterator[Finding]:
    jetson = facts.jetson
    assert jetson is not None  # noqa: S101 - for the type checker
    if jetson.l4t is None:
        yield Finding(
            level=Level.NOTE,
            subject="JetPack",
            found=f"{jetson.model}, and no /etc/nv_tegra_release",
            expected="a container on a Jetson that wants to know its JetPack has that file mounted",
            command="docker run -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro ...",
        )
        return
    release = jetpack_of(jetson.l4t)
    found = f"{jetson.model}, Jetson Linux {text(jetson.l4t)}"
    if release is None or release.tensorrt < (10,):
        name = f" (JetPack {release.name}, TensorRT {text(release.tensorrt)})" if release else ""
        yield Finding(
            level=Level.PROBLEM,
            subject="JetPack",
            found=found + name,
            expected="JetPack 6.1 or newer: TensorRT 10 or newer, CUDA 12.6 or newer",
            command=(
                "sudo apt dist-upgrade   # after 'r36.4' in /etc/apt/sources.list.d/nvidia-l4t-apt-source.list"
                if release and jetson.l4t[0] == 36
                else "flash JetPack 6.2 or 7.2 with NVIDIA's SDK Manager"
            ),
            devices=("tensorrt",) if jetson.l4t[0] == 36 else GPU_DEVICES,
        )
        return
    yield Finding(
        level=Level.OK,
        subject="JetPack",
        found=f"{found}: JetPack {release.name}, with CUDA {text(release.cuda)}, TensorRT {text(release.tensorrt)}",
    )


def _install_driver(facts: Facts) -> str:
    if facts.jetson and driver_too_old(facts):
        return "flash JetPack 6.2 or 7.2 with NVIDIA's SDK Manager"
    if facts.jetson:
        return "flash JetPack again: a Jetson's driver comes with it"
    if "Ubuntu" in facts.platform.name:
        return "sudo ubuntu-drivers install"
    if "Debian" in facts.platform.name:
        return "sudo apt install nvidia-driver   # from non-free, or NVIDIA's own repository for 580 and newer"
    return "install NVIDIA's driver as your distribution has it"
