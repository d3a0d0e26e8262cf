"""From the name of a device to a backend that runs a model there.

    auto                    the fastest that works
    cpu                     ONNX Runtime on the CPU
    cuda, cuda:1            ONNX Runtime's CUDA provider, on that GPU
    tensorrt, tensorrt:1    TensorRT: an engine file, or an ONNX model with ONNX Runtime's provider
    tensorrt-rtx            TensorRT-RTX, likewise

A device that does not work is an error and never replaced by another, except with "auto", which says what it
passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from gapcam.backends.onnx_file import ENGINE_SUFFIXES, computes_in_bfloat16
from gapcam.backends.protocol import Backend
from gapcam.cuda.presence import presence
from gapcam.engine_file import is_engine
from gapcam.errors import BackendError, MissingExtraError, ModelError, UsageError

DeviceKind: TypeAlias = Literal["auto", "cpu", "cuda", "tensorrt", "tensorrt-rtx"]

DEVICES: tuple[DeviceKind, ...] = get_args(DeviceKind)

_GREATEST_NUMBER = 255


@dataclass(frozen=True, slots=True)
class Device:
    """A device's name, read.

    Attributes:
        kind: what runs the model.
        number: of the GPU.
        numbered: whether the name has a number.
    """

    kind: DeviceKind
    number: int = 0
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that was opened.

    Attributes:
        backend: what runs it.
        passed_over: with "auto" on a machine with a GPU, why each faster way does not work here.
    """

    backend: Backend
    passed_over: tuple[str, ...] = ()


def parse_device(text: str) -> Device:
    """Read a device's name.

    Raises:
        UsageError: it is none.
    """
    for kind in DEVICES:
        match = re.fullmatch(re.escape(kind) + ("" if kind == "cpu" else "(?::([0-9]{1,3}))?"), text)
        if match:
            numbered = match.lastindex is not None
            number = int(match[1]) if numbered else 0
            if number <= _GREATEST_NUMBER:
                return Device(kind, number, numbered)
    raise UsageError(
        f"there is no device {text[:40]!r}; give one of {', '.join(DEVICES)}, all but cpu with the number of the GPU "
        "where it is not the first, as in cuda:1"
    )


def open_backend(
    path: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    session_options: Mapping[str, object] | None = None,
    allow_cpu_fallback: bool = False,
) -> Backend:
    """Load a model on a device; `choose_backend` has the arguments and errors, and tells what "auto" passed over."""
    return choose_backend(
        path,
        device=device,
        threads=threads,
        provider_options=provider_options,
        session_options=session_options,
        allow_cpu_fallback=allow_cpu_fallback,
    ).backend


def choose_backend(
    path: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    session_options: Mapping[str, object] | None = None,
    allow_cpu_fallback: bool = False,
) -> Choice:
    """Load a model on a device.

    Args:
        path: of a .onnx file, or of an engine file made by `gapcam build`.
        device: its name.
        threads: that one inference may use on the CPU; None for every physical core.
        provider_options: of ONNX Runtime's provider, handed through.
        session_options: of ONNX Runtime's session.
        allow_cpu_fallback: whether layers that a GPU's provider does not know may run on the CPU.

    Raises:
        ModelError: the file is missing, no model, damaged, or does not run on this device.
        BackendError: there is no such device here, layers would run on the CPU, an option is refused, or an engine does
            not fit the device.
        UsageError: the device's name is none, or options of ONNX Runtime are given for an engine.
        MissingExtraError: the package that runs the model is not installed.
    """
    wanted = parse_device(device)
    if is_engine(path) or path.suffix.lower() in ENGINE_SUFFIXES:
        if provider_options or session_options:
            raise UsageError(f"{path} is an engine; provider and session options are ONNX Runtime's. Leave them out")
        return Choice(_open_engine(path, wanted))

    def on_cpu() -> Backend:
        from gapcam.backends.onnxruntime import OnnxRuntimeBackend  # here, because it is an extra

        return OnnxRuntimeBackend(
            path, threads=threads, provider_options=provider_options, session_options=session_options
        )

    def on_gpu(kind: Literal["cuda", "tensorrt", "tensorrt-rtx"]) -> Backend:
        _check_number(wanted)
        from gapcam.backends.onnxruntime_gpu import open_on_gpu  # likewise

        return open_on_gpu(
            path,
            kind,
            number=wanted.number,
            threads=threads,
            provider_options=provider_options,
            session_options=session_options,
            allow_cpu_fallback=allow_cpu_fallback,
        )

    match wanted.kind:
        case "cpu":
            return Choice(on_cpu())
        case "auto":
            if wanted.numbered:  # no other device and no CPU is that one
                _check_number(wanted)
            passed_over: list[str] = []
            # Whoever gives a provider's options means a provider; with "auto" and no GPU that is the CPU's.
            if presence().devices:
                for kind in ("tensorrt-rtx", "tensorrt", "cuda"):
                    try:
                        return Choice(on_gpu(kind), tuple(passed_over))
                    except (BackendError, MissingExtraError, ModelError) as error:  # noqa: PERF203 - three rounds
                        passed_over.append(f"{kind}: {error}")
            try:
                return Choice(on_cpu(), tuple(passed_over))
            except ModelError as error:
                if passed_over and computes_in_bfloat16(path):  # the GPU is where such a model belongs
                    raise ModelError(f"{error}. The GPU was tried: {'; '.join(passed_over)}") from error
                raise
        case kind:
            return Choice(on_gpu(kind))


def _check_number(wanted: Device) -> None:
    found = presence()
    if found.problem:
        raise BackendError(f"device {wanted.kind!r} needs an NVIDIA GPU: {found.problem}. gapcam doctor tells more")
    if wanted.number >= found.devices:
        raise BackendError(
            f"device {wanted.number} was asked for, and here "
            + ("is one GPU, number 0" if found.devices == 1 else f"are {found.devices} GPUs, from number 0")
        )


def _open_engine(path: Path, wanted: Device) -> Backend:
    from gapcam.engine_file import read_engine
    from gapcam.tensorrt_module import TITLES

    file = read_engine(path)
    try:
        runtime = file.header.runtime
        if wanted.kind not in ("auto", runtime):
            runs = "engines of " + TITLES[wanted.kind] if wanted.kind in TITLES else "ONNX models"
            raise BackendError(
                f"{path} is an engine, which {TITLES[runtime]} runs on an NVIDIA GPU; device {wanted.kind!r} runs "
                f"{runs}. Leave --device out, or give the ONNX file that it was built from ({file.header.model})"
            )
        _check_number(Device(runtime, wanted.number))
        from gapcam.backends.tensorrt import TensorRTBackend
        from gapcam.cuda.open_driver import open_driver

        driver = open_driver("auto", wanted.number)
        try:
            return TensorRTBackend(file, driver)
        except BaseException:
            driver.close()
            raise
    except BaseException:
        file.close()
        raise
