"""CUDA from Python: cuda.core, cuda.bindings, the compiler NVRTC, PyCUDA."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapcam.cuda.driver_fit import CUDA_COMMAND
from gapcam.doctor.facts import Facts, Gpu
from gapcam.doctor.findings import GPU_DEVICES, Finding, Level, driver_major, gpu_works
from gapcam.doctor.fits import OLDEST_CAPABILITY, text

_SUBJECT = "kernels"
"""What gapcam drives a GPU with, whatever runs the model: without, no device but the CPU works."""


def check_cuda(facts: Facts) -> Iterator[Finding]:
    """Whether gapcam's kernels can be compiled and run."""
    nvrtc, major = facts.answers["nvrtc"], driver_major(facts)
    bindings = facts.distributions.get("cuda-bindings")
    command = CUDA_COMMAND.get(major or 13, CUDA_COMMAND[13])
    if nvrtc.error is not None:
        if nvrtc.absent and "pycuda" not in facts.distributions:
            if gpu_works(facts):
                yield Finding(
                    level=Level.NOTE,
                    subject=_SUBJECT,
                    found="neither cuda-core nor PyCUDA is installed, with which gapcam drives the GPU",
                    expected="cuda-core, cuda-bindings and NVRTC of the driver's CUDA",
                    command=command,
                    devices=GPU_DEVICES,
                )
        else:
            yield Finding(
                level=Level.PROBLEM,
                subject=_SUBJECT,
                found=f"cuda.core or its compiler does not load: {nvrtc.error}",
                expected="cuda-core, cuda-bindings and NVRTC of one major version",
                command=command,
                devices=GPU_DEVICES,
            )
        yield from _pycuda(facts)
        return
    version = str(nvrtc.values["version"])
    ours = int(version.partition(".")[0])
    core = facts.distributions.get("cuda-core")
    found = f"cuda-core {core.version if core else '?'}, cuda-bindings {bindings.version if bindings else '?'}, " + (
        f"NVRTC {version}"
    )
    if major is not None and major < ours:
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found=f"{found}; the driver runs CUDA up to {text(facts.driver.cuda or ())}",
            expected=f"NVRTC and cuda-bindings {major}: a driver does not load code of a newer major version",
            command=command,
            devices=GPU_DEVICES,
        )
    elif bindings and int(bindings.version.partition(".")[0]) != ours:
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found=found,
            expected="cuda-bindings and NVRTC of one major version",
            command=command,
            devices=GPU_DEVICES,
        )
    else:
        yield from _architectures(facts, found, ours)
    yield from _pycuda(facts)


def _architectures(facts: Facts, found: str, ours: int) -> Iterator[Finding]:
    known = facts.answers["nvrtc"].values.get("architectures")
    known = known if isinstance(known, list) else []
    unknown = [gpu for gpu in facts.driver.gpus if 10 * gpu.capability[0] + gpu.capability[1] not in known]
    for gpu in unknown:
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found=f"{found}, which does not compile for {gpu.name} (SM {text(gpu.capability)})",
            expected=_compiler_for(gpu, ours),
            command=CUDA_COMMAND[12] if gpu.capability < OLDEST_CAPABILITY[13] else CUDA_COMMAND[13] + " --upgrade",
            devices=GPU_DEVICES if len(unknown) == len(facts.driver.gpus) else (),
        )
    if unknown:
        return
    kernels = facts.answers["kernels"]
    if not facts.driver.gpus:
        yield Finding(level=Level.OK, subject=_SUBJECT, found=f"compile, and there is no GPU to run them: {found}")
    elif kernels.error is None:
        yield Finding(level=Level.OK, subject=_SUBJECT, found=f"compile and load: {found}")
    else:
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found=f"{found}; on the GPU: {kernels.error}",
            expected="kernels that compile and load",
            command="gapcam doctor --json   # has all that was found, for a bug report",
            devices=GPU_DEVICES,
        )


def _compiler_for(gpu: Gpu, ours: int) -> str:
    if gpu.capability < OLDEST_CAPABILITY[13] and ours >= 13:
        return f"NVRTC 12: CUDA 13 dropped what is before SM {text(OLDEST_CAPABILITY[13])}"
    return "a newer NVRTC"


def _pycuda(facts: Facts) -> Iterator[Finding]:
    answer, major = facts.answers["pycuda"], driver_major(facts)
    if answer.absent:
        return
    if answer.error is not None:
        yield Finding(
            level=Level.PROBLEM if gpu_works(facts) else Level.NOTE,
            subject="PyCUDA",
            found=f"installed and does not load: {answer.error}",
            expected="PyCUDA built on this machine, against its CUDA",
            command="pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda",
        )
        return
    built = str(answer.values.get("cuda"))
    newer = re.match(r"\d+", built)
    if major is not None and newer and int(newer[0]) > major:
        yield Finding(
            level=Level.PROBLEM,
            subject="PyCUDA",
            found=f"built with CUDA {built}; the driver runs CUDA up to {text(facts.driver.cuda or ())}",
            expected=f"PyCUDA built with CUDA {major}",
            command="pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda",
        )
    else:
        yield Finding(
            level=Level.OK, subject="PyCUDA", found=f"{answer.values.get('version')}, built with CUDA {built}"
        )
