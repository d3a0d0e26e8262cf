"""What `gapcam_export.export` can be asked for, on a small network whose numbers are easy to recompute."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torchvision
from networks import gap_network, many_layers_in_head
from numpy.typing import NDArray
from safetensors.torch import save_file

import gapcam
import gapcam_export
from gapcam.contract import CAM_BIAS, CAM_WEIGHTS, FEATURES, HeadKind, contract_from_metadata

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def run(path: Path, image: NDArray[np.generic], *names: str) -> list[NDArray[np.generic]]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, {"image": image})


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def test_the_graph_has_the_contracts_tensors_and_no_second_copy_of_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    report = gapcam_export.export("networks:gap_network", path, size=(64, 96), mean=MEAN, std=STD)

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [str(tensor) for tensor in report.inputs] == ["image [batch,3,64,96] float"]
    assert [str(tensor) for tensor in report.outputs] == [
        "logits [batch,5] float",
        "features [batch,12,4,6] float",
        "cam_weights [5,12] float",
        "cam_bias [5] float",
    ]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    head = gap_network().head
    np.testing.assert_array_equal(constants[CAM_WEIGHTS], head.weight.detach().numpy())
    np.testing.assert_array_equal(constants[CAM_BIAS], head.bias.detach().numpy())
    assert [value.size for value in constants.values()].count(5 * 12) == 1
    assert not any(node.metadata_props for node in model.graph.node)  # nothing of the exporting machine
    contract = contract_from_metadata({entry.key: entry.value for entry in model.metadata_props}, "model.onnx")
    assert contract == report.contract
    assert (contract.preprocessing.mean, contract.preprocessing.std) == (MEAN, STD)
    assert report.size_bytes == path.stat().st_size


def test_several_affine_layers_after_the_pooling_are_folded_into_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    report = gapcam_export.export("networks:many_layers_in_head", path, size=(64, 64))

    model = many_layers_in_head()
    image = noise(3, 3, 64, 64)
    with torch.no_grad():
        features = model.features(torch.from_numpy(image))
        logits = model(torch.from_numpy(image)).numpy()
        norm, _, first, second = model.head
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weights = (second.weight @ first.weight * scale).numpy()
        bias = (second.bias + second.weight @ first.weight @ (norm.bias - norm.running_mean * scale)).numpy()
    got = dict(zip((value.name for value in report.outputs), run(path, image), strict=True))
    assert report.contract.head.kind is HeadKind.AFFINE
    np.testing.assert_allclose(got[CAM_WEIGHTS], weights, atol=1e-6)
    np.testing.assert_allclose(got[CAM_BIAS], bias, atol=1e-6)
    np.testing.assert_allclose(got[FEATURES], features.numpy(), atol=1e-5)
    np.testing.assert_allclose(got["logits"], logits, atol=1e-5)
    names = {node.op_type for node in onnx.load(path).graph.node}
    assert "BatchNormalization" in names  # the source's own layers compute the logits still, to the last bit


def test_maps_and_the_best_classes_maps_can_be_computed_in_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    gapcam_export.export("networks:gap_network", path, size=(64, 64), emit=("maps", "topk"), topk=3)

    names = ["logits", FEATURES, CAM_WEIGHTS, "maps", "topk_classes", "topk_maps"]
    logits, features, weights, maps, classes, best = run(path, noise(4, 3, 64, 64), *names)
    expected = np.einsum("kc,nchw->nkhw", weights, features)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    np.testing.assert_array_equal(classes, np.argsort(-logits, axis=1)[:, :3])
    np.testing.assert_allclose(best, np.stack([expected[n, classes[n]] for n in range(4)]), atol=1e-5)


def test_more_best_classes_than_there_are_means_all_of_them(tmp_path: Path) -> None:
    report = gapcam_export.export("networks:gap_network", tmp_path / "model.onnx", size=(64, 64), emit=("topk",))
    assert "topk_classes [batch,5] int64" in map(str, report.outputs)


def test_embedded_preprocessing_gives_the_same_logits_from_uint8(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    for name, embed in (("outside", False), ("inside", True)):
        gapcam_export.export(
            "networks:gap_network", tmp_path / f"{name}.onnx", size=(64, 96), mean=MEAN, std=STD, embed=embed
        )
    with gapcam.load(tmp_path / "outside.onnx") as outside, gapcam.load(tmp_path / "inside.onnx") as inside:
        assert inside.contract.preprocessing.embedded
        assert str(inside.inputs["image"].dtype) == "uint8"
        np.testing.assert_allclose(inside(cat).logits, outside(cat).logits, atol=1e-5)
        np.testing.assert_allclose(inside(cat).map(2), outside(cat).map(2), atol=1e-5)
    rgb = cv2.resize(cat, (96, 64), interpolation=cv2.INTER_AREA)[None, :, :, ::-1]
    by_hand = ((rgb / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    (logits,) = run(tmp_path / "inside.onnx", np.ascontiguousarray(rgb), "logits")
    with torch.no_grad():
        np.testing.assert_allclose(logits, gap_network()(torch.from_numpy(by_hand)).numpy(), atol=1e-4)


def test_the_batch_is_symbolic_unless_asked_otherwise(tmp_path: Path) -> None:
    images = noise(3, 3, 64, 64)
    gapcam_export.export("networks:gap_network", tmp_path / "any.onnx", size=(64, 64), emit=("maps",))
    (together,) = run(tmp_path / "any.onnx", images, "maps")
    report = gapcam_export.export(
        "networks:gap_network", tmp_path / "one.onnx", size=(64, 64), emit=("maps", "topk"), static_batch=True
    )
    assert str(report.inputs[0]) == "image [1,3,64,64] float"
    assert all("batch" not in tensor.shape for tensor in report.outputs)
    apart = np.concatenate([run(tmp_path / "one.onnx", image[None], "maps")[0] for image in images])
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_the_opset_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    report = gapcam_export.export("networks:gap_network", tmp_path / "model.onnx", size=(64, 64), opset=18)
    (written,) = (entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import if entry.domain == "")
    assert report.opset == written == 18


def test_labels_come_from_a_file_of_lines_or_of_json(tmp_path: Path) -> None:
    names = ("cat", "dog", "Zürich", "a b", "crane")
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n", "utf-8")
    (tmp_path / "names.json").write_text(json.dumps(names), "utf-8")
    for file in ("names.txt", "names.json"):
        report = gapcam_export.export(
            "networks:gap_network", tmp_path / "model.onnx", size=(64, 64), labels=tmp_path / file
        )
        assert report.contract.labels == names


def test_a_wrong_number_of_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(gapcam_export.LabelsError, match=r"has 2 names, the network 5 classes"):
        gapcam_export.export(
            "networks:gap_network", tmp_path / "model.onnx", size=(64, 64), labels=tmp_path / "names.txt"
        )


@pytest.mark.parametrize(
    ("source", "size", "resize", "crop_pct", "mean"),
    [
        ("torchvision:inception_v3", (299, 299), "crop", 299 / 342, (0.485, 0.456, 0.406)),
        ("timm:mixer_s16_224", (224, 224), "crop", 0.875, (0.5, 0.5, 0.5)),
    ],
)
def test_preprocessing_comes_from_the_model_librarys_record(
    source: str, size: tuple[int, int], resize: str, crop_pct: float, mean: tuple[float, ...]
) -> None:
    from gapcam_export.sources import TorchSource, load_source

    loaded = load_source(source, checkpoint=None, pretrained=False)
    assert isinstance(loaded, TorchSource)
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.size == size
    assert loaded.preprocessing.resize == resize
    assert loaded.preprocessing.crop_pct == pytest.approx(crop_pct)
    assert loaded.preprocessing.mean == mean


def test_a_librarys_network_without_weights_is_said_to_be_random(tmp_path: Path) -> None:
    report = gapcam_export.export("torchvision:squeezenet1_1", tmp_path / "model.onnx", size=(64, 64))
    assert "the network has random weights; --pretrained or --checkpoint FILE gives it trained ones" in report.notes


def test_pretrained_weights_are_those_that_the_library_has_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cache holds a file that stands for a download."""
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    cached = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    model = torchvision.models.squeezenet1_1(weights=None)
    torch.save(model.state_dict(), cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    report = gapcam_export.export("torchvision:squeezenet1_1", tmp_path / "model.onnx", pretrained=True)
    assert report.contract.source.checkpoint == "pretrained"
    assert report.contract.preprocessing.crop_pct == 224 / 256
    assert not any("random weights" in note for note in report.notes)
    constants = [onnx.numpy_helper.to_array(c) for c in onnx.load(tmp_path / "model.onnx").graph.initializer]
    expected = model.classifier[1].weight.detach().numpy()
    assert any(value.shape == expected.shape and (value == expected).all() for value in constants)


def test_progress_names_each_step_before_it_begins(tmp_path: Path) -> None:
    steps: list[str] = []
    gapcam_export.export("networks:gap_network", tmp_path / "model.onnx", size=(64, 64), progress=steps.append)
    assert steps == [
        "building networks:gap_network",
        "writing ONNX with PyTorch's exporter",
        "finding the head",
        "adding the outputs",
        "verifying on 4 images",
        f"writing {tmp_path / 'model.onnx'}",
    ]


def test_what_was_assumed_is_said(tmp_path: Path) -> None:
    report = gapcam_export.export("networks:gap_network", tmp_path / "model.onnx")
    assert report.contract.preprocessing.size == (224, 224)
    assert "no record of its preprocessing" in report.notes[0]
    assert "224x224" in report.notes[1]


def test_the_users_own_images_are_verified_on(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), np.roll(cat, 40 * index, axis=1))
    report = gapcam_export.export("networks:gap_network", tmp_path / "model.onnx", size=(64, 64), verify_folder=folder)
    assert report.contract.verification.images == 3


