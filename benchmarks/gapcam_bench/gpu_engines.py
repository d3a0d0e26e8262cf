"""Every way in which a model could run on a GPU, to be tried one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gapcam.engine_file import EngineRuntime, is_engine
from gapcam.tensorrt_module import TITLES, import_tensorrt

PROVIDERS: dict[str, str] = {"cuda": "CUDA", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""ONNX Runtime's, by gapcam's name of the device."""

RUNTIMES: tuple[EngineRuntime, ...] = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True, slots=True)
class Way:
    """One of them.

    Attributes:
        name: for people.
        open: gives the file and the device for `gapcam.load`; an engine is built first. It raises a GapcamError where
            that is not possible here.
    """

    name: str
    open: Callable[[], tuple[Path, str]]


def ways(model: Path, folder: Path, say: Callable[[str], None]) -> Iterator[Way]:
    """How this model could run: ONNX Runtime's providers, and an engine of each TensorRT; an engine file as it is.

    Args:
        model: an .onnx file, or an engine file.
        folder: for engines that are built.
        say: told how the build goes.
    """
    if is_engine(model):
        yield Way(model.name, partial(_as_it_is, model, "auto"))
        return
    for device, title in PROVIDERS.items():
        yield Way(f"{model.name} by ONNX Runtime's {title} provider", partial(_as_it_is, model, device))
    for runtime in RUNTIMES:
        yield Way(f"{model.name} as an engine of {TITLES[runtime]}", partial(_engine, model, folder, runtime, say))


def _as_it_is(model: Path, device: str) -> tuple[Path, str]:
    return model, device


def _engine(model: Path, folder: Path, runtime: EngineRuntime, say: Callable[[str], None]) -> tuple[Path, str]:
    import_tensorrt(runtime)  # its message says more than that onnx is absent
    from gapcam_export import build  # here, because it needs onnx

    engine = folder / f"{model.stem}.{runtime}.engine"
    say(f"building {engine.name}, which takes minutes")
    return build(model, engine, runtime=runtime).path, runtime
