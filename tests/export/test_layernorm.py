"""Heads that normalise the pooled vector: their maps are exact, with one scale an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
import torchvision
from networks import NormedHead, cosine_head, normed_head, randomize
from numpy.typing import NDArray
from safetensors.torch import save_model
from torch import Tensor, nn

import gapcam
import gapcam_export
from gapcam.contract import HeadKind
from gapcam_export.layernorm import read_normed


def as_it_is(x: Tensor) -> Tensor:
    return x


def grid_without(prefix: int) -> Callable[[Tensor], Tensor]:
    """From tokens [1,L,C], the first ones of which are no patches, to [1,C,h,w]."""

    def grid(x: Tensor) -> Tensor:
        patches = x[:, prefix:]
        side = int(patches.shape[1] ** 0.5)
        return patches.transpose(1, 2).reshape(x.shape[0], x.shape[2], side, side)

    return grid


@dataclass(frozen=True)
class Case:
    """Where a network's feature maps, normalisation and linear layer are, as its authors wrote it."""

    source: str
    features: str
    norm: str
    linear: str
    to_nchw: Callable[[Tensor], Tensor] = as_it_is
    centred: bool = True


CASES = [
    Case("torchvision:convnext_tiny", "features", "classifier.0", "classifier.2"),
    Case("timm:convnext_atto", "stages", "head.norm", "head.fc"),
    Case("timm:test_vit2", "blocks", "fc_norm", "head", grid_without(1)),  # a register
    Case("timm:test_vit4", "blocks", "fc_norm", "head", grid_without(1), centred=False),  # RMSNorm
]


def build(source: str) -> nn.Module:
    library, name = source.split(":")
    if library == "timm":
        return randomize(timm.create_model(name))
    return randomize(torchvision.models.get_model(name, weights=None))


def run(path: Path, image: NDArray[np.float32], *names: str) -> list[NDArray[Any]]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(list(names), {"image": image})


