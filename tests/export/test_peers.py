"""Two peers that work in PyTorch, torch-cam and grad-cam, on the same networks and the same image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from networks import randomize
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_model
from torchcam.methods import CAM

import gapcam
import gapcam_export

CLASSES = (281, 0, 999)
NETWORKS = {"resnet18": ("layer4", "fc"), "mobilenet_v2": ("features", "classifier.1")}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.nn.Module, str, str, Path]:
    """A network, its target layer and head, and its export."""
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomize(torchvision.models.get_model(request.param, weights=None))
    save_model(model, str(folder / "weights.safetensors"))
    gapcam_export.export(
        f"torchvision:{request.param}", folder / "model.onnx", checkpoint=folder / "weights.safetensors"
    )
    return model, *NETWORKS[request.param], folder / "model.onnx"


def test_maps_equal_torch_cams(exported: tuple[torch.nn.Module, str, str, Path], cat: NDArray[np.uint8]) -> None:
    model, layer, head, path = exported
    with gapcam.load(path) as session:
        result = session(cat)
        image = torch.from_numpy(gapcam.preprocess(cat, session.contract.preprocessing))[None]
    with CAM(model, target_layer=layer, fc_layer=head) as extractor, torch.no_grad():
        scores = model(image)
        for index in CLASSES:
            (theirs,) = extractor(index, scores, normalized=False)
            ours = result.map(index)
            np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=0, atol=1e-4 * np.abs(ours).max())


def test_maps_equal_grad_cams_up_to_relu_and_scaling(
    exported: tuple[torch.nn.Module, str, str, Path], cat: NDArray[np.uint8]
) -> None:
    model, layer, _, path = exported
    with gapcam.load(path) as session:
        result = session(cat)
        image = torch.from_numpy(gapcam.preprocess(cat, session.contract.preprocessing))[None]
    with GradCAM(model, [model.get_submodule(layer)]) as extractor:
        for index in (prediction.index for prediction in result.top[:3]):
            theirs = extractor(image, [ClassifierOutputTarget(index)])[0]
            # The gradient of a mean of h*w values is 1/(h*w). It scales twice: before and after it averages layers.
            positive = np.maximum(result.map(index), 0) / result.map(index).size
            assert positive.max() > 0
            ours = scale_cam_image(scale_cam_image(positive[None], theirs.shape[::-1]))[0]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
