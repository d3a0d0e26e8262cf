"""From axes to cells: what is combined, what is left out and why, and in which order it is measured."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapcam.contract import HeadKind
from gapcam.errors import BackendError, ModelError, UsageError
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.sweep.axes import Axes, axes_from_texts, frame_text
from gapcam_bench.sweep.devices_here import resolve_devices
from gapcam_bench.sweep.model_outline import ModelOutline, outlines
from gapcam_bench.sweep.plan import PlannedCell, planned_cells
from gapcam_bench.sweep.schedule import TimeLeft, Turn, duration_text, turns


def an_outline(**facts: Any) -> ModelOutline:
    usual = {
        "label": "m.onnx",
        "path": "/m.onnx",
        "sha256": "0" * 64,
        "head": HeadKind.AFFINE,
        "precision": "fp32",
        "batch": None,
        "outputs": ("logits", "features", "cam_weights", "cam_bias"),
    }
    return ModelOutline(**{**usual, **facts})


def plan(model: ModelOutline | None = None, refused: dict[str, str] | None = None, **axes: Any) -> list[PlannedCell]:
    devices = axes.pop("devices", ("cpu",))
    found = planned_cells(Axes(**axes), [model or an_outline()], devices=devices, refused=refused or {})
    assert len({planned.cell.key for planned in found}) == len(found)
    return list(found)


def test_lists_become_axes() -> None:
    axes = axes_from_texts(
        device="cpu, cuda:1,cpu",
        precision="as-is,int8",
        emit="maps",
        scenario="camera,server",
        batch="1,8",
        frame="1080p,640x480",
        threads="all,2",
        without="boxes",
    )
    assert axes == Axes(
        devices=("cpu", "cuda:1"),
        precisions=("as-is", "int8"),
        emits=("maps",),
        scenarios=("camera", "server"),
        batches=(1, 8),
        frames=((1080, 1920), (480, 640)),
        threads=(None, 2),
        work=("decode", "overlay"),
    )
    assert [frame_text(frame) for frame in axes.frames] == ["1080p", "640x480"]


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("device", "gpu", "there is no device 'gpu'; give one of auto, cpu, cuda"),
        ("precision", "fp64", "--precision does not take 'fp64'; give one or more of as-is, fp16, bf16, int8"),
        ("emit", "map", "--emit does not take 'map'; give one or more of plain, features, maps, topk"),
        ("scenario", "batch", "--scenario does not take 'batch'"),
        ("batch", "0", "--batch does not take '0'; give whole numbers from 1 to 4096"),
        ("batch", "1,,2", "expected values with commas between"),
        ("batch", "", "expected values with commas between"),
        ("frame", "8k", "--frame does not take '8k'; give 720p, 1080p, 4k, or WIDTHxHEIGHT"),
        ("frame", "1x1", "expected sides from 16 to 16384"),
        ("threads", "many", "give whole numbers from 1 to 1024, or all"),
        ("without", "cam", "--without does not take 'cam'; give one or more of decode, overlay, boxes"),
    ],
)
def test_a_value_of_no_axis_is_refused_with_what_there_is(option: str, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        axes_from_texts(**{option: text})
    assert said in str(caught.value)


def test_all_combinations_are_planned_those_that_are_compared_side_by_side() -> None:
    found = plan(precisions=("as-is", "fp16"), batches=(1, 4), threads=(1, 2))
    assert len(found) == 2 * 2 * 2 * 2
    assert all(planned.skipped is None for planned in found)
    for plain, features in zip(found[::2], found[1::2], strict=True):
        assert (plain.cell.emit, features.cell.emit) == ("plain", "features")
        assert (plain.cell.work, features.cell.work) == (("decode",), ("decode", "overlay", "boxes"))
        assert plain.cell.batch == features.cell.batch


def test_threads_are_the_cpus_alone() -> None:
    found = plan(devices=("cpu", "cuda"), threads=(1, 2), emits=("features",))
    assert [(planned.cell.device, planned.cell.threads) for planned in found] == [
        ("cpu", 1),
        ("cpu", 2),
        ("cuda", None),
    ]


def test_a_model_without_a_contract_is_a_plain_classifier_and_no_more() -> None:
    found = plan(an_outline(head=None, precision=None), precisions=("as-is", "int8"))
    assert [planned.cell.emit for planned in found] == ["plain", "plain"]
    assert found[0].skipped is None
    assert found[1].skipped == "int8 is made of models with gapcam's contract, and m.onnx has none"


@pytest.mark.parametrize(
    ("model", "axes", "said"),
    [
        ({"precision": "int8"}, {"precisions": ("int8",)}, "m.onnx computes in int8; as-is measures it as it is"),
        ({"precision": "fp16"}, {"precisions": ("int8",)}, "made of a float32 model"),
        ({}, {"precisions": ("bf16",)}, "does not compute in bfloat16 on the CPU"),
        ({"precision": "bf16"}, {}, "does not compute in bfloat16 on the CPU"),
        ({"batch": 4}, {"batches": (4,)}, "m.onnx takes 4 images at a time, always; export it without --static-batch"),
        ({"batch": 4}, {"precisions": ("fp16",), "batches": (4,)}, "takes 4 images at a time, always"),
        ({"batch": 1}, {"batches": (4,)}, "takes 1 image at a time, not 4; export it without --static-batch"),
        ({"head": HeadKind.NONLINEAR}, {"emits": ("maps",)}, "nonlinear: export it with --emit maps"),
        ({}, {"scenarios": ("multi-stream",), "batches": (16,)}, "a query of multi-stream has 8 pictures"),
        ({}, {"devices": ("cuda",)}, "no driver"),
        ({"runtime": "tensorrt"}, {}, "an engine of tensorrt, which device cpu does not run"),
        ({"runtime": "tensorrt"}, {"devices": ("tensorrt",), "precisions": ("int8",)}, "precision is as it was built"),
        ({"runtime": "tensorrt"}, {"devices": ("tensorrt",), "emits": ("plain",)}, "outputs cannot be taken away"),
        ({"runtime": "tensorrt"}, {"devices": ("tensorrt",), "emits": ("topk",)}, "without the output topk_maps"),
        (
            {"runtime": "tensorrt", "batch": 8},
            {"devices": ("tensorrt",), "emits": ("features",)},
            "was built for 8 images at a time, not 1",
        ),
    ],
)
def test_a_combination_that_cannot_be_measured_is_a_row_with_the_reason(
    model: dict[str, Any], axes: dict[str, Any], said: str
) -> None:
    found = plan(an_outline(**model), {"cuda": "no driver"}, **axes)
    assert found
    for planned in found:
        assert planned.skipped is not None
        assert said in planned.skipped


def test_what_the_same_models_can_do_is_measured() -> None:
    assert plan(an_outline(batch=1))[0].skipped is None
    assert plan(an_outline(precision="bf16"), devices=("cuda",))[0].skipped is None
    nonlinear = an_outline(head=HeadKind.NONLINEAR, outputs=("logits", "features", "maps"))
    assert plan(nonlinear, emits=("maps",))[0].skipped is None
    engine = an_outline(runtime="tensorrt", outputs=("logits", "features", "topk_maps"))
    assert plan(engine, devices=("tensorrt:1",), emits=("topk",))[0].skipped is None


def test_each_round_has_every_cell_in_another_order_and_the_same_order_again() -> None:
    cells = [Cell(model=f"{number}.onnx") for number in range(6)]
    order = list(turns(cells, 20, seed=0))
    assert order == list(turns(cells, 20, seed=0))
    assert order != list(turns(cells, 20, seed=1))
    rounds = [tuple(turn.cell.model for turn in order if turn.round == number) for number in range(20)]
    assert all(sorted(each) == sorted(cell.model for cell in cells) for each in rounds)
    assert [turn.round for turn in order] == sorted(turn.round for turn in order)
    assert len(set(rounds)) > 15
    assert min(Counter(each[0] for each in rounds).values()) >= 1  # no cell is never the first


def test_time_left_follows_what_blocks_have_taken() -> None:
    quick, slow, new = (Cell(model=name) for name in ("quick", "slow", "new"))
    left = TimeLeft(Limits(least_seconds=2.0))
    ahead = [Turn(0, quick), Turn(0, slow)]
    assert left.of(ahead) == 2 * left.guess("single-stream") > 4
    for seconds in (1.0, 1.2, 9.0):
        left.took(quick, seconds)
    left.took(slow, 10.0)
    assert left.of(ahead) == pytest.approx(1.2 + 10.0)
    assert left.of([Turn(1, new)]) == pytest.approx((1.2 + 9.0) / 2)  # of all blocks
    server, other = (Cell(model=name, scenario="server") for name in ("quick", "slow"))
    assert left.of([Turn(1, server)]) == left.guess("server") > 60  # which those of others say nothing of
    left.took(server, 45.0)
    assert left.of([Turn(1, other)]) == 45
    assert left.of([Turn(1, new)]) == pytest.approx((1.2 + 9.0) / 2)


@pytest.mark.parametrize(("most", "of_a_server"), [(20.0, 60.0), (5.0, 15.0), (25.0, 60.0), (120.0, 120.0)])
def test_a_server_has_longer_blocks_but_not_without_end(most: float, of_a_server: float) -> None:
    limits = Limits(most_seconds=most)
    assert limits.of("server") == msgspec.structs.replace(limits, most_seconds=of_a_server)
    for scenario in ("single-stream", "multi-stream", "offline", "camera"):
        assert limits.of(scenario) == limits


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40, "40 s"), (180, "3 min"), (7500, "2 h 05 min"), (5399, "1 h 30 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_models_are_known_by_their_path_from_here_or_their_name(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here,) = outlines([str(tiny_model)])
    assert (here.label, here.path) == ("tiny.onnx", str(tiny_model))
    assert (here.head, here.precision, here.batch) == (HeadKind.AFFINE, "fp32", None)
    monkeypatch.chdir(tmp_path.parent)
    assert outlines([str(tiny_model)])[0].label == f"{tmp_path.name}/tiny.onnx"


def test_models_of_the_same_name_are_told_apart_by_their_folders(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new", "here", "deep/old"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(tiny_model, tmp_path / name / "m.onnx")
    monkeypatch.chdir(tmp_path)
    given = ["old/m.onnx", "here/../new/m.onnx", "./here/m.onnx"]
    assert [model.label for model in outlines(given)] == ["old/m.onnx", "new/m.onnx", "here/m.onnx"]
    assert [str(model.shown) for model in outlines(given)] == ["old/m.onnx", "new/m.onnx", "here/m.onnx"]
    monkeypatch.chdir("here")
    elsewhere = ["../old/m.onnx", "../new/m.onnx", "m.onnx", "../deep/old/m.onnx", "../tiny.onnx"]
    labels = [model.label for model in outlines(elsewhere)]
    assert labels == [f"{tmp_path.name}/old/m.onnx", "new/m.onnx", "m.onnx", "deep/old/m.onnx", "tiny.onnx"]
    with pytest.raises(UsageError, match=r"^\.\./old/m\.onnx is given 2 times; once is enough$"):
        outlines(["../old/m.onnx", "../here/../old/m.onnx"])
    with pytest.raises(ModelError, match="there is no file"):
        outlines(["nothing.onnx"])


def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    assert resolve_devices(["cpu"]) == (("cpu",), {})
    assert resolve_devices(["cpu", "cpu"])[0] == ("cpu",)
    from gapcam.cuda.presence import presence

    if not presence().problem:
        pytest.skip("there is a GPU here")
    assert resolve_devices(["auto"]) == resolve_devices(["all"]) == (("cpu",), {})
    devices, refused = resolve_devices(["cpu", "cuda:1"])
    assert devices == ("cpu", "cuda:1")
    assert refused == {"cuda:1": f"device cuda:1 does not work here: {presence().problem}"}
    with pytest.raises(BackendError, match=r"device tensorrt does not work here: .*What works here: cpu\."):
        resolve_devices(["tensorrt"])
