"""A classifier and nothing else: any ONNX model, or one of gapcam's whose graph gives logits only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from gapcam.backends.protocol import Array, Backend, TensorInfo
from gapcam.contract import Contract
from gapcam.contract import Preprocessing as ContractPreprocessing
from gapcam.errors import ModelError
from gapcam.frame import Frame
from gapcam.geometry import place
from gapcam.preprocessing import empty_input, fill_input
from gapcam_bench.cell import Cell
from gapcam_bench.subjects.assignment import assigned_nodes
from gapcam_bench.subjects.pictures import frames_of
from gapcam_bench.subjects.protocol import Answer, Picture, StageTimes

EXPECTED = "expected one image: [N,C,H,W] or [N,H,W,C], C 3 (RGB) or 1 (grey), of float32, float16, float64 or uint8"
ONE_BY_ONE = "takes one image at a time: the pictures of a query run one after another"
OPEN_SIDE = 224
"""Pixels of an input's side that the graph leaves open: what most classifiers were trained with."""

_MOST_SIDE = 2**14
"""More pixels than any classifier's input has along a side."""


class PlainSubject:
    """From a picture to logits.

    Where the model has no contract, its input is read from the graph: [N,C,H,W] or [N,H,W,C] of float32, float16,
    float64 or uint8; 3 channels are RGB, 1 is grey. Sides that are open are `OPEN_SIDE`. Floats are pixels scaled to
    0..1: how the network was trained is not written anywhere, and does not change how long it takes.

    Args:
        backend: that the model was opened on; closed with the subject.
        contract: of the model, or None.
        cell: what is measured.
        name: how messages call the model.

    Attributes:
        notes: a sentence each.
        providers: nodes by the execution provider that runs them.

    Raises:
        ModelError: the model has several inputs or one that is no image, no output of scores, or does not take the
            cell's batch.
    """

    def __init__(self, backend: Backend, contract: Contract | None, cell: Cell, name: str) -> None:
        image = image_input(backend.inputs, name)
        self._one_by_one = image.shape[0] is not None
        if self._one_by_one and (image.shape[0] != 1 or cell.batch > 1):
            raise ModelError(
                f"{name} takes batches of {image.shape[0]} ({image}), and one of {cell.batch} was asked for; give a "
                "model whose batch is open"
            )
        self._backend, self._work = backend, frozenset(cell.work)
        self._output = scores_output(backend, name)
        self.input_size = plain_size(image) if contract is None else contract.preprocessing.size
        self._filled: Callable[[Sequence[Frame], StageTimes], Array] = (
            _Stretched(image, self.input_size) if contract is None else _AsContract(contract.preprocessing)
        )
        self.engine = backend.engine
        self.providers = assigned_nodes(backend)
        self.notes: tuple[str, ...] = (_no_contract(image),) * (contract is None) + (ONE_BY_ONE,) * self._one_by_one

    def run(self, pictures: Sequence[Picture]) -> StageTimes:
        """Answer one query of at least one picture."""
        times = StageTimes()
        frames = frames_of(pictures, self._work, times)
        for query in [[frame] for frame in frames] if self._one_by_one else [frames]:
            self._logits(query, times)
        return times

    def answer(self, picture: Picture) -> Answer:
        """Logits of one picture."""
        return Answer(self._logits([picture.frame], StageTimes())[0], None)

    def close(self) -> None:
        """Give everything back."""
        self._backend.close()

    def _logits(self, frames: Sequence[Frame], times: StageTimes) -> Array:
        """[N,K] float32."""
        tensor = self._filled(frames, times)
        with times.timed("inference"):
            (scores,) = self._backend.run([self._output], tensor)
        return scores.reshape(len(scores), -1).astype(np.float32, copy=False)


