"""A map over a frame on the device: the overlay, the coloured map alone, and the heat map as floats."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from gapcam.cam import Normalization, check_normalization
from gapcam.cuda.bilinear import Samples, samples
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.driver import Driver, KernelArgument, Module, Stream
from gapcam.errors import FrameError, UsageError
from gapcam.frame import Frame, FrameFormat
from gapcam.geometry import Placement
from gapcam.overlay import check_alpha, color_table, colors_by_heat

# As in kernels.cu.
_TILE_LANES, _TILE_ROWS, _TILE_THREAD_ROWS = 32, 16, 4
_PACKED = 512
_PIECE: dict[FrameFormat, int] = {"bgr": 16, "bgra": 16, "nv12": 4}
"""Of a row, that a thread has at once, in bytes."""
_PIXELS_BEYOND = 6
"""Of a table of columns, that are read past the last tile."""

_SHARED_BYTES = 46 * 1024
"""Of the 48 KiB that a block may have; the palette takes one."""
_MOST_LEVELS = 1 << 21
"""What the packed tables hold."""

_BYTES: dict[FrameFormat, int] = {"bgr": 3, "bgra": 4, "nv12": 1}
"""Of a pixel, in the first plane."""


class CannotDrawError(UsageError):
    """The kernels take no frame that is so much smaller than the network's input, and no input as large as that.

    The NumPy reference does.
    """


_INSTEAD = (
    "`overlay` and `heatmap` of session(frame) draw it on the host, of BGR; a frame graph takes it with overlay=False"
)


class _Method(IntEnum):
    MINMAX = 0
    MAX = 1
    FIXED = 2


class Overlay:
    """The frame with a map in colour over it, in one launch: `gapcam.overlay.blend` of a map on the device.

    The map is upsampled to the network's input, freed of the letterbox's bars, normalised and rounded to 256 levels,
    and its levels are resized to the frame. The levels are the reference's, but for those that float32 instead of
    float64 rounds to a neighbour; of equal levels the overlay differs by at most 1 of 255.

    An NV12 frame is blended in its own planes: colours are converted once, by OpenCV's BT.601 in the limited range; a
    pair of chroma has the mean level of its four pixels, and is blended where the network saw all four.

    It belongs to no stream and may be used on several. Everything is called inside `driver.active()`.

    Args:
        driver: of the device.
        module: the kernels.
        layout: of the frame and of what is written.
        placement: of the frame in the network's input.
        input_size: (H, W) of that.
        map_size: (h, w) of the map.
        colormap: a key of `gapcam.overlay.COLORMAPS`.
        alpha: of the map, in [0, 1].
        alpha_by_heat: at each pixel alpha times the map.
        normalization: "minmax", "max" or "fixed": see `gapcam.cam.normalize`.
        limits: (low, high) in the logits' unit, with "fixed".
        with_frame: False for the coloured map alone, without a frame: as at alpha 1, the lowest colour where the
            network did not look, opaque in BGRA.

    Raises:
        UsageError: a wrong colour map, alpha, normalization or limits.
        CannotDrawError: the sides are too long, or the frame is too small for them.
        BackendError: there is not enough memory.
    """

    def __init__(
        self,
        driver: Driver,
        module: Module,
        *,
        layout: FrameLayout,
        placement: Placement,
        input_size: tuple[int, int],
        map_size: tuple[int, int],
        colormap: str = "jet",
        alpha: float = 0.5,
        alpha_by_heat: bool = False,
        normalization: Normalization = "minmax",
        limits: tuple[float, float] | None = None,
        with_frame: bool = True,
    ) -> None:
        alpha = check_alpha(alpha)
        self._driver, self._kernel = driver, module.function(f"overlay_{layout.format}")
        self._layout, self._with_frame = layout, with_frame
        if not with_frame:
            alpha, alpha_by_heat = 1.0, False
        sampled = _SampledMap(placement, input_size, map_size)
        seen = placement.frame_rect
        pixel_bytes, tile_bytes = _BYTES[layout.format], _PIECE[layout.format] * _TILE_LANES
        across = -(-layout.width * pixel_bytes // tile_bytes)
        columns = sampled.columns(across * tile_bytes // pixel_bytes + _PIXELS_BEYOND)
        starts = np.arange(across) * tile_bytes
        tile = sampled.tile(
            columns.cells[(starts + tile_bytes - 1) // pixel_bytes] - columns.cells[starts // pixel_bytes],
            layout.height,
            itemsize=2,
            blended_rows=True,
        )
        rows = sampled.rows(layout.height)
        self._grid = (across, -(-layout.height // tile.rows), 1)
        self._shared_bytes = tile.shared_bytes
        self._palette, *self._tables = device_constants(
            driver,
            palette(layout.format, colormap, alpha, by_heat=alpha_by_heat),
            rows.cells * _PACKED + rows.steps,
            columns.cells * _PACKED + columns.steps,
            *sampled.places(),
        )
        self._normalizer = _normalizer(normalization, limits)
        self._map_size = map_size
        self._look: list[KernelArgument] = [
            np.uint64(self._palette.pointer),
            np.float32(alpha),
            np.float32(1 - alpha),
            np.int32(alpha_by_heat),
            *(np.uint64(table.pointer) for table in self._tables),
            *(np.int32(side) for side in (seen.x, seen.y, seen.width, seen.height)),
            *(np.int32(side) for side in (layout.width, layout.height)),
            *(np.int32(side) for side in (tile.rows, tile.level_rows, tile.stride, tile.lanes)),
        ]

    def enqueue(
        self, map_pointer: int, extremes_pointer: int, frame: DeviceFrame | None, out: DeviceFrame, stream: Stream
    ) -> None:
        """Queue one overlay.

        Args:
            map_pointer: device address of [h,w] float32: of `CamArrays.maps`.
            extremes_pointer: of its [2] float32: of `CamArrays.extremes`.
            frame: what the map is drawn over; None if this was made without.
            out: where to; it may be `frame`, but no other view of its pixels. It is fastest where pointers and pitches
                are multiples of 16, and next where they are of 4.
            stream: where to queue.

        Raises:
            FrameError: `frame` or `out` has another layout, or `frame` is missing or superfluous.
        """
        if (frame is not None) != self._with_frame:
            got, expected = ("no frame", "one") if frame is None else ("a frame", "None")
            raise FrameError(f"got {got}; expected {expected}, as this Overlay was made (with_frame)")
        for given in (out, *([] if frame is None else [frame])):
            if given.layout != self._layout:
                raise FrameError(f"got a frame of {given.layout}; expected {self._layout}, what this Overlay is for")
        frame_planes = ((0, 0),) * len(out.planes) if frame is None else frame.planes
        numbers = [number for plane in (*frame_planes, *out.planes) for number in plane]
        alignment = next(size for size in (16, 4, 1) if all(number % size == 0 for number in numbers))
        arguments: list[KernelArgument] = [
            np.uint64(map_pointer),
            np.uint64(extremes_pointer),
            *(np.int32(side) for side in reversed(self._map_size)),
            *self._normalizer,
            *self._look,
            np.int32(alignment),
        ]
        for (pointer, pitch), (out_pointer, out_pitch) in zip(_two(frame_planes), _two(out.planes), strict=True):
            arguments += [np.uint64(pointer), np.int32(pitch), np.uint64(out_pointer), np.int32(out_pitch)]
        block = (_TILE_LANES, _TILE_THREAD_ROWS, 1)
        self._driver.launch(self._kernel, self._grid, block, arguments, stream, shared_bytes=self._shared_bytes)


class HeatMap:
    """The normalised map over the whole frame as floats: `Result.heatmap`, in one launch.

    It belongs to no stream and may be used on several. Everything is called inside `driver.active()`.

    Args:
        driver: of the device.
        module: the kernels.
        frame_size: (height, width) of the frame.
        placement: of the frame in the network's input.
        input_size: (H, W) of that.
        map_size: (h, w) of the map.
        normalization: as in `Overlay`.
        limits: as in `Overlay`.

    Raises:
        UsageError: a wrong normalization or limits.
        CannotDrawError: as of `Overlay`.
        BackendError: there is not enough memory.
    """

    def __init__(
        self,
        driver: Driver,
        module: Module,
        *,
        frame_size: tuple[int, int],
        placement: Placement,
        input_size: tuple[int, int],
        map_size: tuple[int, int],
        normalization: Normalization = "minmax",
        limits: tuple[float, float] | None = None,
    ) -> None:
        self._driver, self._kernel = driver, module.function("heat_map")
        self._frame_size, self._map_size = frame_size, map_size
        sampled = _SampledMap(placement, input_size, map_size)
        seen = placement.frame_rect
        height, width = frame_size
        across = -(-width // _TILE_LANES)
        rows, columns = sampled.rows(height), sampled.columns(across * _TILE_LANES)
        apart = columns.cells[_TILE_LANES - 1 :: _TILE_LANES] - columns.cells[::_TILE_LANES]
        tile = sampled.tile(apart, height, itemsize=4, blended_rows=False)
        self._grid = (across, -(-height // tile.rows), 1)
        self._shared_bytes = tile.shared_bytes
        self._constants = device_constants(
            driver, rows.cells, columns.cells, rows.fractions, columns.fractions, *sampled.places()
        )
        self._normalizer = _normalizer(normalization, limits)
        self._tables: list[KernelArgument] = [
            *(np.uint64(table.pointer) for table in self._constants),
            *(np.int32(side) for side in (seen.x, seen.y, seen.width, seen.height)),
            *(np.int32(side) for side in (width, height, tile.rows, tile.stride, tile.lanes)),
        ]

    def enqueue(self, map_pointer: int, extremes_pointer: int, out: DeviceArray, stream: Stream) -> None:
        """Queue one heat map.

        Args:
            map_pointer: device address of [h,w] float32: of `CamArrays.maps`.
            extremes_pointer: of its [2] float32: of `CamArrays.extremes`.
            out: [H,W] float32 in C order, of the frame's size.
            stream: where to queue.

        Raises:
            UsageError: `out` has another shape or dtype.
        """
        if out.shape != self._frame_size or out.dtype != np.float32:
            raise UsageError(
                f"got an out of shape {out.shape} and dtype {out.dtype}; expected {self._frame_size} float32"
            )
        arguments: list[KernelArgument] = [
            np.uint64(map_pointer),
            np.uint64(extremes_pointer),
            *(np.int32(side) for side in reversed(self._map_size)),
            *self._normalizer,
            *self._tables,
            np.uint64(out.pointer),
        ]
        block = (_TILE_LANES, _TILE_THREAD_ROWS, 1)
        self._driver.launch(self._kernel, self._grid, block, arguments, stream, shared_bytes=self._shared_bytes)


def palette(frame_format: FrameFormat, colormap: str, alpha: float, *, by_heat: bool) -> NDArray[np.uint8]:
    """What each level draws, in a frame's own colours.

    Returns:
        [256,4] uint8: blue, green, red, or for "nv12" Y, U, V; and by heat what the frame keeps of 255, else 255.
        By heat, colours are times what they cover.

    Raises:
        UsageError: OpenCV has no such colour map.
    """
    colors = color_table(colormap)[:, 0]
    if frame_format == "nv12":
        colors = yuv_from_bgr(colors)
    keeps = np.full(256, 255, np.uint8)
    if by_heat:
        keeps = colors_by_heat(colormap, alpha)[1][:, 0, 0]
        colors = ((colors.astype(np.int64) * (255 - keeps.astype(np.int64))[:, None] + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.concatenate([colors, keeps[:, None]], axis=1))


def yuv_from_bgr(colors: NDArray[np.uint8]) -> Frame:
    """BT.601 in the limited range, as OpenCV's COLOR_BGR2YUV_I420 has it, of [n,3] colours: [n,3] Y, U, V."""
    pixels = np.repeat(np.repeat(colors[None], 2, axis=0), 2, axis=1)  # each a square of 2 x 2, for its chroma
    planes = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420)
    count = len(colors)
    chroma = planes[2:].reshape(2, count)
    return np.stack([planes[0, ::2], *chroma], axis=1)


