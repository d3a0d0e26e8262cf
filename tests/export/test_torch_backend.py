"""A session that runs a network in PyTorch: what it answers is PyTorch's own, and what the exported model answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import timm
import torch
import torchvision
from networks import randomize, seeded
from numpy.typing import NDArray
from safetensors.torch import save_model
from small_architectures import OneOfParts, Overwritten, OverwrittenLater
from small_models import red_and_blue
from torch import Tensor, nn

import gapcam
import gapcam_export
from gapcam.contract import HeadKind, Source
from gapcam.errors import BackendError, UsageError, VerificationError
from gapcam_export.comparison.torch_backend import torch_session
from gapcam_export.comparison.torch_calls import Place, find_places
from gapcam_export.comparison.torch_tap import TappedNetwork
from gapcam_export.errors import SourceError
from gapcam_export.photographs import default_photographs
from gapcam_export.program import ProgramRecord, save_program

# Of the greatest value: float32 sums in another order, through all of a network.
TOLERANCE = 1e-3
SIZE = (64, 64)


def weights_of(spec: str, path: Path) -> Path:
    """Random weights for a network of torchvision's or timm's, as a checkpoint."""
    library, name = spec.split(":")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build = torchvision.models.get_model if library == "torchvision" else timm.create_model
        save_model(randomize(build(name)), str(path))
    return path


def assert_close(got: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    assert got.shape == expected.shape, what
    assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max(), what


def assert_alike(ours: gapcam.Session, exported: gapcam.Session) -> None:
    """PyTorch's answers to two photographs are those of the exported model, maps and all."""
    assert ours.engine.startswith("torch ")
    assert exported.engine.startswith("onnxruntime ")
    for frame in default_photographs()[:2]:
        got, expected = ours(frame), exported(frame)
        assert_close(got.logits, expected.logits, "logits")
        assert_close(got.features, expected.features, "features")
        best = [prediction.index for prediction in expected.best(3)]
        assert [prediction.index for prediction in got.best(3)] == best
        assert_close(got.maps(best), expected.maps(best), "maps")
        assert got.best(1)[0].score == pytest.approx(expected.best(1)[0].score, rel=1e-2)


LIBRARIES = {
    "torchvision:resnet18": HeadKind.AFFINE,
    "torchvision:mobilenet_v3_small": HeadKind.NONLINEAR,
}


@pytest.mark.parametrize(("spec", "kind"), LIBRARIES.items())
def test_a_librarys_network_answers_as_its_export_does(spec: str, kind: HeadKind, tmp_path: Path) -> None:
    checkpoint = weights_of(spec, tmp_path / "weights.safetensors")
    gapcam_export.export(spec, tmp_path / "model.onnx", checkpoint=checkpoint, size=SIZE, static_batch=True)
    with (
        gapcam.load(tmp_path / "model.onnx", threads=1) as exported,
        torch_session(spec, checkpoint=checkpoint, like=exported.contract) as ours,
    ):
        assert ours.contract.head.kind is kind
        assert_alike(ours, exported)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("small_architectures:swin", HeadKind.AFFINE),
        ("small_architectures:densenet", HeadKind.AFFINE),
        ("small_architectures:squeezenet", HeadKind.CLASS_MAPS),
        ("small_architectures:convnext", HeadKind.LAYERNORM),
        ("small_architectures:root_mean_square_head", HeadKind.LAYERNORM),
        ("vision_transformers:averaged_without_its_registers", HeadKind.LAYERNORM),
    ],
)
def test_a_factorys_network_answers_as_its_export_does(spec: str, kind: HeadKind, tmp_path: Path) -> None:
    size = (64, 96) if spec.startswith("vision") else SIZE
    gapcam_export.export(spec, tmp_path / "model.onnx", size=size, static_batch=True)
    with (
        gapcam.load(tmp_path / "model.onnx", threads=1) as exported,
        torch_session(spec, like=exported.contract) as ours,
    ):
        assert ours.contract.head.kind is kind
        assert_alike(ours, exported)


def test_an_exported_program_answers_as_its_export_does(tmp_path: Path) -> None:
    record = ProgramRecord(producer="tests", source=Source(spec="tests", sha256="0" * 64), preprocessing=None)
    spec = str(tmp_path / "network.pt2")
    save_program(networks.three_layers(), SIZE, record, Path(spec))
    gapcam_export.export(spec, tmp_path / "model.onnx", static_batch=True)
    with (
        gapcam.load(tmp_path / "model.onnx", threads=1) as exported,
        torch_session(spec, like=exported.contract) as ours,
    ):
        assert_alike(ours, exported)


def test_logits_and_features_are_pytorchs_to_the_last_bit(cat: NDArray[np.uint8]) -> None:
    network, seen = networks.three_layers(), []
    network.last.register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch_session("networks:three_layers") as ours:
        result = ours(cat)
        image = torch.tensor(gapcam.preprocess(cat, ours.contract.preprocessing)[None])
    with torch.no_grad():
        logits = network(image)
    np.testing.assert_array_equal(result.logits, logits[0].numpy())
    np.testing.assert_array_equal(result.features, seen[0][0].numpy())


def test_frames_are_preprocessed_as_for_the_model_that_it_is_compared_with(tmp_path: Path) -> None:
    """In another size, colour order and normalisation than would be assumed, and in the graph; before a Softmax."""
    settings: dict[str, Any] = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.4, 0.3), "resize": "letterbox", "color": "bgr"}
    spec, path = "networks:with_softmax", tmp_path / "model.onnx"
    gapcam_export.export(spec, path, size=(48, 80), embed=True, **settings)
    with gapcam.load(path, threads=1) as exported, torch_session(spec, like=exported.contract) as ours:
        assert_alike(ours, exported)


