"""Images to calibrate on: checked, read as the runtime reads them, and what ranges come of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from calibration_images import write_photographs
from numpy.typing import NDArray
from small_quantizable import exported, plain, relu6

import gapcam
from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.contract import CalibrationMethod, Preprocessing
from gapcam.errors import DataError, ModelError
from gapcam_export import PrecisionOptions
from gapcam_export.precision import calibration
from gapcam_export.precision.calibration import calibration_images, network_inputs
from gapcam_export.precision.ranges import activation_ranges
from gapcam_export.section import observe

SMALL = Preprocessing(size=(64, 64))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), 16, 64)


def test_readable_images_are_taken_by_name_and_few_are_noted(photographs: Path) -> None:
    notes: list[str] = []
    done: list[tuple[int, int]] = []
    paths = calibration_images(photographs, SMALL, notes, lambda number, of: done.append((number, of)))
    assert [path.name for path in paths] == [f"part_{index:02}.png" for index in range(16)]
    assert notes == ["calibrated on 16 images; 100 or more are better"]
    assert done == [(number, 16) for number in range(1, 17)]


def test_a_folder_that_is_absent_or_holds_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--calibrate .*absent: there is no such folder"):
        calibration_images(tmp_path / "absent", SMALL, [])
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(
        DataError, match=r"--calibrate .*: the folder holds no image .*Expected at least 16, better 100"
    ):
        calibration_images(tmp_path, SMALL, [])
    with pytest.raises(DataError, match=r"notes\.txt: that is a file; expected a folder of images"):
        calibration_images(tmp_path / "notes.txt", SMALL, [])
    write_photographs(tmp_path, 3, 64)
    with pytest.raises(DataError, match=r"holds 3 images to calibrate on; expected at least 16, better 100"):
        PrecisionOptions(precision="int8", calibrate=tmp_path).check_folders()


def test_too_few_images_are_refused_and_damaged_ones_do_not_count(tmp_path: Path) -> None:
    write_photographs(tmp_path, 16, 64)
    whole = (tmp_path / "part_03.png").read_bytes()
    (tmp_path / "part_03.png").write_bytes(whole[:500])
    with pytest.raises(
        DataError, match=r"holds 15 images .*beside 1 that cannot be read \(part_03.png\); .*at least 16"
    ):
        calibration_images(tmp_path, SMALL, [])


def test_damaged_images_are_skipped_and_named(tmp_path: Path) -> None:
    write_photographs(tmp_path, 24, 64)
    for index in range(7):
        (tmp_path / f"part_{index:02}.png").write_bytes(b"no image")
    notes: list[str] = []
    assert len(calibration_images(tmp_path, SMALL, notes)) == 17
    assert "7 files in" in notes[0]
    assert notes[0].endswith("part_00.png, part_01.png, part_02.png, part_03.png, part_04.png and 2 more")


def test_thumbnails_are_refused_by_name(tmp_path: Path) -> None:
    write_photographs(tmp_path, 16, 64)
    cv2.imwrite(str(tmp_path / "icon.png"), np.zeros((31, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"1 of 17 images in .* are thumbnails, .* 64 x 64: icon.png \(64 x 31\)"):
        calibration_images(tmp_path, SMALL, [])


def test_images_that_have_to_be_enlarged_are_counted(tmp_path: Path) -> None:
    write_photographs(tmp_path, 16, 64)
    cv2.imwrite(str(tmp_path / "low.png"), np.zeros((32, 64, 3), np.uint8))
    notes: list[str] = []
    assert len(calibration_images(tmp_path, SMALL, notes)) == 17
    assert "1 of 17 calibration images are smaller than the network's 64 x 64 and were enlarged" in notes


def test_of_very_many_images_the_same_ones_are_drawn_every_time(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((4, 4, 3), np.uint8))
    for index in range(1, 1004):
        (tmp_path / f"{index}.png").hardlink_to(tmp_path / "0.png")
    notes: list[str] = []
    paths = calibration_images(tmp_path, Preprocessing(size=(4, 4)), notes)
    assert len(set(paths)) == 1000 == calibration.MOST_IMAGES
    assert paths == calibration_images(tmp_path, Preprocessing(size=(4, 4)), [])
    assert notes == [f"1000 of the 1004 images in {tmp_path} were drawn at random to calibrate on"]


class Recording(OnnxRuntimeBackend):
    """Keeps what it is fed."""

    fed: NDArray[Any]

    def run(self, names: Sequence[str], image: NDArray[Any]) -> list[NDArray[Any]]:
        self.fed = image.copy()
        return super().run(names, image)


@pytest.mark.parametrize("embed", [False, True], ids=["floats", "pixels"])
@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_the_network_is_calibrated_on_what_a_session_feeds_it(
    tmp_path: Path, cat: NDArray[np.uint8], embed: bool, resize: Any
) -> None:
    exported(tmp_path, plain, embed=embed, resize=resize, mean=(0.4, 0.5, 0.6), color="bgr")
    cv2.imwrite(str(tmp_path / "cat.png"), cat)
    backend = Recording(tmp_path / "exported.onnx", threads=1, provider_options=None, session_options=None)
    with gapcam.Session(backend) as session:
        session(cat)
        (feed,) = network_inputs([tmp_path / "cat.png"], session.contract.preprocessing)
    assert list(feed) == ["image"]
    assert feed["image"].dtype == backend.fed.dtype == (np.uint8 if embed else np.float32)
    np.testing.assert_array_equal(feed["image"], backend.fed)


def values_on(
    model: onnx.ModelProto, name: str, paths: Sequence[Path], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    every = [observe(model, [name], feed["image"])[name].ravel() for feed in network_inputs(paths, preprocessing)]
    return np.concatenate(every)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_ranges_are_those_of_all_values(tmp_path: Path, photographs: Path, method: CalibrationMethod) -> None:
    model, contract = exported(tmp_path, relu6)
    model = onnx.shape_inference.infer_shapes(model)
    paths = sorted(photographs.iterdir())
    done: list[int] = []
    ranges = activation_ranges(model, paths, contract.preprocessing, method, done.append)
    assert done == sorted(done)
    assert done[-1] == len(paths)
    tensors = [name for node in model.graph.node[:6] for name in node.output]
    assert tensors
    for name in tensors:
        values = values_on(model, name, paths, contract.preprocessing)
        least, greatest = ranges[name]
        if method == "minmax":
            np.testing.assert_array_equal([least, greatest], [values.min(), values.max()])
        elif method == "percentile":
            assert values.min() <= least <= greatest <= values.max()
            step, one = 2 * np.abs(values).max() / 8192, 1.5 / len(values)  # the histogram's; one value more or less
            for got, share in ((least, 5e-6), (greatest, 1 - 5e-6)):
                between = np.quantile(values, np.clip([share - one, share + one], 0, 1), method="inverted_cdf")
                assert between[0] - step <= got <= between[1] + step
        else:
            assert values.min() <= least < greatest <= values.max()


def test_entropy_clips_what_is_rare_and_not_all_but_the_zeros_that_relu_leaves(
    tmp_path: Path, photographs: Path
) -> None:
    model, contract = exported(tmp_path, relu6)
    model = onnx.shape_inference.infer_shapes(model)
    paths = sorted(photographs.iterdir())
    full = activation_ranges(model, paths, contract.preprocessing, "minmax")
    clipped = activation_ranges(model, paths, contract.preprocessing, "entropy")
    (addition,) = (node.output[0] for node in model.graph.node if node.op_type == "Add")
    assert full[addition][0] < 1.2 * clipped[addition][0] < 0
    for node in model.graph.node:
        if node.op_type in ("Relu", "Clip"):
            assert clipped[node.output[0]][1] > 0.8 * full[node.output[0]][1]


def test_the_order_of_the_images_does_not_matter(tmp_path: Path) -> None:
    """ONNX Runtime widens a histogram in steps of its first image, which is nearly black here."""
    model, contract = exported(tmp_path, plain)
    model = onnx.shape_inference.infer_shapes(model)
    preprocessing = msgspec.structs.replace(contract.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    paths = []
    for value in (1, 100, 255):
        paths.append(tmp_path / f"{value}.png")
        cv2.imwrite(str(paths[-1]), np.full((64, 64, 3), value, np.uint8))
    forth = activation_ranges(model, paths, preprocessing, "percentile")
    assert forth == activation_ranges(model, paths[::-1], preprocessing, "percentile")
    assert forth["image"] == pytest.approx((1 / 255, 1), abs=2 / 8192)  # a step of the histogram


def test_values_that_are_not_finite_are_refused_with_the_layer(tmp_path: Path, photographs: Path) -> None:
    model, contract = exported(tmp_path, relu6)
    node = [node for node in model.graph.node if node.op_type == "Conv"][2]
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == node.input[2]]
    values = onnx.numpy_helper.to_array(bias).copy()
    values[3] = np.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    model = onnx.shape_inference.infer_shapes(model)
    with pytest.raises(
        ModelError, match=rf"the layer '{node.name}' \(Conv\) gives values that are not finite on part_00"
    ):
        activation_ranges(model, sorted(photographs.iterdir()), contract.preprocessing, "minmax")


def test_nothing_is_printed_or_logged_and_logging_is_as_before(
    tmp_path: Path, photographs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, contract = exported(tmp_path, plain)
    model = onnx.shape_inference.infer_shapes(model)
    before = list(logging.getLogger().handlers), logging.root.manager.disable
    capfd.readouterr()
    for method in ("minmax", "percentile", "entropy"):
        activation_ranges(model, sorted(photographs.iterdir())[:3], contract.preprocessing, method)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")
    assert (list(logging.getLogger().handlers), logging.root.manager.disable) == before
