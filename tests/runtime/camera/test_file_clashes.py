"""No sink writes over what a source or another sink has: whatever the files are called by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from camera_frames import picture
from click.testing import CliRunner
from planned_camera import session_with

from gapcam.camera.asked import asked_for
from gapcam.camera.cli import camera_command
from gapcam.camera.file_clashes import check_files_of
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.sink_uri import sink_from_uri
from gapcam.camera.sources.source_uri import source_from_uri
from gapcam.cli.main import main
from gapcam.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Films, links to them, and photographs."""
    monkeypatch.chdir(tmp_path)
    for name in ("film.mp4", "film.0001.mp4", "film.door.mp4", "film.yard.mp4", "film.late.mp4", "lines.jsonl"):
        (tmp_path / name).write_bytes(b"a film")
    (tmp_path / "link.mp4").symlink_to("film.mp4")
    os.link("film.mp4", "hard.mp4")
    (tmp_path / "photos").mkdir()
    (tmp_path / "same").symlink_to("photos")
    for n in range(2):
        cv2.imwrite(f"photos/{n}.png", picture(n))
    return tmp_path


def check(source: str, *sinks: str, sources: tuple[str, ...] = ("film",)) -> None:
    made = [sink_from_uri(uri, options=SinkOptions(sources=sources)) for uri in sinks]
    for index, sink in enumerate(made):
        check_files_of(sink, [source_from_uri(source)], made[:index])


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("film.mp4", "film.mp4#overwrite"),
        ("./photos/../film.mp4", "film.mp4#overwrite"),
        ("film.mp4", "link.mp4#overwrite"),
        ("link.mp4", "film.mp4#overwrite"),
        ("hard.mp4", "film.mp4#overwrite"),
        ("film.0001.mp4", "film.mp4#overwrite"),  # its next file, if it is long enough
        ("film.mp4", "film.mp4#keep=1"),  # the oldest of its files, which makes room
        ("lines.jsonl", "lines.jsonl"),
        ("photos", "photos/"),
        ("photos/*.png", "photos/"),
        ("photos/1.png", "same/"),
    ],
)
def test_a_file_that_a_source_reads_is_not_written_over(source: str, sink: str) -> None:
    with pytest.raises(UsageError, match=r"would write over .*, which the source '.*' reads; give the sink another"):
        check(source, sink)


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("film.mp4", "film.mp4"),  # which gets a number
        ("film.mp4", "other.mp4#overwrite"),
        ("film.door.mp4", "film.mp4#overwrite"),  # that is of another recording: there is one source
        ("film.mp4", "photos/"),
        ("photos", "photos/film.mp4#overwrite"),
        ("photos", "pictures/"),
        ("photos", "-"),
        ("test://", "film.mp4#overwrite"),
        ("test://", "./"),
        ("absent.mp4", "absent.mp4#overwrite"),
        ("absent/*.png", "absent/"),
    ],
)
def test_what_harms_nothing_is_not_refused(source: str, sink: str) -> None:
    check(source, sink)


@pytest.mark.parametrize(("source", "refused"), [("film.door.mp4", True), ("film.late.mp4", False)])
def test_of_several_sources_each_has_its_own_files(source: str, refused: bool) -> None:
    if refused:
        with pytest.raises(UsageError, match="would write over"):
            check(source, "film.mp4#overwrite", sources=("door", "yard"))
    else:
        check(source, "film.mp4#overwrite", sources=("door", "yard"))


@pytest.mark.parametrize(
    "sinks",
    [
        ("v.mp4", "./v.mp4"),
        ("v.mp4", "photos/../v.mp4#keep=2"),
        ("film.mp4#sources=door", "hard.mp4#sources=door"),
        ("film.mp4#sources=door", "link.mp4#sources=door"),
        ("v.mp4#sources=door", "v.mp4#sources=yard"),
        ("v.mp4", "v.door.mp4#sources=door"),
        ("v.mp4#sources=door", "v.0001.mp4#sources=yard"),
        ("photos/v.mkv", "same/v.mkv"),
        ("a.jsonl", "./a.jsonl"),
        ("-", "-"),
        ("pictures/", "./pictures/#on-events"),
        ("pictures/", "pictures/#sources=door"),
    ],
)
def test_two_sinks_do_not_write_to_the_same_files(sinks: tuple[str, str]) -> None:
    for order in (sinks, sinks[::-1]):
        with pytest.raises(UsageError, match="write to the same files; give one of them another place"):
            check("test://", *order, sources=("door", "yard"))


@pytest.mark.parametrize(
    "sinks",
    [
        ("v.mp4", "v.mkv"),
        ("v.mp4", "photos/v.mp4"),
        ("v.mp4", "w.mp4"),
        ("a.jsonl", "-"),
        ("pictures/#sources=door", "pictures/#sources=yard"),
        ("photos/", "photos/v.mp4"),
    ],
)
def test_sinks_of_different_files_go_together(sinks: tuple[str, str]) -> None:
    for order in (sinks, sinks[::-1]):
        check("test://", *order, sources=("door", "yard"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sink", "m.jsonl"),
        ("--sink", "m.mp4#keep=1"),
        ("--sink", "m.mp4", "--overwrite"),
        ("--sink", "weights.jsonl"),
        ("--sink", "@s.jsonl"),
        ("--sink", "https://localhost/#secret-file=s.jsonl", "--sink", "s.jsonl"),
        ("--sink", "https://localhost/", "--webhook-secret-file", "s.jsonl", "--sink", "./s.jsonl"),
        ("--sink", "s.jsonl", "--serve", "127.0.0.1:0", "--token-file", "s.jsonl"),
    ],
)
def test_a_file_that_the_command_reads_is_not_written_over(folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "model.onnx").write_bytes(b"a model")
    (folder / "model.onnx.data").write_bytes(b"its weights")
    (folder / "s.jsonl").write_text("./././././s.jsonl")  # a secret, and a sink of the same name
    for name in ("m.jsonl", "m.mp4"):
        (folder / name).symlink_to("model.onnx")
    os.link("model.onnx.data", "weights.jsonl")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = CliRunner().invoke(main, ["camera", "model.onnx", "--source", "test://?frames=1", *arguments])
    assert done.exit_code == 2
    assert re.search(r"would write over \S+, which is read; give the sink another place\n$", done.stderr)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_pictures_may_lie_beside_the_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"a model")
    context = camera_command.make_context("camera", ["model.onnx", "--source", "test://", "--sink", "./#keep=1"])
    (sink,) = asked_for(context.params, [Path("model.onnx")]).sinks
    assert sink.name == "./"


def test_a_pipeline_refuses_likewise() -> None:
    source = source_from_uri("film.mp4")
    session = session_with(lambda _: None)
    over = [sink_from_uri("film.mp4", options=SinkOptions(overwrite=True))]
    with pytest.raises(UsageError, match=re.escape("the sink film.mp4 would write over film.mp4")):
        Pipeline(session, [source], over)
    pipeline = Pipeline(session, [source], [sink_from_uri("lines.jsonl")])
    with pytest.raises(UsageError, match="write to the same files"):
        pipeline.add_sink(sink_from_uri("./lines.jsonl", name="more"))
    assert Path("film.mp4").read_bytes() == b"a film"