class _AsContract:
    """Frames to the network's input as a contract says, with the stage that `gapcam.host_path` measures: no memory."""

    def __init__(self, preprocessing: ContractPreprocessing) -> None:
        self._preprocessing = preprocessing

    def __call__(self, frames: Sequence[Frame], times: StageTimes) -> Array:
        tensor = empty_input(len(frames), self._preprocessing)
        for frame, slot in zip(frames, tensor, strict=True):
            with times.timed("preprocess"):
                placement = place((frame.shape[0], frame.shape[1]), self._preprocessing)
                fill_input(frame, self._preprocessing, placement, slot)
        return tensor


class _Stretched:
    """Frames to the input of a model that says nothing about it: stretched, RGB or grey, pixels or floats to 1."""

    def __init__(self, image: TensorInfo, size: tuple[int, int]) -> None:
        self._dtype = np.dtype(image.dtype)
        self._size = size
        self._channels_last = channels_last(image)
        self._grey = is_grey(image)

    def __call__(self, frames: Sequence[Frame], times: StageTimes) -> Array:
        with times.timed("preprocess"):
            return self._filled(frames)

    def _filled(self, frames: Sequence[Frame]) -> Array:
        height, width = self._size
        color = cv2.COLOR_BGR2GRAY if self._grey else cv2.COLOR_BGR2RGB
        small = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
        pixels = np.stack([cv2.cvtColor(image, color).reshape(height, width, -1) for image in small])
        if not self._channels_last:
            pixels = pixels.transpose(0, 3, 1, 2)
        if self._dtype == np.uint8:
            return np.ascontiguousarray(pixels)
        return np.multiply(pixels, 1 / 255, dtype=np.float32).astype(self._dtype, order="C", copy=False)


def image_input(inputs: Mapping[str, TensorInfo], name: str) -> TensorInfo:
    """The one input of a model that takes images.

    Raises:
        ModelError: there are several, or it is no image's.
    """
    given = list(inputs.values())
    listed = ", ".join(map(str, given)) or "none"
    if len(given) != 1:
        raise ModelError(f"{name} has {len(given)} inputs ({listed}); {EXPECTED}. This model cannot be measured here")
    (image,) = given
    channels = [image.shape[axis] for axis in (1, 3)] if len(image.shape) == 4 else []
    if (
        not channels
        or not {1, 3}.intersection(channels)
        or image.dtype not in ("float32", "float16", "float64", "uint8")
        or any(side is not None and not 1 <= side <= _MOST_SIDE for side in image.shape)
    ):
        raise ModelError(f"{name} has the input {image}; {EXPECTED}. This model cannot be measured here")
    return image


def channels_last(image: TensorInfo) -> bool:
    """Whether an image's channels are its last axis; where both could be, they are the second."""
    return image.shape[1] not in (1, 3)


def is_grey(image: TensorInfo) -> bool:
    """Whether an image has one channel."""
    return image.shape[3 if channels_last(image) else 1] == 1


def _no_contract(image: TensorInfo) -> str:
    """What a row says of a model whose input is read from the graph."""
    color = "grey" if is_grey(image) else "RGB"
    values = "pixels, 0 to 255" if image.dtype == "uint8" else "scaled to 0..1"
    return (
        "has no contract of gapcam: measured as a plain classifier, without map, overlay and boxes; its input is the "
        f"stretched frame in {color}, {values}"
    )


def plain_size(image: TensorInfo) -> tuple[int, int]:
    """(H, W) of a model's input."""
    height, width = image.shape[1:3] if channels_last(image) else image.shape[2:4]
    return height or OPEN_SIDE, width or OPEN_SIDE


def scores_output(backend: Backend, name: str) -> str:
    """The output with the classes' scores: "logits", or else the first of floats that is one row an image.

    Raises:
        ModelError: there is none.
    """
    if "logits" in backend.outputs:
        return "logits"
    for output in backend.outputs.values():
        flat = len(output.shape) >= 2 and all(side in (1, None) for side in output.shape[2:])
        if flat and output.dtype in ("float32", "float16", "float64"):
            return output.name
    listed = ", ".join(map(str, backend.outputs.values())) or "none"
    raise ModelError(f"{name} has the outputs {listed}; expected scores, [N,K] of floats. Is it a classifier?")