@dataclass(frozen=True, slots=True)
class _Tile:
    """How a block divides its shared memory.

    Attributes:
        rows: of the frame.
        level_rows: that those lie over at most.
        stride: of a row of levels.
        lanes: 2^lanes threads lie along a row of levels.
        shared_bytes: of all.
    """

    rows: int
    level_rows: int
    stride: int
    lanes: int
    shared_bytes: int


class _SampledMap:
    """From the map's cells to the levels of the seen part of the input, and from those to the frame's pixels."""

    def __init__(self, placement: Placement, input_size: tuple[int, int], map_size: tuple[int, int]) -> None:
        seen, part = placement.frame_rect, placement.input_rect
        if max(input_size) > _MOST_LEVELS:
            raise CannotDrawError(
                f"got an input of size {input_size}; the device draws with sides of at most {_MOST_LEVELS}. {_INSTEAD}"
            )
        self._rows, self._first_row = samples(part.height, seen.height), seen.y
        self._columns, self._first_column = samples(part.width, seen.width), seen.x
        self._level_rows = _part(samples(map_size[0], input_size[0]), part.rows)
        self._level_columns = _part(samples(map_size[1], input_size[1]), part.columns)

    def places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Of the rows and of the columns of levels, [n + 1, 2] each: kernels.cu's Place, the last one twice."""
        rows, columns = (
            np.stack([levels.cells, levels.fractions.view(np.int32)], axis=1)
            for levels in (self._level_rows, self._level_columns)
        )
        return np.concatenate([rows, rows[-1:]]), np.concatenate([columns, columns[-1:]])

    def rows(self, count: int) -> Samples:
        """Of so many rows of the frame: which levels they lie between. Those not seen as the nearest that is."""
        return _at(self._rows, np.arange(count) - self._first_row)

    def columns(self, count: int) -> Samples:
        """The same of columns; there may be more than the frame has."""
        return _at(self._columns, np.arange(count) - self._first_column)

    def tile(self, apart: NDArray[np.int32], height: int, *, itemsize: int, blended_rows: bool) -> _Tile:
        """The largest tile that fits.

        Args:
            apart: for each tile along a row, how many columns of levels its first and last pixel are apart.
            height: of the frame.
            itemsize: of a level, in bytes.
            blended_rows: whether a tile also keeps a row of levels for each of its rows.
        """
        columns = int(apart.max()) + 2
        stride = columns | 1  # odd, so that a column's levels lie in different banks
        cells = self.rows(height).cells
        for rows in (_TILE_ROWS >> shift for shift in range(4)):
            tops = np.arange(0, height, rows)
            level_rows = int((cells[np.minimum(tops + rows, height) - 1] - cells[tops]).max()) + 2
            shared_bytes = itemsize * stride * (level_rows + (rows if blended_rows else 0))
            if shared_bytes <= _SHARED_BYTES:
                return _Tile(rows, level_rows, stride, min((columns - 1).bit_length(), 5), shared_bytes)
        raise CannotDrawError(
            f"got a frame {height} pixels high, too small for the device to draw on when the network sees it on "
            f"{len(self._level_columns.cells)} x {len(self._level_rows.cells)} pixels. {_INSTEAD}"
        )


