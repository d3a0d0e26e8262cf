"""Whether an engine file that is already there is the one that was asked for."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gapcam.engine_file import BuildOptions, EngineFile, EngineHeader, is_engine, read_engine
from gapcam.engine_fit import DeviceFacts, differences
from gapcam.errors import ModelError

_NAMES = {
    "batch": "--batch",
    "sizes": "--size",
    "level": "--level",
    "workspace_mib": "--workspace",
    "tf32": "--no-tf32",
    "maps": "--keep-maps",
    "version_compatible": "--version-compatible",
    "hardware_compatibility": "--hardware-compatible",
    "targets": "--targets",
    "dla_core": "--dla",
}


def wanted_engine(path: Path, model_sha256: str, options: BuildOptions, device: DeviceFacts) -> EngineHeader | None:
    """The header of an engine file, if it is what a build would make; None if there is no file.

    Args:
        path: of the file.
        model_sha256: of the ONNX model.
        options: of the build.
        device: what the engine is to fit.

    Raises:
        ModelError: there is a file, and it is another engine, damaged, or no engine.
    """
    if not path.exists():
        return None
    if not is_engine(path):
        raise ModelError(
            f"{path} is there and is no engine file of gapcam; give another name with -o, or replace it with --rebuild"
        )
    with read_engine(path) as engine:
        found = [*_another_model(engine, model_sha256), *differences(engine.header, device)]
        found += _other_options(engine.header.options, options)
        if found:
            raise ModelError(
                f"{path} is there and is another engine: {'; '.join(found)}. Build it again with --rebuild, or give "
                "another name with -o"
            )
        return engine.header


def _another_model(engine: EngineFile, model_sha256: str) -> list[str]:
    if engine.header.model_sha256 == model_sha256:
        return []
    return [f"it was built from another model, or from {engine.header.model} before it was changed"]


def _other_options(was: BuildOptions, now: BuildOptions) -> list[str]:
    before, after = (msgspec.to_builtins(options) for options in (was, now))
    return [
        f"it was built with {_NAMES[name]} {_shown(before[name])}, now it is {_shown(after[name])}"
        for name in before
        if before[name] != after[name]
    ]


def _shown(value: object) -> str:
    """As the option has it."""
    if isinstance(value, (list, tuple)) and value:
        parts = ["x".join(map(str, part)) if isinstance(part, (list, tuple)) else str(part) for part in value]
        return ("," if isinstance(value[0], str) else ":").join(parts)
    return "not set" if value in (None, (), [], False) else "set" if value is True else str(value)
