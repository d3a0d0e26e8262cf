"""ONNX Runtime: which of its distributions, and what its providers link."""

from __future__ import annotations

from collections.abc import Iterator

from gapcam.cuda.driver_fit import DRIVER_OF_CUDA
from gapcam.doctor.facts import Facts, OnnxRuntimeFiles
from gapcam.doctor.findings import DeviceName, Finding, Level, driver_major, driver_too_old, gpu_works, has_gpu
from gapcam.doctor.fits import (
    JETSON_CONTAINERS,
    ONNXRUNTIME_AARCH64_CAPABILITIES,
    ONNXRUNTIME_GPU,
    text,
)

_SUBJECT = "ONNX Runtime"
_CPU, _GPU = "onnxruntime", "onnxruntime-gpu"
_CUDNN = "libcudnn.so.9"
_NVIDIA, _DRIVERS = ("libcu", "libnv", "libtensorrt"), ("libcuda.", "libnvidia-")
_DEVICE_OF_PROVIDER: dict[str, DeviceName] = {"cuda": "cuda", "tensorrt": "tensorrt"}


def check_onnxruntime(facts: Facts) -> Iterator[Finding]:
    """What of it can run, and what is missing for the rest."""
    files, answer = facts.onnxruntime, facts.answers["onnxruntime"]
    if files is None or answer.absent:
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found="not installed: no .onnx model can be run",
            expected="onnxruntime, or onnxruntime-gpu where it fits the GPU; engines of TensorRT run without",
            command="pip install 'gapcam[cpu]'",
            devices=("cpu", "cuda"),
        )
        return
    if answer.error is not None:
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found=f"{files.package} {files.version} does not load: {answer.error}",
            expected="a package of this Python's and this processor's",
            command=f"pip install --force-reinstall {files.package}",
            devices=("cpu", "cuda"),
        )
        return
    yield from _two_at_once(facts, files)
    if files.providers or files.cuda is not None:
        yield from _providers(facts, files)
    else:
        yield from _without_gpu(facts, files)


def _two_at_once(facts: Facts, files: OnnxRuntimeFiles) -> Iterator[Finding]:
    both = [name for name in (_CPU, _GPU) if name in facts.distributions]
    if len(both) == 2 and facts.distributions[_CPU].folder == facts.distributions[_GPU].folder:
        for_gpus = gpu_works(facts) and not facts.jetson and not driver_too_old(facts)
        package = _gpu_package(facts) if for_gpus else "pip install onnxruntime"
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found=f"onnxruntime and onnxruntime-gpu in one folder; its files are those of {files.package}",
            expected="one of them: they overwrite each other's files",
            command=f"pip uninstall -y onnxruntime onnxruntime-gpu && {package}",
        )


def _without_gpu(facts: Facts, files: OnnxRuntimeFiles) -> Iterator[Finding]:
    name = f"{files.package} {files.version}"
    if not gpu_works(facts):
        yield Finding(level=Level.OK, subject=_SUBJECT, found=f"{name}, for CPUs")
    elif facts.jetson:
        yield Finding(
            level=Level.NOTE,
            subject=_SUBJECT,
            found=f"{name}, for CPUs",
            expected="engines of TensorRT for the GPU (gapcam build), or ONNX Runtime built for Jetsons",
            command=JETSON_CONTAINERS,
            devices=("cuda",),
        )
    else:
        yield Finding(
            level=Level.NOTE,
            subject=_SUBJECT,
            found=f"{name}, for CPUs, and there is a GPU",
            expected=f"onnxruntime-gpu of the driver's CUDA ({text(facts.driver.cuda or ())})",
            command=f"pip uninstall -y onnxruntime && {_gpu_package(facts)}",
            devices=("cuda",),
        )


