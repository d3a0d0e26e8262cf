"""`gapcam run`, as people and scripts use it."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from small_models import WEIGHTS, a_contract, red_and_blue

import gapcam
from gapcam.cli.main import main
from gapcam.cli.output import output_names

FIELDS = {"image", "overlay", "engine", "width", "height", "exact", "top", "classes", "timings_ms"}


def gapcam_run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "model.onnx", contract=a_contract((16, 16)))


def picture(path: Path, height: int = 24, width: int = 32) -> Path:
    """Black with a red square whose corners are (8, 6) and (16, 12)."""
    image = np.zeros((height, width, 3), np.uint8)
    image[6:12, 8:16, 2] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def test_an_image_gives_an_overlay_a_line_of_json_and_a_summary(model: Path, tmp_path: Path) -> None:
    done = gapcam_run(model, picture(tmp_path / "cat.png"), "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat.overlay.png", "results.jsonl"]
    (row,) = rows(tmp_path / "out")
    assert set(row) == FIELDS
    assert row["exact"] is True
    assert done.stderr == ""
    assert (row["image"], row["overlay"]) == (str(tmp_path / "cat.png"), "cat.overlay.png")
    assert (row["width"], row["height"]) == (32, 24)
    assert [entry["label"] for entry in row["top"]] == ["red", "blue"]
    assert sum(entry["score"] for entry in row["top"]) == pytest.approx(1)
    (explained,) = row["classes"]
    assert set(explained) == {"index", "label", "score", "logit", "boxes"}
    assert explained["boxes"] == [[8, 6, 16, 12]]
    assert set(row["timings_ms"]) == {"preprocess", "inference", "map", "boxes", "overlay"}
    assert "red 0." in done.stdout
    assert "x 8 to 16, y 6 to 12" in done.stdout
    assert "1 image done" in done.stdout


def test_the_overlay_is_the_one_that_the_api_draws(model: Path, tmp_path: Path) -> None:
    path = picture(tmp_path / "cat.png", 120, 200)
    options = ["--colormap", "turbo", "--alpha", 0.7, "--normalize", "fixed", "--limits", 0, 4, "--classes", "blue"]
    assert gapcam_run(model, path, "-o", tmp_path, *options).exit_code == 0
    with gapcam.load(model) as session:
        result = session(gapcam.read_image(path))
    expected = result.overlay(
        "blue",
        colormap="turbo",
        alpha=0.7,
        normalization="fixed",
        limits=(0, 4),
        boxes=result.boxes("blue"),
        caption=f"blue {result.prediction('blue').score:.2f}",
    )
    np.testing.assert_array_equal(gapcam.read_image(tmp_path / "cat.overlay.png"), expected)


def test_alpha_by_heat_leaves_what_is_cold_as_it_was(model: Path, tmp_path: Path) -> None:
    image = np.full((16, 16, 3), 50, np.uint8)
    image[4:8, 4:8] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    gapcam_run(model, tmp_path / "a.png", "-o", tmp_path / "out", "--classes", "red", "--alpha-by-heat")
    drawn = cv2.imread(str(tmp_path / "out" / "a.overlay.png"))
    with gapcam.load(model, threads=1) as session:
        result = session(image)
    prediction = result.prediction("red")
    expected = result.overlay(
        "red",
        alpha_by_heat=True,
        boxes=result.boxes("red"),
        caption=f"red {prediction.score:.2f}",
    )
    np.testing.assert_array_equal(drawn, expected)
    assert (result.overlay("red") != result.overlay("red", alpha_by_heat=True)).any()
    np.testing.assert_array_equal(drawn[12:, 12:], image[12:, 12:])  # the coldest


def test_json_puts_the_lines_on_stdout_and_nothing_else(model: Path, tmp_path: Path) -> None:
    done = gapcam_run(model, picture(tmp_path / "a.png"), tmp_path / "none.png", "--json", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == rows(tmp_path / "out")
    assert "skipped" in done.stderr


def test_without_an_output_folder_nothing_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path / "in")
    done = gapcam_run(model, "a.png", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["overlay"] is None
    assert [path.name for path in Path().iterdir()] == ["a.png"]


def test_no_overlays_writes_the_lines_alone(model: Path, tmp_path: Path) -> None:
    assert gapcam_run(model, picture(tmp_path / "a.png"), "-o", tmp_path / "out", "--no-overlays").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.jsonl"]


def test_folders_patterns_and_files_are_found_once_each(model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "deep/c.bmp"):
        picture(photos / name)
    (photos / "notes.txt").write_text("no image")
    done = gapcam_run(model, photos, photos / "*.png", photos / "**/*.bmp", photos / "b.png", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert [Path(row["image"]).name for row in rows(tmp_path / "out")] == ["a.JPG", "b.png", "c.bmp"]
    assert gapcam_run(model, photos, "--recursive", "-o", tmp_path / "out").exit_code == 0
    assert len(rows(tmp_path / "out")) == 3


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(model: Path, tmp_path: Path) -> None:
    done = gapcam_run(model, picture(tmp_path / "a[1].png"), "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert rows(tmp_path / "out")[0]["overlay"] == "a[1].overlay.png"


def test_same_names_from_different_folders_do_not_overwrite_one_another(model: Path, tmp_path: Path) -> None:
    found = [picture(tmp_path / name) for name in ("a/cat.png", "b/cat.png", "c/CAT.png", "a/cat-2.png", "a/cat.bmp")]
    assert gapcam_run(model, *found, "-o", tmp_path / "out").exit_code == 0
    names = [row["overlay"] for row in rows(tmp_path / "out")]
    assert len({name.casefold() for name in names}) == 5
    assert all((tmp_path / "out" / name).is_file() for name in names)


def test_a_second_run_into_the_folder_of_the_images_does_not_explain_its_own_overlays(
    model: Path, tmp_path: Path
) -> None:
    picture(tmp_path / "photos" / "cat.png")
    for _ in range(2):
        assert gapcam_run(model, tmp_path / "photos", "-o", tmp_path / "photos").exit_code == 0
        assert len(rows(tmp_path / "photos")) == 1


def test_an_input_is_never_overwritten_by_an_overlay(model: Path, tmp_path: Path) -> None:
    first, second = picture(tmp_path / "cat.png"), picture(tmp_path / "cat.overlay.png")
    before = second.read_bytes()
    assert gapcam_run(model, first, second, "-o", tmp_path).exit_code == 0
    assert second.read_bytes() == before
    assert rows(tmp_path)[0]["overlay"] == "cat-2.overlay.png"


def test_corrupt_images_are_reported_and_skipped_and_the_rest_is_done(model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number in range(30):
        picture(photos / f"{number:02}.jpg")
    (photos / "07.jpg").write_bytes((photos / "07.jpg").read_bytes()[:-20])
    (photos / "19.jpg").write_text("no image")
    done = gapcam_run(model, photos, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "28 images done, 2 skipped" in done.stdout
    assert done.stderr.count("skipped") == 2
    written = rows(tmp_path / "out")
    assert len(written) == 30
    bad = {Path(row["image"]).name: row for row in written if "error" in row}
    assert set(bad) == {"07.jpg", "19.jpg"}
    assert set(bad["07.jpg"]) == {"image", "error"}
    assert "cut off" in bad["07.jpg"]["error"]
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 28


@pytest.mark.parametrize("argument", ["none.png", "empty/", "*.xyz"])
def test_where_nothing_can_be_read_the_exit_code_says_so(
    model: Path, tmp_path: Path, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    done = gapcam_run(model, argument)
    assert done.exit_code == 5
    assert f"skipped {argument.rstrip('/')}: " in done.stderr
    assert "0 images done, 1 skipped" in done.stdout


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 4), (1, 1, 3), (1, 20_000, 3), (20_000, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_rgba_16_bit_tiny_and_very_wide_images_simply_work(
    model: Path, tmp_path: Path, shape: tuple[int, ...], dtype: type
) -> None:
    top = np.iinfo(dtype).max
    assert cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, top, shape, dtype))
    done = gapcam_run(model, tmp_path / "a.png", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert gapcam.read_image(tmp_path / "out" / "a.overlay.png").shape == (*shape[:2], 3)


def test_an_overlay_too_large_for_its_format_is_that_images_fault_alone(model: Path, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((1, 70_000, 3), np.uint8))
    done = gapcam_run(
        model, tmp_path / "wide.png", picture(tmp_path / "a.png"), "-o", tmp_path / "o", "--format", "jpg"
    )
    assert done.exit_code == 1
    assert "does not fit jpg" in rows(tmp_path / "o")[0]["error"]
    assert rows(tmp_path / "o")[1]["overlay"] == "a.overlay.jpg"


def test_boxes_options_reach_the_boxes(model: Path, tmp_path: Path) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[0:8, 0:8, 2], image[16:20, 16:20, 2] = 255, 100
    assert cv2.imwrite(str(tmp_path / "a.png"), image)

    def boxes(*options: object) -> list[list[float]]:
        done = gapcam_run(model, tmp_path / "a.png", "--json", *options)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["classes"][0]["boxes"]

    assert boxes() == [[0, 0, 8, 8]]
    assert boxes("--all-boxes") == [[0, 0, 8, 8], [16, 16, 20, 20]]
    assert boxes("--all-boxes", "--threshold", 0.5) == [[0, 0, 8, 8]]
    assert boxes("--all-boxes", "--threshold", 0.9, "--percentile", 93) == [[0, 0, 8, 8], [16, 16, 20, 20]]


def test_topk_and_classes_choose_what_is_listed_and_explained(model: Path, tmp_path: Path) -> None:
    done = gapcam_run(
        model, picture(tmp_path / "a.png"), "--json", "--topk", 1, "--classes", "blue,0", "--classes", "1"
    )
    row = json.loads(done.stdout)
    assert [entry["index"] for entry in row["top"]] == [0]
    assert [entry["index"] for entry in row["classes"]] == [1, 0, 1]


def test_a_label_with_a_comma_and_a_label_that_looks_like_an_index_are_labels(tmp_path: Path) -> None:
    model = red_and_blue(tmp_path / "m.onnx", contract=a_contract((8, 8), labels=("1", "tabby, tabby cat")))
    done = gapcam_run(model, picture(tmp_path / "a.png"), "--json", "--classes", "tabby, tabby cat", "--classes", "1")
    assert [entry["index"] for entry in json.loads(done.stdout)["classes"]] == [1, 0]


def test_clamping_changes_the_map(tmp_path: Path) -> None:
    model = red_and_blue(tmp_path / "m.onnx", contract=a_contract((8, 8)))
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4, :, 2], image[:, :4, 0] = 60, 255  # 3 red - blue is positive only at the top right
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    for options, boxes in (((), [[4, 0, 8, 4]]), (("--clamp-negative",), [[0, 0, 8, 4]])):
        done = gapcam_run(model, tmp_path / "a.png", "--json", "--classes", "red", *options)
        assert json.loads(done.stdout)["classes"][0]["boxes"] == boxes


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--classes", "green"], "there is no class called 'green'", 2),
        (["--classes", "red,2"], "there is no class 2: this model has 2", 2),
        (["--classes", "rde"], "Did you mean 'red'", 2),
        (["--colormap", "jett"], "Did you mean 'jet'", 2),
        (["--normalize", "fixed"], "limits", 2),
        (["--limits", "0", "1"], "limits", 2),
        (["--normalize", "fixed", "--limits", "1", "0"], "the lower first", 2),
        (["--normalize", "fixed", "--limits", "nan", "1"], "nan is not a finite number", 2),
        (["--threshold", "1"], "--threshold", 2),
        (["--threshold", "nan"], "nan is not a finite number", 2),
        (["--percentile", "nan"], "nan is not a finite number", 2),
        (["--alpha", "nan"], "nan is not a finite number", 2),
        (["--classes=--5"], "there is no class called '--5'", 2),
        (["--classes", "9" * 5000], "there is no class called '999", 2),
        (["--threads", "99999999999"], "from 1 to 1024", 2),
        (["--session-option", "intra_op_num_threads=--5"], "expected int", 6),
        (["--session-option", "enable_profiling=maybe"], "expected bool", 6),
        (["--session-option", f"session.{'x' * 1100}=1"], "is refused", 6),
        (["--session-option", "session.intra_op_thread_affinities=x"], "refuses the session options", 6),
        (["--percentile", "0"], "--percentile", 2),
        (["--topk", "0"], "--topk", 2),
        (["--alpha", "2"], "--alpha", 2),
        (["--threads", "0"], "--threads", 2),
        (["--frobnicate"], "--frobnicate", 2),
        (["--session-option", "oops"], "NAME=VALUE", 2),
        (["--device", "npu"], "there is no device", 2),
        (["--session-option", "intra_op_num_thread=1"], "did you mean intra_op_num_threads", 6),
    ],
)
def test_a_wrong_option_is_one_line_before_any_work(
    model: Path, tmp_path: Path, options: list[str], message: str, code: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.jsonl").write_text("from before\n")
    done = gapcam_run(model, picture(tmp_path / "a.png"), "-o", out, *options)
    assert done.exit_code == code
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert [path.name for path in out.iterdir()] == ["results.jsonl"]
    assert (out / "results.jsonl").read_text() == "from before\n"


def test_an_unwritable_output_folder_is_an_error_before_any_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/none")):
        done = gapcam_run(model, picture(tmp_path / "a.png"), "-o", out)
        assert done.exit_code == 5
        assert done.stderr.startswith(f"error: cannot write to the output folder {out}: ")
        assert done.stdout == ""


def test_a_result_that_cannot_be_kept_ends_the_run(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "a.overlay.png").mkdir(parents=True)
    done = gapcam_run(model, picture(tmp_path / "a.png"), picture(tmp_path / "b.png"), "-o", tmp_path / "out")
    assert done.exit_code == 5
    assert "cannot write" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.overlay.png", "results.jsonl"]


def test_a_results_file_that_cannot_be_written_is_an_error_before_any_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "results.jsonl").mkdir(parents=True)
    done = gapcam_run(model, picture(tmp_path / "a.png"), "-o", tmp_path / "out")
    assert done.exit_code == 5
    assert "results.jsonl" in done.stderr


def test_the_results_do_not_go_through_a_link_to_the_model_or_an_image(model: Path, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    for read in (model, image):
        before = read.read_bytes()
        (tmp_path / "out" / "results.jsonl").symlink_to(read)
        done = gapcam_run(model, image, "-o", tmp_path / "out")
        assert done.exit_code == 5
        assert f"results.jsonl would be written over {read}, which would be lost" in done.stderr
        assert read.read_bytes() == before
        (tmp_path / "out" / "results.jsonl").unlink()


def broken_models(folder: Path) -> dict[str, tuple[Path, int, str]]:
    whole = red_and_blue(folder / "whole.onnx").read_bytes()
    for name, content in (("text.onnx", b"no model"), ("half.onnx", whole[: len(whole) // 2])):
        (folder / name).write_bytes(content)
    return {
        "missing": (folder / "none.onnx", 3, "there is no file"),
        "folder": (folder, 3, "is a folder"),
        "not ONNX": (folder / "text.onnx", 3, "is not an ONNX model"),
        "truncated": (folder / "half.onnx", 3, "is cut off"),
        "no contract": (red_and_blue(folder / "plain.onnx", metadata={}), 3, "gapcam export"),
        "wrong maps": (
            red_and_blue(folder / "w.onnx", weights=WEIGHTS * 2, logits_weights=WEIGHTS),
            4,
            "maps would be wrong",
        ),
    }


@pytest.mark.parametrize("case", ["missing", "folder", "not ONNX", "truncated", "no contract", "wrong maps"])
def test_a_broken_model_is_one_line_and_its_own_exit_code(tmp_path: Path, case: str) -> None:
    path, code, message = broken_models(tmp_path)[case]
    done = gapcam_run(path, picture(tmp_path / "a.png"), "-o", tmp_path / "out")
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_file_names_that_are_no_utf8_do_no_harm(model: Path, tmp_path: Path) -> None:
    try:
        path = picture(tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = gapcam_run(model, path, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    (row,) = rows(tmp_path / "out")
    assert row["image"].endswith("\N{REPLACEMENT CHARACTER}.png")
    assert (tmp_path / "out" / row["overlay"]).is_file()
    path.write_bytes(b"no image")
    assert gapcam_run(model, path, "-o", tmp_path / "out").exit_code == 5


def test_each_bad_image_is_one_line_on_stderr_and_opencv_adds_none(model: Path, tmp_path: Path) -> None:
    for suffix in (".bmp", ".tiff", ".png"):
        whole = picture(tmp_path / f"a{suffix}").read_bytes()
        (tmp_path / f"a{suffix}").write_bytes(whole[: len(whole) // 2])
    command = [sys.executable, "-m", "gapcam.cli.main", "run", model, tmp_path / "a.*", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 3
    assert all(line.startswith("skipped ") for line in done.stderr.splitlines())


def test_an_interrupted_run_keeps_what_is_done_and_ends_with_130(model: Path, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photos" / "0.png", 600, 800)
    for number in range(1, 8000):  # minutes of work, which nothing but the interrupt ends in time
        os.link(photo, photo.with_name(f"{number}.png"))
    results = tmp_path / "out" / "results.jsonl"
    command = [sys.executable, "-m", "gapcam.cli.main", "run", model, tmp_path / "photos", "-o", tmp_path / "out"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (results.exists() and results.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.strip().endswith("error: interrupted")
    assert "Traceback" not in errors
    done = rows(tmp_path / "out")
    assert 3 <= len(done) < 8000
    assert all((tmp_path / "out" / row["overlay"]).is_file() for row in done)
    assert not list((tmp_path / "out").glob(".*"))


def test_a_line_is_on_the_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    from gapcam.cli.output import JsonLines

    with JsonLines(tmp_path / "results.jsonl") as lines:
        lines.write({"image": "first"})
        assert rows(tmp_path) == [{"image": "first"}]


def test_an_option_that_the_engine_refuses_prints_nothing_where_json_is_expected(model: Path, tmp_path: Path) -> None:
    """ONNX Runtime would print what it refuses to stdout, and try again."""
    wrong = ("--session-option", "session.intra_op_thread_affinities=x")
    command = [sys.executable, "-m", "gapcam.cli.main", "run", model, picture(tmp_path / "a.png"), "--json", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (6, "")


def test_options_of_the_engine_reach_it(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    real = onnxruntime.InferenceSession

    def recorded(path: str, options: onnxruntime.SessionOptions, **named: object) -> onnxruntime.InferenceSession:
        given.append((options, named["providers"]))
        return real(path, options, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    monkeypatch.chdir(tmp_path)
    options = ["--threads", 3, "--provider-option", "a=b", "--session-option", "enable_profiling=True"]
    options += ["--session-option", "a.text=007", "--session-option", "graph_optimization_level=ORT_DISABLE_ALL"]
    assert gapcam_run(model, picture(tmp_path / "a.png"), *options).exit_code == 0
    ((seen, providers),) = given
    assert seen.intra_op_num_threads == 3
    assert seen.enable_profiling is True
    assert seen.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert seen.get_session_config_entry("a.text") == "007"
    assert providers == [("CPUExecutionProvider", {"a": "b"})]


def test_an_argument_too_long_for_a_name_is_skipped_and_the_rest_is_done(model: Path, tmp_path: Path) -> None:
    done = gapcam_run(model, "x" * 300 + ".png", picture(tmp_path / "a.png"), "y" * 300 + "*")
    assert done.exit_code == 1
    assert "File name too long" in done.stderr
    assert "1 image done, 2 skipped" in done.stdout
    assert gapcam_run("x" * 300, tmp_path / "a.png").exit_code == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_folders_that_may_not_be_entered_are_skipped_and_the_rest_is_done(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a.png")
    picture(tmp_path / "photos" / "closed" / "b.png")
    closed = tmp_path / "photos" / "closed"
    closed.chmod(0)
    try:
        done = gapcam_run(model, closed / "b.png", tmp_path / "photos", "--recursive")
        assert gapcam_run(closed / "model.onnx", tmp_path / "photos").exit_code == 3
    finally:
        closed.chmod(0o700)
    assert done.exit_code == 1
    assert "1 image done, 2 skipped" in done.stdout
    assert done.stderr.count("Permission denied") == 2


@pytest.mark.parametrize("place", ["image", "model", "folder"])
def test_a_pipe_is_refused_and_not_waited_for(model: Path, tmp_path: Path, place: str) -> None:
    pipe = tmp_path / "pipes" / "a.png"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    arguments = {"image": [model, pipe], "model": [pipe, model], "folder": [model, pipe.parent]}[place]
    command = [sys.executable, "-m", "gapcam.cli.main", "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (3 if place == "model" else 5)
    assert "is a pipe or a device" in done.stderr


def test_a_folder_named_like_an_image_is_a_folder(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "x.png" / "a.png")
    picture(tmp_path / "photos" / "b.png")
    for arguments, names in (
        ([tmp_path / "photos"], ["b.png"]),
        ([tmp_path / "photos", "--recursive"], ["b.png", "a.png"]),
        ([tmp_path / "photos" / "x.png"], ["a.png"]),
        ([tmp_path / "photos" / "*.png"], ["b.png"]),
    ):
        done = gapcam_run(model, *arguments, "-o", tmp_path / "out")
        assert done.exit_code == 0, done.output
        assert [Path(row["image"]).name for row in rows(tmp_path / "out")] == names


def test_a_folder_that_holds_overlays_alone_says_so(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "out" / "a.overlay.png")
    done = gapcam_run(model, tmp_path / "out")
    assert done.exit_code == 5
    assert "has no images but overlays of an earlier run, which are left out" in done.stderr


def test_one_image_under_several_names_is_done_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.png").symlink_to(picture(tmp_path / "a.png"))
    monkeypatch.chdir(tmp_path)
    assert gapcam_run(model, "a.png", "./a.png", tmp_path / "a.png", "link.png", "-o", "out").exit_code == 0
    assert [row["image"] for row in rows(tmp_path / "out")] == ["a.png"]


@pytest.mark.parametrize("stem", ["a" * 251, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 125, "a" * 245])
def test_images_with_the_longest_names_get_overlays_of_their_own(model: Path, tmp_path: Path, stem: str) -> None:
    found = []
    for folder in "abc":
        picture(tmp_path / folder / "short.png").rename(tmp_path / folder / f"{stem}.png")
        found.append(tmp_path / folder / f"{stem}.png")
    done = gapcam_run(model, *found, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    names = {row["overlay"] for row in rows(tmp_path / "out")}
    assert len(names) == 3
    assert all((tmp_path / "out" / name).is_file() and name.startswith(stem[:110]) for name in names)


def test_names_for_thousands_of_equal_images_take_no_time(tmp_path: Path) -> None:
    started = time.monotonic()
    names = output_names([Path(f"d{number}/frame.jpg") for number in range(10_000)], tmp_path, ".png")
    assert len(set(names)) == 10_000
    assert names[-1] == tmp_path / "frame-10000.overlay.png"
    assert time.monotonic() - started < 20  # seconds; looking every number up from the first takes minutes


full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@full_disk
@pytest.mark.parametrize("words", ["run --json", "run", "inspect", "inspect --json", "--help"])
def test_a_full_disk_under_stdout_is_one_line_and_5(model: Path, tmp_path: Path, words: str) -> None:
    command, *options = words.split()
    arguments = {"run": [model, picture(tmp_path / "a.png")], "inspect": [model]}.get(command, [])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gapcam.cli.main", command, *arguments, *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 5
    assert done.stderr.startswith("error: cannot write: No space left on device")
    assert len(done.stderr.splitlines()) == 1


@full_disk
def test_a_full_disk_under_the_results_is_one_line_and_5(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").symlink_to("/dev/full")
    done = gapcam_run(model, picture(tmp_path / "a.png"), "-o", tmp_path / "out")
    assert done.exit_code == 5
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'out' / 'results.jsonl'}: No space left")
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_stdout_does_no_harm(model: Path, tmp_path: Path) -> None:
    arguments = shlex.join(map(str, ["run", model, picture(tmp_path / "a.png"), "-o", tmp_path / "out"]))
    command = f"{shlex.quote(sys.executable)} -m gapcam.cli.main {arguments} >&-"
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows(tmp_path / "out")) == 1


@pytest.mark.parametrize("options", [["--json"], []])
def test_labels_that_the_terminal_cannot_show_do_no_harm(tmp_path: Path, options: list[str]) -> None:
    label = "\N{CAT FACE} tabb\xff"
    model = red_and_blue(tmp_path / "m.onnx", contract=a_contract((8, 8), labels=(label, "b")))
    command = [sys.executable, "-m", "gapcam.cli.main", "run", model, picture(tmp_path / "a.png"), *options]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    if options:
        assert json.loads(done.stdout)["top"][0]["label"] == label
    else:
        assert "\\U0001f431 tabb\\xff" in done.stdout


def test_labels_do_not_command_the_terminal(tmp_path: Path) -> None:
    contract = a_contract((16, 16), labels=("\x1b]0;pwned\x07red", "blue\nfake.png: cat 1.000"))
    model = red_and_blue(tmp_path / "m.onnx", contract=contract)
    done = gapcam_run(model, picture(tmp_path / "a.png"))
    assert done.exit_code == 0, done.stderr
    first, second, _ = done.stdout.splitlines()
    assert r"\x1b]0;pwned\x07red " in first
    assert r"blue\nfake.png: cat 1.000 " in first
    assert second.startswith(r"  \x1b]0;pwned\x07red: x 8")


def test_a_report_shows_a_file_name_as_it_is(model: Path, tmp_path: Path) -> None:
    done = gapcam_run(model, tmp_path / ":cat:[red].png")
    assert f"skipped {tmp_path}/:cat:[red].png: " in done.stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    from gapcam.cli import console  # here: it looks at the terminal's width when it is loaded

    shown = io.StringIO()
    monkeypatch.setattr(console, "stderr", Console(file=shown, force_terminal=terminal, _environ={"TERM": "xterm"}))
    with console.progress_bar() as progress:
        for _ in progress.track(range(3), description="images"):
            pass
    assert ("images" in shown.getvalue()) == terminal


def test_clamping_reaches_the_picture(model: Path, tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, :, 2], image[:, :8, 0] = 60, 255
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    with gapcam.load(model) as session:
        result = session(image)
    for options, clamped in ((["--clamp-negative"], True), ([], False)):
        assert (
            gapcam_run(model, tmp_path / "a.png", "--classes", "red", "-o", tmp_path / "out", *options).exit_code == 0
        )
        expected = result.overlay(
            "red",
            clamp_negative=clamped,
            boxes=result.boxes("red", clamp_negative=clamped),
            caption=f"red {result.prediction('red').score:.2f}",
        )
        np.testing.assert_array_equal(gapcam.read_image(tmp_path / "out" / "a.overlay.png"), expected)
