"""Images and classes from folders: what is found, how it is split, what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from digits import write_digits
from torch import Tensor

from gapcam.contract import Preprocessing
from gapcam.errors import DataError, UsageError
from gapcam.image_file import read_image
from gapcam.preprocessing import preprocess
from gapcam_export.finetune.augmentation import Augmentation
from gapcam_export.finetune.class_order import class_order
from gapcam_export.finetune.labelled_images import LabelledImage, find_class_folders, labelled, unreadable
from gapcam_export.finetune.loading import EpochOrder, Images, loader
from gapcam_export.labels import imagenet_labels

BGR = Preprocessing(size=(20, 24), color="bgr", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "data", per_class=10, classes=3)


def split(root: Path, **changes: float) -> tuple[dict[str, tuple[Path, ...]], dict[str, tuple[Path, ...]]]:
    folders = find_class_folders(root, **{"val_fraction": 0.2, "seed": 0, **changes})
    return folders.train, folders.val


def test_a_split_takes_its_part_of_each_class_and_shares_nothing(data: Path) -> None:
    train, val = split(data, val_fraction=0.3)
    for name in ("0", "1", "2"):
        assert (len(train[name]), len(val[name])) == (7, 3)
        assert sorted({*train[name], *val[name]}) == sorted((data / name).iterdir())


def test_a_split_is_the_same_in_another_place_and_with_another_class_and_differs_with_the_seed(
    data: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(data, tmp_path / "copy")
    before = find_class_folders(data, val_fraction=0.2, seed=0)
    again = find_class_folders(copy, val_fraction=0.2, seed=0)
    assert again.fingerprint() == before.fingerprint()
    assert [path.relative_to(copy) for path in again.val["1"]] == [path.relative_to(data) for path in before.val["1"]]
    shutil.copytree(data / "0", data / "another")
    assert split(data)[1]["1"] == before.val["1"]
    assert split(data, seed=1)[1]["1"] != before.val["1"]


def test_other_pixels_in_as_many_bytes_are_another_data_set(data: Path) -> None:
    before = find_class_folders(data, val_fraction=0.2, seed=0).fingerprint()
    image = next((data / "1").iterdir())
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)
    assert find_class_folders(data, val_fraction=0.2, seed=0).fingerprint() != before
    content[-20] ^= 1
    image.write_bytes(content)
    assert find_class_folders(data, val_fraction=0.2, seed=0).fingerprint() == before


def test_a_link_to_nothing_and_a_pipe_do_not_stop_the_fingerprint(data: Path) -> None:
    before = find_class_folders(data, val_fraction=0.2, seed=0).fingerprint()
    (data / "1" / "gone.png").symlink_to(data / "nowhere.png")
    os.mkfifo(data / "1" / "pipe.png")
    assert find_class_folders(data, val_fraction=0.2, seed=0).fingerprint() != before


def test_train_and_val_folders_are_taken_as_they_are_with_their_subfolders(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "both"
    shutil.copytree(data, root / "train")
    shutil.copytree(data / "2", root / "val" / "2" / "more")
    (root / "val" / "0").mkdir()
    shutil.copytree(data / "1", root / "val" / ".hidden")
    train, val = split(root)
    assert {name: len(images) for name, images in train.items()} == {"0": 10, "1": 10, "2": 10}
    assert {name: len(images) for name, images in val.items()} == {"0": 0, "1": 0, "2": 10}


def test_what_is_no_data_set_is_refused_with_what_was_expected(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; expected .*train/CLASS"):
        split(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has 0 folders; expected two or more"):
        split(data / "0")
    (data / "empty").mkdir()
    with pytest.raises(DataError, match=r"1 of the 4 class folders in .* have no images: empty"):
        split(data)
    shutil.copy(next((data / "0").iterdir()), data / "empty" / "one.png")
    with pytest.raises(DataError, match=r"class 'empty' has one image \(.*one.png\); a split needs two"):
        split(data)
    shutil.copytree(data, tmp_path / "half" / "train")
    with pytest.raises(DataError, match="has a folder train and no val; expected both"):
        split(tmp_path / "half")
    shutil.copytree(data / "0", tmp_path / "half" / "val" / "strange")
    shutil.copytree(data / "0", tmp_path / "half" / "val" / "0")
    with pytest.raises(DataError, match=r"has classes that .*train has not: strange"):
        split(tmp_path / "half")


@pytest.mark.parametrize(("train", "val"), [("Train", "Val"), ("training", "validation"), ("TRAIN", "valid")])
def test_the_parts_may_have_capitals_and_longer_names(data: Path, tmp_path: Path, train: str, val: str) -> None:
    root = tmp_path / "both"
    shutil.copytree(data, root / train)
    shutil.copytree(data, root / val)
    found = find_class_folders(root, val_fraction=0.2, seed=0)
    assert found.names == ("0", "1", "2")
    assert (len(found.train["0"]), len(found.val["0"])) == (10, 10)
    assert found.split == f"{train}/ and {val}/ as they are"
    shutil.copytree(data, root / "VALIDATION" if val == "valid" else root / "valid")
    with pytest.raises(DataError, match=r"has the folders \w+ and \w+; expected one of them"):
        split(root)


def test_a_class_may_be_called_valid(data: Path) -> None:
    (data / "0").rename(data / "valid")
    (data / "1").rename(data / "invalid")
    assert sorted(split(data)[0]) == ["2", "invalid", "valid"]


def test_parts_of_unknown_names_are_no_classes(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    shutil.copytree(data, root / "learn")
    shutil.copytree(data, root / "check")
    with pytest.raises(
        DataError, match=r"has the folders check, learn without images in them, and in each .* 0, 1, 2;"
    ):
        split(root)
    for name in ("0", "1", "2"):  # as Tiny ImageNet has it
        (data / name).rename(tmp_path / "images")
        (data / name).mkdir()
        (tmp_path / "images").rename(data / name / "images")
    assert {name: len(images) for name, images in split(data)[0].items()} == {"0": 8, "1": 8, "2": 8}


def test_every_image_that_cannot_be_read_is_named_with_the_reason(data: Path) -> None:
    bad = data / "1" / "cut.png"
    bad.write_bytes(next((data / "1").iterdir()).read_bytes()[:60])
    text = data / "1" / "text.jpg"
    text.write_text("no image")
    folders = find_class_folders(data, val_fraction=0.2, seed=0)
    paths = [path for part in (folders.train, folders.val) for images in part.values() for path in images]
    problems = unreadable(paths)
    assert set(problems) == {bad, text}
    assert "cut off" in problems[bad]
    left = labelled(folders.train, folders.names, problems) + labelled(folders.val, folders.names, problems)
    assert len(left) == 30
    assert all(int(image.path.parent.name) == image.label for image in left)


def test_folders_are_matched_to_labels_by_name_and_else_sorted_with_a_note() -> None:
    notes: list[str] = []
    assert class_order(["ant", "bee"], ["bee", "ant"], 2, notes) == ("bee", "ant")
    assert notes == []
    assert class_order(["ant", "bee"], ["cat", "dog"], 2, notes) == ("ant", "bee")
    assert "not called like the network's labels" in notes[0]
    assert class_order(["0", "1", "10", "2"], [], 4, notes) == ("0", "1", "10", "2")
    assert "sorted as text: 0, 1, 10" in notes[2]


def test_imagenets_names_are_matched_for_a_network_without_labels() -> None:
    notes: list[str] = []
    names = imagenet_labels()
    assert class_order(sorted(names), [], 1000, notes) == names
    assert notes == []
    assert sorted(names) != list(names)
    numbers = [f"n{number:08}" for number in range(1000)]  # WordNet's, which are in ImageNet's order when sorted
    assert class_order(numbers, [], 1000, notes) == tuple(numbers)
    assert "sorted order" in notes[0]
    others = [f"class {name}" for name in names]
    assert class_order(sorted(names), others, 1000, notes) == tuple(sorted(names))


def test_another_number_of_classes_is_refused_with_the_command_that_mends_it() -> None:
    with pytest.raises(UsageError, match=r"3 classes, the network 1000.*gapcam gap SOURCE --classes 3"):
        class_order(["a", "b", "c"], [], 1000, [])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_devices_share_an_epoch_in_the_order_that_one_alone_would_take(world: int) -> None:
    alone = EpochOrder(10, seed=5)
    parts = [EpochOrder(10, rank=rank, world=world, seed=5) for rank in range(world)]
    orders = []
    for epoch in (0, 1):
        for order in (alone, *parts):
            order.set_epoch(epoch)
        taken = [list(part) for part in parts]
        assert {len(part) for part in taken} == {len(parts[0])}
        together = [key for step in zip(*taken, strict=True) for key in step]
        assert [key for key in together if key[2]] == list(alone)
        orders.append([index for _, index, _ in alone])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]


@pytest.mark.parametrize("world", [1, 2])
def test_each_device_takes_images_once_more_at_the_end(world: int) -> None:
    for rank in range(world):
        without = list(EpochOrder(10, rank=rank, world=world, seed=5))
        more = list(EpochOrder(10, rank=rank, world=world, seed=5, more=1))
        assert more[:-1] == without
        assert more[-1][1:] == (without[0][1], False)


def batches(images: list[LabelledImage], workers: int, epoch: int) -> Tensor:
    order = EpochOrder(len(images), seed=0)
    order.set_epoch(epoch)
    made = Images(images, BGR, Augmentation(BGR, "standard", flip=True), seed=3)
    return torch.cat([shown for shown, _, _ in loader(made, order, 4, workers)])


def test_augmentation_differs_by_epoch_and_not_by_what_was_drawn_before(data: Path) -> None:
    images = [LabelledImage(path, 0) for path in sorted((data / "0").iterdir())]
    first = batches(images, 0, 0)
    torch.rand(17)
    assert torch.equal(batches(images, 0, 0), first)
    assert not torch.equal(batches(images, 0, 1).sort(0).values, first.sort(0).values)


def test_without_augmentation_training_sees_what_the_runtime_sees(data: Path) -> None:
    frame = read_image(next((data / "1").iterdir()))
    expected = preprocess(frame, BGR)
    assert np.array_equal(Augmentation(BGR, "none", flip=False)(frame).numpy(), expected)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_augmented_colours_have_the_networks_order_mean_and_deviation(color: str) -> None:
    blue = np.zeros((40, 40, 3), np.uint8)
    blue[..., 0] = 255
    preprocessing = Preprocessing(size=(8, 8), color=color, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    torch.manual_seed(0)
    seen = Augmentation(preprocessing, "light", flip=True)(blue)
    place = 2 if color == "rgb" else 0
    pixels = seen * torch.tensor(preprocessing.std)[:, None, None] + torch.tensor(preprocessing.mean)[:, None, None]
    assert seen.shape == (3, 8, 8)
    assert pixels[place].min() > 0.75  # jitter of a tenth each in brightness, contrast and saturation
    assert pixels.sum(0).sub(pixels[place]).max() < 0.3


def test_a_half_is_mirrored_unless_flips_are_off() -> None:
    ramp = np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], 40, 0).repeat(3, 2)
    assert cv2.flip(ramp, 1)[0, 0, 0] == 255
    for flip, least, most in ((True, 5, 35), (False, 0, 0)):
        torch.manual_seed(0)
        augmentation = Augmentation(Preprocessing(size=(8, 8)), "standard", flip=flip)
        mirrored = sum(bool(seen[0, 0, 0] > seen[0, 0, -1]) for seen in (augmentation(ramp) for _ in range(40)))
        assert least <= mirrored <= most
