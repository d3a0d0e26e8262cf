"""What an ONNX file says of itself, read without an engine: its metadata entries, inputs and outputs.

A model that does not run on this machine can still be described. An ONNX file is one protobuf message, (tag, value)
fields in a row, whose values may be messages again; https://protobuf.dev/programming-guides/encoding has the encoding,
onnx.proto3 the numbers of the fields. Weights are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gapcam.backends.onnx_file import check_is_file, explain_unreadable, read_varint
from gapcam.backends.protocol import TensorInfo
from gapcam.errors import ModelError

# ModelProto, GraphProto, ValueInfoProto and what they hold.
_GRAPH, _METADATA = 7, 14
_INPUTS, _OUTPUTS = 11, 12
_KEY, _VALUE = 1, 2
_NAME, _TYPE = 1, 2
_TENSOR = 1
_ELEMENT, _SHAPE = 1, 2
_LENGTH = 1

_FIXED = {1: 8, 5: 4}
"""Bytes of a value by its wire type; 0 is a varint, 2 has its length in front."""

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
"""TensorProto.DataType, as NumPy calls them."""


@dataclass(frozen=True, slots=True)
class OnnxOutline:
    """What a file says.

    Attributes:
        metadata: its metadata_props.
        inputs: of the graph, by name.
        outputs: of the graph, by name.
    """

    metadata: Mapping[str, str]
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


def read_outline(path: Path) -> OnnxOutline:
    """Read an ONNX file's outline.

    Raises:
        ModelError: the file is missing, no ONNX model, or damaged.
    """
    check_is_file(path)
    why = explain_unreadable(path)
    if why is not None:
        raise ModelError(f"{path} {why}")
    metadata: dict[str, str] = {}
    inputs: dict[str, TensorInfo] = {}
    outputs: dict[str, TensorInfo] = {}
    try:
        with path.open("rb") as file:
            for number, begin, end in _fields(file, 0, path.stat().st_size):
                if number == _METADATA:
                    entry = {key: _bytes(file, *where) for key, *where in _fields(file, begin, end)}
                    metadata[entry[_KEY].decode()] = entry.get(_VALUE, b"").decode()
                elif number == _GRAPH:
                    for kind, first, last in _fields(file, begin, end):
                        if kind in (_INPUTS, _OUTPUTS):
                            info = _info(file, first, last)
                            (inputs if kind == _INPUTS else outputs)[info.name] = info
    except (KeyError, UnicodeDecodeError, _OverrunError) as error:
        raise ModelError(f"{path} is damaged; copy or export it again") from error
    return OnnxOutline(metadata, inputs, outputs)


class _OverrunError(Exception):
    """A field ends behind the message that it is in."""


def _fields(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of each field's value between two positions. A varint's value is read by `_integer`."""
    where = begin
    while where < end:
        file.seek(where)
        tag = read_varint(file)
        where = file.tell()
        if tag is None:
            raise _OverrunError
        if tag & 7 == 2:
            length = read_varint(file)
            where = file.tell()
            last = where + (end if length is None else length)
        elif tag & 7 == 0:
            if read_varint(file) is None:
                raise _OverrunError
            last = file.tell()
        else:
            last = where + _FIXED.get(tag & 7, end)
        if last > end:
            raise _OverrunError
        yield tag >> 3, where, last
        where = last


def _bytes(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _integer(file: BinaryIO, begin: int) -> int:
    file.seek(begin)
    value = read_varint(file)
    if value is None:
        raise _OverrunError
    return value


def _info(file: BinaryIO, begin: int, end: int) -> TensorInfo:
    """A ValueInfoProto."""
    name, dtype, shape = "", "unknown", []
    for number, first, last in _fields(file, begin, end):
        if number == _NAME:
            name = _bytes(file, first, last).decode()
        elif number == _TYPE:
            for _, tensor, tensor_end in (field for field in _fields(file, first, last) if field[0] == _TENSOR):
                for part, part_begin, part_end in _fields(file, tensor, tensor_end):
                    if part == _ELEMENT:
                        dtype = _DTYPES.get(_integer(file, part_begin), "unknown")
                    elif part == _SHAPE:
                        shape = [_side(file, *where) for _, *where in _fields(file, part_begin, part_end)]
    return TensorInfo(name, tuple(shape), dtype)


def _side(file: BinaryIO, begin: int, end: int) -> int | None:
    """A Dimension: a length, or None for one with a name or nothing."""
    lengths = [_integer(file, first) for number, first, _ in _fields(file, begin, end) if number == _LENGTH]
    return lengths[0] if lengths else None
