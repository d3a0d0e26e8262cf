"""Frames that carry a stamp, as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camera_servers.stamp import COLUMNS, ROWS, block_size, from_bits, now_ms, to_bits

PERIOD = 64  # pixels, of the diagonal stripes below the stamp


class Stamp(NamedTuple):
    """Which frame it is, and when its server made it: milliseconds of `time.monotonic()` in 32 bits."""

    number: int
    time_ms: int

    @property
    def age_s(self) -> float:
        return ((now_ms() - self.time_ms) & 0xFFFFFFFF) / 1e3


def stamped_frame(number: int, width: int, height: int, time_ms: int | None = None) -> np.ndarray:
    """[height,width,3] uint8 BGR: coloured stripes that move by a pixel a frame, under a stamp."""
    x, y = np.arange(width), np.arange(height)[:, np.newaxis]
    wave = np.abs((x + y + number) % PERIOD - PERIOD // 2).astype(np.uint8) * 4
    frame = np.stack([wave + 40, 200 - wave, np.full_like(wave, 90)], axis=-1)
    block_width, block_height = block_size(width, height)
    bits = np.array(to_bits(number, now_ms() if time_ms is None else time_ms), np.uint8) * 255
    blocks = bits.repeat(block_height, axis=0).repeat(block_width, axis=1)
    frame[: ROWS * block_height, : COLUMNS * block_width] = blocks[..., np.newaxis]
    return frame


def read_stamp(frame: np.ndarray) -> Stamp | None:
    """What a frame's pixels say, after whatever a codec did to them; None where that cannot be read.

    Args:
        frame: H x W x 3 uint8.
    """
    block_width, block_height = block_size(frame.shape[1], frame.shape[0])
    if block_width < 2 or block_height < 2:
        return None
    part = frame[: ROWS * block_height, : COLUMNS * block_width].mean(axis=2)
    blocks = part.reshape(ROWS, block_height, COLUMNS, block_width)
    # The blocks' borders are the codec's.
    inner = blocks[
        :, block_height // 4 : -(block_height // 4) or None, :, block_width // 4 : -(block_width // 4) or None
    ]
    found = from_bits((inner.mean(axis=(1, 3)) > 127).astype(int).tolist())
    return None if found is None else Stamp(*found)
