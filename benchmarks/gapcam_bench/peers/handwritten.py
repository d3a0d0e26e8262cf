"""A class activation map as one writes it oneself, with ONNX Runtime, NumPy and OpenCV: frame in, overlay out.

Nothing here is gapcam's but the file: any ONNX model with the outputs `logits` [N,K] and `features` [N,C,h,w], and the
matrix `cam_weights` [K,C] of the affine layer behind the pooling. It is written for speed as far as that stays simple:
what is per-pixel work on a whole frame is done on bytes, by OpenCV. Other peers share its `preprocess` and `draw` where
their libraries have none of their own.

    explainer = HandWritten("model.onnx", size=(224, 224), mean=(127, 127, 127), std=(128, 128, 128))
    picture = explainer(frame)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class HandWritten:
    """Frames explained by a network with global average pooling.

    Args:
        path: of the ONNX file.
        size: (H, W) of the network's input.
        mean: of its preprocessing, red, green, blue, in [0, 255].
        std: likewise.
        threads: that one inference may use.
        settings: ONNX Runtime's configuration entries, by their names.
    """

    def __init__(
        self,
        path: str,
        *,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        threads: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        for name, value in (settings or {}).items():
            options.add_session_config_entry(name, value)
        options.log_severity_level = 3  # it warns of weights that are outputs, too
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.size, self._mean, self._std = size, mean, std
        # The weights are constants of the graph; they are taken out once, not with every frame.
        image = np.zeros((1, 3, *size), np.float32)
        self.weights: FloatArray = self._session.run(["cam_weights"], {"image": image})[0]

    def __call__(self, frame: Frame) -> Frame:
        """The frame, H x W x 3 uint8 BGR, under the map of its best class."""
        logits, features = self.infer(self.preprocess(frame))
        return draw(frame, class_map(logits, features, self.weights))

    def preprocess(self, frame: Frame) -> FloatArray:
        """The network's input, [1,3,H,W]."""
        return preprocess(frame, self.size, self._mean, self._std)

    def infer(self, image: FloatArray) -> Any:
        """Logits [1,K] and features [1,C,h,w]."""
        return self._session.run(["logits", "features"], {"image": image})


def preprocess(frame: Frame, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> FloatArray:
    """(pixel - mean) / std of the frame squashed to `size` (H, W), [1,3,H,W] RGB."""
    height, width = size
    # Averages, since it shrinks: a camera's frame that is only sampled brings patterns that the network never saw.
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    image = np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1)).astype(np.float32)
    image -= np.asarray(mean, np.float32)[:, None, None]
    image /= np.asarray(std, np.float32)[:, None, None]
    return image[None]


def class_map(logits: FloatArray, features: FloatArray, weights: FloatArray) -> FloatArray:
    """The best class's map [h,w]: sum_k W[c,k] f_k, of the first image of the batch."""
    row = weights[logits[0].argmax()]
    channels, height, width = features.shape[1:]
    return np.asarray(row @ features[0].reshape(channels, height * width), np.float32).reshape(height, width)


def draw(frame: Frame, heat: FloatArray) -> Frame:
    """The frame under the map in colour, half and half; the map's least value is blue and its greatest is red."""
    height, width = frame.shape[:2]
    low, high = heat.min(), heat.max()
    # Normalised and rounded while it is small: the rest is work on bytes, which at 1080p takes a third of the time.
    levels = (255 * (heat - low) / max(high - low, 1e-12)).astype(np.uint8)
    colored = cv2.applyColorMap(cv2.resize(levels, (width, height)), cv2.COLORMAP_JET)
    return np.asarray(cv2.addWeighted(colored, 0.5, frame, 0.5, 0), np.uint8)
