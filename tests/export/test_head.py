"""What is taken for a head, and what is not: the worst mistake is a map that is wrong without a word."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from timm.layers import use_fused_attn
from timm.models import register_model
from timm.models.nest import Nest

import gapcam
import gapcam_export
from gapcam.contract import HeadKind
from gapcam.errors import VerificationError
from gapcam_export.affine import read_affine


def export(name: str, folder: Path, size: tuple[int, int] = (64, 96)) -> gapcam_export.Report:
    return gapcam_export.export(f"networks:{name}", folder / "model.onnx", size=size)


@pytest.mark.parametrize("name", ["ensemble", "late_ensemble", "columns_first"])
def test_features_are_the_last_maps_of_the_image_whatever_looks_like_maps_after_them(
    name: str, tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    report = export(name, tmp_path)
    model = getattr(networks, name)()
    with gapcam.load(tmp_path / "model.onnx") as session, torch.no_grad():
        result = session(cat)
        image = torch.from_numpy(gapcam.preprocess(cat, report.contract.preprocessing))[None]
        np.testing.assert_allclose(result.features, model.features(image)[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(result.logits, model(image)[0].numpy(), atol=1e-5)


def test_tokens_row_by_row_become_the_grid_of_the_image(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    report = export("normed_rows", tmp_path)
    assert report.contract.head.layout == "tokens"
    assert "the 24 tokens that are averaged were taken for a grid of 4x6, row by row" in report.notes
    model = networks.normed_rows()
    with gapcam.load(tmp_path / "model.onnx") as session, torch.no_grad():
        image = torch.from_numpy(gapcam.preprocess(cat, report.contract.preprocessing))[None]
        tokens = model.norm(model.features(image).permute(0, 2, 3, 1))
        expected = tokens.permute(0, 3, 1, 2)[0].numpy()
        np.testing.assert_allclose(session(cat).features, expected, atol=1e-4)


def test_a_grid_that_does_not_divide_the_image_evenly_is_found(tmp_path: Path) -> None:
    report = export("normed_rows", tmp_path, size=(90, 160))  # strides of 4 and 4, the edges filled up
    assert "features [batch,12,6,10] float" in map(str, report.outputs)


def test_tokens_in_another_order_than_the_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="do not lie like the image"):
        export("normed_columns", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("norm_and_tanh", HeadKind.NONLINEAR, "stand LayerNormalization, Gemm, Tanh, Gemm: neither"),
        ("exponential_head", HeadKind.NONLINEAR, "stand Gemm, Exp, Gemm: neither"),
        ("max_pooled", HeadKind.NONE, "pooled by their maximum. A maximum looks at one point"),
    ],
)
def test_a_head_that_is_not_affine_is_refused_with_the_right_reason(
    name: str, kind: HeadKind, said: str, tmp_path: Path
) -> None:
    with pytest.raises(gapcam_export.HeadError) as error:
        export(name, tmp_path)
    assert error.value.kind is kind
    assert said in str(error.value)
    assert "`gapcam gap SOURCE -o gapnet.pt2`" in str(error.value)


def test_a_vision_transformer_with_a_class_token_is_refused_as_one(tmp_path: Path) -> None:
    with pytest.raises(gapcam_export.HeadError, match=r"a class token or attention takes what it needs"):
        gapcam_export.export("timm:test_vit", tmp_path / "model.onnx")


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx")
def test_what_a_clip_before_the_pooling_leaves_is_what_is_averaged(tmp_path: Path) -> None:
    """A Clip whose bounds neither noise nor photographs reach, and that a frame may."""

    class Clipped(networks.GapNetwork):
        def features(self, image: torch.Tensor) -> torch.Tensor:
            return super().features(image).clamp(-5.1, 5.1)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = networks.randomize(Clipped())
    image = 100 * torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32))
    names = {"input_names": ["image"], "output_names": ["end"], "opset_version": 17}
    torch.onnx.export(
        model, (image,), tmp_path / "source.onnx", dynamo=False, dynamic_axes={"image": {0: "n"}}, **names
    )
    gapcam_export.export(str(tmp_path / "source.onnx"), tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"image": image.numpy()})
    assert features.max() == np.float32(5.1)
    np.testing.assert_allclose(features, model.features(image).detach().numpy(), rtol=0, atol=1e-4)


def test_a_linear_layers_weights_are_not_taken_for_what_a_fresh_batchnorm_makes_of_them() -> None:
    random = np.random.default_rng(0)
    weights, vectors = random.standard_normal((5, 12)).astype(np.float32), [random.standard_normal((16, 12))]
    folded = (weights / np.sqrt(1 + 1e-5)).astype(np.float32)
    for own, stored in ((weights, "W"), (folded, "")):
        found = read_affine(lambda x, own=own: x.astype(np.float32) @ own.T, vectors, {"W": weights})
        assert found is not None
        assert found.stored == stored
        np.testing.assert_allclose(found.weights, own, rtol=1e-6, atol=1e-7)


def test_a_head_of_zeros_is_said_to_prove_nothing(tmp_path: Path) -> None:
    state = networks.gap_network().state_dict()
    state["head.weight"].zero_()
    torch.save(state, tmp_path / "zeros.pt")
    report = gapcam_export.export(
        "networks:gap_network", tmp_path / "model.onnx", size=(64, 64), checkpoint=tmp_path / "zeros.pt"
    )
    assert any("weights are all zero" in note for note in report.notes)


@register_model
def small_nest(**_: object) -> Nest:
    """One whose attention PyTorch's exporter cannot write while it is fused."""
    network = Nest(img_size=64, num_levels=2, embed_dims=(16, 32), num_heads=(2, 2), depths=(1, 1), num_classes=5)
    network.pretrained_cfg = {}
    return network


def test_timms_fused_attention_is_as_it_was_after_an_export(tmp_path: Path) -> None:
    before = use_fused_attn()
    report = gapcam_export.export("timm:small_nest", tmp_path / "model.onnx", size=(64, 64))
    assert report.contract.verification.source_error < 1e-4
    assert use_fused_attn() is before


def test_a_network_that_mixes_all_positions_is_said_to_hide_them(tmp_path: Path) -> None:
    hidden = "whether the maps lie like the image could not be told: the network mixes all positions"
    assert hidden in gapcam_export.export("timm:mixer_s16_224", tmp_path / "model.onnx").notes
    assert hidden not in export("gap_network", tmp_path).notes
