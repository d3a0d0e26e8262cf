"""How far an MP4 file that could not be finished is whole (ISO/IEC 14496-12: boxes, and fragments made of them)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO


def whole_fragments(file: BinaryIO) -> int:
    """The length in bytes of a fragmented file up to its last whole fragment; 0 where it has none.

    A fragment is a box that describes samples, `moof` (of the first one `moov`), and the box `mdat` with them.

    Args:
        file: open to read.
    """
    whole = 0
    for kind, end in _boxes(file):
        if kind == b"mdat":
            whole = end
    return whole


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The kinds of whole boxes, and where they end."""
    length = file.seek(0, 2)
    at = 0
    while at + 8 <= length:
        file.seek(at)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # it did not fit into 32 bits
            size = int.from_bytes(header[8:16], "big")
        at += size
        if size < 8 or at > length:
            return
        yield header[4:8], at
