"""GAP surgery in Python: what comes out of which network, and how near it is to what went in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import torchvision
from networks import GapNetwork, WithSoftmax, randomize, seeded
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import gapcam
import gapcam_export
from gapcam.contract import HeadKind
from gapcam.errors import DataError, UsageError
from gapcam.preprocessing import preprocess
from gapcam_export.errors import SourceError
from gapcam_export.program import HEAD_PREFIX, load_program

SIZE = (64, 64)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, cat: NDArray[np.uint8]) -> Path:
    """A folder of 24 parts of photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(24):
        top, left = random.integers(100), random.integers(200)
        cv2.imwrite(str(folder / f"{number:02}.png"), cat[top : top + 200, left : left + 250])
    return folder


def logits(network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return network(image)


# The paper's recipes.


@pytest.mark.parametrize(
    ("preset", "side", "conv"),
    [
        ("alexnet", 13, 1024),
        pytest.param("vgg16", 14, 1024, marks=pytest.mark.slow),
        pytest.param("googlenet", 14, 1024, marks=pytest.mark.slow),
    ],
)
def test_the_papers_recipes_give_its_maps_and_export_exactly(tmp_path: Path, preset: str, side: int, conv: int) -> None:
    path = tmp_path / "gapnet.pt2"
    made = gapcam_export.gap_surgery(f"torchvision:{preset}", path, preset=preset, groups=2, dropout=0.5)
    assert made.after.features == (conv, side, side)
    assert (made.initial, made.agreement) == ("random", None)
    assert any("before it is fine-tuned" in note for note in made.notes)
    head = made.network.head
    assert (head.conv.kernel_size, head.conv.stride, head.conv.padding, head.conv.groups) == ((3, 3), (1, 1), (1, 1), 2)
    assert (head.dropout.p, head.linear.in_features, head.linear.out_features) == (0.5, conv, 1000)
    assert made.file_bytes == path.stat().st_size
    # A file is its weights and a little.
    assert made.after.weights_bytes < made.file_bytes < 1.02 * made.after.weights_bytes + 500_000
    del made, head

    exported = gapcam_export.export(str(path), tmp_path / "model.onnx")
    assert exported.contract.head.kind is HeadKind.AFFINE
    assert exported.contract.verification.identity_error < 1e-5
    assert {value.name: value.shape for value in exported.outputs}["features"] == ("batch", conv, side, side)
    assert not [note for note in exported.notes if "random" in note or "assumed" in note]
    assert exported.contract.labels[281] == "tabby"


def test_a_recipe_for_another_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"preset vgg16 expects 512 channels of 14x14 at 224x224.*got 256 of 13x13"):
        gapcam_export.gap_surgery("torchvision:alexnet", None, preset="vgg16")


# Heads that are affine already.


def test_an_affine_head_keeps_its_logits() -> None:
    network = randomize(torchvision.models.resnet18(num_classes=9))
    image = torch.randn(3, 3, *SIZE)
    before = logits(network, image)
    for conv, groups in ((0, 1), (600, 2)):
        made = gapcam_export.gap_surgery(network, None, size=SIZE, conv=conv, groups=groups)
        assert made.initial == "kept"
        torch.testing.assert_close(logits(made.network, image), before, rtol=1e-5, atol=1e-5)
        assert made.agreement.top1 == 1
        assert made.agreement.relative_error < 1e-5
    assert {name for name, _ in made.network.named_parameters() if name.startswith(HEAD_PREFIX)} == {
        "head.conv.weight", "head.conv.bias", "head.linear.weight", "head.linear.bias"
    }  # fmt: skip


def test_a_network_is_given_back_in_the_mode_that_it_was_in() -> None:
    network = seeded(GapNetwork).train()
    network.last.eval()
    made = gapcam_export.gap_surgery(network, None, size=SIZE)
    assert (network.training, network.stem.training, network.last.training) == (True, True, False)
    image = torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(logits(made.network, image), logits(network.eval(), image))


