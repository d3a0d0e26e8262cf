"""The oracle: maps of real architectures, exported and run without PyTorch, against those computed in PyTorch by hooks.

Every network's weights are random (its BatchNorm statistics too), written to a checkpoint, and loaded from there by the
export, so that what is compared went the whole way that a user's network goes.
"""

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
from networks import randomize
from numpy.typing import NDArray
from safetensors.torch import save_model
from torch import Tensor, nn

import gapcam
import gapcam_export
from gapcam.contract import HeadKind, Preprocessing
from gapcam.errors import VerificationError
from gapcam_export.photographs import default_photographs
from gapcam_export.section import onnx_session
from gapcam_export.verify import check_batch, verify

Matrix = tuple[Tensor, Tensor]


def linear(path: str) -> Callable[[nn.Module], Matrix]:
    """The weights and bias of a linear layer."""
    return lambda model: (model.get_submodule(path).weight, model.get_submodule(path).bias)


def batchnorm_and_linear(*paths: str) -> Callable[[nn.Module], Matrix]:
    """The mean of several heads of BatchNorm and a linear layer, folded by hand."""

    def folded(model: nn.Module) -> Matrix:
        pairs = []
        for path in paths:
            norm, layer = model.get_submodule(f"{path}.bn"), model.get_submodule(f"{path}.linear")
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            pairs.append((layer.weight * scale, layer.bias + layer.weight @ (norm.bias - norm.running_mean * scale)))
        weights, biases = zip(*pairs, strict=True)
        return torch.stack(weights).mean(0), torch.stack(biases).mean(0)

    return folded


def as_it_is(x: Tensor) -> Tensor:
    return x


def channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def square_grid(x: Tensor) -> Tensor:
    side = int(x.shape[1] ** 0.5)
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], side, side)


@dataclass(frozen=True)
class Case:
    """Where a network's feature maps and head are, as its authors wrote it."""

    source: str
    features: str
    head: Callable[[nn.Module], Matrix] | None
    to_nchw: Callable[[Tensor], Tensor] = as_it_is
    layout: str = "nchw"


CASES = [
    Case("torchvision:resnet18", "layer4", linear("fc")),
    Case("torchvision:mobilenet_v2", "features", linear("classifier.1")),
    Case("torchvision:densenet121", "features", linear("classifier"), to_nchw=torch.relu),
    Case("torchvision:squeezenet1_1", "classifier.2", None),
    Case("torchvision:googlenet", "inception5b", linear("fc")),
    Case("torchvision:inception_v3", "Mixed_7c", linear("fc")),
    Case("torchvision:shufflenet_v2_x0_5", "conv5", linear("fc")),
    Case("torchvision:mnasnet0_5", "layers", linear("classifier.1")),
    Case("torchvision:regnet_y_400mf", "trunk_output", linear("fc")),
    Case("torchvision:efficientnet_b0", "features", linear("classifier.1")),
    Case("torchvision:swin_t", "permute", linear("head"), layout="nhwc"),
    Case("timm:swin_tiny_patch4_window7_224", "norm", linear("head.fc"), channels_first, "nhwc"),
    Case("timm:vit_medium_patch16_gap_240", "norm", linear("head"), square_grid, "tokens"),
    Case("timm:levit_128s", "stages", batchnorm_and_linear("head", "head_dist"), square_grid, "tokens"),
]


def build(source: str) -> nn.Module:
    library, name = source.split(":")
    if library == "timm":
        return randomize(timm.create_model(name))
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return randomize(torchvision.models.get_model(name, weights=None, **options))


def maps_by_hook(case: Case, model: nn.Module, image: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """All maps [K,h,w] and logits [K] of one image [1,3,H,W], in PyTorch."""
    seen: list[Tensor] = []
    # A clone: densenet's ReLU after the module works in place.
    handle = model.get_submodule(case.features).register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    with torch.no_grad():
        logits = model(image)[0]
        handle.remove()
        maps = case.to_nchw(seen[0])[0]
        if case.head is not None:
            weights, _ = case.head(model)
            maps = torch.einsum("kc,chw->khw", weights, maps)
    return maps.numpy(), logits.numpy()


# One of each kind of head, and of each layout of the features; the others take a minute and a half.
FAST = {"torchvision:resnet18", "torchvision:squeezenet1_1", "torchvision:swin_t", "timm:levit_128s"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case.source in FAST else pytest.mark.slow, id=case.source) for case in CASES],
)
def test_maps_of_an_exported_network_are_those_that_hooks_in_pytorch_give(
    case: Case, tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    model = build(case.source)
    save_model(model, str(tmp_path / "weights.safetensors"))
    report = gapcam_export.export(case.source, tmp_path / "model.onnx", checkpoint=tmp_path / "weights.safetensors")

    assert report.contract.head.kind is (HeadKind.AFFINE if case.head else HeadKind.CLASS_MAPS)
    assert report.contract.head.layout == case.layout
    measured = report.contract.verification
    assert measured.identity_error <= 1e-4
    assert measured.source_error <= 1e-4
    assert measured.source_top1 == 1

    image = torch.from_numpy(gapcam.preprocess(cat, report.contract.preprocessing))[None]
    expected_maps, expected_logits = maps_by_hook(case, model, image)
    assert np.ptp(expected_logits) > 1e-3  # else all would agree with all
    with gapcam.load(tmp_path / "model.onnx") as session:
        result = session(cat)
        maps = result.maps(range(len(expected_logits)))
    assert maps.shape == expected_maps.shape
    np.testing.assert_allclose(maps, expected_maps, rtol=0, atol=1e-4 * np.abs(expected_maps).max())
    np.testing.assert_allclose(result.logits, expected_logits, rtol=0, atol=1e-4 * np.abs(expected_logits).max())


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("alexnet", HeadKind.NONE, "[256, 6, 6], flattened into 9216 values"),
        ("vgg11", HeadKind.NONE, "[512, 7, 7], flattened into 25088 values"),
    ],
)
def test_a_head_without_exact_affine_maps_is_refused_by_name(
    name: str, kind: HeadKind, found: str, tmp_path: Path
) -> None:
    with pytest.raises(gapcam_export.HeadError) as error:
        gapcam_export.export(f"torchvision:{name}", tmp_path / "model.onnx")
    assert error.value.kind is kind
    assert repr(kind.value) in str(error.value)
    assert found in str(error.value)
    assert list(tmp_path.iterdir()) == []


class ItsOwnSource:
    """The model itself, as what it is compared with."""

    name, tolerance = "onnxruntime", 1e-6

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return {"logits": self._session.run(["logits"], {"image": image[None]})[0][0]}


@pytest.mark.parametrize("output", ["maps", "topk_maps"])
@pytest.mark.parametrize(
    "source",
    ["networks:gap_network", "networks:normed_head", "networks:three_layers", "torchvision:squeezenet1_1"],
)
def test_maps_in_the_graph_that_are_not_those_of_the_weights_are_noticed(
    source: str, output: str, tmp_path: Path
) -> None:
    size = (64, 64)
    gapcam_export.export(source, tmp_path / "model.onnx", size=size, emit=("maps", "topk"), topk=3)
    model = onnx.load(tmp_path / "model.onnx")
    photographs, preprocessing = default_photographs()[:2], Preprocessing(size=size)
    verify(model, onnx_session(model), preprocessing, preprocessing, photographs, ItsOwnSource(model))
    node = next(node for node in model.graph.node if output in node.output)
    node.output[0] = "right"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.01), "factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["right", "factor"], [output]))
    with pytest.raises(VerificationError, match=f"'{output}' are not the sums of weights and features"):
        verify(model, onnx_session(model), preprocessing, preprocessing, photographs, ItsOwnSource(model))


def test_images_of_a_batch_that_are_mixed_are_noticed(tmp_path: Path) -> None:
    """Each answers with the batch's mean: alone, that is its own."""
    gapcam_export.export("networks:gap_network", tmp_path / "model.onnx", size=(64, 64))
    model = onnx.load(tmp_path / "model.onnx")
    node = next(node for node in model.graph.node if "features" in node.output)
    node.output[0] = "own"
    place = list(model.graph.node).index(node) + 1
    mean = onnx.helper.make_node("ReduceMean", ["own", "batch_axis"], ["mixed"], keepdims=1)
    zeros = onnx.helper.make_node("Sub", ["own", "own"], ["zeros"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([0], np.int64), "batch_axis"))
    for made in (onnx.helper.make_node("Add", ["mixed", "zeros"], ["features"]), zeros, mean):
        model.graph.node.insert(place, made)
    photographs, preprocessing = default_photographs()[:2], Preprocessing(size=(64, 64))
    with pytest.raises(VerificationError, match="Does the network mix the images of a batch"):
        check_batch(onnx_session(model), preprocessing, photographs)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    check_batch(onnx_session(model), preprocessing, photographs)
