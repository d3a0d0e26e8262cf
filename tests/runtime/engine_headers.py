"""The header of an engine file with something in every field, a plan of no meaning, and constants of both types."""

from __future__ import annotations

import numpy as np

from gapcam.engine_file import BuildOptions, BuiltPrecision, EngineHeader, EngineTensor, ShapeRange

PLAN = b"ptrt" + np.random.default_rng(1).bytes(5000)
TENSORS = {
    "cam_weights": np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32),
    "cam_bias": np.array([1.5, -2.0, 0.25], np.float16),
}


def a_header(**changed: object) -> EngineHeader:
    settings: dict[str, object] = {
        "producer": "gapcam tests",
        "runtime": "tensorrt",
        "runtime_version": "10.13.3.9",
        "platform": "linux-aarch64",
        "targets": ("sm_87",),
        "device": "Orin",
        "cuda_driver": (12, 6),
        "model": "cat-Ä.onnx",
        "model_sha256": "ab" * 32,
        "options": BuildOptions(batch=(1, 2, 4), level=5, sizes=((8, 8), (8, 16), (32, 32)), targets=("86",)),
        "profiles": ({"image": ShapeRange(min=(1, 3, 8, 8), opt=(2, 3, 8, 16), max=(4, 3, 32, 32))},),
        "inputs": (EngineTensor(name="image", shape=(None, 3, None, None), dtype="float32"),),
        "outputs": (EngineTensor(name="logits", shape=(None, 3), dtype="float32"),),
        "precision": BuiltPrecision(asked="fp16", network={"fp16": 3, "fp32": 1}, engine={"fp16": 3, "fp32": 1}),
        "metadata": {"gapcam": '{"contract":1}', "other": "kept, too"},
        **changed,
    }
    return EngineHeader(**settings)  # type: ignore[arg-type]