def _at(sampled: Samples, places: NDArray[np.int64]) -> Samples:
    """At places, or at the nearest that there is."""
    places = np.clip(places, 0, len(sampled.cells) - 1)
    return Samples(sampled.cells[places], sampled.fractions[places], sampled.steps[places])


def _part(every: Samples, part: slice) -> Samples:
    return Samples(every.cells[part], every.fractions[part], every.steps[part])


def _two(planes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The planes, and one that is none if there is no second."""
    return (*planes, (0, 0))[:2]


def _normalizer(normalization: Normalization, limits: tuple[float, float] | None) -> list[KernelArgument]:
    """The method, and kernels.cu's Normalizer for fixed limits.

    Raises:
        UsageError: a wrong normalization or limits.
    """
    check_normalization(normalization, limits)
    method = np.int32(_Method[normalization.upper()])
    if limits is None:
        return [method, *(np.float32(0) for _ in range(5))]
    low, high = float(limits[0]), float(limits[1])
    # The power of two that brings the limits near 1; beyond float32's range it is 0, and so is a value next to them.
    exponent = int(np.clip(np.frexp(max(abs(low), abs(high)))[1], -126, 1023))
    unit = np.ldexp(1.0, -exponent)
    span = max((high - low) * unit, 1e-37)
    return [
        method,
        np.float32(unit),
        np.float32(low * unit),
        np.float32(low * unit - float(np.float32(low * unit))),
        np.float32(span),
        np.float32(1 / span),
    ]
