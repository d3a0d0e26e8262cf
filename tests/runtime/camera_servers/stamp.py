"""A number and a time as black and white blocks in the top quarter of a picture, so that pixels say which frame it is.

Five rows of 16 blocks: the number's high and low 16 bits, the time's high and low 16 bits, and a checksum of them.
Nothing but the standard library: Debian's own Python, without NumPy, imports this, too.
"""

from __future__ import annotations

import time
from binascii import crc_hqx
from collections.abc import Sequence

COLUMNS, ROWS = 16, 5


def now_ms() -> int:
    """Milliseconds of `time.monotonic()`, which all processes of a Linux machine share, in 32 bits."""
    return int(time.monotonic() * 1e3) & 0xFFFFFFFF


def block_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of a block in pixels."""
    return width // COLUMNS, height // (4 * ROWS)


def to_bits(number: int, time_ms: int) -> list[list[int]]:
    """ROWS x COLUMNS of 0 and 1."""
    data = (number & 0xFFFFFFFF).to_bytes(4, "big") + (time_ms & 0xFFFFFFFF).to_bytes(4, "big")
    data += crc_hqx(data, 0xFFFF).to_bytes(2, "big")
    words = [int.from_bytes(data[at : at + 2], "big") for at in range(0, 2 * ROWS, 2)]
    return [[word >> (COLUMNS - 1 - column) & 1 for column in range(COLUMNS)] for word in words]


def from_bits(bits: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """(number, time_ms) of ROWS x COLUMNS bits; None where the checksum does not fit."""
    words = [int("".join(str(int(bit)) for bit in row), 2) for row in bits]
    data = b"".join(word.to_bytes(2, "big") for word in words)
    if crc_hqx(data[:8], 0xFFFF) != words[-1]:
        return None
    return int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