def _providers(facts: Facts, files: OnnxRuntimeFiles) -> Iterator[Finding]:
    name, major = f"{files.package} {files.version}", driver_major(facts)
    if facts.platform.machine == "aarch64" and "tensorrt" not in files.providers:
        wrong = [gpu for gpu in facts.driver.gpus if gpu.capability not in ONNXRUNTIME_AARCH64_CAPABILITIES]
        for gpu in wrong:
            yield Finding(
                level=Level.PROBLEM,
                subject=_SUBJECT,
                found=f"{name} from PyPI has neither CUDA code for {gpu.name} (SM {text(gpu.capability)}) nor TensorRT",
                expected="ONNX Runtime built for Jetsons; or engines of TensorRT, with onnxruntime beside them",
                command=JETSON_CONTAINERS,
                devices=("cuda",),
            )
        if wrong:
            return
    wants = files.cuda[0] if files.cuda else None
    if wants is not None and major is not None and major < wants:
        yield Finding(
            level=Level.PROBLEM,
            subject=_SUBJECT,
            found=f"{name} is built with CUDA {text(files.cuda or ())}; the driver runs CUDA up to "
            f"{text(facts.driver.cuda or ())}",
            expected=f"driver {DRIVER_OF_CUDA.get(wants, '')} or newer, or a package for CUDA {major}",
            command=_gpu_package(facts),
            devices=("cuda", "tensorrt"),
        )
        return
    unmet = {provider: _missing(facts, provider, needed) for provider, needed in files.providers.items()}
    for provider, missing in unmet.items():
        if missing and provider in _DEVICE_OF_PROVIDER:
            yield _missing_libraries(facts, files, provider, missing)
    ready = [provider for provider, missing in unmet.items() if not missing]
    yield Finding(
        level=Level.OK,
        subject=_SUBJECT,
        found=f"{name}; libraries are there for: {', '.join(['CPU', *map(_title, ready)])}",
    )


def _missing_libraries(facts: Facts, files: OnnxRuntimeFiles, provider: str, missing: list[str]) -> Finding:
    device = _DEVICE_OF_PROVIDER[provider]
    tensorrt = [soname for soname in missing if soname.startswith(("libnvinfer", "libnvonnxparser"))]
    level = Level.PROBLEM if has_gpu(facts) and device == "cuda" else Level.NOTE
    if tensorrt:
        major = tensorrt[0].rpartition(".")[2]
        others = [soname for soname in facts.libraries if soname.startswith("libnvinfer.so.")]
        cuda = files.cuda[0] if files.cuda else 13
        return Finding(
            level=level,
            subject=_SUBJECT,
            found=f"its TensorRT provider links {', '.join(missing)}; "
            + (f"here is {', '.join(others)}" if others else "TensorRT is not here"),
            expected=f"TensorRT {major} beside it, for .onnx models on device tensorrt (pip's newest is another)",
            command=f"pip install 'tensorrt-cu{cuda}=={major}.*'",
            devices=(device,),
        )
    return Finding(
        level=level,
        subject=_SUBJECT,
        found=f"its {_title(provider)} provider lacks {', '.join(missing)}",
        expected=f"CUDA {text((files.cuda or (13,))[:1])} and cuDNN 9",
        command=f"pip install '{files.package}[cuda,cudnn]=={files.version}'",
        devices=(device,),
    )


def _missing(facts: Facts, provider: str, needed: tuple[str, ...]) -> list[str]:
    """What is not there of NVIDIA's libraries; whatever else a provider links is the system's.

    What ran lacks nothing. What begins with libcuda or libnvidia is the driver's. A CUDA provider that does not link
    cuDNN (1.31's) opens it by name for its convolutions.
    """
    device = _DEVICE_OF_PROVIDER.get(provider)
    if device is not None and facts.answers[f"device {device}"].error is None:
        return []
    opened = (_CUDNN,) if provider == "cuda" and _CUDNN not in needed else ()
    return [
        soname
        for soname in (*needed, *opened)
        if soname.startswith(_NVIDIA) and not soname.startswith(_DRIVERS) and soname not in facts.libraries
    ]


def _gpu_package(facts: Facts) -> str:
    return ONNXRUNTIME_GPU.get(driver_major(facts) or 13, ONNXRUNTIME_GPU[13])


def _title(provider: str) -> str:
    return {"cuda": "CUDA", "tensorrt": "TensorRT"}.get(provider, provider)
