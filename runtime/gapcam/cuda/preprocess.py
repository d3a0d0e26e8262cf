"""From a frame in device memory to the network's input: `gapcam.preprocessing`, on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gapcam.contract import Preprocessing
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.driver import Driver, KernelArgument, Module, Stream
from gapcam.cuda.resampling import Windows, resampling
from gapcam.errors import UsageError
from gapcam.geometry import Placement, place

COLUMNS = 32
"""Output columns of a block: kColumns of kernels.cu."""

THREADS = 128
"""Threads of a block: kPreprocessThreads."""

_OUTPUT_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint8): 2}
_BYTES_PER_PIXEL = {"bgr": 3, "bgra": 4, "nv12": 1}
_WORD = {"bgr": 4, "bgra": 4, "nv12": 2}
_TABLE_ALIGNMENT = 256


class Preprocessor:
    """Frames of one layout to the input of one network, in one pass over the frame.

    It differs from `gapcam.preprocess` in what that rounds: its uint8 pixels between halving, averaging and
    interpolation, and OpenCV's fixed-point weights. That is at most 0.5 of 255 grey levels for each halving, 0.5 for
    the average, and 1 (bilinear), 1.25 (bicubic) or 2.25 (lanczos) where a side grows; the last two, which overshoot,
    also enlarge what the average brought, up to 1.4 and 1.8 times. A uint8 input is rounded once more. What is neither
    averaged nor interpolated is equal to the last bit.

    Args:
        driver: of the device.
        module: the kernels.
        preprocessing: of the model's contract.
        layout: of the frames.
        dtype: float32 or float16, or uint8 if `preprocessing.embedded`.

    Raises:
        UsageError: another dtype, or a frame without pixels.
    """

    def __init__(
        self, driver: Driver, module: Module, preprocessing: Preprocessing, layout: FrameLayout, dtype: DTypeLike
    ) -> None:
        self._dtype = np.dtype(dtype)
        if self._dtype not in _OUTPUT_TYPES or (self._dtype == np.uint8) != preprocessing.embedded:
            expected = "uint8" if preprocessing.embedded else "float32 or float16"
            raise UsageError(f"the network's input is {self._dtype}; its preprocessing gives {expected}")
        self.placement: Placement = place((layout.height, layout.width), preprocessing)
        self._driver, self._layout = driver, layout
        self._function = module.function(f"preprocess_{layout.format}")
        height, width = preprocessing.size
        self._shape = (height, width, 3) if preprocessing.embedded else (3, height, width)
        self._grid = (-(-width // COLUMNS), height, 1)
        tables = _tables(preprocessing, self.placement)
        offsets, nbytes = _offsets(tables)
        self._memory = driver.allocate(nbytes)
        self._upload(tables, offsets, nbytes)
        rows, row_weights, columns, column_weights, spans = (np.uint64(self._memory.pointer + at) for at in offsets)
        taps = np.int32(tables[1].shape[1])
        self._before_out: list[KernelArgument] = [rows, row_weights, taps, columns, column_weights, spans]
        self._after_out: list[KernelArgument] = [
            np.int32(_OUTPUT_TYPES[self._dtype]),
            np.int32(width),
            np.int32(preprocessing.pad),
            np.int32(preprocessing.color == "rgb"),
            # As the reference has them: (p / 255 - mean) / std = p * (1 / (255 std)) - mean / std.
            *(np.float32(1 / (255 * std)) for std in preprocessing.std),
            *(np.float32(mean / std) for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)),
        ]

    def enqueue(self, frame: DeviceFrame, out: DeviceArray, stream: Stream) -> None:
        """Queue the preprocessing of one frame.

        Args:
            frame: of the layout that was named. Words are read where its planes and pitches are aligned to them.
            out: one image's place in the network's input, contiguous: [3,H,W] float32 or float16, or [H,W,3] uint8.
            stream: where to.

        Raises:
            UsageError: the frame has another layout, or `out` another shape, dtype or strides.
        """
        if frame.layout != self._layout:
            raise UsageError(f"the frame is {frame.layout}; expected {self._layout}, as the first one was")
        if out.shape != self._shape or out.dtype != self._dtype or out.strides not in (None, self._contiguous()):
            raise UsageError(
                f"the input is {out.dtype} of shape {out.shape} and strides {out.strides}; "
                f"expected contiguous {self._dtype} of shape {self._shape}"
            )
        word = _WORD[self._layout.format]
        words = np.int32(all(pointer % word == pitch % word == 0 for pointer, pitch in frame.planes))
        source: list[KernelArgument] = []
        for pointer, pitch in frame.planes:
            source += [np.uint64(pointer), np.int32(pitch)]
        if self._layout.format != "nv12":
            source.append(np.int32(self._layout.width * _BYTES_PER_PIXEL[self._layout.format]))
        arguments = [*source, words, *self._before_out, np.uint64(out.pointer), *self._after_out]
        self._driver.launch(self._function, self._grid, (THREADS, 1, 1), arguments, stream)

    def close(self) -> None:
        """Free the tables. Closing twice does nothing."""
        self._memory.close()

    def _contiguous(self) -> tuple[int, ...]:
        _, second, third = self._shape
        size = self._dtype.itemsize
        return (second * third * size, third * size, size)

    def _upload(self, tables: list[NDArray[Any]], offsets: list[int], nbytes: int) -> None:
        packed = np.zeros(nbytes, np.uint8)
        for table, at in zip(tables, offsets, strict=True):
            packed[at : at + table.nbytes] = np.ascontiguousarray(table).reshape(-1).view(np.uint8)
        stream = self._driver.stream()
        self._driver.upload(packed, self._memory.pointer, stream)
        stream.synchronize()


def _tables(preprocessing: Preprocessing, placement: Placement) -> list[NDArray[Any]]:
    """What the kernel reads: windows of rows [H,2], their weights [H,taps], of columns [W,2], [taps,W], spans [n,2]."""
    height, width = preprocessing.size
    frame, target = placement.frame_rect, placement.input_rect
    rows, columns = resampling((frame.height, frame.width), (target.height, target.width), preprocessing.interpolation)
    row_windows, row_weights = _table(rows, frame.y, target.y, height)
    column_windows, column_weights = _table(columns, frame.x, target.x, width)
    return [row_windows, row_weights, column_windows, column_weights.T, _spans(column_windows)]


def _table(windows: Windows, source: int, target: int, size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Windows in frame coordinates for each sample of the input; those on a letterbox's bars are empty."""
    seen = slice(target, target + len(windows.first))
    table = np.zeros((size, 2), np.int32)
    table[seen, 0] = windows.first + source
    table[seen, 1] = windows.count
    weights = np.zeros((size, windows.weights.shape[1]), np.float32)
    weights[seen] = windows.weights
    return table, weights


def _spans(columns: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each block (first, count) of the source columns that its outputs are sums of."""
    spans = np.zeros((-(-len(columns) // COLUMNS), 2), np.int32)
    for index, span in enumerate(spans):
        block = columns[index * COLUMNS : (index + 1) * COLUMNS]
        block = block[block[:, 1] > 0]
        if len(block):
            first = block[:, 0].min()
            span[:] = first, block.sum(axis=1).max() - first
    return spans


def _offsets(tables: list[NDArray[Any]]) -> tuple[list[int], int]:
    """Where each table begins in one piece of memory, and the size of that."""
    offsets, end = [], 0
    for table in tables:
        offsets.append(end)
        end += -(-table.nbytes // _TABLE_ALIGNMENT) * _TABLE_ALIGNMENT
    return offsets, end