def test_a_network_with_other_weights_answers_otherwise(tmp_path: Path) -> None:
    gapcam_export.export("networks:gap_network", tmp_path / "model.onnx", size=SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = randomize(networks.GapNetwork(), seed=1)
    save_model(other, str(tmp_path / "other.safetensors"))
    with (
        gapcam.load(tmp_path / "model.onnx", threads=1) as exported,
        torch_session(
            "networks:gap_network", checkpoint=tmp_path / "other.safetensors", like=exported.contract
        ) as ours,
        pytest.raises(AssertionError, match="logits"),
    ):
        assert_alike(ours, exported)


def test_steps_are_told_and_threads_are_given_back(cat: NDArray[np.uint8]) -> None:
    before, steps = torch.get_num_threads(), []
    with torch_session("networks:gap_network", threads=before + 1, progress=steps.append) as ours:
        ours(cat)
    assert torch.get_num_threads() == before
    assert [step.split()[0] for step in steps] == ["building", "exporting", "finding"]
    with pytest.raises(UsageError, match="closed"):
        ours(cat)


@pytest.mark.parametrize("network", [Overwritten, OverwrittenLater, OneOfParts])
def test_rows_are_the_heads_derivative_however_the_features_are_written(network: type[networks.ThreeLayers]) -> None:
    built = seeded(network)
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, logits = built.features(image), built(image)
    places = find_places(built, image, {"features": features, "logits": logits})
    tapped = TappedNetwork(built, places["features"], (12, 4, 4), places["logits"], 5).run(image, with_gradients=True)
    torch.testing.assert_close(tapped.features, features[0], rtol=0, atol=0)
    torch.testing.assert_close(tapped.logits.detach(), logits[0], rtol=0, atol=0)
    rows = torch.func.jacrev(built.head)(features.mean((2, 3)))[0, :, 0]
    torch.testing.assert_close(torch.stack([tapped.row(index) for index in range(5)]), rows.detach())


# What is refused.


def test_random_weights_are_refused() -> None:
    with pytest.raises(UsageError, match=r"has random weights, .* --checkpoint FILE"):
        torch_session("torchvision:resnet18")


def test_a_file_in_onnx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no network in PyTorch"):
        torch_session(str(red_and_blue(tmp_path / "model.onnx")))


def test_a_factory_that_gives_other_weights_each_time_is_refused() -> None:
    with pytest.raises(SourceError, match=r"no tensor in PyTorch's own run .* other weights each time"):
        torch_session("networks:GapNetwork")


WEIGHT = torch.ones(3, requires_grad=True)


def tail_of(features: Tensor) -> Tensor:
    return features.mean((2, 3)).square()


def test_a_network_that_takes_another_course_is_an_error() -> None:
    def network(image: Tensor) -> Tensor:
        return tail_of(image.relu() if image.sum() > 0 else image.relu().neg().neg().sin())

    image = torch.ones(1, 3, 4, 4)
    places = find_places(network, image, {"features": image.relu(), "logits": network(image)})
    tapped = TappedNetwork(network, places["features"], (3, 4, 4), places["logits"], 3)
    np.testing.assert_allclose(tapped.run(image, with_gradients=True).row(1), [0, 2, 0])
    with pytest.raises(BackendError, match="takes another course"):
        tapped.run(-image, with_gradients=True)


@pytest.mark.parametrize(
    "reduced",
    [lambda features: features.amax((2, 3)), lambda features: torch.tensor(features.mean((2, 3)).tolist()) * WEIGHT],
    ids=["maximum", "nothing of it"],
)
def test_logits_that_do_not_follow_from_the_mean_have_no_row(reduced: Any) -> None:
    def network(image: Tensor) -> Tensor:
        return reduced(image.relu()).square()

    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    places = find_places(network, image, {"features": image.relu(), "logits": network(image).detach()})
    tapped = TappedNetwork(network, places["features"], (3, 4, 4), places["logits"], 3)
    with pytest.raises(VerificationError, match="do not follow from the mean"):
        tapped.run(image, with_gradients=True).row(0)


def test_a_failure_of_pytorchs_is_one_line() -> None:
    tapped = TappedNetwork(nn.Linear(5, 2), Place(0, 0, "as it is"), (3, 4, 4), Place(1, 0, "as it is"), 2)
    with pytest.raises(BackendError, match=r"PyTorch fails to run the network on \[1, 3, 4, 4\]: .*mat1 and mat2"):
        tapped.run(torch.ones(1, 3, 4, 4), with_gradients=False)


@pytest.mark.parametrize(
    ("change", "arrangement"),
    [
        (lambda maps: maps + 0, "as it is"),
        (lambda maps: (maps + 0).permute(0, 2, 3, 1), "nhwc"),
        (lambda maps: maps.flatten(2).transpose(1, 2), "tokens"),
        (lambda maps: maps.flatten(2), "channels-tokens"),
    ],
)
def test_the_last_of_several_tensors_with_these_values_is_found_however_it_lies(change: Any, arrangement: str) -> None:
    def network(image: Tensor) -> Tensor:
        maps = image.exp()
        changed = change(maps)
        maps.zero_()
        return changed * 2

    image = torch.rand(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    place = find_places(network, image, {"features": image.exp()})["features"]
    assert place.arrangement == arrangement
