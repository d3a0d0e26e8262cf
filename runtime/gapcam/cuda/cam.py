"""Class activation maps on the device: the best classes, their maps, and the maps' extremes, in one launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam import contract as names
from gapcam.contract import HeadKind, Scores
from gapcam.cuda.bilinear import spans
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver, KernelArgument, Memory, Module, Stream
from gapcam.errors import UsageError
from gapcam.geometry import Rect

_THREADS = 256
_CHANNELS_EACH = 8  # of a thread, where there are enough blocks
_BLOCKS = 1024  # that many fill the largest GPU; more slices would only be more to add up

Floats = (np.dtype(np.float32), np.dtype(np.float16))
"""What features, logits, rows and scales may be."""


class CamStatus(IntFlag):
    """What is wrong with a map. The map of a class without a row, or of a class that there is not, is all NaN."""

    LOGITS_NOT_FINITE = 1
    SCALE_NOT_POSITIVE = 2
    """Or not finite; of a head with a layer normalisation."""
    ROWS_NOT_FINITE = 4
    """Those of a nonlinear head."""
    NO_ROW = 8
    """A nonlinear head's graph computed no row for the class."""
    NO_CLASS = 16
    """A target is out of range."""


@dataclass(frozen=True, slots=True, eq=False)
class CamArrays:
    """What `Cam` gives for N images and k classes each: in C order, in one piece of memory, in this order.

    Attributes:
        classes: [N,k] int32, the best first, or as they were asked for.
        logits: [N,k] float32.
        scores: [N,k] float32, in [0, 1].
        status: [N,k] int32, of `CamStatus`; 0 where all is well.
        extremes: [N,k,2] float32, the least and the greatest value that the upsampled map takes where the network saw
            the frame: what `gapcam.cam.normalize` looks for. NaN twice where one of its values is not finite.
        maps: [N,k,h,w] float32, in the logits' unit.
    """

    classes: DeviceArray
    logits: DeviceArray
    scores: DeviceArray
    status: DeviceArray
    extremes: DeviceArray
    maps: DeviceArray