def maps_by_algebra(case: Case, model: nn.Module, image: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """All maps [K,h,w] and logits [K] of one image [1,3,H,W]: normalised with the sigma of the mean."""
    seen: list[Tensor] = []
    handle = model.get_submodule(case.features).register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        logits = model(image)[0]
        handle.remove()
        features = case.to_nchw(seen[0])[0].double()
        norm, linear = model.get_submodule(case.norm), model.get_submodule(case.linear)
        pooled = features.mean((1, 2))
        if case.centred:
            features, pooled = features - features.mean(0), pooled - pooled.mean()
        sigma = (pooled.square().mean() + norm.eps).sqrt()
        normed = features / sigma * norm.weight.double()[:, None, None]
        return torch.einsum("kc,chw->khw", linear.weight.double(), normed).numpy(), logits.numpy()


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case.source == "torchvision:convnext_tiny" else [], id=case.source)
        for case in CASES
    ],
)
def test_a_layer_normalisation_after_the_pooling_gives_exact_maps(
    case: Case, tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    model = build(case.source)
    save_model(model, str(tmp_path / "weights.safetensors"))
    report = gapcam_export.export(
        case.source, tmp_path / "model.onnx", checkpoint=tmp_path / "weights.safetensors", emit=("maps", "topk")
    )
    head, measured = report.contract.head, report.contract.verification
    assert head.kind is HeadKind.LAYERNORM
    assert head.exact
    assert measured.identity_error <= 1e-4
    assert measured.source_error <= 1e-4
    assert measured.gradient_error is None

    image = gapcam.preprocess(cat, report.contract.preprocessing)[None]
    expected_maps, expected_logits = maps_by_algebra(case, model, torch.from_numpy(image))
    assert np.ptp(expected_logits) > 1e-3  # else all would agree with all
    close = {"rtol": 0, "atol": 1e-4 * np.abs(expected_maps).max()}
    features, weights, scale, maps, classes, best, logits = run(
        tmp_path / "model.onnx",
        image,
        "features",
        "cam_weights",
        "cam_scale",
        "maps",
        "topk_classes",
        "topk_maps",
        "logits",
    )
    np.testing.assert_allclose(logits[0], expected_logits, rtol=0, atol=1e-4 * np.abs(expected_logits).max())
    np.testing.assert_allclose(scale[0] * np.einsum("kc,chw->khw", weights, features[0]), expected_maps, **close)
    np.testing.assert_allclose(maps[0], expected_maps, **close)
    np.testing.assert_allclose(best[0], expected_maps[classes[0]], **close)
    np.testing.assert_array_equal(classes[0], np.argsort(-logits[0], kind="stable")[:5])


def test_the_scale_is_the_images_own_in_a_batch(tmp_path: Path) -> None:
    report = gapcam_export.export("networks:normed_head", tmp_path / "model.onnx", size=(64, 64))
    assert "cam_scale [batch] float" in map(str, report.outputs)
    model = normed_head()
    assert isinstance(model, NormedHead)
    # From black to far brighter than any image: the variance is from about the epsilon to far above it.
    image = np.random.default_rng(0).standard_normal((4, 3, 64, 64), dtype=np.float32)
    image *= np.array([0, 1e-3, 1, 100], np.float32)[:, None, None, None]
    with torch.no_grad():
        pooled = model.features(torch.from_numpy(image)).mean((2, 3)).double()
    (scale,) = run(tmp_path / "model.onnx", image, "cam_scale")
    assert np.ptp(scale) > 0.1
    np.testing.assert_allclose(scale, 1 / np.sqrt(pooled.var(1, correction=0).numpy() + 1e-5), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx")
@pytest.mark.parametrize("opset", [9, 17, 18, 20])
def test_the_scale_can_be_written_in_any_opset(opset: int, tmp_path: Path) -> None:
    """By the exporter of PyTorch that older files come from; in 18 the axes of a mean became an input."""
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32))
    source = tmp_path / "source.onnx"
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": opset}
    torch.onnx.export(normed_head(), (image,), source, dynamo=False, dynamic_axes={"image": {0: "n"}}, **names)
    report = gapcam_export.export(str(source), tmp_path / "model.onnx", emit=("maps",))
    assert report.opset == opset
    assert report.contract.head.kind is HeadKind.LAYERNORM
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    maps, bias, logits = run(tmp_path / "model.onnx", image.numpy(), "maps", "cam_bias", "logits")
    np.testing.assert_allclose(maps.mean((2, 3)) + bias, logits, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_a_cosine_classifier_is_a_normalisation_without_epsilon(tmp_path: Path) -> None:
    report = gapcam_export.export("networks:cosine_head", tmp_path / "model.onnx", size=(64, 64))
    assert report.contract.head.kind is HeadKind.LAYERNORM
    model = cosine_head()
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    weights, scale, logits = run(tmp_path / "model.onnx", image, "cam_weights", "cam_scale", "logits")
    with torch.no_grad():
        pooled = model.features(torch.from_numpy(image)).mean((2, 3))
    expected = scale[:, None] * (pooled.numpy() @ weights.T)
    np.testing.assert_allclose(expected, logits, rtol=0, atol=1e-4 * np.abs(logits).max())


def centred(x: NDArray[Any]) -> NDArray[Any]:
    return x - x.mean(axis=1, keepdims=True)


def test_an_epsilon_beside_the_root_is_no_layer_normalisation() -> None:
    """At the scale of 1 it is one to five digits."""
    random = np.random.default_rng(0)
    weights, vectors = random.standard_normal((64, 5)), [random.standard_normal((16, 64))]

    def beside(x: NDArray[Any]) -> NDArray[Any]:
        return centred(x) / (x.std(axis=1, keepdims=True) + 1e-5) @ weights

    def under(x: NDArray[Any]) -> NDArray[Any]:
        return centred(x) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-10) @ weights

    assert read_normed(beside, vectors) is None
    found = read_normed(under, vectors)
    assert found is not None
    np.testing.assert_allclose(found.epsilon, 1e-10, rtol=1e-3)


@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_a_mean_far_above_the_deviation_is_taken_out(mean: float) -> None:
    random = np.random.default_rng(0)
    layer = nn.Sequential(nn.LayerNorm(64, eps=1e-6), nn.Linear(64, 10))
    vectors = [mean + random.standard_normal((3, 64)), random.standard_normal((16, 64))]

    def answer(x: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            return layer.double()(torch.from_numpy(x.astype(np.float32)).double()).float().numpy()

    found = read_normed(answer, vectors)
    assert found is not None
    assert found.centred
    assert np.abs(found.weights.mean(axis=1, dtype=np.float64)).max() < 1e-8
