"""The benchmark's command, its outcome, and that its steps are what they say."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import gapcam
from gapcam.cli.main import main
from gapcam.latency import Latency
from gapcam_bench import map_cost as map_cost_module
from gapcam_bench.cli.map_cost import show
from gapcam_bench.map_cost import large_photograph, map_cost, notes_on, plain_classifier, ratios, steps_of

STEPS = ["plain", "features", "map", "copy", "overlay", "naive"]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench", "map-cost", *map(str, arguments)])


def test_the_json_has_the_documented_fields(tiny_model: Path) -> None:
    ran = invoke(tiny_model, "--rounds", "2", "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert list(found) == ["model", "frame", "threads", "samples", "environment", "latency", "ratios", "notes"]
    assert (found["model"], found["frame"], found["threads"], found["samples"]) == ("tiny.onnx", [1080, 1920], 1, 8)
    assert list(found["environment"]) == ["cpu", "cores", "system", "python", "versions"]
    assert found["environment"]["versions"]["onnxruntime"] == onnxruntime.__version__
    assert list(found["latency"]) == STEPS
    for figures in found["latency"].values():
        assert 0 < figures["median_ms"] <= figures["p99_ms"]
    assert [(ratio["step"], ratio["unit"], ratio["target"]) for ratio in found["ratios"]] == [
        ("features", "plain", None),
        ("map", "plain", 1.03),
        ("overlay", "copy", 12.0),
        ("naive", "copy", None),
    ]


def test_the_tables_name_every_step_and_the_machine(tiny_model: Path) -> None:
    ran = invoke(tiny_model, "--rounds", "1")
    assert ran.exit_code == 0, ran.output
    for word in [*STEPS, "1920 x 1080", "at most 1.03", "at most 12", f"gapcam {gapcam.__version__}"]:
        assert word in ran.stdout


def test_a_target_is_passed_up_to_its_limit_and_missed_above_it() -> None:
    measured = {"plain": 1000, "features": 2000, "map": 1030, "copy": 10, "overlay": 121, "naive": 500}
    found = ratios({name: Latency([duration]) for name, duration in measured.items()})
    assert [(ratio.ratio, ratio.verdict) for ratio in found] == [
        (2.0, None),
        (1.03, "PASS"),
        (12.1, "MISS"),
        (50.0, None),
    ]


def test_a_ratio_clearly_below_1_is_called_noise() -> None:
    measured = {"plain": 1000, "features": 980, "map": 799, "copy": 10, "overlay": 121, "naive": 500}
    found = ratios({name: Latency([duration]) for name, duration in measured.items()})
    (note,) = notes_on(found)
    assert note.startswith("map / plain is 0.799, and more work cannot take less time")
    assert [ratio.verdict for ratio in found if ratio.step == "map"] == ["PASS"]


def test_notes_stand_under_the_tables(tiny_model: Path) -> None:
    found = msgspec.structs.replace(map_cost(tiny_model, rounds=1, seconds=0), notes=("all is noise",))
    written = io.StringIO()
    show(found, Console(file=written, width=80))
    assert written.getvalue().endswith("all is noise\n")


def test_a_missed_target_is_no_failure_of_the_command(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_cost_module, "_TARGETS", (("map", "plain", 0.0),))  # which cannot be met
    ran = invoke(tiny_model, "--rounds", "1", "--json")
    assert ran.exit_code == 0
    assert [ratio["verdict"] for ratio in json.loads(ran.stdout)["ratios"]] == ["MISS"]


def test_opencvs_threads_are_as_before_after_the_command(tiny_model: Path) -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        assert invoke(tiny_model, "--rounds", "1").exit_code == 0
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_the_plain_classifier_has_one_output_and_the_same_logits(tiny_model: Path) -> None:
    image = {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    plain = onnxruntime.InferenceSession(plain_classifier(tiny_model), providers=["CPUExecutionProvider"])
    full = onnxruntime.InferenceSession(tiny_model, providers=["CPUExecutionProvider"])
    assert [output.name for output in plain.get_outputs()] == ["logits"]
    np.testing.assert_allclose(plain.run(None, image)[0], full.run(["logits"], image)[0], rtol=1e-6)


def test_the_map_that_is_measured_is_the_one_that_a_result_has(tiny_model: Path) -> None:
    with gapcam.load(tiny_model) as session:
        expected = session(large_photograph()).map()
    found = steps_of(tiny_model)["map"]()
    np.testing.assert_allclose(np.asarray(found).reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


def test_the_naive_overlay_is_the_same_picture(tiny_model: Path) -> None:
    """Or comparing their times says nothing. They round the map differently, which a colour map magnifies a little."""
    steps = steps_of(tiny_model)
    naive, ours = (np.asarray(steps[name](), np.float32) for name in ("naive", "overlay"))
    difference = np.abs(naive - ours).mean()
    assert difference < 5
    assert np.abs(ours - large_photograph()).mean() > 5 * difference


def test_without_the_demos_model_the_command_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = invoke()
    assert ran.exit_code == 3
    assert "run make demo first" in ran.stderr


def test_a_file_that_is_no_model_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    ran = invoke(tmp_path / "model.onnx")
    assert ran.exit_code == 3
    assert isinstance(ran.exception, SystemExit)
    assert "model.onnx" in ran.stderr
