"""`gapcam quantize` and `gapcam export --precision`: a float32 model is lowered, and what was lost is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration_images import write_photographs
from click.testing import CliRunner
from onnx import numpy_helper

import gapcam
import gapcam_export
from gapcam.cli.console import stdout
from gapcam.cli.main import main
from gapcam.contract import METADATA_KEY
from gapcam.errors import ExitCode
from gapcam.frame import Frame
from gapcam_export import PrecisionOptions

NETWORK = f"{Path(__file__).with_name('networks.py')}:gap_network"
SIZE = ("--size", 64, 64)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as wide as they need to be."""
    monkeypatch.setattr(stdout, "width", 400)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in float32, with the contract."""
    path = tmp_path_factory.mktemp("float32") / "model.onnx"
    gapcam_export.export(NETWORK, path, size=(64, 64))
    return path


def command(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in done.stderr, done.stderr
    return done.exit_code, done.stdout, done.stderr


def quantize(model: Path, output: Path, *arguments: object) -> tuple[int, str, str]:
    return command("quantize", model, "-o", output, "--threads", 1, *arguments)


def pairs(path: Path) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


def test_an_int8_model_says_what_it_is_and_what_it_lost(float32: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.int8.onnx"
    code, out, err = quantize(float32, path, "--calibrate", photos, "--target", "cpu-x86", "--json")
    assert code == ExitCode.DONE, err
    report = json.loads(out)
    assert pairs(path) > 0
    assert report["size_bytes"] == path.stat().st_size
    with gapcam.load(path) as session, gapcam.load(float32) as before:
        contract = session.contract
        assert session.identity_error <= 1e-4  # the head is in float32, and reads the very features that are put out
        np.testing.assert_array_equal(session.weights, before.weights)
    assert (contract.precision, contract.head_precision) == ("int8", "fp32")
    assert (contract.quantization.target, contract.quantization.method) == ("cpu-x86", "minmax")
    assert contract.quantization.calibration_images == 16
    assert contract.quantization.features_scale > 0
    assert contract.fidelity.images == 16
    assert contract.fidelity.box_iou == report["fidelity"]["fidelity"]["box_iou"]
    assert contract.fidelity.map_pearson > 0.9
    assert report["contract"]["fidelity"] == {**report["fidelity"]["fidelity"], "emulated": False}
    assert [row["name"].rpartition("/")[2] for row in report["fidelity"]["rows"]] == sorted(
        path.name for path in photos.iterdir()
    )
    assert any("calibration images" in note for note in report["notes"])
    assert "search" not in report


def test_what_it_reports_is_what_gapcam_fidelity_measures(float32: Path, photos: Path, tmp_path: Path) -> None:
    path, others = tmp_path / "model.int8.onnx", write_photographs(tmp_path / "others", count=5, side=260)
    code, out, _ = quantize(float32, path, "--calibrate", photos, "--check", others, "--json")
    assert code == ExitCode.DONE
    again = gapcam_export.fidelity(float32, path, images=[str(others)], latency=False)
    assert json.loads(out)["fidelity"]["rows"] == again.to_dict()["rows"]
    with gapcam.load(path) as session:
        assert session.contract.fidelity == again.comparison.summary()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_needs_no_images(float32: Path, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "model.onnx"
    code, out, err = quantize(float32, path, "--precision", precision)
    assert code == ExitCode.DONE, err
    assert "four photographs" in err
    assert f"in {precision}" in out
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16) in types
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    contract = json.loads(entries[METADATA_KEY])
    assert contract["precision"] == precision
    assert contract["head_precision"] == "fp32"
    assert contract["fidelity"]["map_pearson"] > 0.99
    assert contract["verification"]["identity_error"] <= contract["verification"]["identity_tolerance"]


def test_bfloat16_is_refused_on_a_cpu_with_a_line(float32: Path, tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "model.onnx"
    assert quantize(float32, path, "--precision", "bf16")[0] == ExitCode.DONE
    code, _, err = command("run", path, photos)
    assert code == ExitCode.MODEL
    assert len(err.strip().splitlines()) == 1
    assert "bf16" in err or "bfloat16" in err


def test_export_lowers_in_the_same_command(photos: Path, tmp_path: Path) -> None:
    path, page = tmp_path / "model.onnx", tmp_path / "report.html"
    code, out, err = command(
        "export",
        NETWORK,
        *SIZE,
        "--precision",
        "int8",
        "--calibrate",
        photos,
        "--html",
        page,
        "--threads",
        1,
        "-o",
        path,
    )
    assert code == ExitCode.DONE, err
    assert "Agreement on 16 images" in out
    assert "all classes (relative), in int8 on 16 images" in out
    assert "calibrating ..." in err.splitlines()
    assert "<html" in page.read_text()
    with gapcam.load(path) as session:
        assert session.contract.precision == "int8"
        assert session.contract.source.spec.endswith("networks.py:gap_network")


def test_export_compares_on_the_images_that_it_verifies_on(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    code, out, err = command(
        "export", NETWORK, *SIZE, "--precision", "fp16", "--verify", photos, "--threads", 1, "-o", path, "--json"
    )
    assert code == ExitCode.DONE, err
    assert len(json.loads(out)["fidelity"]["rows"]) == 16


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, float32: Path) -> Path:
    """The network with one weight a channel of its last convolution that makes all others vanish in eight bits."""
    model = onnx.load(float32)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def change(name: str, where: object, value: float) -> None:
        values = numpy_helper.to_array(constants[name]).copy()
        values[where] = value
        constants[name].CopyFrom(numpy_helper.from_array(values, name))

    # Of a channel that is silent, so that the float32 model does not mind.
    stem, last = convolutions[0], convolutions[-1]
    change(stem.input[1], 0, 0)
    change(stem.input[2], 0, -1)
    change(last.input[1], (slice(None), 0, 0, 0), 100)
    path = tmp_path_factory.mktemp("hostile") / "model.onnx"
    onnx.save(model, path)
    return path


def last_convolution(path: Path) -> str:
    return [node for node in onnx.load(path).graph.node if node.op_type == "Conv"][-1].name


@pytest.fixture(scope="module")
def searched(hostile: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("searched") / "model.onnx"
    plain = gapcam_export.quantize(
        hostile, path, PrecisionOptions(precision="int8", calibrate=photos, target="cpu-x86", threads=1)
    )
    target = (1 + plain.fidelity.comparison.summary().box_iou) / 2
    options = ("--calibrate", photos, "--target", "cpu-x86", "--min-map-iou", target)
    code, out, err = quantize(hostile, path, *options, "--json")
    assert code == ExitCode.DONE, err
    return path, json.loads(out)


def test_the_layer_that_hurts_the_map_stays_in_float32(hostile: Path, searched: tuple[Path, dict]) -> None:
    _, report = searched
    search = report["search"]
    assert search["ranking"][0]["layer"] == last_convolution(hostile)
    assert search["kept"][0] == last_convolution(hostile)
    assert set(report["contract"]["quantization"]["kept_layers"]) == set(search["kept"])
    assert report["fidelity"]["fidelity"]["box_iou"] >= search["target"]
    assert search["steps"][0]["fidelity"]["box_iou"] < search["target"]
    assert all(step["median_ms"] > 0 and step["speedup"] > 0 for step in search["steps"])


def test_a_layer_that_is_kept_really_computes_in_float32(hostile: Path, searched: tuple[Path, dict]) -> None:
    path, _ = searched
    model = onnx.load(path)
    name = last_convolution(hostile)
    (kept,) = (node for node in model.graph.node if node.name == name)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}[kept.input[1]]
    (original,) = (node for node in onnx.load(hostile).graph.node if node.name == name)
    before = {tensor.name: tensor for tensor in onnx.load(hostile).graph.initializer}[original.input[1]]
    np.testing.assert_array_equal(numpy_helper.to_array(weights), numpy_helper.to_array(before))


def test_onnx_runtime_leaves_a_layer_in_float32_that_was_kept(photos: Path, tmp_path: Path, cat: Frame) -> None:
    model, path = tmp_path / "model.onnx", tmp_path / "kept.onnx"
    gapcam_export.export(NETWORK.replace("gap_network", "uneven"), model, size=(64, 64))
    layer = [node.name for node in onnx.load(model).graph.node if node.op_type == "Conv"][1]
    assert quantize(model, path, "--calibrate", photos, "--target", "cpu-x86", "--keep", layer)[0] == ExitCode.DONE
    literally = {"graph_optimization_level": "ORT_DISABLE_ALL"}
    with gapcam.load(path) as optimized, gapcam.load(path, session_options=literally) as literal:
        wanted = literal(cat).features
        error = np.abs(optimized(cat).features - wanted).max() / np.abs(wanted).max()
    assert error < 0.03


def test_the_search_is_shown_with_what_each_step_costs(float32: Path, photos: Path, tmp_path: Path) -> None:
    code, out, err = quantize(float32, tmp_path / "m.onnx", "--calibrate", photos, "--min-map-iou", 0.01)
    assert code == ExitCode.DONE, err
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines()]
    (step,) = (row for row in rows if row[-1] == "chosen")
    assert step[0] == "0"
    assert float(step[3]) > 0


def test_layers_can_be_kept_by_name(float32: Path, photos: Path, tmp_path: Path) -> None:
    path, name = tmp_path / "m.onnx", last_convolution(float32)
    code, out, _ = quantize(float32, path, "--calibrate", photos, "--keep", name, "--json")
    assert code == ExitCode.DONE
    quantization = json.loads(out)["contract"]["quantization"]
    assert quantization["kept_layers"] == [name]
    assert quantization["features_scale"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), ExitCode.USAGE, "100 or more, with --calibrate DIR"),
        (("--calibrate", "nowhere"), ExitCode.DATA, "no such folder"),
        (("--precision", "bf16", "--calibrate", "photos"), ExitCode.USAGE, "--calibrate: bfloat16 holds all"),
        (("--calibrate", "three"), ExitCode.DATA, "three holds 3 images to calibrate on; expected at least 16"),
        (("--precision", "fp16", "--target", "tensorrt"), ExitCode.USAGE, "--target: only for int8"),
        (("--calibrate", "photos", "--min-map-iou", "1.5"), ExitCode.USAGE, "above 0 and at most 1"),
        (("--calibrate", "photos", "--keep", "nobody"), ExitCode.USAGE, "no layer 'nobody'"),
        (("--calibrate", "photos", "--target", "tensorrt", "--reduce-range"), ExitCode.USAGE, "x86 CPUs without VNNI"),
        (("--calibrate", "photos", "--check", "nowhere"), ExitCode.DATA, "--check nowhere: there is no such folder"),
        (("--calibrate", "photos", "--html", "."), ExitCode.DATA, "is a folder"),
    ],
)
def test_wrong_options_end_with_a_line(
    float32: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    write_photographs(tmp_path / "three", 3)
    ended, _, err = quantize(float32, Path("m.onnx"), *arguments)
    assert (ended, [line for line in err.splitlines() if said in line] != []) == (code, True), err
    assert not Path("m.onnx").exists()


def test_export_refuses_what_belongs_to_a_lower_precision(photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for options in (("--calibrate", photos), ("--html", page), ("--lower-head",), ("--check", photos)):
        code, _, err = command("export", NETWORK, *SIZE, *options, "-o", tmp_path / "m.onnx")
        assert code == ExitCode.USAGE
        assert "--precision" in err
        assert not list(tmp_path.iterdir())


def test_a_model_that_is_lowered_already_is_refused(float32: Path, photos: Path, tmp_path: Path) -> None:
    for name, options in (("int8", ("--calibrate", photos)), ("fp16", ("--precision", "fp16"))):
        path = tmp_path / f"{name}.onnx"
        assert quantize(float32, path, *options)[0] == ExitCode.DONE
        for again in (("--calibrate", photos), ("--precision", "fp16"), ("--precision", "bf16")):
            code, _, err = quantize(path, tmp_path / "again.onnx", *again)
            assert code == ExitCode.MODEL
            assert "give the float32 model" in err
            assert not (tmp_path / "again.onnx").exists()


def test_a_model_without_the_contract_is_refused_with_the_way_to_get_one(
    float32: Path, photos: Path, tmp_path: Path
) -> None:
    model = onnx.load(float32)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    code, _, err = quantize(tmp_path / "plain.onnx", tmp_path / "m.onnx", "--calibrate", photos)
    assert code == ExitCode.MODEL
    assert f"gapcam export {tmp_path / 'plain.onnx'}" in err


def test_no_output_is_written_over_the_model_or_another_output(float32: Path, photos: Path, tmp_path: Path) -> None:
    before, path, link = float32.read_bytes(), tmp_path / "m.onnx", tmp_path / "link.html"
    link.symlink_to(float32)
    for output, page in ((float32, tmp_path / "p.html"), (path, float32), (path, link), (path, path)):
        code, _, err = quantize(float32, output, "--calibrate", photos, "--html", page)
        assert code == ExitCode.DATA
        assert "would be lost" in err
        assert float32.read_bytes() == before
        assert not path.exists()


def test_an_export_spares_its_source_where_it_would_lose_float32(float32: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(before := float32.read_bytes())
    for output, page in ((path, tmp_path / "p.html"), (tmp_path / "o.onnx", path)):
        code, _, err = command("export", path, "--precision", "fp16", "--html", page, "-o", output)
        assert code == ExitCode.DATA
        assert "would be lost" in err
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_images_to_compare_on_that_cannot_be_read_are_named(float32: Path, tmp_path: Path) -> None:
    others = write_photographs(tmp_path / "others", count=3)
    (others / "broken.png").write_bytes(b"no image")
    code, out, err = quantize(float32, tmp_path / "m.onnx", "--precision", "fp16", "--check", others)
    assert code == ExitCode.DONE
    assert "Agreement on 3 images" in out
    assert "broken.png" in err


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_was_emulated_is_said_to_be_where_it_is_shown(float32: Path, tmp_path: Path, precision: str) -> None:
    path, page = tmp_path / "m.onnx", tmp_path / "page.html"
    code, out, err = quantize(float32, path, "--precision", precision, "--html", page, "--json")
    assert code == ExitCode.DONE, err
    report = json.loads(out)
    assert report["contract"]["fidelity"]["emulated"]
    assert "emulated in float32" in report["fidelity"]["other"]["engine"]
    assert "emulated in float32" in page.read_text()
    assert any("are rounded to" in note for note in report["fidelity"]["notes"])
    assert "are rounded to" in page.read_text()
    assert report["fidelity"]["other"]["size_bytes"] == path.stat().st_size  # not the emulation's
    assert (report["fidelity"]["latency"] is None) == (precision == "bf16")


def test_the_identity_of_a_lowered_head_is_that_of_rounded_numbers(float32: Path, tmp_path: Path) -> None:
    # ONNX Runtime computes float16 in float32 on a CPU, where it would hold to 1e-7.
    for precision, least in (("fp16", 1e-5), ("bf16", 1e-4)):
        path = tmp_path / f"{precision}.onnx"
        code, out, err = quantize(float32, path, "--precision", precision, "--lower-head", "--json")
        assert code == ExitCode.DONE, err
        verification = json.loads(out)["contract"]["verification"]
        assert least < verification["identity_error"] <= verification["identity_tolerance"]
        assert verification["identity_images"] == 4


def test_inspect_shows_the_precision_and_what_it_cost(float32: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert quantize(float32, path, "--calibrate", photos, "--target", "tensorrt")[0] == ExitCode.DONE
    code, out, _ = command("inspect", path)
    assert code == ExitCode.DONE
    assert "int8 for tensorrt" in out
    assert "by minmax on 16 images" in out
    assert "box IoU" in out