@dataclass(frozen=True, slots=True)
class CamLayout:
    """Where `CamArrays` lie in their memory.

    Attributes:
        images: N.
        count: k.
        map_size: (h, w).
    """

    images: int
    count: int
    map_size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Of all together."""
        *_, (_, offset, shape, dtype) = self._pieces()
        return offset + int(np.prod(shape)) * dtype.itemsize

    def on_device(self, memory: Memory) -> CamArrays:
        """The arrays in memory of at least `nbytes`, which they own."""
        return CamArrays(
            **{
                name: DeviceArray(memory.pointer + offset, shape, dtype, owner=memory)
                for name, offset, shape, dtype in self._pieces()
            }
        )

    def on_host(self, buffer: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Views of the arrays, by their names in `CamArrays`, in a buffer that all of the memory was copied to."""
        return {
            name: buffer[offset : offset + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
            for name, offset, shape, dtype in self._pieces()
        }

    def _pieces(self) -> list[tuple[str, int, tuple[int, ...], np.dtype[Any]]]:
        """(name, offset, shape, dtype)."""
        each, offset = (self.images, self.count), 0
        pieces: list[tuple[str, int, tuple[int, ...], np.dtype[Any]]] = []
        for name, shape, dtype in (
            ("classes", each, np.int32),
            ("logits", each, np.float32),
            ("scores", each, np.float32),
            ("status", each, np.int32),
            ("extremes", (*each, 2), np.float32),
            ("maps", (*each, *self.map_size), np.float32),
        ):
            pieces.append((name, offset, shape, np.dtype(dtype)))
            offset += -(-int(np.prod(shape)) * 4 // 16) * 16
        return pieces


class Cam:
    """The maps of a model's best classes, or of those that are asked for.

        M_c(x,y) = sum_k row_c[k] f_k(x,y)

    Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", section 2; features, logits and rows in
    float32 or float16, summed in float32. One launch computes, for each image, the top k of the logits (among equals
    the lower index first, NaN last), their scores, their maps, and the maps' extremes.

    It has memory to work in, so its launches follow each other on one stream; several lanes have one each, and share
    `weights`. Everything is called inside `driver.active()`.

    Args:
        driver: of the device.
        module: the kernels.
        kind: of the head: where the rows come from, see `gapcam.class_rows`.
        map_size: (h, w) of the features.
        input_size: (H, W) of the network's input.
        weights: [K,C] float32 or float16, the matrix W, of an affine head or one with a layer normalisation. None for
            the others: of a class-maps head the features are the maps, of a nonlinear one each image has its rows.
        scoring: what makes scores of logits.
        images: N at most.
        count: k at most.

    Raises:
        UsageError: `weights` is missing or superfluous.
        BackendError: there is not enough memory.
    """

    def __init__(
        self,
        driver: Driver,
        module: Module,
        *,
        kind: HeadKind,
        map_size: tuple[int, int],
        input_size: tuple[int, int],
        weights: DeviceArray | None = None,
        scoring: Scores = "softmax",
        images: int = 1,
        count: int = 1,
    ) -> None:
        if (weights is not None) != (kind in (HeadKind.AFFINE, HeadKind.LAYERNORM)):
            got = "none" if weights is None else f"weights of shape {weights.shape}"
            raise UsageError(f"got {got} for a head of kind {kind.value!r}; affine and layernorm heads have weights")
        self._driver, self._kernel = driver, module.function("cam")
        self._kind, self._map_size, self._input_size = kind, map_size, input_size
        self._weights, self._scoring = weights, scoring
        self._images, self._count = images, count
        self._pixels = map_size[0] * map_size[1]
        self._tiles = -(-self._pixels // _THREADS)
        self._tile_pixels = -(-self._pixels // self._tiles)
        blocks = max(_BLOCKS, images * count * self._tiles)
        self._partial_maps = driver.allocate(4 * blocks * self._tile_pixels)
        (self._finished,) = device_constants(driver, np.zeros(images * count * (self._tiles + 1), np.uint32))
        self._spans: dict[Rect, tuple[DeviceArray, DeviceArray]] = {}

    def enqueue(
        self,
        outputs: Mapping[str, DeviceArray],
        seen: Sequence[Rect],
        into: CamArrays,
        stream: Stream,
        *,
        targets: DeviceArray | None = None,
        clamp_negative: bool = False,
    ) -> None:
        """Queue the maps of a run.

        One launch for each series of images whose `seen` is the same. The first time that one is met, its tables are
        computed, allocated and copied, which cannot be captured: queue it once before.

        Args:
            outputs: of the run, in C order: `logits` [N,K], `features` [N,C,h,w], and `cam_scale` or `topk_classes`
                and `topk_weights`, as the head's kind needs.
            seen: `Placement.input_rect` of each image.
            into: where to, for N images and k classes.
            stream: where to queue.
            targets: [N,k] int32, the classes; without them, the best k.
            clamp_negative: set negative weights to zero first; see `gapcam.cam.class_maps`.

        Raises:
            UsageError: shapes or dtypes do not fit, or N or k is too great.
        """
        first = 0
        self._check(outputs, seen, into, targets)
        for rect, series in groupby(seen):
            images = len(list(series))
            self._launch(outputs, rect, into, stream, targets, clamp_negative, first, images)
            first += images

    def close(self) -> None:
        """Free the memory. Closing twice does nothing."""
        self._partial_maps.close()
        self._spans.clear()

    def _launch(
        self,
        outputs: Mapping[str, DeviceArray],
        seen: Rect,
        into: CamArrays,
        stream: Stream,
        targets: DeviceArray | None,
        clamp_negative: bool,
        first: int,
        images: int,
    ) -> None:
        logits, features = outputs[names.LOGITS], outputs[names.FEATURES]
        count, channels = into.classes.shape[1], features.shape[1]
        columns, rows = self._spans_of(seen)
        slices = self._slices(channels, images * count)
        listed = outputs[names.TOPK_CLASSES] if self._kind is HeadKind.NONLINEAR else None
        arguments: list[KernelArgument] = [
            *_of(features, first),
            *_of(logits, first),
            *(_of(outputs[names.TOPK_WEIGHTS], first) if listed is not None else _of(self._weights, 0)),
            *_of(outputs[names.CAM_SCALE] if self._kind is HeadKind.LAYERNORM else None, first),
            _pointer(listed, first),
            np.int32(0 if listed is None else listed.dtype.itemsize // 4),
            np.int32(0 if listed is None else listed.shape[1]),
            _pointer(targets, first),
            np.int32(logits.shape[1]),
            np.int32(channels),
            np.int32(self._pixels),
            np.int32(self._map_size[1]),
            np.int32(self._tiles),
            np.int32(slices),
            np.int32(clamp_negative),
            np.int32(self._scoring == "sigmoid"),
            np.uint64(columns.pointer),
            np.int32(columns.shape[0]),
            np.uint64(rows.pointer),
            np.int32(rows.shape[0]),
            np.uint64(self._partial_maps.pointer),
            np.uint64(self._finished.pointer),
            _pointer(into.classes, first),
            _pointer(into.logits, first),
            _pointer(into.scores, first),
            _pointer(into.maps, first),
            _pointer(into.extremes, first),
            _pointer(into.status, first),
        ]
        grid = (self._tiles * slices + 1, count, images)
        self._driver.launch(self._kernel, grid, (_THREADS, 1, 1), arguments, stream)

    def _slices(self, channels: int, maps: int) -> int:
        """Into how many blocks a tile's channels are divided."""
        if self._kind is HeadKind.CLASS_MAPS:
            return 1
        groups = _THREADS // self._tile_pixels
        wanted = -(-channels // (groups * _CHANNELS_EACH))
        slices = max(1, min(wanted, _BLOCKS // (self._tiles * maps)))
        return -(-channels // -(-channels // slices))  # none without a channel

    def _spans_of(self, seen: Rect) -> tuple[DeviceArray, DeviceArray]:
        if seen not in self._spans:
            (height, width), (map_height, map_width) = self._input_size, self._map_size
            columns, rows = device_constants(
                self._driver,
                spans(map_width, width, seen.x, seen.width),
                spans(map_height, height, seen.y, seen.height),
            )
            self._spans[seen] = columns, rows
        return self._spans[seen]

    def _check(
        self, outputs: Mapping[str, DeviceArray], seen: Sequence[Rect], into: CamArrays, targets: DeviceArray | None
    ) -> None:
        logits, features = outputs[names.LOGITS], outputs[names.FEATURES]
        (images, count), classes = into.classes.shape, logits.shape[1]
        if not 1 <= images <= self._images or not 1 <= count <= self._count or (targets is None and count > classes):
            raise UsageError(
                f"got arrays for {images} images and {count} classes; this Cam was made for at most {self._images} and "
                f"{self._count}, and the model has {classes} classes"
            )
        if len(seen) != images or logits.shape[0] != images or features.shape[0] != images:
            raise UsageError(
                f"got {len(seen)} rectangles, logits of shape {logits.shape} and features of shape {features.shape} "
                f"for {images} images; expected one of each an image"
            )
        if features.shape[2:] != self._map_size or into.maps.shape != (images, count, *self._map_size):
            raise UsageError(
                f"got features of shape {features.shape} for maps of shape {into.maps.shape}; expected the size "
                f"{self._map_size}"
            )
        if self._weights is not None and self._weights.shape != (classes, features.shape[1]):
            raise UsageError(
                f"got logits of shape {logits.shape} and features of shape {features.shape} for weights of shape "
                f"{self._weights.shape}; expected [K,C] weights"
            )
        if targets is not None and (targets.shape != (images, count) or targets.dtype != np.int32):
            raise UsageError(
                f"got targets of shape {targets.shape} and dtype {targets.dtype}; expected {(images, count)} int32"
            )
        read = [logits, features, *(outputs[name] for name in _FLOATS_OF_EACH_IMAGE.get(self._kind, ()))]
        for array in (*read, *([] if self._weights is None else [self._weights])):
            if array.dtype not in Floats:
                raise UsageError(f"got an array of {array.dtype}; the device's maps are of float32 or float16 outputs")


_FLOATS_OF_EACH_IMAGE = {HeadKind.LAYERNORM: (names.CAM_SCALE,), HeadKind.NONLINEAR: (names.TOPK_WEIGHTS,)}


def new_cam_arrays(layout: CamLayout, allocate: Callable[[int], Memory]) -> CamArrays:
    """Uninitialised arrays in memory of their own."""
    return layout.on_device(allocate(layout.nbytes))


def _pointer(array: DeviceArray | None, first: int) -> KernelArgument:
    """Of an array's `first` element along its first axis; 0 for none."""
    address: np.generic = np.uint64(0 if array is None else array.pointer + first * (array.nbytes // array.shape[0]))
    return address


def _of(array: DeviceArray | None, first: int) -> tuple[KernelArgument, KernelArgument]:
    """The pointer, and whether it is to halves."""
    return _pointer(array, first), np.int32(array is not None and array.dtype == np.float16)
