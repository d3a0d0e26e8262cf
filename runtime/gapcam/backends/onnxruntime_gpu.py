"""Opens an ONNX model on a GPU with ONNX Runtime's CUDA, TensorRT or TensorRT-RTX provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gapcam.backends.onnx_file import check_is_file
from gapcam.backends.onnx_outline import read_outline
from gapcam.backends.onnxruntime_assignment import RECORDING, check_on_device, nodes_by_provider
from gapcam.backends.onnxruntime_device import OnnxRuntimeDeviceBackend
from gapcam.backends.onnxruntime_providers import (
    ENGINE_INSTEAD,
    PROVIDERS,
    GpuDevice,
    check_loads,
    explain_failure,
    rtx_devices,
)
from gapcam.backends.onnxruntime_session import CPU_PROVIDER, ORT_VERSION, make_options, make_session, onnxruntime
from gapcam.cache_folder import cache_folder
from gapcam.contract import Precision, contract_from_metadata
from gapcam.cuda.driver import Driver, Stream
from gapcam.cuda.open_driver import open_driver
from gapcam.cuda.thread_state import is_primary_current
from gapcam.errors import BackendError, ContractError, ModelError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtEpDevice

_GRAPH = "enable_cuda_graph"
_WARNINGS, _FATAL = 2, 4
"""Severities of ONNX Runtime's log."""


def open_on_gpu(
    path: Path,
    kind: GpuDevice,
    *,
    number: int = 0,
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    session_options: Mapping[str, object] | None = None,
    allow_cpu_fallback: bool = False,
) -> OnnxRuntimeDeviceBackend:
    """Load a model, see which nodes are where, and run it once: some of what is wrong shows only then.

    TensorRT builds an engine of the model here or in the first inference, which takes minutes; it is kept in the user's
    cache folder.

    Args:
        path: of the .onnx file.
        kind: which provider.
        number: of the device.
        threads: that the nodes on the CPU may use.
        provider_options: of the provider; they go before gapcam's own.
        session_options: as of `gapcam.load`.
        allow_cpu_fallback: whether layers may run on the CPU.

    Raises:
        ModelError: the file is missing, no ONNX model, damaged, or uses what the provider does not know.
        BackendError: the provider is not available, a device of that number is not there, the app's context is not the
            device's primary one, layers would run on the CPU, an option is refused, or the model fails on the GPU.
        MissingExtraError: the package that drives the GPU is not installed.
    """
    check_is_file(path)
    plugin = _device_of(rtx_devices(), number) if kind == "tensorrt-rtx" else None
    if plugin is None:
        check_loads(kind)
    driver = open_driver("auto", number)
    try:
        check_context(driver)
        with driver.active():
            stream = driver.stream()
            how = (path, kind, plugin, number, stream, threads, provider_options or {}, session_options or {})
            with _quiet():
                session = _session(*how)
            provider = PROVIDERS[kind]
            if provider.name not in session.get_providers():
                _session(*how)  # so that ONNX Runtime writes why: there is no other way to hear it
                raise BackendError(
                    f"{provider.title} of ONNX Runtime {ORT_VERSION} did not start on device {number}; what it wrote "
                    "above says why, and gapcam doctor what to do"
                )
            if not allow_cpu_fallback:
                check_on_device(nodes_by_provider(session), provider.title, str(path))
        backend = OnnxRuntimeDeviceBackend(
            session, driver, stream, engine=f"onnxruntime {ORT_VERSION}, {provider.name}, {driver.device_name}"
        )
        _try(backend)
    except (BackendError, ModelError) as error:
        hint = explain_failure(str(error), driver.architecture)
        driver.close()
        if hint and hint not in str(error):
            raise BackendError(f"{error}{hint}") from error
        raise
    except BaseException:
        driver.close()
        raise
    return backend


