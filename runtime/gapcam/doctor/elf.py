"""Which shared libraries a shared library needs, read from its file: DT_NEEDED of the ELF format.

Loading a library to find out would need all of them to be there. Source: System V ABI, chapter 5, "Dynamic Section".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
_MOST_HEADERS, _MOST_ENTRIES, _LONGEST_NAME = 512, 4096, 256
"""More than any library has; a damaged file may claim anything."""


def needed_libraries(path: Path) -> tuple[str, ...]:
    """The sonames, in the file's order; none where it is no 64-bit little-endian ELF file, or damaged.

    Args:
        path: of the library. Some hundred bytes of it are read.
    """
    try:
        with path.open("rb") as file:
            return tuple(_needed(file))
    except (OSError, struct.error, ValueError):
        return ()


def _needed(file: BinaryIO) -> list[str]:
    header = file.read(64)
    if header[:6] != b"\x7fELF\x02\x01":
        return []
    (offset,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    loaded, dynamic = [], None
    for index in range(min(count, _MOST_HEADERS)):
        file.seek(offset + index * size)
        kind, _, begin, address, _, length = struct.unpack("<IIQQQQ", file.read(40))
        if kind == _PT_LOAD:
            loaded.append((address, begin, length))
        elif kind == _PT_DYNAMIC:
            dynamic = begin
    if dynamic is None:
        return []
    file.seek(dynamic)
    names, strings = [], None
    for _ in range(_MOST_ENTRIES):
        tag, value = struct.unpack("<qQ", file.read(16))
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            names.append(value)
        elif tag == _DT_STRTAB:
            strings = next((begin + value - at for at, begin, length in loaded if at <= value < at + length), None)
    return [] if strings is None else [_text(file, strings + name) for name in names]


def _text(file: BinaryIO, offset: int) -> str:
    file.seek(offset)
    return file.read(_LONGEST_NAME).partition(b"\0")[0].decode()
