"""What a benchmark ran on: a figure without it says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gapcam.doctor.facts import Answer, Driver, Jetson
from gapcam.doctor.fits import jetpack_of, text
from gapcam.doctor.gather import gather
from gapcam.doctor.machine import ThisMachine
from gapcam.environment import Environment, environment, installed_versions
from gapcam_bench.telemetry.cpu import policies
from gapcam_bench.telemetry.jetson_sysfs import gpu_devfreq
from gapcam_bench.telemetry.kernel_file import read_number, read_text
from gapcam_bench.telemetry.nvml import NvmlGpu, nvml_gpus
from gapcam_bench.telemetry.nvpmodel import power_mode

ENGINES = (
    "onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13",
    "tensorrt-rtx-cu13-libs", "torch", "torchcam", "grad-cam", "opencv-python", "scipy", "mlcommons-loadgen",
    "cuda-core", "pycuda",
)  # fmt: skip
"""Distributions whose versions say something about a result, beside those of every environment."""

_QUESTIONS = ("driver", "onnxruntime", "tensorrt")


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A CUDA device.

    Attributes:
        name: such as "NVIDIA H100 80GB HBM3" or "Orin".
        capability: compute capability, such as "8.7"; None where the driver does not say.
        memory_bytes: of it.
        clocks_mhz: now, by domain; None where they cannot be read.
        most_clocks_mhz: the highest.
        power_limit_w: that is enforced.
        locked: whether its clocks are locked; None where that cannot be told.
    """

    name: str
    capability: str | None = None
    memory_bytes: int | None = None
    clocks_mhz: dict[str, float] | None = None
    most_clocks_mhz: dict[str, float] | None = None
    power_limit_w: float | None = None
    locked: bool | None = None


class CpuClocks(msgspec.Struct, frozen=True, kw_only=True):
    """How the processors are clocked; None for what the system does not say.

    Attributes:
        governor: of all of them, such as "schedutil"; several are joined by commas.
        now_mhz: least and greatest over the processors.
        range_mhz: that is allowed.
        locked: whether least and greatest allowed clocks are the same.
        boost: whether turbo clocks are on.
    """

    governor: str | None = None
    now_mhz: tuple[float, float] | None = None
    range_mhz: tuple[float, float] | None = None
    locked: bool | None = None
    boost: bool | None = None


class JetsonFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An NVIDIA Jetson.

    Attributes:
        model: such as "NVIDIA Jetson Orin Nano Developer Kit".
        l4t: such as "36.4.3".
        jetpack: such as "6.2"; None for a version that gapcam does not know.
        power_mode: nvpmodel's, such as "15W"; None where it cannot be read.
        jetson_clocks: whether the clocks of processor and GPU are locked; None where that cannot be told of both.
    """

    model: str
    l4t: str | None = None
    jetpack: str | None = None
    power_mode: str | None = None
    jetson_clocks: bool | None = None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and its software.

    Attributes:
        environment: processor, cores, system, Python, versions.
        memory_bytes: of the host.
        distribution: of the system, such as "Ubuntu 22.04.4 LTS".
        container: "docker", "podman" or "container"; None outside.
        driver: NVIDIA's, such as "550.54.15".
        cuda: the newest that the driver runs, such as "12.4".
        tensorrt: version; None where it is not installed.
        providers: execution providers of the installed ONNX Runtime. What really ran a row stands in the row.
        cpu: clocks.
        gpus: CUDA devices.
        jetson: None elsewhere.
    """

    environment: Environment
    memory_bytes: int | None = None
    distribution: str | None = None
    container: str | None = None
    driver: str | None = None
    cuda: str | None = None
    tensorrt: str | None = None
    providers: tuple[str, ...] = ()
    cpu: CpuClocks = CpuClocks()
    gpus: tuple[GpuFacts, ...] = ()
    jetson: JetsonFacts | None = None


def machine(root: Path = Path("/")) -> Machine:
    """What this process runs on. It takes about a second: libraries are asked in processes of their own.

    Args:
        root: the folder in which /sys, /proc and /etc lie. Libraries, NVML and Python are asked of this machine only.
    """
    asked = _Asked(root)
    facts = gather(asked)
    ground = environment()
    driver = facts.driver
    tensorrt = facts.answers["tensorrt"].values.get("version")
    providers = facts.answers["onnxruntime"].values.get("providers")
    gpus = nvml_gpus() if asked.here else ()
    return Machine(
        environment=msgspec.structs.replace(ground, versions={**ground.versions, **installed_versions(ENGINES)}),
        memory_bytes=_memory(root),
        distribution=facts.platform.name,
        container=facts.platform.container,
        driver=driver.module or next((gpu.driver for gpu in gpus if gpu.driver), None),
        cuda=text(driver.cuda) if driver.cuda else None,
        tensorrt=None if tensorrt is None else str(tensorrt),
        providers=tuple(map(str, providers)) if isinstance(providers, list) else (),
        cpu=cpu_clocks(root),
        gpus=gpu_facts(root, driver, gpus, is_jetson=facts.jetson is not None),
        jetson=None if facts.jetson is None else _jetson(root, facts.jetson),
    )


