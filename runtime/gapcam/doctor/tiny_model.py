"""A model of a few hundred bytes to try an inference engine on: a convolution, ReLU.

Written as protobuf by hand, since onnx is not on a device. Field numbers are those of onnx.proto (IR version 10, opset
20).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

SIDE = 8
"""Of the input, in pixels."""

_FLOAT = 1


def tiny_model() -> bytes:
    """An ONNX file: `y` = ReLU(the sum over each pixel's 3 x 3 neighbourhood in all of `x`'s 3 channels, minus 1).

    `x` is [1,3,8,8] float32, `y` [1,4,8,8]: four channels, all alike.
    """
    weights = _tensor("w", (4, 3, 3, 3), [1.0] * (4 * 3 * 3 * 3))
    bias = _tensor("b", (4,), [-1.0] * 4)
    pads = _text(1, "pads") + _number(20, 7) + b"".join(_number(8, 1) for _ in range(4))
    convolution = b"".join(_text(1, name) for name in "xwb") + _text(2, "c") + _text(4, "Conv") + _bytes(5, pads)
    relu = _text(1, "c") + _text(2, "y") + _text(4, "Relu")
    graph = (
        _bytes(1, convolution)
        + _bytes(1, relu)
        + _text(2, "tiny")
        + _bytes(5, weights)
        + _bytes(5, bias)
        + _bytes(11, _value("x", (1, 3, SIDE, SIDE)))
        + _bytes(12, _value("y", (1, 4, SIDE, SIDE)))
    )
    return _number(1, 10) + _bytes(7, graph) + _bytes(8, _number(2, 20))


def _tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    sides = b"".join(_number(1, side) for side in shape)
    return sides + _number(2, _FLOAT) + _text(8, name) + _bytes(9, struct.pack(f"<{len(values)}f", *values))


def _value(name: str, shape: Sequence[int]) -> bytes:
    sides = b"".join(_bytes(1, _number(1, side)) for side in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, sides)))


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
