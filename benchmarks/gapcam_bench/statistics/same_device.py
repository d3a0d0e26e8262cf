"""Whether two results are of the same device: a ratio between two devices compares these, not two programs."""

from __future__ import annotations

from gapcam_bench.machine import Machine

_MEMORY = 0.1
"""How much of the host's memory may differ: kernels keep more or less of it for themselves."""


def device_differences(old: Machine, new: Machine) -> tuple[str, ...]:
    """What makes them two devices, a phrase each; nothing for the same one."""
    found = []
    for what, before, after in (
        ("the processor", old.environment.cpu, new.environment.cpu),
        ("the architecture", _architecture(old), _architecture(new)),
        ("the cores", old.environment.cores, new.environment.cores),
        ("the GPUs", _gpus(old), _gpus(new)),
        ("the Jetson", old.jetson and old.jetson.model, new.jetson and new.jetson.model),
        ("the power mode", old.jetson and old.jetson.power_mode, new.jetson and new.jetson.power_mode),
        ("the container", old.container, new.container),
    ):
        if before != after:
            found.append(f"{what}: {_said(before)} and {_said(after)}")
    if old.memory_bytes and new.memory_bytes and abs(new.memory_bytes / old.memory_bytes - 1) > _MEMORY:
        found.append(f"the memory: {old.memory_bytes / 2**30:.1f} and {new.memory_bytes / 2**30:.1f} GiB")
    return tuple(found)


def software_differences(old: Machine, new: Machine) -> tuple[str, ...]:
    """What else is not the same and may explain a difference: versions and clocks, a phrase each."""
    found = [
        f"{name}: {_said(old.environment.versions.get(name))} and {_said(new.environment.versions.get(name))}"
        for name in sorted({*old.environment.versions, *new.environment.versions})
        if old.environment.versions.get(name) != new.environment.versions.get(name)
    ]
    for what, before, after in (
        ("Python", old.environment.python, new.environment.python),
        ("the system", old.environment.system, new.environment.system),
        ("the driver", old.driver, new.driver),
        ("CUDA", old.cuda, new.cuda),
        ("TensorRT", old.tensorrt, new.tensorrt),
        ("the processor's governor", old.cpu.governor, new.cpu.governor),
        ("the processor's allowed clocks, MHz", old.cpu.range_mhz, new.cpu.range_mhz),
        ("the processor's boost", old.cpu.boost, new.cpu.boost),
        ("the GPUs' power limits, W", _limits(old), _limits(new)),
        ("the GPUs' locked clocks", _locked(old), _locked(new)),
        (
            "jetson_clocks",
            old.jetson and old.jetson.jetson_clocks,
            new.jetson and new.jetson.jetson_clocks,
        ),
    ):
        if before != after:
            found.append(f"{what}: {_said(before)} and {_said(after)}")
    return tuple(found)


def _architecture(machine: Machine) -> str:
    """The last word of the system, as Linux says it."""
    word = machine.environment.system.split(" ")[-1].lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(word, word)


def _gpus(machine: Machine) -> tuple[str, ...]:
    return tuple(gpu.name for gpu in machine.gpus)


def _limits(machine: Machine) -> tuple[float | None, ...]:
    return tuple(gpu.power_limit_w for gpu in machine.gpus)


def _locked(machine: Machine) -> tuple[bool | None, ...]:
    return tuple(gpu.locked for gpu in machine.gpus)


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_said(each) for each in value) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
