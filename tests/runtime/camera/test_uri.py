"""Which source a text means, with which options and which name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gapcam.camera.sources.csi import CsiCamera
from gapcam.camera.sources.image_files import ImageFiles
from gapcam.camera.sources.moving_clock import MovingClock
from gapcam.camera.sources.network_stream import NetworkStream
from gapcam.camera.sources.protocol import Source
from gapcam.camera.sources.source_options import SourceOptions, split_options, with_options
from gapcam.camera.sources.source_uri import name_of, source_from_uri
from gapcam.camera.sources.v4l2 import V4l2Camera
from gapcam.camera.sources.video_file import VideoFile
from gapcam.errors import UsageError


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("uri", "kind", "shown", "live", "paced"),
    [
        ("0", V4l2Camera, "/dev/video0", True, True),
        ("/dev/video2", V4l2Camera, "/dev/video2", True, True),
        ("v4l2:///dev/video2", V4l2Camera, "/dev/video2", True, True),
        ("csi://1", CsiCamera, "csi://1", True, True),
        ("rtsp://u:p@host:8554/a", NetworkStream, "rtsp://***@host:8554/a", True, True),
        ("RTSPS://host/a", NetworkStream, "rtsps://host/a", True, True),
        ("http://host/a.mjpg", NetworkStream, "http://host/a.mjpg", True, True),
        ("https://host/?token=t", NetworkStream, "https://host/?token=***", True, True),
        ("film.mp4", VideoFile, "film.mp4", False, True),
        ("film without suffix", VideoFile, "film without suffix", False, True),
        ("file:///films/a%20b.mkv", VideoFile, "/films/a b.mkv", False, True),
        ("cat.JPG", ImageFiles, "cat.JPG", False, False),
        ("photos/*.png", ImageFiles, "photos/*.png", False, False),
        (".", ImageFiles, ".", False, False),
        ("test://", MovingClock, "test://", False, True),
        ("test://?fps=5", MovingClock, "test://?fps=5", False, True),
    ],
)
def test_a_text_means_one_kind_of_source(uri: str, kind: type, shown: str, live: bool, paced: bool) -> None:
    source = source_from_uri(uri)
    assert isinstance(source, kind)
    assert isinstance(source, Source)
    assert (source.uri, source.live, source.paced) == (shown, live, paced)


@pytest.mark.parametrize("uri", ["0", "csi://0", "rtsp://host/a", "film.mp4", "photos/*.png", "test://"])
def test_closing_what_was_never_opened_does_nothing(uri: str) -> None:
    source = source_from_uri(uri)
    source.close()
    source.close()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("0", "video0"),
        ("/dev/video2", "video2"),
        ("v4l2:///dev/video2", "video2"),
        ("csi://1", "csi1"),
        ("rtsp://admin:geheim@10.0.0.5:554/live/main?token=geheim", "10.0.0.5-554-live-main"),
        ("rtsp://cam/user=admin_password=geheim_channel=1.sdp", "cam-user"),
        ("http://[::1]:80/", "1-80"),
        ("films/front door.mp4", "front-door"),
        ("file:///films/a.mkv", "a"),
        ("photos/", "photos"),
        ("photos/*.png", "source"),
        ("test://?size=64x64", "test"),
    ],
)
def test_a_name_is_made_from_the_uri_without_its_secrets(uri: str, name: str) -> None:
    assert name_of(uri) == name
    assert source_from_uri(uri).name == name


def test_a_name_that_is_given_comes_first() -> None:
    assert source_from_uri("film.mp4", name="door").name == "door"
    assert source_from_uri("film.mp4#name=gate", name="door").name == "gate"


@pytest.mark.parametrize("name", ["a/b", "a\nb", "..", "a+b", "x" * 65, "#", "a\x9bb"])
def test_a_name_that_files_and_topics_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name is"):
        source_from_uri("film.mp4", name=name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zw\u202eei", "a source's name is 'zw\\u202eei', with an unseen character (U+202E); leave it out"),
        ("a\u200bb", "U+200B"),
        ("\ufeffa", "U+FEFF"),
        ("a\x1b[31mb", "with a control character (U+001B)"),
        ("a\x85b", "U+0085"),
        ("a\u2028b", "with a line break (U+2028)"),
        ("a\udcffb", "half a character (U+DCFF)"),
    ],
    ids=ascii,
)
def test_a_name_with_characters_that_are_not_seen_is_refused(name: str, said: str) -> None:
    for uri, how in (("film.mp4", {"name": name}), (f"film.mp4#name={name}", {})):
        with pytest.raises(UsageError) as error:
            source_from_uri(uri, **how)  # type: ignore[arg-type]
        assert said in str(error.value)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["Tür", "门口", "дверь 2", "door\u3000one", "🚪"])
def test_names_are_in_any_writing(name: str) -> None:
    assert source_from_uri("film.mp4", name=name).name == name


@pytest.mark.parametrize(
    ("text", "uri", "options"),
    [
        ("film.mp4", "film.mp4", {}),
        ("film.mp4#loop=yes,rate=5", "film.mp4", {"loop": "yes", "rate": "5"}),
        ("film #1.mp4", "film #1.mp4", {}),
        ("film #1.mp4#seek=3", "film #1.mp4", {"seek": "3"}),
        ("rtsp://u:p#w@host/a#rotate=90", "rtsp://u:p#w@host/a", {"rotate": "90"}),
        ("rtsp://host/a#t=1#size=64x64", "rtsp://host/a#t=1", {"size": "64x64"}),
        ("rtsp://host/a#", "rtsp://host/a#", {}),
    ],
)
def test_options_follow_the_last_number_sign(text: str, uri: str, options: dict[str, str]) -> None:
    assert split_options(text) == (uri, options)


def test_a_file_of_just_that_name_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "film.mp4#rate=5").touch()
    assert source_from_uri("film.mp4#rate=5").uri == "film.mp4#rate=5"


@pytest.mark.parametrize("name", ["take#name=a=b.mp4", "take#rate=5", "take?seek=1.mp4"])
def test_no_options_are_in_the_name_of_a_file_or_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / name).touch()
    (tmp_path / name).mkdir()
    assert split_options(f"clips/{name}") == (f"clips/{name}", {})
    assert split_options(name) == (name, {})


def test_a_file_whose_name_is_a_number_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    assert isinstance(source_from_uri("0"), VideoFile)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("size=640x480", {"size": (640, 480)}),
        ("rate=12.5", {"fps": 12.5}),
        ("rotate=270", {"rotate": 270}),
        ("loop=yes", {"loop": True}),
        ("loop=no", {"loop": False}),
        ("seek=1.5", {"seek_s": 1.5}),
        ("transport=udp", {"transport": "udp"}),
        ("timeout=10", {"timeout_s": 10.0}),
        ("pace=no", {"pace": False}),
        ("name=door", {}),
    ],
)
def test_each_option_comes_over_the_general_one(text: str, changed: dict[str, Any]) -> None:
    general = SourceOptions(size=(64, 64), fps=1, rotate=90, loop=True, seek_s=7, pace=True)
    _, given = split_options(f"a#{text}")
    options = with_options(general, given)
    for field in SourceOptions.__slots__:
        assert getattr(options, field) == changed.get(field, getattr(general, field))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("film.mp4#speed=2", "a source has no option 'speed'; it has name, size, rate"),
        ("film.mp4#size=640", "size is '640'; give WIDTHxHEIGHT"),
        ("film.mp4#size=0x480", "size is 0x480"),
        ("film.mp4#rate=fast", "rate is 'fast'; give a number"),
        ("film.mp4#rate=0", "rate is 0; give frames a second"),
        ("film.mp4#rate=nan", "rate is nan"),
        ("film.mp4#rotate=45", "rotate is 45; give 0, 90, 180 or 270"),
        ("film.mp4#loop=perhaps", "loop is 'perhaps'; give yes or no"),
        ("film.mp4#seek=-1", "seek is -1"),
        ("film.mp4#seek=inf", "seek is inf"),
        ("film.mp4#transport=mail", "transport is 'mail'; give 'tcp' or 'udp'"),
        ("film.mp4#timeout=0", "timeout is 0"),
        ("", "source is ''; expected a device"),
        ("file://", "source is ''"),
        (
            "gopher://u:geheim@host/a",
            r"source is 'gopher://\*\*\*@host/a'; expected a device \(0, /dev/video0\), csi://0",
        ),
        ("rtsp://", "give its host"),
        ("http:///a", "give its host"),
        ("csi://front", "give the sensor's number: csi://0"),
        ("test://clock", "give test:// or, say, test://"),
        ("test://?size=2x2", "test:// draws 64 to"),
        ("test://?size=8193x64", "test:// draws 64 to 8192"),
        ("test://?size=64x64#name=<a b=c>", "options of a source are '#name=<a b=c>'.*no '=', ',' or '#' in a value"),
        ("film.mp4#rate=5,name=a,b", "options of a source are '#rate=5,name=a,b'"),
        ("rtsp://u:geheim@host/a#name=a=b", "options of a source are '#name=a=b'"),
        ("test://?colour=red", "test:// has no 'colour'"),
        ("test://?absent=3-2", "absent is '3-2'"),
        ("test://?frames=0", "1 or more for frames"),
    ],
)
def test_a_mistake_is_one_line(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        source_from_uri(uri)
    assert "\n" not in str(raised.value)
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seek_s": "x"}, "seek is 'x'; give seconds"),
        ({"seek_s": True}, "seek is True"),
        ({"fps": "fast"}, "rate is 'fast'; give frames a second"),
        ({"fps": float("nan")}, "rate is nan"),
        ({"timeout_s": None}, "timeout is None; give seconds"),
        ({"size": (1.5, 2)}, "size is 1.5x2; give a width and a height"),
        ({"size": 640}, "size is 640; give a width"),
        ({"size": "640x480"}, "size is '640x480'"),
        ({"size": (1, 2, 3)}, r"size is \(1, 2, 3\)"),
        ({"loop": "yes"}, "loop is 'yes'; give True or False"),
        ({"pace": 1}, "pace is 1; give True or False"),
        ({"rotate": "90"}, "rotate is '?90"),
    ],
)
def test_an_option_of_a_wrong_type_is_a_line_from_the_library_too(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SourceOptions(**given)
