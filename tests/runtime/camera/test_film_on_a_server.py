"""A film that a web server has is played in its own time, and has an end; a picture that it has is no film."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest
from camera_servers.stamped_frame import stamped_frame
from planned_camera import FAST, KeepingSink, session_with
from read_streams import opened
from written_videos import number_of, write_video

from gapcam.camera.backoff import Reopen
from gapcam.camera.errors import SourceLostError
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.sources.source_uri import source_from_uri


class Files(SimpleHTTPRequestHandler):
    """Files, from any byte on, as web servers give them."""

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin:])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Where the files of `tmp_path` are."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(tmp_path)))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who goes away in the middle is no trouble
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_film_is_played_once_in_its_own_time(tmp_path: Path, served: str, name: str) -> None:
    write_video(tmp_path / name, 20, fps=20)
    source = opened(f"{served}/{name}")
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert [frame.position_s for frame in frames] == pytest.approx([n / 20 for n in range(20)], abs=0.002)
    late = [(f.taken_at - frames[0].taken_at) - n / 20 for n, f in enumerate(frames)]
    assert min(late) > -0.005


def test_a_rate_below_the_films_takes_some_of_its_frames(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "a.mp4", 20, fps=20)
    source = opened(f"{served}/a.mp4", fps=5)
    found = []
    while (frame := source.read()) is not None:
        found.append(number_of(frame))
    source.close()
    assert found[0] == 0
    assert len(found) in (5, 6, 7)


def test_a_camera_that_plays_a_film_ends_with_it(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "a.mp4", 10)
    sink = KeepingSink()
    source = source_from_uri(f"{served}/a.mp4", name="film")
    pipeline = Pipeline(session_with(lambda _: None), [source], [sink], reopen=Reopen(**FAST))
    pipeline.run()
    status = pipeline.status().sources[0]
    assert (status.state, status.captured, status.reopened, status.problem) == ("ended", 10, 0, "")


def test_a_picture_is_no_film_and_may_be_another_one_when_it_is_opened_again(tmp_path: Path, served: str) -> None:
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / "now.jpg"), stamped_frame(number, 320, 240))
        source = opened(f"{served}/now.jpg")
        frame = source.read()
        assert frame is not None
        assert number_of(frame) == number
        with pytest.raises(SourceLostError, match="ended the stream"):
            source.read()
        source.close()