def test_too_few_units_to_pass_all_channels_do_not_keep_the_head() -> None:
    network = randomize(torchvision.models.resnet18(num_classes=9))
    assert gapcam_export.gap_surgery(network, None, size=SIZE, conv=256).initial == "random"


def test_stride_makes_the_maps_finer_and_keeps_weights_and_bias() -> None:
    network = randomize(torchvision.models.resnet18(num_classes=9))
    made = gapcam_export.gap_surgery(network, None, size=SIZE, stride=16)
    assert (made.before.features, made.after.features) == ((512, 2, 2), (512, 4, 4))
    assert made.after.parameters == made.before.parameters
    assert made.after.flops > 1.4 * made.before.flops
    assert torch.equal(made.network.head.linear.weight, network.fc.weight)
    assert torch.equal(made.network.head.linear.bias, network.fc.bias)
    # On a fine grid at every second position stands what stood on the coarse one.
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        coarse = nn.Sequential(*list(network.children())[:-2])(image)
        torch.testing.assert_close(made.network.backbone(image)[:, :, ::2, ::2], coarse, rtol=1e-4, atol=1e-4)


class PooledTwice(GapNetwork):
    """A maximum over 2 x 2 before the average, which the old head's weights are for."""

    def features(self, image: Tensor) -> Tensor:
        return nn.functional.max_pool2d(super().features(image), 2)


def test_a_pooling_stays_where_the_head_after_it_is_affine() -> None:
    network, image = seeded(PooledTwice), torch.randn(2, 3, *SIZE)
    made = gapcam_export.gap_surgery(network, None, size=SIZE)
    assert (made.initial, made.after.features) == ("kept", (12, 2, 2))
    torch.testing.assert_close(logits(made.network, image), logits(network, image))


def test_a_softmax_goes_and_a_note_says_so() -> None:
    network, image = seeded(WithSoftmax), torch.randn(2, 3, *SIZE)
    made = gapcam_export.gap_surgery(network, None, size=SIZE)
    assert "the softmax at the network's end went, too: the new network gives logits" in made.notes
    torch.testing.assert_close(logits(made.network, image).softmax(1), logits(network, image))


def test_labels_that_do_not_exclude_each_other_stay_so(tmp_path: Path) -> None:
    made = gapcam_export.gap_surgery("networks:with_sigmoid", tmp_path / "gapnet.pt2", size=SIZE)
    assert "the sigmoid at the network's end went, too: the new network gives logits" in made.notes
    exported = gapcam_export.export(str(tmp_path / "gapnet.pt2"), tmp_path / "model.onnx")
    assert exported.contract.head.scores == "sigmoid"


# Heads that are not.


