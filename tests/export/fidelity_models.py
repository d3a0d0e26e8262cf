"""Small models for comparisons, as real ONNX files: features are averages of blocks of the input's three channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser
from small_models import a_contract

from gapcam.contract import METADATA_KEY, contract_to_json

CLASSES = 7
_DIRECTIONS = np.random.default_rng(7).normal(size=(CLASSES, 3))
WEIGHTS = (8 * _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)).astype(np.float32)
BIAS = np.zeros(CLASSES, np.float32)
SIZE = (32, 48)
BLOCK = 4

_TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
blocks (float[N,3,H,W] image)
  => (float[N,K] logits, float[N,3,h,w] features, float[K,3] cam_weights, float[K] cam_bias)
{
  averaged = AveragePool <kernel_shape = [B,B], strides = [B,B]> (image)
  features = Gather <axis = 3> (averaged, columns)
  pooled = GlobalAveragePool (features)
  p = Flatten (pooled)
  logits = Gemm <transB = 1> (p, cam_weights, cam_bias)
}
"""


def blocks(
    path: Path,
    *,
    size: tuple[int, int] = SIZE,
    block: int = BLOCK,
    roll: int = 0,
    weights: NDArray[np.float32] = WEIGHTS,
    bias: NDArray[np.float32] = BIAS,
    labels: Sequence[str] = (),
    **preprocessing: object,
) -> Path:
    """Write a model whose features are the means of `block` x `block` pixels, moved `roll` cells to the right."""
    (height, width), classes = size, len(weights)
    text = _TEXT
    for name, value in {"H": height, "W": width, "h": height // block, "w": width // block}.items():
        text = text.replace(f",{name}]", f",{value}]").replace(f",{name},", f",{value},")
    model = parser.parse_model(text.replace("K", str(classes)).replace("B,B", f"{block},{block}"))
    constants = {
        "columns": np.roll(np.arange(width // block), roll),
        "cam_weights": weights,
        "cam_bias": bias,
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    contract = a_contract(size, tuple(labels), **preprocessing)  # type: ignore[arg-type]
    helper.set_model_props(model, {METADATA_KEY: contract_to_json(contract)})
    path.write_bytes(model.SerializeToString())
    return path


def pictures(folder: Path, count: int, size: tuple[int, int] = SIZE) -> list[Path]:
    """Write images without much detail, each of another hue; of the models' own size they are not resized."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1)
    paths = []
    for number in range(count):
        coarse = (noise.integers(0, 256, (4, 6, 3)) * noise.random(3) ** 2).astype(np.uint8)
        paths.append(folder / f"{number:03}.png")
        assert cv2.imwrite(str(paths[-1]), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR))
    return paths


def features_of(path: Path, block: int = BLOCK) -> NDArray[np.float64]:
    """[3,h,w], the features of an image of the model's own size, in NumPy."""
    image = cv2.imread(str(path))[..., ::-1].astype(np.float64) / 255
    height, width, _ = image.shape
    return image.reshape(height // block, block, width // block, block, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
