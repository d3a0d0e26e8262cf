"""A real Keras network through tf2onnx, where TensorFlow is installed: it is too large for the development tools.

`test_onnx_variants.py` has the same patterns of nodes, made by hand after tf2onnx 1.17's files of Keras 3.15 networks.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import gapcam_export

_CONVERT = """
import sys
import keras, numpy as np, tensorflow as tf, tf2onnx

keras.utils.set_random_seed(7)
layers = keras.layers
pixels = keras.Input((64, 48, 3))
x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
x = layers.BatchNormalization(gamma_initializer="random_uniform", moving_variance_initializer="ones")(x)
x = layers.ReLU(6.0)(x)
x = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu")(x)
x = layers.Conv2D(12, 3, padding="same", activation="relu")(x)
x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
network = keras.Model(pixels, layers.Dense(5, activation="softmax")(x))

frames = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3)).astype(np.float32)
function = tf.function(
    lambda pixels: network(pixels, training=False),
    input_signature=[tf.TensorSpec([None, 64, 48, 3], tf.float32, name="pixels")],
)
tf2onnx.convert.from_function(
    function, input_signature=function.input_signature, opset=int(sys.argv[2]), output_path=f"{sys.argv[1]}/theirs.onnx"
)
maps = keras.Model(pixels, network.layers[-4].output)(frames, training=False).numpy()
weights, bias = network.layers[-1].get_weights()
np.savez(f"{sys.argv[1]}/theirs.npz", frames=frames, features=maps, weights=weights, bias=bias,
         scores=network(frames, training=False).numpy())
"""


@pytest.mark.skipif(
    not (find_spec("tensorflow") and find_spec("tf2onnx")),
    reason="needs tensorflow and tf2onnx, which no extra installs",
)
@pytest.mark.parametrize("opset", [9, 15, 18])
def test_a_keras_network_keeps_its_scores_and_gets_the_maps_of_its_own_layers(tmp_path: Path, opset: int) -> None:
    subprocess.run([sys.executable, "-c", _CONVERT, str(tmp_path), str(opset)], check=True, capture_output=True)
    report = gapcam_export.export(str(tmp_path / "theirs.onnx"), tmp_path / "model.onnx", emit=("maps",))
    assert any("scales its input itself" in note for note in report.notes)
    theirs = np.load(tmp_path / "theirs.npz")
    image = np.ascontiguousarray(theirs["frames"].transpose(0, 3, 1, 2))
    scores, features, maps = ort.InferenceSession(tmp_path / "model.onnx").run(
        [report.outputs[0].name, "features", "maps"], {"image": image}
    )
    np.testing.assert_allclose(scores, theirs["scores"], rtol=1e-4)
    np.testing.assert_allclose(features, theirs["features"].transpose(0, 3, 1, 2), atol=1e-4)
    np.testing.assert_allclose(maps, np.einsum("nyxk,kc->ncyx", theirs["features"], theirs["weights"]), atol=1e-4)
