"""From a frame in device memory to the network's input: `gapcam.preprocessing`, on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gapcam.contract import Preprocessing
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.driver import Driver, KernelArgument, Module, Stream
from gapcam.cuda.resampling import Resampling, Windows, resampling
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

    It rounds where `gapcam.preprocess` does and gives the same values, to the last bit, but for:

    - Ties. A fractional average half way between two grey levels may go to the other one, for float32 sums in another
      order: of noise one value in 16 000 (1080p into 224 x 224), in 1600 (480 x 640). None where both sides shrink by
      whole numbers.
    - A side that grows, for which OpenCV has weights of 11 bits: by at most 1 grey level (bilinear, bicubic) or 2
      (lanczos). One more where the other side shrinks, between which OpenCV rounds.
    - More than two halvings (a frame of 8 times the input's size, or at least 16 times): by at most half a grey level
      for each further one, which is not rounded by itself.

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
        frame, target = self.placement.frame_rect, self.placement.input_rect
        resized = resampling((frame.height, frame.width), (target.height, target.width), preprocessing.interpolation)
        # The image that is summed begins at the frame's first whole block, so that windows begin where blocks do.
        block = 1 << resized.halvings
        self._first_row, self._first_column = frame.y % block, frame.x % block
        tables = _tables(preprocessing, self.placement, resized)
        offsets, nbytes = _offsets(tables)
        self._memory = driver.allocate(nbytes)
        self._upload(tables, offsets, nbytes)
        rows, row_weights, columns, column_weights, spans = (np.uint64(self._memory.pointer + at) for at in offsets)
        taps = np.int32(tables[1].shape[1])
        origin = (np.int32(resized.halvings), np.int32(self._first_row), np.int32(self._first_column))
        windows = (rows, row_weights, taps, columns, column_weights, np.float32(resized.share), spans)
        self._before_out: list[KernelArgument] = [*origin, *windows]
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
        word, pixel = _WORD[self._layout.format], _BYTES_PER_PIXEL[self._layout.format]
        aligned = all(pointer % word == pitch % word == 0 for pointer, pitch in frame.planes)
        words = np.int32(aligned and self._first_column * pixel % word == 0)
        source: list[KernelArgument] = []
        for pointer, pitch in frame.planes:
            source += [np.uint64(pointer), np.int32(pitch)]
        if self._layout.format != "nv12":
            source.append(np.int32(self._layout.width * pixel))
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


def _tables(preprocessing: Preprocessing, placement: Placement, resized: Resampling) -> list[NDArray[Any]]:
    """What the kernel reads: windows of rows [H,2], their weights [H,taps], of columns [W,2], [taps,W], spans [n,2]."""
    height, width = preprocessing.size
    frame, target = placement.frame_rect, placement.input_rect
    row_windows, row_weights = _table(resized.rows, frame.y >> resized.halvings, target.y, height)
    column_windows, column_weights = _table(resized.columns, frame.x >> resized.halvings, target.x, width)
    return [row_windows, row_weights, column_windows, column_weights.T, _spans(column_windows)]


def _table(windows: Windows, source: int, target: int, size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Windows in pixels of the image for each sample of the input; those on a letterbox's bars are empty."""
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