def test_a_factory_in_a_file_is_found_beside_its_own_imports(tmp_path: Path) -> None:
    (tmp_path / "my_layers.py").write_text("from networks import gap_network\n")
    (tmp_path / "train.py").write_text("from my_layers import gap_network as network\n")
    report = gapcam_export.export(f"{tmp_path / 'train.py'}:network", tmp_path / "model.onnx", size=(64, 64))
    assert report.contract.source.spec == "train.py:network"  # without the folder: it is nobody's business


def test_a_checkpoint_in_each_format_loads_the_same_weights(tmp_path: Path) -> None:
    state = {name: value + 0.25 for name, value in gap_network().state_dict().items() if value.is_floating_point()}
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": parallel}, tmp_path / "training.pt")
    hashes = set()
    for file in ("weights.safetensors", "plain.pt", "training.pt"):
        report = gapcam_export.export(
            "networks:gap_network", tmp_path / "model.onnx", size=(64, 64), checkpoint=tmp_path / file
        )
        assert report.contract.source.checkpoint == file
        hashes.add(report.contract.source.sha256)
    assert len(hashes) == 1
    (weights,) = run(tmp_path / "model.onnx", noise(1, 3, 64, 64), CAM_WEIGHTS)
    np.testing.assert_array_equal(weights, state["head.weight"].numpy())
