"""Vision transformers: the patches' tokens are the map; class and register tokens are no part of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vision_transformers
from numpy.typing import NDArray

import gapcam
import gapcam_export
from gapcam.contract import HeadKind


@pytest.mark.parametrize(
    ("name", "kind", "prefix"),
    [
        ("averaged", HeadKind.AFFINE, 0),
        ("averaged_without_its_class_token", HeadKind.LAYERNORM, 1),
        ("averaged_without_its_registers", HeadKind.LAYERNORM, 4),
        ("averaged_without_class_token_and_registers", HeadKind.AFFINE, 3),
    ],
)
def test_features_are_the_patches_without_class_and_register_tokens(
    name: str, kind: HeadKind, prefix: int, tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    report = gapcam_export.export(f"vision_transformers:{name}", tmp_path / "model.onnx", size=(64, 96))
    head = report.contract.head
    assert head.kind is kind
    assert head.layout == "tokens"
    assert report.contract.verification.identity_error <= 1e-4
    assert "features [batch,48,4,6] float" in map(str, report.outputs)
    assert any("24 tokens that are averaged were taken for a grid of 4x6" in note for note in report.notes)

    model = getattr(vision_transformers, name)()
    assert model.num_prefix_tokens == prefix
    with gapcam.load(tmp_path / "model.onnx") as session, torch.no_grad():
        result = session(cat)
        image = torch.from_numpy(gapcam.preprocess(cat, report.contract.preprocessing))[None]
        tokens = model.forward_features(image)[0, prefix:]
        expected = tokens.T.reshape(48, 4, 6).numpy()
        np.testing.assert_allclose(result.features, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        mean = tokens.mean(0)
        if kind is HeadKind.LAYERNORM:
            tokens, mean = tokens - tokens.mean(1, keepdim=True), mean - mean.mean()
            tokens = tokens / (mean.square().mean() + model.fc_norm.eps).sqrt() * model.fc_norm.weight
        for index in range(5):
            ours = result.map(index)
            theirs = (tokens @ model.head.weight[index]).reshape(4, 6).numpy()
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("averaged_with_its_class_token", (64, 96), "25 tokens are averaged, which is no grid of square patches"),
        ("averaged_and_greatest", (64, 96), "pooled by the mean of their average and their maximum"),
        ("timms_class_token", (64, 96), "a class token or attention takes what it needs of them"),
        ("torchvisions_class_token", (64, 64), "a class token or attention takes what it needs of them"),
    ],
)
def test_tokens_that_are_no_map_are_refused_with_the_reason(
    name: str, size: tuple[int, int], said: str, tmp_path: Path
) -> None:
    with pytest.raises(gapcam_export.HeadError) as error:
        gapcam_export.export(f"vision_transformers:{name}", tmp_path / "model.onnx", size=size)
    assert error.value.kind is HeadKind.NONE
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []
