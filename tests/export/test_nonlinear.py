"""Nonlinear heads: their maps are Grad-CAM's before its ReLU, computed in the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
import torchvision
from networks import randomize
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_model
from torch import nn

import gapcam
import gapcam_export
from gapcam.contract import HeadKind
from gapcam_export.activations import GRID, Activation, recognize
from gapcam_export.affine import Affine
from gapcam_export.gradient_check import GRADIENT_TOLERANCE, GradientCheck
from gapcam_export.graph_writer import GraphWriter
from gapcam_export.head import find_head
from gapcam_export.nonlinear import Chain, Layer

# The layer whose output is pooled.
NETWORKS = {
    "torchvision:mobilenet_v3_small": "features",
    "torchvision:mobilenet_v3_large": "features",
    "timm:mobilenetv4_conv_small": "blocks",
    "timm:hgnetv2_b0": "stages",
    "networks:three_layers": "last",
    "networks:per_channel_slopes": "last",
}
LARGE = {"torchvision:mobilenet_v3_large", "timm:mobilenetv4_conv_small", "timm:hgnetv2_b0"}
OUTPUTS = ("logits", "features", "topk_classes", "topk_weights", "topk_bias", "maps", "topk_maps")


def build(source: str) -> nn.Module:
    library, name = source.split(":")
    if library == "networks":
        return getattr(networks, name)()
    made = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name, weights=None)
    return randomize(made)


def run(path: Path, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": image}), strict=True))


class RawGradCAM(GradCAM):
    """Grad-CAM that keeps its map as it is before ReLU and scaling, and the weights that made it."""

    def get_cam_weights(self, *arguments: Any) -> NDArray[Any]:
        self.raw_weights = super().get_cam_weights(*arguments)
        return self.raw_weights

    def get_cam_image(self, *arguments: Any) -> NDArray[Any]:
        self.raw_map = super().get_cam_image(*arguments)
        return self.raw_map


@pytest.mark.parametrize(
    "source", [pytest.param(source, marks=pytest.mark.slow if source in LARGE else []) for source in NETWORKS]
)
def test_maps_equal_grad_cams_before_its_relu(source: str, tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    model = build(source)
    save_model(model, str(tmp_path / "weights.safetensors"))
    report = gapcam_export.export(
        source, tmp_path / "model.onnx", checkpoint=tmp_path / "weights.safetensors", emit=("maps", "topk"), topk=3
    )
    head, measured = report.contract.head, report.contract.verification
    assert head.kind is HeadKind.NONLINEAR
    assert not head.exact
    assert any("is not exact" in note for note in report.notes)
    assert measured.identity_error < 1e-5
    assert measured.gradient_error is not None
    assert measured.gradient_error < 1e-5
    assert measured.gradient_tolerance == 1e-4

    image = gapcam.preprocess(cat, report.contract.preprocessing)[None]
    got = run(tmp_path / "model.onnx", image)
    assert tuple(got) == OUTPUTS
    positions = got["features"][0, 0].size
    with RawGradCAM(model, [model.get_submodule(NETWORKS[source])]) as theirs:
        for place, index in enumerate(got["topk_classes"][0]):
            theirs(torch.from_numpy(image), [ClassifierOutputTarget(index)])
            # The gradient of a mean of h*w values is 1/(h*w) of the mean's own.
            expected = theirs.raw_map[0] * positions
            assert np.ptp(expected) > 0
            close = {"rtol": 0, "atol": 1e-3 * np.abs(expected).max()}  # float32: the gradient's terms cancel
            np.testing.assert_allclose(got["topk_maps"][0, place], expected, **close)
            np.testing.assert_allclose(got["maps"][0, index], expected, **close)
            rows = theirs.raw_weights[0] * positions
            np.testing.assert_allclose(got["topk_weights"][0, place], rows, rtol=0, atol=1e-3 * np.abs(rows).max())


def test_maps_of_classes_that_are_not_the_best_are_their_own_gradients(tmp_path: Path) -> None:
    gapcam_export.export("networks:three_layers", tmp_path / "model.onnx", size=(64, 64), emit=("maps",), topk=1)
    model, image = networks.three_layers(), np.random.default_rng(0).standard_normal((3, 3, 64, 64), dtype=np.float32)
    got = run(tmp_path / "model.onnx", image)
    assert "topk_maps" not in got
    features = model.features(torch.from_numpy(image)).detach().requires_grad_()
    for index in range(5):
        (gradient,) = torch.autograd.grad(model.head(features.mean((2, 3)))[:, index].sum(), features)
        expected = (gradient * gradient[0, 0].numel() * features).sum(1).detach().numpy()
        np.testing.assert_allclose(got["maps"][:, index], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_rows_and_biases_are_always_there_and_touch_the_logits(tmp_path: Path) -> None:
    report = gapcam_export.export("networks:three_layers", tmp_path / "model.onnx", size=(64, 96))
    assert [str(tensor) for tensor in report.outputs] == [
        "logits [batch,5] float",
        "features [batch,12,4,6] float",
        "topk_classes [batch,5] int64",
        "topk_weights [batch,5,12] float",
        "topk_bias [batch,5] float",
    ]
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    got = run(tmp_path / "model.onnx", np.random.default_rng(0).standard_normal((3, 3, 64, 96), dtype=np.float32))
    best = np.take_along_axis(got["logits"], got["topk_classes"], 1)
    np.testing.assert_array_equal(best, -np.sort(-got["logits"], axis=1))
    tangent = np.einsum("nkc,nc->nk", got["topk_weights"], got["features"].mean((2, 3))) + got["topk_bias"]
    np.testing.assert_allclose(tangent, best, rtol=0, atol=1e-5 * np.abs(best).max())


@pytest.mark.parametrize("name", ["mobilenet_v3_small"])
def test_nothing_is_stored_twice(name: str, tmp_path: Path) -> None:
    gapcam_export.export(f"torchvision:{name}", tmp_path / "model.onnx", size=(96, 96), emit=("maps", "topk"))
    constants = onnx.load(tmp_path / "model.onnx").graph.initializer
    own = sum(parameter.numel() for parameter in torchvision.models.get_model(name).parameters())
    assert sum(int(np.prod(tensor.dims)) for tensor in constants) < own  # BatchNorm is folded


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx")
@pytest.mark.parametrize("opset", [10, 13, 20])
def test_the_gradient_can_be_written_in_any_opset(opset: int, tmp_path: Path) -> None:
    source, image = tmp_path / "source.onnx", np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": opset}
    model = networks.three_layers()
    torch.onnx.export(
        model, (torch.from_numpy(image),), source, dynamo=False, dynamic_axes={"image": {0: "n"}}, **names
    )
    report = gapcam_export.export(str(source), tmp_path / "model.onnx", emit=("maps", "topk"))
    assert report.opset == opset
    assert report.contract.head.kind is HeadKind.NONLINEAR
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    got = run(tmp_path / "model.onnx", image)
    for sample in range(2):
        np.testing.assert_allclose(
            got["topk_maps"][sample], got["maps"][sample][got["topk_classes"][sample]], atol=1e-5
        )


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx")
def test_an_opset_without_the_operators_is_refused(tmp_path: Path) -> None:
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": 9}
    torch.onnx.export(networks.three_layers(), (torch.zeros(1, 3, 64, 64),), tmp_path / "9.onnx", dynamo=False, **names)
    with pytest.raises(gapcam.GapcamError, match="gradient needs operators of opset 10; the model has opset 9"):
        gapcam_export.export(str(tmp_path / "9.onnx"), tmp_path / "model.onnx")


def test_layers_that_are_stored_in_float16_are_used_as_they_are(tmp_path: Path) -> None:
    gapcam_export.export("networks:three_layers", tmp_path / "model.onnx", size=(64, 64))
    source = onnx.load(tmp_path / "model.onnx")
    del source.metadata_props[:], source.graph.output[1:]
    layers = [tensor for tensor in source.graph.initializer if len(tensor.dims) == 2]
    assert len(layers) == 3
    for tensor in layers:
        half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_16")
        source.graph.node.insert(
            0, onnx.helper.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
        tensor.CopyFrom(half)
    onnx.save(source, tmp_path / "source.onnx")
    report = gapcam_export.export(str(tmp_path / "source.onnx"), tmp_path / "again.onnx", emit=("maps", "topk"))
    assert report.contract.head.kind is HeadKind.NONLINEAR
    stored = [list(tensor.dims) for tensor in onnx.load(tmp_path / "again.onnx").graph.initializer]
    for tensor in layers:
        assert stored.count(list(tensor.dims)) + stored.count(list(tensor.dims)[::-1]) == 1


@pytest.mark.parametrize("factor", [0, -1, 100])
def test_rows_that_are_wrong_in_the_file_are_refused_at_load(factor: float, tmp_path: Path) -> None:
    gapcam_export.export("networks:three_layers", tmp_path / "model.onnx", size=(64, 64), topk=3)
    gapcam.load(tmp_path / "model.onnx").close()
    model = onnx.load(tmp_path / "model.onnx")
    place, last = next((place, node) for place, node in enumerate(model.graph.node) if "topk_weights" in node.output)
    last.output[0] = "right_rows"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor), "factor"))
    spoilt = onnx.helper.make_node("Mul", ["right_rows", "factor"], ["topk_weights"])
    model.graph.node.insert(place + 1, spoilt)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(gapcam.VerificationError, match="maps would be wrong"):
        gapcam.load(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda rows: 1.05 * rows, id="a scale"),
        pytest.param(lambda rows: rows[::-1], id="another class's row"),
        pytest.param(lambda rows: rows + 0.1 * np.abs(rows).max() * (np.arange(rows.shape[1]) == 3), id="a channel"),
        pytest.param(lambda rows: np.full_like(rows, np.nan), id="NaN"),
    ],
)
def test_rows_that_are_not_the_gradient_are_noticed(
    spoil: Callable[[NDArray[Any]], NDArray[Any]], tmp_path: Path
) -> None:
    gapcam_export.export("networks:three_layers", tmp_path / "model.onnx", size=(64, 64))
    model = onnx.load(tmp_path / "model.onnx")
    image = np.random.default_rng(0).standard_normal((3, 3, 64, 64), dtype=np.float32)
    head = find_head(model, "logits", image)
    got = run(tmp_path / "model.onnx", image)
    pooled = got["features"].mean((2, 3))[0]
    right, wrong = GradientCheck(head.tail), GradientCheck(head.tail)
    right.measure(pooled, got["topk_classes"][0], got["topk_weights"][0])
    wrong.measure(pooled, got["topk_classes"][0], spoil(got["topk_weights"][0]))
    assert right.error < 1e-5
    assert not wrong.error <= GRADIENT_TOLERANCE


def test_layers_that_do_not_answer_as_the_network_does_are_noticed(tmp_path: Path) -> None:
    gapcam_export.export("networks:three_layers", tmp_path / "model.onnx", size=(64, 64))
    image = np.random.default_rng(0).standard_normal((3, 3, 64, 64), dtype=np.float32)
    chain = find_head(onnx.load(tmp_path / "model.onnx"), "logits", image).tail
    assert isinstance(chain, Chain)
    got = run(tmp_path / "model.onnx", image)
    misread = GradientCheck(replace(chain, answer=lambda pooled: 1.001 * chain.answer(pooled)))
    misread.measure(got["features"].mean((2, 3))[0], got["topk_classes"][0], got["topk_weights"][0])
    assert 5e-4 < misread.error < 2e-3


def test_an_error_counts_by_its_own_images_changes() -> None:
    """Beside an image whose logits change a thousand times as much."""
    weights = np.eye(4, dtype=np.float32)
    layer = Affine(weights, np.zeros(4, np.float32), "", True)
    silu = activation(torch.nn.functional.silu)
    chain = Chain((Layer(layer, silu, "z", "y"), Layer(layer, None, "", "")), lambda pooled: pooled)
    chain = replace(chain, answer=chain.value)
    bright, dim = np.full(4, 1e3), np.full(4, 1e-1)
    slope = torch.full((4,), 1e-1, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.silu(slope).sum().backward()
    right = np.diag(slope.grad.numpy())
    check = GradientCheck(chain)
    check.measure(bright, np.arange(4), np.eye(4))
    check.measure(dim, np.arange(4), right)
    assert check.error < 1e-5
    check.measure(dim, np.arange(4), 1.01 * right)
    assert check.error > 5e-3


def activation(function: Callable[[torch.Tensor], torch.Tensor]) -> Activation:
    found = recognize(function(torch.from_numpy(GRID)[:, None].repeat(1, 3)).numpy())
    assert found is not None
    return found


def hard_swish_that_bends_at_2_5(w: GraphWriter, x: str) -> str:
    above = w.node("Cast", [w.node("Greater", [x, w.number(-3)], "is_above")], "above", to=onnx.TensorProto.FLOAT)
    beyond = w.node("Cast", [w.node("Greater", [x, w.number(2.5)], "is_beyond")], "beyond", to=onnx.TensorProto.FLOAT)
    slope = w.node("Add", [w.node("Div", [x, w.number(3)], "third"), w.number(0.5)], "slope")
    between = w.node("Mul", [w.node("Sub", [above, beyond], "is_between"), slope], "slope_between")
    return w.node("Add", [between, beyond], "hard_swish_slope")


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        pytest.param(
            torch.nn.functional.gelu,
            activation(lambda x: torch.nn.functional.gelu(x, approximate="tanh")).write_derivative,
            id="another GELU's",
        ),
        pytest.param(
            torch.nn.functional.softplus,
            lambda w, x: w.node("Sigmoid", [w.node("Mul", [x, w.number(1.1)], "steeper")], "slope"),
            id="a steeper softplus'",
        ),
        pytest.param(torch.nn.functional.hardswish, hard_swish_that_bends_at_2_5, id="another bend's"),
        pytest.param(
            torch.nn.functional.hardswish, activation(torch.nn.functional.silu).write_derivative, id="that of SiLU"
        ),
    ],
)
def test_a_derivative_that_is_not_the_activations_is_noticed_without_an_image(
    function: Callable[[torch.Tensor], torch.Tensor], wrong: Callable[[GraphWriter, str], str]
) -> None:
    layer = Affine(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), "", True)
    known = activation(function)
    for derivative, is_right in ((known.write_derivative, True), (wrong, False)):
        first = Layer(layer, replace(known, write_derivative=derivative), "z", "y")
        chain = Chain((first, Layer(layer, None, "", "")), lambda pooled: pooled)
        assert (GradientCheck(chain).error <= GRADIENT_TOLERANCE) is is_right


def test_either_slope_is_right_at_a_bend() -> None:
    """x = 1 is at the bend of relu(x - 1)."""
    layer = Affine(np.ones((1, 1), np.float32), -np.ones(1, np.float32), "", True)
    last = Layer(replace(layer, bias=np.ones(1, np.float32)), None, "", "")
    bend = Chain((Layer(layer, activation(torch.relu), "z", "y"), last), lambda pooled: pooled)
    bend = replace(bend, answer=bend.value)
    for slope, is_right in ((0, True), (1, True), (0.5, False), (2, False)):
        check = GradientCheck(bend)
        check.measure(np.ones(1), np.arange(1), np.full((1, 1), slope))
        assert (check.error <= GRADIENT_TOLERANCE) is is_right


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx")
def test_what_mixes_channels_is_no_activation(tmp_path: Path) -> None:
    """x sigmoid(x), each x with another channel's gate: the same only where all channels are alike."""

    class Mixed(networks.GapNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(12, 9), nn.Linear(9, 5)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = self.first(self.features(image).mean((2, 3)))
            return self.head(x * torch.sigmoid(x.flip(1)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomize(Mixed())
    names = {"input_names": ["image"], "output_names": ["end"], "opset_version": 17}
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, 64, 64),),
        tmp_path / "a.onnx",
        dynamo=False,
        dynamic_axes={"image": {0: "n"}},
        **names,
    )
    with pytest.raises(gapcam_export.HeadError, match="neither an affine map"):
        gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "model.onnx")