def check_context(driver: Driver) -> None:
    """ONNX Runtime computes in the device's primary context, whichever is current: each run begins with cudaSetDevice.

    Raises:
        BackendError: the driver works in another, where the addresses and the stream of this one mean nothing.
    """
    with driver.active():
        if not is_primary_current(driver.device):
            raise BackendError(
                f"the app's CUDA context on device {driver.device} is one that it made, and ONNX Runtime works in the "
                "device's primary context only; use that in the app, too (PyCUDA: import pycuda.autoprimaryctx in "
                f"place of pycuda.autoinit), {ENGINE_INSTEAD}"
            )


def gpu_options(
    kind: GpuDevice, number: int, stream: int, precision: Precision | None, cache: Path, given: Mapping[str, str]
) -> dict[str, str]:
    """A provider's options.

    Args:
        kind: which provider.
        number: of the device.
        stream: where it is to queue its work, as a cudaStream_t.
        precision: of the model; None where it does not say. TensorRT 10 may compute a model of half precision in that
            precision only where it is told so.
        cache: the folder that engines, timings and compiled kernels are kept in.
        given: the user's, which go before these.
    """
    options = {"device_id": str(number), "has_user_compute_stream": "1", "user_compute_stream": str(stream)}
    if kind == "cuda":
        options[_GRAPH] = "1"
    elif kind == "tensorrt":
        folder = str(cache / "onnxruntime-tensorrt")
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": folder,
        }
        switch = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable", "int8": "trt_int8_enable"}.get(precision or "")
        if switch:
            options[switch] = "1"
    else:
        del options["device_id"]  # the plugin is given the device itself
        options["nv_runtime_cache_path"] = str(cache / "onnxruntime-tensorrt-rtx")
    return options | dict(given)


def _session(
    path: Path,
    kind: GpuDevice,
    plugin: OrtEpDevice | None,
    number: int,
    stream: Stream,
    threads: int | None,
    given: Mapping[str, str],
    settings: Mapping[str, object],
) -> InferenceSession:
    """A session; without CUDA graphs where the model cannot be in one."""
    chosen = gpu_options(kind, number, stream.handle, _precision(path), cache_folder(), given)
    title, name = PROVIDERS[kind].title, PROVIDERS[kind].name
    every = {RECORDING[0]: RECORDING[1], **settings}
    if plugin is not None:
        options = make_options(threads, every)
        options.add_provider_for_devices([plugin], chosen)
        return make_session(path, options, None, settings=settings, title=title)
    if kind == "tensorrt":  # what TensorRT does not take goes to the CUDA provider
        rest = {key: value for key, value in chosen.items() if not key.startswith("trt_")}
        providers = [(name, chosen), (PROVIDERS["cuda"].name, rest), (CPU_PROVIDER, {})]
    else:
        providers = [(name, chosen), (CPU_PROVIDER, {})]
    try:
        return make_session(path, make_options(threads, every), providers, settings=settings, title=title)
    except (ModelError, BackendError) as error:
        if "graph capture" not in str(error) or _GRAPH in given or _GRAPH not in chosen:
            raise
        del chosen[_GRAPH]
        return make_session(path, make_options(threads, every), providers, settings=settings, title=title)


def _device_of(found: list[OrtEpDevice], number: int) -> OrtEpDevice:
    if number >= len(found):
        raise BackendError(
            f"device {number} was asked for, and {PROVIDERS['tensorrt-rtx'].title} runs on {len(found)} of the GPUs "
            f"here; the first has the number 0"
        )
    return found[number]


def _precision(path: Path) -> Precision | None:
    try:
        return contract_from_metadata(read_outline(path).metadata, str(path)).precision
    except ContractError:
        return None  # whoever wants a contract says so


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime warns of each session on a GPU that it found no plugin for it, and writes what it raises as well."""
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)  # its default; it cannot be asked for


def _try(backend: OnnxRuntimeDeviceBackend) -> None:
    """One inference, unless the model leaves its sides open."""
    (image,) = backend.inputs.values()
    sides = [side for side in image.shape[1:] if side is not None]
    if len(sides) == len(image.shape) - 1:
        backend.run([next(iter(backend.outputs))], np.zeros((1, *sides), image.dtype))