class SmoothHead(GapNetwork):
    """A head that is nearly affine on its features."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))


def test_a_nonlinear_head_is_replaced_by_its_best_affine_fit(photographs: Path, cat: NDArray[np.uint8]) -> None:
    network = seeded(SmoothHead)
    made = gapcam_export.gap_surgery(network, None, size=SIZE, calibrate=photographs, views=6)
    assert made.initial == "fitted"
    assert made.agreement.correlation > 0.98
    assert made.agreement_on == "6 views of each of 6 photographs that were held out of the fit"
    # The fit is of the logits themselves, on a photograph that is none of the folder's.
    frame = cat[40:260, 90:330]
    image = torch.from_numpy(preprocess(frame, gapcam.Preprocessing(size=SIZE)))[None]
    old, new = logits(network, image), logits(made.network, image)
    assert (new - old).norm() < 0.1 * old.norm()
    unfitted = gapcam_export.gap_surgery(network, None, size=SIZE)
    assert unfitted.initial == "random"
    assert (logits(unfitted.network, image) - old).norm() > 0.5 * old.norm()


def test_the_fit_sees_the_old_features_through_the_new_convolution(photographs: Path) -> None:
    network = seeded(SmoothHead)
    plain = gapcam_export.gap_surgery(network, None, size=SIZE, calibrate=photographs, views=6)
    passed = gapcam_export.gap_surgery(network, None, size=SIZE, calibrate=photographs, views=6, conv=16)
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        features = passed.network.backbone(image)
        assert torch.equal(torch.relu(passed.network.head.conv(features))[:, :12], features)
    assert passed.agreement.correlation > plain.agreement.correlation - 0.01


def test_a_new_number_of_classes_is_random_with_names_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\nnewt\n")
    network = randomize(torchvision.models.resnet18(num_classes=9))
    made = gapcam_export.gap_surgery(
        network, tmp_path / "gapnet.pt2", size=SIZE, classes=3, labels=tmp_path / "names.txt"
    )
    assert (made.initial, made.network.head.linear.out_features) == ("random", 3)
    assert load_program(tmp_path / "gapnet.pt2").record.labels == ("cat", "dog", "newt")
    with pytest.raises(gapcam_export.LabelsError, match="has 3 names, the network 9 classes"):
        gapcam_export.gap_surgery(network, None, size=SIZE, labels=tmp_path / "names.txt")


# Transformers: tokens and channels last, through the export.


def small_vit() -> nn.Module:
    return VisionTransformer(img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=9, reg_tokens=2)


def small_swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=[4, 4], num_classes=9
    )


@pytest.mark.parametrize(("build", "initial"), [(small_vit, "random"), (small_swin, "kept")])
def test_transformers_become_networks_whose_maps_are_exact(
    tmp_path: Path, build: type[nn.Module], initial: str
) -> None:
    torch.manual_seed(0)
    made = gapcam_export.gap_surgery(randomize(build()), tmp_path / "gapnet.pt2", size=SIZE)
    assert made.initial == initial
    assert made.after.features[1:] == (8, 8)
    assert any("belong to no place" in note for note in made.notes) == (build is small_vit)
    exported = gapcam_export.export(str(tmp_path / "gapnet.pt2"), tmp_path / "model.onnx")
    assert exported.contract.head.kind is HeadKind.AFFINE
    assert exported.contract.verification.identity_error < 1e-5


# Programs as sources.


@pytest.fixture(scope="module")
def gapnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gapnet") / "gapnet.pt2"
    gapcam_export.gap_surgery(seeded(SmoothHead), path, size=SIZE)
    return path


def test_a_gap_network_can_go_under_the_knife_again(tmp_path: Path, gapnet: Path) -> None:
    again = tmp_path / "again.pt2"
    made = gapcam_export.gap_surgery(str(gapnet), again, conv=16)
    first, second = load_program(gapnet), load_program(again)
    assert made.initial == "kept"
    assert second.record.history[: len(first.record.history)] == first.record.history
    assert len(second.record.history) > len(first.record.history)
    assert second.record.source == first.record.source
    image = torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(logits(second.model, image), logits(first.model, image), rtol=1e-5, atol=1e-5)


def test_another_size_of_a_program_is_refused_with_what_makes_it(tmp_path: Path, gapnet: Path) -> None:
    for use in (
        lambda: gapcam_export.gap_surgery(str(gapnet), None, size=(96, 96)),
        lambda: gapcam_export.export(str(gapnet), tmp_path / "model.onnx", size=(96, 96)),
    ):
        with pytest.raises(UsageError, match=r"traced at 64x64 and takes no other size.*gapcam gap .*--size"):
            use()
    with pytest.raises(UsageError, match="has its weights inside; --pretrained is for"):
        gapcam_export.export(str(gapnet), tmp_path / "model.onnx", pretrained=True)


def test_a_checkpoint_goes_into_a_program_by_its_parameters_names(tmp_path: Path, gapnet: Path) -> None:
    weights = load_program(gapnet).model.state_dict()
    weights["head.linear.bias"] += 3
    torch.save(weights, tmp_path / "tuned.pt")
    one = gapcam_export.export(str(gapnet), tmp_path / "one.onnx")
    other = gapcam_export.export(str(gapnet), tmp_path / "other.onnx", checkpoint=tmp_path / "tuned.pt")
    assert (one.contract.source.checkpoint, other.contract.source.checkpoint) == ("", "tuned.pt")
    frame = np.zeros((64, 64, 3), np.uint8)
    with gapcam.load(one.path) as before, gapcam.load(other.path) as after:
        np.testing.assert_allclose(after(frame).logits, before(frame).logits + 3, rtol=1e-5)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(gapcam_export.CheckpointError, match="does not fit the network"):
        gapcam_export.export(str(gapnet), tmp_path / "model.onnx", checkpoint=tmp_path / "other.pt")


def test_somebody_elses_program_is_exported_and_operated_on(tmp_path: Path) -> None:
    program = torch.export.export(
        seeded(GapNetwork), (torch.zeros(2, 3, *SIZE),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, tmp_path / "plain.pt2")
    exported = gapcam_export.export(str(tmp_path / "plain.pt2"), tmp_path / "model.onnx")
    assert exported.contract.preprocessing.size == SIZE
    assert any("no record of its preprocessing" in note for note in exported.notes)
    assert gapcam_export.gap_surgery(str(tmp_path / "plain.pt2"), None).initial == "kept"


def test_what_is_said_of_the_preprocessing_is_kept_for_all_that_follows(tmp_path: Path) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    said = gapcam_export.gap_surgery(
        "networks:gap_network", tmp_path / "said.pt2", size=SIZE, mean=mean, std=std, resize="letterbox", color="bgr"
    )
    assert not any("no record of its preprocessing" in note for note in said.notes)
    kept = gapcam_export.export(str(tmp_path / "said.pt2"), tmp_path / "model.onnx").contract.preprocessing
    assert (kept.size, kept.mean, kept.std, kept.resize, kept.color) == (SIZE, mean, std, "letterbox", "bgr")

    assumed = gapcam_export.gap_surgery("networks:gap_network", tmp_path / "assumed.pt2", size=SIZE)
    assert any("no record of its preprocessing" in note for note in assumed.notes)
    assert load_program(tmp_path / "assumed.pt2").record.preprocessing is None


# Bad input.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mean": (128.0, 0.5, 0.5)}, "expected values on the scale 0..1"),
        ({"conv": -1}, "--conv is -1; expected 0 or more"),
        ({"groups": 2}, "but no convolution is added"),
        ({"groups": 5, "conv": 16}, "--groups 5 does not divide the convolution's 16 units"),
        ({"groups": 8, "conv": 16}, "--groups 8 does not divide the 12 feature maps"),
        ({"dropout": 1.0}, "expected a probability from 0 to below 1"),
        ({"size": (0, 64)}, "each 1 or more"),
        ({"cut_stride": 512}, r"--cut-stride is 512; every path passes through maps of 16x16 \(stride 4\), 4x4"),
        ({"preset": "vgg61"}, "there is no preset 'vgg61'; expected alexnet, vgg16, googlenet"),
        ({"checkpoint": "a.pt"}, "a network has its weights"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        gapcam_export.gap_surgery(seeded(GapNetwork), None, **{"size": SIZE, **options})


def test_photographs_that_are_not_there_are_reported(tmp_path: Path, photographs: Path) -> None:
    network = seeded(SmoothHead)
    with pytest.raises(DataError, match="there is no such folder"):
        gapcam_export.gap_surgery(network, None, calibrate=tmp_path / "none")
    with pytest.raises(DataError, match="holds no image"):
        gapcam_export.gap_surgery(network, None, calibrate=tmp_path)
    (tmp_path / "one.png").write_bytes((photographs / "00.png").read_bytes())
    with pytest.raises(DataError, match="holds one image; expected two or more"):
        gapcam_export.gap_surgery(network, None, calibrate=tmp_path)
    (tmp_path / "two.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"two\.png"):
        gapcam_export.gap_surgery(network, None, size=SIZE, calibrate=tmp_path)
    with pytest.raises(UsageError, match="--calibrate fits the new head to the old classes' logits"):
        gapcam_export.gap_surgery(network, None, calibrate=photographs, classes=3)


def test_onnx_is_refused_with_the_reason(tmp_path: Path) -> None:
    shape = ["N", 3, 8, 8]
    image, out = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [image], [out])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(SourceError, match="is an ONNX model; surgery traces a network in PyTorch"):
        gapcam_export.gap_surgery(str(tmp_path / "model.onnx"), None)
