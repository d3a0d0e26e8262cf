"""What is wrong with a file that an engine cannot read as ONNX.

An ONNX file is one protobuf message: (tag, value) fields in a row, the graph one of them. Walking over the outermost
fields tells a file that was cut off from one that never was ONNX, without a protobuf library on the device.
"""

# ruff: noqa: PTH110, PTH112, PTH113 - Path.exists and its like raise where a name is too long or a folder is closed

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from gapcam.errors import ModelError

_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""ModelProto's field numbers and their wire types: 0 for a varint, 2 for bytes with their length in front."""
_GRAPH = 7
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
"""How names of TensorRT's engines end."""
_CONTRACT_BYTES = 2**20
"""More than what a contract says after its labels."""


def check_is_file(path: Path) -> None:
    """Refuse what is not a readable file.

    Raises:
        ModelError: there is nothing, a folder, a pipe, a device, or a file that may not be read.
    """
    if os.path.isdir(path):
        raise ModelError(f"{path} is a folder; give the .onnx file in it")
    if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would wait for its writer
        raise ModelError(f"{path} is a pipe or a device; give a regular file, the engine reads it more than once")
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        make = "build MODEL.onnx" if path.suffix.lower() in ENGINE_SUFFIXES else "export SOURCE"
        raise ModelError(
            f"there is no file {path}; check the name, or make the model with: gapcam {make} -o {path}"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}; check its name and permissions") from error


def computes_in_bfloat16(path: Path) -> bool:
    """Whether a model's contract, which stands at the end of its file, says so."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _CONTRACT_BYTES, 0))
        return b'"precision":"bf16"' in file.read()


def explain_unreadable(path: Path) -> str | None:
    """Why the file is no whole ONNX model, as an end of the sentence "PATH ..."; None if it looks like one."""
    size = path.stat().st_size
    if size == 0:
        return "is empty; copy or export it again"
    foreign = "is not an ONNX model; give a file made by: gapcam export SOURCE -o model.onnx"
    seen: set[int] = set()
    with path.open("rb") as file:
        while file.tell() < size:
            tag = read_varint(file)
            if tag is None or _MODEL_FIELDS.get(tag >> 3) != tag & 7:
                return foreign if not seen else "is damaged; copy or export it again"
            seen.add(tag >> 3)
            value = read_varint(file)
            end = file.tell() if tag & 7 == 0 else file.tell() + (value or 0)
            if value is None or end > size:
                if seen == {tag >> 3} and tag >> 3 != _GRAPH:
                    return foreign  # nothing but one field that overruns: chance, not ONNX
                return f"is cut off: it has {size} bytes and needs at least {end}; copy or export it again"
            file.seek(end)
    if _GRAPH not in seen:
        return "is cut off or holds no graph; copy or export it again"
    return None


def read_varint(file: BinaryIO) -> int | None:
    """The next base-128 number, lowest digit first; None at the file's end or where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return None
