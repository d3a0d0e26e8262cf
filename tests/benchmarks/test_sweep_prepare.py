"""The files of a sweep's cells: the same graph with other outputs and in other precisions, each made once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from small_heads import normed, squared
from small_models import a_contract, red_and_blue

from gapcam import contract as names
from gapcam.contract import METADATA_KEY, HeadKind, contract_from_metadata
from gapcam.errors import ModelError
from gapcam_bench.block import Parity
from gapcam_bench.cell import Cell, Emit
from gapcam_bench.result import Row
from gapcam_bench.sweep.graph_outputs import TOP, write_with_outputs
from gapcam_bench.sweep.model_outline import outlines
from gapcam_bench.sweep.plan import Plan, PlannedCell
from gapcam_bench.sweep.prepare import Prepared, Unprepared, prepare, write_crops
from gapcam_bench.sweep.user_names import renamed, row_with_user_names, user_names

MODELS = {
    HeadKind.AFFINE: red_and_blue,
    HeadKind.CLASS_MAPS: lambda path: red_and_blue(path, contract=a_contract((4, 6), kind=HeadKind.CLASS_MAPS)),
    HeadKind.LAYERNORM: normed,
    HeadKind.NONLINEAR: squared,
}


def outputs_of(path: Path) -> list[str]:
    return [value.name for value in onnx.load(path).graph.output]


def run(path: Path, images: int = 3) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (fed,) = session.get_inputs()
    image = np.random.default_rng(0).random((images, *fed.shape[1:]), np.float32)
    wanted = [output.name for output in session.get_outputs()]
    return dict(zip(wanted, session.run(wanted, {fed.name: image}), strict=True))


def expected_maps(given: dict[str, np.ndarray], head: HeadKind) -> np.ndarray:
    """[N,K,h,w]: M_c = sum_k W[c,k] f_k, by NumPy; of a nonlinear head those of its best classes."""
    features = given["features"].astype(np.float64)
    if head is HeadKind.CLASS_MAPS:
        return features
    if head is HeadKind.NONLINEAR:
        return np.einsum("nkc,nchw->nkhw", given["topk_weights"], features)
    maps = np.einsum("kc,nchw->nkhw", given["cam_weights"], features)
    return maps * given["cam_scale"][:, None, None, None] if head is HeadKind.LAYERNORM else maps


@pytest.mark.parametrize("head", MODELS)
def test_plain_has_logits_alone_and_keeps_the_contract(tmp_path: Path, head: HeadKind) -> None:
    model, plain = MODELS[head](tmp_path / "m.onnx"), tmp_path / "plain.onnx"
    assert write_with_outputs(model, plain, "plain", head)
    assert outputs_of(plain) == [names.LOGITS]
    np.testing.assert_array_equal(run(plain)["logits"], run(model)["logits"])
    metadata = {entry.key: entry.value for entry in onnx.load(plain).metadata_props}
    assert contract_from_metadata(metadata, "plain.onnx").head.kind is head
    assert METADATA_KEY in metadata
    nodes = {name for node in onnx.load(plain).graph.node for name in node.output}
    assert not nodes & {"cam_scale", "topk_weights", "maps"}  # nothing is computed for nobody


@pytest.mark.parametrize("head", [kind for kind in MODELS if kind is not HeadKind.NONLINEAR])
def test_maps_are_every_classs_weighted_sum(tmp_path: Path, head: HeadKind) -> None:
    model, made = MODELS[head](tmp_path / "m.onnx"), tmp_path / "maps.onnx"
    assert write_with_outputs(model, made, "maps", head)
    onnx.checker.check_model(onnx.load(made), full_check=True)
    given = run(made)
    np.testing.assert_allclose(given["maps"], expected_maps(given, head), rtol=1e-5)
    # and the way back: what has them already stays, and what does not want them gets them taken away
    assert not write_with_outputs(made, tmp_path / "again.onnx", "maps", head)
    assert write_with_outputs(made, tmp_path / "features.onnx", "features", head)
    assert outputs_of(tmp_path / "features.onnx") == outputs_of(model)


@pytest.mark.parametrize("head", MODELS)
def test_topk_maps_are_those_of_the_best_classes(tmp_path: Path, head: HeadKind) -> None:
    model, made = MODELS[head](tmp_path / "m.onnx"), tmp_path / "topk.onnx"
    assert write_with_outputs(model, made, "topk", head)
    onnx.checker.check_model(onnx.load(made), full_check=True)
    given = run(made)
    best, maps = given["topk_classes"], expected_maps(given, head)
    ranked = np.argsort(-given["logits"], axis=1)[:, : best.shape[1]]
    np.testing.assert_array_equal(best, ranked)
    assert best.shape[1] == min(TOP, 2)
    wanted = maps if head is HeadKind.NONLINEAR else np.take_along_axis(maps, best[:, :, None, None], axis=1)
    np.testing.assert_allclose(given["topk_maps"], wanted, rtol=1e-5)


def test_what_a_model_has_already_stays_its_own(tmp_path: Path) -> None:
    model = squared(tmp_path / "m.onnx", maps=True)
    assert not write_with_outputs(model, tmp_path / "n.onnx", "maps", HeadKind.NONLINEAR)
    assert write_with_outputs(model, tmp_path / "n.onnx", "features", HeadKind.NONLINEAR)
    assert outputs_of(tmp_path / "n.onnx") == [name for name in outputs_of(model) if name != "maps"]
    assert not write_with_outputs(model, tmp_path / "n.onnx", "plain", None)


def test_a_model_that_lacks_what_its_head_needs_is_refused(tmp_path: Path) -> None:
    def without(model: onnx.ModelProto) -> None:
        kept = [value for value in model.graph.output if value.name != "cam_weights"]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    model = red_and_blue(tmp_path / "m.onnx", change=without)
    with pytest.raises(ModelError, match="no output cam_weights"):
        write_with_outputs(model, tmp_path / "n.onnx", "maps", HeadKind.AFFINE)


def plan_of(path: Path, *cells: tuple[str, Emit]) -> Plan:
    (model,) = outlines([str(path)])
    planned = [PlannedCell(cell=Cell(model=model.label, precision=precision, emit=emit)) for precision, emit in cells]
    return Plan(cells=tuple(planned), models={model.label: model})


def test_each_file_is_made_once_and_used_again_by_a_later_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    cells: tuple[tuple[str, Emit], ...] = (("as-is", "features"), ("fp16", "plain"), ("fp16", "features"))
    plan = plan_of(tiny_model, *cells, ("int8", "maps"))
    said: list[str] = []
    made = prepare(plan, folder, say=said.append)
    assert said == ["making fp16 of tiny.onnx", "making int8 of tiny.onnx"]
    files = [made[cell.key] for cell in plan.measured]
    assert all(isinstance(file, Prepared) for file in files)
    paths = [Path(file.file) for file in files if isinstance(file, Prepared)]
    assert paths[0] == tiny_model  # nothing is made where the user's own will do
    assert len(set(paths)) == 4
    kinds = [outlines([str(path)])[0] for path in paths]
    assert [kind.precision for kind in kinds] == ["fp32", "fp16", "fp16", "int8"]
    assert kinds[1].outputs == ("logits",)
    assert "maps" in kinds[3].outputs
    assert "calibrated on crops" in " ".join(
        note for file in files if isinstance(file, Prepared) for note in file.notes
    )
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.onnx")}
    again = prepare(plan, folder, say=said.append)
    assert again == made
    assert len(said) == 2
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.onnx")} == before


def test_what_cannot_be_made_says_why_and_keeps_nothing_else_from_being_made(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    model = onnx.load(tiny_model)
    kept = [value for value in model.graph.output if value.name != "cam_weights"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, tiny_model)
    plan = plan_of(tiny_model, ("as-is", "maps"), ("as-is", "plain"))
    maps, plain = prepare(plan, folder).values()
    assert isinstance(maps, Unprepared)
    assert maps.failed
    assert "cam_weights" in maps.reason
    assert isinstance(plain, Prepared)


def test_what_a_writer_did_not_foresee_costs_its_cell_alone(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    model = onnx.load(tiny_model)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(model, tiny_model)
    topk, features = prepare(plan_of(tiny_model, ("as-is", "topk"), ("as-is", "features")), folder).values()
    assert isinstance(topk, Unprepared)
    assert topk.failed
    assert "classes" in topk.reason
    assert isinstance(features, Prepared)


def test_a_model_without_a_layer_to_quantise_is_skipped_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (found,) = prepare(plan_of(squared(tmp_path / "m.onnx"), ("int8", "features")), folder).values()
    assert isinstance(found, Unprepared)
    assert not found.failed
    assert "there is nothing to quantise" in found.reason


def test_files_of_a_model_with_the_longest_name_can_be_written(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    named = tiny_model.rename(tmp_path / ("\U0001f600" * 60 + ".onnx"))
    (found,) = prepare(plan_of(named, ("fp16", "plain")), folder).values()
    assert isinstance(found, Prepared)
    assert Path(found.file).is_file()


def test_messages_name_the_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    plan = plan_of(red_and_blue(tmp_path / "in" / "m.onnx"), ("as-is", "plain"))
    plan = msgspec.structs.replace(plan, images="/elsewhere/photos", reference=str(tmp_path / "in" / "r.onnx"))
    (model,) = plan.models.values()
    made = str(tmp_path / "r.json.part" / "files" / "m-plain-1234.onnx")
    names = user_names(plan, model, made)
    for said, expected in (
        (f"{made} has no image", "in/m.onnx has no image"),
        (f"{tmp_path}/r.json.part/files/m-int8-5678.onnx: it", "in/m.onnx: it"),
        ("m-plain-1234.onnx: it", "in/m.onnx: it"),
        (f"{model.path} and {plan.reference}", "in/m.onnx and in/r.onnx"),
        ("/elsewhere/photos/a.jpg is cut off", "photos/a.jpg is cut off"),
        (f"{tempfile.gettempdir()}/gapcam-ab_1/float32.onnx has", "in/m.onnx has"),
        ("in/m.onnx is m.onnx", "in/m.onnx is m.onnx"),
    ):
        assert renamed(said, names, model.label) == expected


def test_checks_name_the_reference_and_the_model_even_where_both_are_called_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in", "ref"):
        (tmp_path / name).mkdir()
        red_and_blue(tmp_path / name / "m.onnx")
    plan = plan_of(tmp_path / "in" / "m.onnx", ("int8", "plain"))
    named = msgspec.structs.replace(plan, reference=str(tmp_path / "ref" / "m.onnx"))
    (cell,) = plan.measured
    found = Parity(
        against="m.onnx", pictures=4, top1=1.0, logits_error=0.0, map_correlation=None, holds=True, tolerance=0.2
    )
    made = str(tmp_path / "r.json.part" / "files" / "m-int8-1234.onnx")
    row = Row(id=cell.key, cell=cell, status="valid", parity=found, fidelity=found)
    row = msgspec.structs.replace(row, parity=msgspec.structs.replace(found, against="m-int8-1234.onnx"))
    for plan_, reference in ((plan, "in/m.onnx"), (named, "ref/m.onnx")):
        shown = row_with_user_names(row, plan_, made)
        assert shown.parity is not None
        assert shown.fidelity is not None
        assert (shown.parity.against, shown.fidelity.against) == ("in/m.onnx", reference)


def test_forty_crops_are_forty_pictures(tmp_path: Path) -> None:
    write_crops(tmp_path)
    contents = {path.read_bytes() for path in tmp_path.glob("*.png")}
    assert len(contents) == 40