def cpu_clocks(root: Path = Path("/")) -> CpuClocks:
    """As cpufreq shows them."""
    found = policies(root)
    governors = {read_text(at / "scaling_governor") for at in found} - {None}
    now = [value for at in found if (value := read_number(at / "scaling_cur_freq")) is not None]
    ranges = [
        (least, most)
        for at in found
        if (least := read_number(at / "scaling_min_freq")) is not None
        and (most := read_number(at / "scaling_max_freq")) is not None
    ]
    return CpuClocks(
        governor=", ".join(sorted(filter(None, governors))) or None,
        now_mhz=(min(now) / 1000, max(now) / 1000) if now else None,
        range_mhz=(min(least for least, _ in ranges) / 1000, max(most for _, most in ranges) / 1000)
        if ranges
        else None,
        locked=all(least == most for least, most in ranges) if ranges else None,
        boost=_boost(root),
    )


class _Asked(ThisMachine):
    """Asks the libraries that a result names, and no others: trying out every backend takes minutes."""

    def __init__(self, root: Path) -> None:
        self.here = root == Path("/")
        self.root = root

    def ask(self, question: str) -> Answer:
        """In a process of its own, as `gapcam doctor` does."""
        return super().ask(question) if self.here and question in _QUESTIONS else Answer(error="not asked", absent=True)


def _boost(root: Path) -> bool | None:
    """Whether turbo clocks are on; intel_pstate says the opposite."""
    cpus = root / "sys/devices/system/cpu"
    boost, off = read_number(cpus / "cpufreq/boost"), read_number(cpus / "intel_pstate/no_turbo")
    if boost is not None:
        return bool(boost)
    return None if off is None else not off


def _memory(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def gpu_facts(root: Path, driver: Driver, known: tuple[NvmlGpu, ...], *, is_jetson: bool) -> tuple[GpuFacts, ...]:
    """CUDA's devices, with what NVML or, on a Jetson, devfreq adds; NVML's where libcuda does not answer."""
    devices = [
        GpuFacts(name=gpu.name, capability=text(gpu.capability), memory_bytes=gpu.memory) for gpu in driver.gpus
    ] or [GpuFacts(name=gpu.name or "a GPU", capability=gpu.capability, memory_bytes=gpu.memory_bytes) for gpu in known]
    found = [_with_nvml(device, partner) for device, partner in _partners(devices, known)]
    at = gpu_devfreq(root) if is_jetson else None
    if at is not None and len(found) == 1:
        found = [_with_devfreq(found[0], at)]
    return tuple(found)


def _partners(devices: list[GpuFacts], known: tuple[NvmlGpu, ...]) -> Iterator[tuple[GpuFacts, NvmlGpu | None]]:
    """Each device with NVML's entry of the same name, in order; NVML may name a Jetson's only GPU otherwise."""
    left = list(known)
    for device in devices:
        same = (one for one in left if one.name == device.name or len(devices) == len(known) == 1)
        partner = next(same, None)
        if partner is not None:
            left.remove(partner)
        yield device, partner


def _with_nvml(device: GpuFacts, known: NvmlGpu | None) -> GpuFacts:
    if known is None:
        return device

    def mhz(clocks: dict[str, int] | None) -> dict[str, float] | None:
        return None if clocks is None else {name: float(clock) for name, clock in clocks.items()}

    return msgspec.structs.replace(
        device,
        clocks_mhz=mhz(known.clocks_mhz),
        most_clocks_mhz=mhz(known.most_clocks_mhz),
        power_limit_w=known.power_limit_w,
    )


def _with_devfreq(device: GpuFacts, at: Path) -> GpuFacts:
    now, least, most = (read_number(at / name) for name in ("cur_freq", "min_freq", "max_freq"))
    return msgspec.structs.replace(
        device,
        clocks_mhz=device.clocks_mhz or (None if now is None else {"graphics": now / 1e6}),
        most_clocks_mhz=device.most_clocks_mhz or (None if most is None else {"graphics": most / 1e6}),
        locked=None if least is None or most is None else least == most,
    )


def _jetson(root: Path, found: Jetson) -> JetsonFacts:
    jetpack = jetpack_of(found.l4t) if found.l4t else None
    cpu_locked, gpu = cpu_clocks(root).locked, gpu_devfreq(root)
    gpu_locked = None if gpu is None else _with_devfreq(GpuFacts(name=""), gpu).locked
    return JetsonFacts(
        model=found.model,
        l4t=text(found.l4t) if found.l4t else None,
        jetpack=jetpack.name if jetpack else None,
        power_mode=power_mode(root),
        jetson_clocks=False if False in (cpu_locked, gpu_locked) else (cpu_locked and gpu_locked),
    )
