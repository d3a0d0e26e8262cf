"""Two models on the same images: every figure against hand computation, and models that differ in a known way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from fidelity_models import BIAS, BLOCK, CLASSES, SIZE, WEIGHTS, blocks, features_of, pictures
from scipy import stats
from scipy.interpolate import RegularGridInterpolator
from small_heads import LABELS, squared, squared_contract
from small_models import fake_red_and_blue

import gapcam
import gapcam_export
from gapcam.backends.fake import FakeBackend
from gapcam.contract import Fidelity
from gapcam_export.comparison.answers import Answer, answer, answers
from gapcam_export.comparison.comparison import Comparison, ImageFidelity, compare
from gapcam_export.comparison.grids import on_one_grid
from gapcam_export.comparison.latency import compare_latency
from gapcam_export.comparison.report import report_fidelity

SWAPPED = [0, 1, 3, 2, *range(4, CLASSES)]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return pictures(tmp_path / "images", 12)


def compared(a: Path, b: Path, images: list[Path], **options: object) -> Comparison:
    report = gapcam_export.fidelity(a, b, images=images, latency=False, threads=1, **options)  # type: ignore[arg-type]
    return report.comparison


def test_a_model_is_perfectly_like_itself(tmp_path: Path, images: list[Path]) -> None:
    model = blocks(tmp_path / "model.onnx")
    found = compared(model, model, images).summary()
    assert found == Fidelity(
        images=12,
        top1_agreement=1,
        top5_agreement=1,
        logit_error=0,
        logit_error_max=0,
        map_pearson=1,
        map_pearson_min=1,
        map_spearman=1,
        box_iou=1,
        box_iou_min=1,
        peak_shift_px=0,
        threshold=0.2,
    )


def test_every_figure_of_an_image_is_the_one_that_is_computed_by_hand(tmp_path: Path, images: list[Path]) -> None:
    noise = np.random.default_rng(2).normal(size=WEIGHTS.shape).astype(np.float32)
    a, b = blocks(tmp_path / "a.onnx"), blocks(tmp_path / "b.onnx", weights=WEIGHTS + 4 * noise)
    rows = compared(a, b, images, threshold=0.5).rows
    assert [row.name for row in rows] == [str(image) for image in images]
    for row, image in zip(rows, images, strict=True):
        features = features_of(image)
        weights = [it.astype(np.float64) for it in (WEIGHTS, WEIGHTS + 4 * noise)]
        logits = [it @ features.mean(axis=(1, 2)) for it in weights]
        best = [np.argsort(-it, kind="stable") for it in logits]
        assert (row.target, row.other_best, row.top1) == (best[0][0], best[1][0], best[0][0] == best[1][0])
        assert row.top5 == len({*best[0][:5]} & {*best[1][:5]}) / 5
        assert row.logit_error == pytest.approx(np.abs(logits[1] - logits[0]).max() / np.abs(logits[0]).max(), rel=1e-4)
        maps = [np.tensordot(it[row.target], features, 1) for it in weights]
        assert row.maps is not None
        assert row.maps.pearson == pytest.approx(stats.pearsonr(*map(np.ravel, maps)).statistic, abs=1e-5)
        assert row.maps.spearman == pytest.approx(stats.spearmanr(*map(np.ravel, maps)).statistic, abs=1e-2)
        peaks = [np.array(np.unravel_index(it.argmax(), it.shape)) for it in maps]
        assert row.maps.peak_shift_px == pytest.approx(BLOCK * np.linalg.norm(peaks[1] - peaks[0]))
        marked = [np.zeros(SIZE, bool), np.zeros(SIZE, bool)]
        for map_, pixels in zip(maps, marked, strict=True):
            found = gapcam.boxes.boxes_from_map(cv2.resize(map_, SIZE[::-1]), threshold=0.5)
            for box in found:
                pixels[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
        union = (marked[0] | marked[1]).sum()
        assert row.maps.box_iou == pytest.approx((marked[0] & marked[1]).sum() / union if union else 1)
    assert 0 < sum(row.top1 for row in rows) < len(rows)  # else this would say little


def test_a_summary_is_the_mean_and_the_worst_of_the_rows(tmp_path: Path, images: list[Path]) -> None:
    noise = np.random.default_rng(2).normal(size=WEIGHTS.shape).astype(np.float32)
    found = compared(blocks(tmp_path / "a.onnx"), blocks(tmp_path / "b.onnx", weights=WEIGHTS + 4 * noise), images)
    summary, maps = found.summary(), [row.maps for row in found.rows if row.maps is not None]
    assert summary.top1_agreement == np.mean([row.top1 for row in found.rows])
    assert summary.logit_error_max == max(row.logit_error for row in found.rows)
    for name in ("pearson", "spearman", "box_iou", "peak_shift_px"):
        figure = name if name in ("box_iou", "peak_shift_px") else f"map_{name}"
        assert getattr(summary, figure) == pytest.approx(np.mean([getattr(row, name) for row in maps]))
    assert summary.map_pearson_min == min(row.pearson for row in maps)
    worst = [found.rows[index].maps for index in found.worst(len(found.rows))]
    assert [(it.box_iou, it.pearson) for it in worst if it] == sorted((it.box_iou, it.pearson) for it in maps)
    assert found.worst(3) == found.worst(len(found.rows))[:3]


def test_features_that_moved_by_a_cell_move_the_peak_by_a_cells_pixels(tmp_path: Path) -> None:
    images = []
    for number, (x, y) in enumerate([(8, 8), (20, 4), (36, 24)]):
        frame = np.zeros((2 * SIZE[0], 2 * SIZE[1], 3), np.uint8)  # twice as large as the input
        frame[2 * y : 2 * y + 8, 2 * x : 2 * x + 8] = 255
        images.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(images[-1]), frame)
    weights = np.ones((CLASSES, 3), np.float32) * np.arange(1, CLASSES + 1, dtype=np.float32)[:, None]
    a, b = blocks(tmp_path / "a.onnx", weights=weights), blocks(tmp_path / "b.onnx", weights=weights, roll=1)
    found = compared(a, b, images)
    assert [row.maps.peak_shift_px for row in found.rows if row.maps] == pytest.approx([BLOCK] * 3)
    assert found.summary().top1_agreement == 1
    assert found.summary().logit_error == pytest.approx(0, abs=1e-6)
    assert found.summary().map_pearson < 0.1


def test_a_peaks_shift_is_in_the_references_pixels_where_the_models_see_a_frame_differently(tmp_path: Path) -> None:
    """A squashes the frame, cells of 8 x 16 pixels of it; B crops it at (40, 8), cells of 16 x 16."""
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[24:32, 80:88] = 255
    cv2.imwrite(str(tmp_path / "image.png"), frame)
    weights = np.ones((CLASSES, 3), np.float32) * np.arange(1, CLASSES + 1, dtype=np.float32)[:, None]
    a = blocks(tmp_path / "a.onnx", size=(32, 32), weights=weights)
    b = blocks(tmp_path / "b.onnx", size=(24, 24), block=8, weights=weights, resize="crop", crop_pct=0.75)
    flat = blocks(tmp_path / "flat.onnx", size=(24, 24), block=8, weights=weights * 0)
    with gapcam.load(a, threads=1) as one, gapcam.load(b, threads=1) as other:
        assert answer(one, frame, "").peak == pytest.approx((80 + 16 / 2, 24 + 8 / 2))
        assert answer(other, frame, "").peak == pytest.approx((40 + 2 * 16 + 16 / 2, 8 + 16 + 16 / 2))
    shifts = {}
    for first, second in ((a, b), (b, a), (a, flat), (flat, a)):
        (row,) = compared(first, second, [tmp_path / "image.png"]).rows
        assert row.maps is not None
        shifts[first.stem, second.stem] = row.maps.peak_shift_px
    # On the frame it is (88, 28) to (80, 32). A's input has 1/4 and 1/2 of the frame's pixels, B's has 1/2 of both.
    assert shifts == {
        ("a", "b"): pytest.approx(np.hypot(8 / 4, 4 / 2)),
        ("b", "a"): pytest.approx(np.hypot(8 / 2, 4 / 2)),
        ("a", "flat"): pytest.approx(np.hypot(32, 32)),
        ("flat", "a"): pytest.approx(np.hypot(24, 24)),
    }


def test_two_swapped_classes_disagree_on_just_the_images_of_these(tmp_path: Path, images: list[Path]) -> None:
    a = blocks(tmp_path / "a.onnx")
    b = blocks(tmp_path / "b.onnx", weights=WEIGHTS[SWAPPED], bias=BIAS[SWAPPED])
    with gapcam.load(a, threads=1) as session:
        best = [it.best.index for it in answers(session, images)]
    assert 0 < sum(index in (2, 3) for index in best) < len(best)
    found = compared(a, b, images)
    assert found.summary().top1_agreement == sum(index not in (2, 3) for index in best) / len(best)
    assert [row.other_best for row in found.rows] == [SWAPPED[index] for index in best]


def test_a_reference_answers_once_and_is_compared_with_many(tmp_path: Path, images: list[Path]) -> None:
    a = blocks(tmp_path / "a.onnx")
    b = blocks(tmp_path / "b.onnx", weights=WEIGHTS[SWAPPED], bias=BIAS[SWAPPED])
    done: list[int] = []
    with gapcam.load(a, threads=1) as one, gapcam.load(b, threads=1) as other:
        given = answers(one, images)
        found = compare(given, other, images, on_image=done.append)
        assert compare(given, one, images).summary().box_iou == 1
    assert found.rows == compared(a, b, images).rows
    assert done == list(range(1, 13))


def interpolated(it: Answer, points: np.ndarray) -> np.ndarray:
    """A map at points (y, x) of the frame, by SciPy."""
    assert it.map is not None
    height, width = it.input_size
    rows, columns = it.map.shape
    # The outermost cells' centres are repeated far outside, which is what bilinear resizing does at the edges.
    padded = np.pad(it.map, 1, mode="edge")
    grid = [
        np.array([-1e6, *((np.arange(count) + 0.5) * side / count), 1e6])
        for count, side in ((rows, height), (columns, width))
    ]
    on_input = [it.placement.to_input(x, y)[::-1] for y, x in points]
    return np.asarray(RegularGridInterpolator(grid, padded)(on_input))


@pytest.mark.parametrize(
    ("how_a", "how_b"),
    [
        ({}, {"block": 2}),
        ({"resize": "crop", "crop_pct": 0.75}, {}),
        ({"resize": "letterbox"}, {"resize": "crop"}),
        ({}, {"size": (64, 64), "block": 16}),
    ],
)
def test_models_that_see_a_frame_differently_are_compared_where_both_look(
    tmp_path: Path, how_a: dict[str, object], how_b: dict[str, object]
) -> None:
    (image,) = pictures(tmp_path, 1, (60, 50))
    frame = gapcam.read_image(image)
    with (
        gapcam.load(blocks(tmp_path / "a.onnx", **how_a)) as one,
        gapcam.load(blocks(tmp_path / "b.onnx", **how_b)) as other,
    ):  # type: ignore[arg-type]
        a = answer(one, frame, "image")
        b = answer(other, frame, "image", target=a.explained.index)
        notes = gapcam_export.fidelity(one.name, other.name, images=image, latency=False).notes
    pair = on_one_grid(a, b)
    assert pair is not None
    seen = [it.placement.frame_rect for it in (a, b)]
    points = []
    height, width = a.input_size
    for y in range(height):
        row = [a.placement.to_frame(x + 0.5, y + 0.5) for x in range(width)]
        points += [
            (v, u) for u, v in row if all(it.x <= u <= it.x + it.width and it.y <= v <= it.y + it.height for it in seen)
        ]
    assert pair[0].size == pair[1].size == len(points)
    for sampled, it in zip(pair, (a, b), strict=True):
        np.testing.assert_allclose(sampled.ravel(), interpolated(it, np.array(points)), atol=1e-5)
    assert "the models see an image differently" in notes[0]


def test_the_same_view_at_another_size_is_compared_cell_by_cell(tmp_path: Path, images: list[Path]) -> None:
    a, b = blocks(tmp_path / "a.onnx"), blocks(tmp_path / "b.onnx", size=(64, 96), block=8)
    with gapcam.load(a) as one, gapcam.load(b) as other:
        frame = gapcam.read_image(images[0])
        given = answer(one, frame, "image")
        pair = on_one_grid(given, answer(other, frame, "image", target=given.explained.index))
    assert pair is not None
    assert pair[0] is given.map
    assert pair[1].shape == given.map.shape


def test_models_that_see_no_common_part_have_no_maps_to_compare(tmp_path: Path, images: list[Path]) -> None:
    a = blocks(tmp_path / "a.onnx", size=(2, 2), block=1)  # its pixels' centres are away from the frame's centre
    b = blocks(tmp_path / "b.onnx", resize="crop", crop_pct=0.05)
    found = compared(a, b, images[:2])
    assert found.images_without_map == 2


def green(path: Path) -> Path:
    """A model of the three classes of `squared` that finds green in everything."""
    weights = np.zeros((3, 3), np.float32)
    weights[2] = 1
    return blocks(path, weights=weights, bias=np.array([0, 0, 50], np.float32), labels=LABELS)


def test_a_class_that_a_nonlinear_head_has_no_map_of_is_counted_and_said(tmp_path: Path) -> None:
    contract = squared_contract(size=SIZE)
    images = pictures(tmp_path / "images", 6)
    with gapcam.load(squared(tmp_path / "b.onnx", contract=contract)) as session:
        lacking = [2 not in np.argsort(-session(gapcam.read_image(image)).logits)[:2] for image in images]
    assert any(lacking)
    report = gapcam_export.fidelity(green(tmp_path / "a.onnx"), tmp_path / "b.onnx", images=images, latency=False)
    assert [row.maps is None for row in report.comparison.rows] == lacking
    assert report.comparison.images_without_map == sum(lacking)
    assert any(f"on {sum(lacking)} of 6 images" in note for note in report.notes)
    assert any("not exact" in note for note in report.notes)
    assert report.worst[0].row.maps is None
    assert "no map of this class" in report.to_html()
    every = gapcam_export.fidelity(
        tmp_path / "a.onnx", squared(tmp_path / "c.onnx", contract=contract, maps=True), images=images, latency=False
    )
    assert every.comparison.images_without_map == 0


def test_where_no_image_has_both_maps_the_classes_are_compared_all_the_same() -> None:
    rows = [ImageFidelity("a", 1, 2, False, 0.8, 0.5, None), ImageFidelity("b", 1, 1, True, 1.0, 0.25, None)]
    figures = Comparison(rows).figures()
    assert (figures["top1_agreement"], figures["top5_agreement"], figures["logit_error"]) == (0.5, 0.9, 0.375)
    assert [figures[name] for name in ("map_pearson", "map_pearson_min", "box_iou", "peak_shift_px")] == [None] * 4
    with pytest.raises(gapcam.ModelError, match="--topk"):
        Comparison(rows).summary()


def test_flat_maps_are_the_worst_case_and_no_crash(tmp_path: Path) -> None:
    gray = tmp_path / "gray.png"
    cv2.imwrite(str(gray), np.full((32, 48, 3), 128, np.uint8))
    model = blocks(tmp_path / "a.onnx")
    assert compared(model, model, [gray]).summary().box_iou == 1
    weights = WEIGHTS * 0
    (image,) = pictures(tmp_path / "images", 1)
    found = compared(model, blocks(tmp_path / "b.onnx", weights=weights), [image]).summary()
    assert (found.map_pearson, found.map_spearman, found.box_iou) == (0, 0, 0)
    assert found.peak_shift_px == pytest.approx(np.hypot(*SIZE))
    assert found.logit_error == 1


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path, images: list[Path]) -> None:
    images[3].write_bytes(images[3].read_bytes()[:50])
    images[5].write_bytes(b"")
    model = blocks(tmp_path / "a.onnx")
    report = gapcam_export.fidelity(model, model, images=tmp_path / "images", latency=False)
    assert [skipped.image for skipped in report.skipped] == [str(images[3]), str(images[5])]
    assert "cut off" in report.skipped[0].error
    assert len(report.comparison.rows) == 10
    unreadable: list[Path] = []
    with gapcam.load(model) as session:
        assert len(answers(session, images, on_unreadable=lambda path, _: unreadable.append(path))) == 10
        with pytest.raises(gapcam.DataError, match="cut off"):
            answers(session, images)
    assert unreadable == [images[3], images[5]]


def test_without_an_image_that_can_be_read_there_is_nothing_to_compare(tmp_path: Path) -> None:
    model = blocks(tmp_path / "a.onnx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no image")
    for images, said in (
        (tmp_path / "empty", "has no images"),
        (tmp_path / "bad.png", "none of 1 images can be read"),
        (tmp_path / "nowhere", "none of 1 images can be read"),
        ([], "no image was given"),
    ):
        with pytest.raises(gapcam.DataError, match=said):
            gapcam_export.fidelity(model, model, images=images, latency=False)


def test_models_of_other_classes_are_refused_and_of_other_labels_noted(tmp_path: Path, images: list[Path]) -> None:
    names = [f"class {index}" for index in range(CLASSES)]
    a = blocks(tmp_path / "a.onnx", labels=names)
    fewer = blocks(tmp_path / "fewer.onnx", weights=WEIGHTS[:3], bias=BIAS[:3])
    with pytest.raises(gapcam.ModelError, match="3 classes and the model that it is compared with has 7"):
        gapcam_export.fidelity(a, fewer, images=images)
    with gapcam.load(a) as one, gapcam.load(fewer) as other, pytest.raises(gapcam.ModelError, match="3 classes"):
        compare(answers(one, images), other, images)
    other_names = blocks(tmp_path / "b.onnx", labels=[*names[:5], "cat", "dog"])
    (note,) = gapcam_export.fidelity(a, other_names, images=images, latency=False).notes
    assert note.startswith("the labels of 2 of 7 classes differ (class 5 is 'class 5' and 'cat')")
    assert gapcam_export.fidelity(a, blocks(tmp_path / "none.onnx"), images=images, latency=False).notes == ()


def test_a_model_that_breaks_the_identity_is_compared_and_said_to_be_wrong(tmp_path: Path, images: list[Path]) -> None:
    import onnx

    a, b = blocks(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    model = onnx.load(a)
    model.graph.node[1].input[0] = "tripled"
    model.graph.node.insert(1, onnx.helper.make_node("Sum", ["averaged"] * 3, ["tripled"]))
    model.graph.node[3].input[0] = "averaged"  # what is pooled stays as it was
    onnx.save(model, b)
    with pytest.raises(gapcam.VerificationError):
        gapcam.load(b)
    report = gapcam_export.fidelity(a, b, images=images, latency=False)
    assert any(note.startswith(f"{b} is not right on onnxruntime") for note in report.notes)
    assert report.comparison.summary().logit_error == 0


def test_an_identity_whose_error_is_no_number_is_noted(images: list[Path]) -> None:
    def broken_on_noise(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = fake.compute(image)
        return {**outputs, "logits": outputs["logits"] * (np.nan if image.std() > 0.28 else 1)}

    fake = fake_red_and_blue()
    assert all(cv2.imread(str(image)).std() / 255 < 0.28 for image in images)
    backend = FakeBackend(broken_on_noise, fake.inputs["image"], fake.metadata)
    with gapcam.Session(fake) as right, gapcam.Session(backend, verify=False) as wrong:
        assert np.isnan(wrong.identity_error)
        report = report_fidelity(right, wrong, images, names=("right", "wrong"), latency=False)
        assert report_fidelity(right, right, images, latency=False).notes == ()
    (note,) = report.notes
    assert note.startswith("wrong is not right on fake: ")
    assert report.comparison.summary().logit_error == 0


def test_logits_that_are_no_numbers_end_the_comparison_with_the_images_name(images: list[Path]) -> None:
    def broken(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = fake.compute(image)
        return {**outputs, "logits": outputs["logits"] * (np.nan if image.mean() > 0.3 else 1)}

    fake = fake_red_and_blue()
    backend = FakeBackend(fake.compute, fake.inputs["image"], fake.metadata)
    with gapcam.Session(backend) as session:
        backend.compute = broken
        with pytest.raises(gapcam.VerificationError, match=r"images/\d+\.png: .* not finite"):
            answers(session, images)


def test_weights_are_for_networks_in_pytorch_alone(tmp_path: Path, images: list[Path]) -> None:
    model = blocks(tmp_path / "a.onnx")
    with pytest.raises(gapcam.UsageError, match="neither model is a network"):
        gapcam_export.fidelity(model, model, images=images, pretrained=True)
    with pytest.raises(gapcam.UsageError, match="both models are networks"):
        gapcam_export.fidelity("timm:a", "networks.py:b", images=images, checkpoint="w.pt")


@pytest.mark.parametrize(
    ("options", "said"), [({"threshold": 1.0}, "threshold is 1.0"), ({"worst": -1}, "worst is -1")]
)
def test_an_argument_out_of_its_range_is_refused_first(options: dict[str, object], said: str) -> None:
    with pytest.raises(gapcam.UsageError, match=said):
        gapcam_export.fidelity("no.onnx", "no.onnx", images="none", **options)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_said_to_be_missing_whatever_its_suffix(tmp_path: Path, images: list[Path]) -> None:
    model = blocks(tmp_path / "a.onnx")
    for name in ("b.onnx", "b"):
        with pytest.raises(gapcam.ModelError, match=f"there is no file .*{name};"):
            gapcam_export.fidelity(model, tmp_path / name, images=images)


@pytest.mark.parametrize("name", ["b.engine", "b.PLAN"])
def test_an_engine_is_opened_as_one_and_a_bare_plan_is_told_from_it(
    tmp_path: Path, images: list[Path], name: str
) -> None:
    model = blocks(tmp_path / "a.onnx")
    with pytest.raises(gapcam.ModelError, match=f"there is no file .*{name}; .* gapcam build MODEL.onnx -o"):
        gapcam_export.fidelity(model, tmp_path / name, images=images)
    (tmp_path / name).write_bytes(b"ftrt" + bytes(100))
    with pytest.raises(gapcam.ModelError, match=f"{name} is a bare TensorRT plan"):
        gapcam_export.fidelity(model, tmp_path / name, images=images)


def test_json_holds_every_figure_and_the_rows_that_they_come_from(tmp_path: Path, images: list[Path]) -> None:
    a, b = blocks(tmp_path / "a.onnx"), blocks(tmp_path / "b.onnx", weights=WEIGHTS[SWAPPED], bias=BIAS[SWAPPED])
    report = gapcam_export.fidelity(a, b, images=images, threads=1)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain == report.to_dict()
    assert msgspec.convert(plain["fidelity"], Fidelity) == report.comparison.summary()
    rows = [ImageFidelity(**{**row, "maps": None}) for row in plain["rows"]]
    assert Comparison(rows).figures()["top5_agreement"] == plain["fidelity"]["top5_agreement"]
    assert plain["reference"]["size_bytes"] == a.stat().st_size
    assert plain["other"]["name"] == str(b)
    assert plain["environment"]["cores"] >= 1
    assert report.latency is not None
    ratios = report.latency.reference.samples_ns / report.latency.other.samples_ns
    assert plain["latency"]["speedup"] == np.median(ratios)
    assert plain["latency"]["samples"] == len(ratios)
    assert plain["latency"]["threads"] == 1
    assert plain["latency"]["other"]["median_ms"] == np.median(report.latency.other.samples_ns) / 1e6


def test_latency_is_that_of_the_network_alone() -> None:
    def slowed(seconds: float) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        def compute(image: np.ndarray) -> dict[str, np.ndarray]:
            time.sleep(seconds)
            return fake.compute(image)

        return compute

    fake = fake_red_and_blue()
    slow, fast = (
        gapcam.Session(FakeBackend(slowed(seconds), fake.inputs["image"], fake.metadata)) for seconds in (0.02, 0.002)
    )
    frame = np.zeros((5000, 5000, 3), np.uint8)
    preprocessing_ms = []
    for _ in range(5):
        started = time.perf_counter()
        gapcam.preprocess(frame, fast.contract.preprocessing)
        preprocessing_ms.append((time.perf_counter() - started) * 1e3)
    found = compare_latency(slow, fast, frame, threads=None, rounds=3)
    assert found.reference.median_ms > 20
    quickest_ms = min(found.other.samples_ns) / 1e6  # the others of a busy machine may be longer
    assert 2 < quickest_ms < min(preprocessing_ms) / 2
    assert found.speedup > 2


def test_progress_goes_through_images_and_rounds(tmp_path: Path, images: list[Path]) -> None:
    said: list[tuple[str, int, int]] = []
    model = blocks(tmp_path / "a.onnx")
    gapcam_export.fidelity(model, model, images=images, threads=1, progress=lambda *step: said.append(step))
    assert [step for step in said if step[0] == "comparing images"] == [
        ("comparing images", done, 12) for done in range(1, 13)
    ]
    assert list(dict.fromkeys(step[0] for step in said)) == [
        "loading the models",
        "comparing images",
        "measuring latency",
    ]
    assert said[-1] == ("measuring latency", 50, 50)


def test_a_device_without_torch_and_onnx_compares_two_files(tmp_path: Path, images: list[Path]) -> None:
    a, b = blocks(tmp_path / "a.onnx"), blocks(tmp_path / "b.onnx", weights=WEIGHTS[SWAPPED], bias=BIAS[SWAPPED])
    absent = ["torch", "torchvision", "onnx", "onnxscript", "onnx_ir", "timm", "skimage", "safetensors", "scipy"]
    page = tmp_path / "page.html"
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
        "from gapcam.cli.main import main\n"
        f"main(['fidelity', {str(a)!r}, {str(b)!r}, '--images', {str(images[0])!r}, '--no-latency', "
        f"'--html', {str(page)!r}])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "box IoU" in ran.stdout
    assert page.exists()
