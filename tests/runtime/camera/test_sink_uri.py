"""What names a sink."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapcam.camera.sinks.images import ImagesSink
from gapcam.camera.sinks.json_lines import JsonLinesSink
from gapcam.camera.sinks.mqtt import MqttSink
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.sink_uri import sink_from_uri
from gapcam.camera.sinks.video_file import VideoFileSink
from gapcam.camera.sinks.webhook import WebhookSink
from gapcam.errors import GapcamError, UsageError


@pytest.mark.parametrize(
    ("uri", "kind", "name"),
    [
        ("out.mp4", VideoFileSink, "out.mp4"),
        ("./OUT.MKV", VideoFileSink, "OUT.MKV"),
        ("results.jsonl", JsonLinesSink, "results.jsonl"),
        ("results.ndjson", JsonLinesSink, "results.ndjson"),
        ("-", JsonLinesSink, "stdout"),
        ("images/", ImagesSink, "images/"),
        ("there", ImagesSink, "there/"),
        ("a#b.mp4", VideoFileSink, "a#b.mp4"),
        ("mqtt://user:hunter2@broker/a/b", MqttSink, "mqtt://broker:1883/a/b"),
        ("mqtts://broker:99/a%20b/", MqttSink, "mqtts://broker:99/a b"),
        ("mqtt://[::1]/cam", MqttSink, "mqtt://[::1]:1883/cam"),
        ("https://user:hunter2@example.org:8443/hunter2/path?token=hunter2", WebhookSink, "https://example.org:8443"),
        ("http://[::1]:80/", WebhookSink, "http://[::1]:80"),
    ],
)
def test_a_text_names_a_sink_whose_name_has_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, kind: type, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    sink = sink_from_uri(uri)
    assert type(sink) is kind
    assert isinstance(sink, Sink)
    assert sink.name == name
    assert sink.capacity >= 1
    sink.close()
    sink.close()
    assert sink_from_uri(uri, name="mine").name == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]  # nothing is made before it is opened


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "there is no sink ''; expected window, a video file"),
        ("out.avi", "there is no sink 'out.avi'"),
        ("screen", "there is no sink 'screen'"),
        ("ftp://user:hunter2@host/out.mp4", r"there is no sink 'ftp://\*\*\*@host/out.mp4'"),
        ("mqtt://user:hunter2@host", "has no topic; expected mqtt://"),
        ("mqtt:///topic", "is no address of a broker"),
        ("mqtt://user:hunter2@host:99999/a", "is no address of a broker"),
        ("mqtt://host/a/+/b", "one cannot publish on the topic"),
        ("mqtt://host/a/#", "one cannot publish on the topic 'a/#'; give one without"),
        ("mqtt://host/#", "one cannot publish on the topic '#'"),
        ("mqtt://host/a/#/b", "one cannot publish on the topic 'a/#/b'"),
        ("mqtt://host/$SYS/a", "one cannot publish on the topic"),
        ("mqtt://:hunter2@host/a", "a password .* but no user"),
        ("https://", "is no address of a webhook"),
        ("http://user:hunter2@host:port/", "is no address of a webhook"),
        ("nowhere/out.mp4", "the folder nowhere does not exist; make it: mkdir -p 'nowhere'"),
        ("nowhere/out.jsonl", "the folder nowhere does not exist"),
        ("out.mp4#segment=0.5", "the sink option segment is 0.5; give 0, or 1 or more"),
        ("out.mp4#segment=-1", "the sink option segment is -1; give 0, or 1 or more"),
        ("out.mp4#min-free=-1", "the sink option min-free is -1; give 0 or more megabytes"),
        ("images/#every=-2", "the sink option every is -2; give 0 or more"),
        ("out.mp4#segment=long", "the sink option segment is 'long'; give a number"),
        ("out.mp4#keep=", "the sink option keep is ''; give a whole number"),
        ("out.mp4#min-free=much", "the sink option min-free is 'much'; give a number of megabytes"),
        ("out.mp4#min-free=inf", "the sink option min-free is 'inf'; give a number of megabytes"),
        ("out.mp4#segment=nan", "segment"),
        ("out.mp4#overwrite=perhaps", "the sink option overwrite is 'perhaps'; give yes or no"),
        ("out.mp4#color=red", "there is no sink option 'color'; expected some of sources, overwrite, segment, keep"),
        ("images/#format=gif", "the sink option format is 'gif'; give jpg or png"),
        ("mqtt://host/a#qos=2", "the sink option qos is 2; give 0 or 1"),
    ],
)
def test_what_cannot_be_is_one_line_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says) as raised:
        sink_from_uri(uri)
    assert "\n" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_sink_s_own_options_come_before_those_of_all() -> None:
    general = SinkOptions(segment_s=60, quality=80)
    own = general.with_text(
        "segment=5,keep=2,overwrite,sources=a+b,on-events=no,min-free=7.5,every=0.5,secret-file=/x/y"
    )
    assert own == SinkOptions(
        segment_s=5,
        quality=80,
        keep=2,
        overwrite=True,
        sources=("a", "b"),
        min_free_bytes=7_500_000,
        every_s=0.5,
        secret_file=Path("/x/y"),
    )
    assert own.takes("a")
    assert not own.takes("c")
    assert general.takes("c")
    assert general.with_text("") == general
    known = SinkOptions(sources=("a", "b"))
    assert known.with_text("sources=b").sources == ("b",)
    with pytest.raises(UsageError, match="there is no source 'c' for the sink; expected some of a, b"):
        known.with_text("sources=a+c")


def test_a_folder_with_a_video_s_name_takes_no_video(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").mkdir()
    with pytest.raises(UsageError, match=r"film\.mp4 is no regular file"):
        sink_from_uri(str(tmp_path / "film.mp4"))
    assert isinstance(sink_from_uri(f"{tmp_path}/film.mp4/"), ImagesSink)


def test_a_name_may_come_with_the_options(tmp_path: Path) -> None:
    for text in ("name=door,keep=2", "keep=2,name=door", "name=door"):
        assert sink_from_uri(f"{tmp_path}/out.mp4#{text}", name="other").name == "door"
    assert sink_from_uri("https://example.org/hook#name=", name="other").name == "other"


def test_the_options_of_a_text_reach_the_sink(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a\nb")
    with pytest.raises(GapcamError, match="holds no secret"):
        sink_from_uri(f"http://localhost/#secret-file={secret}")
    with pytest.raises(GapcamError, match="cannot be read: No such file"):
        sink_from_uri(f"mqtt://user@localhost/a#password-file={tmp_path / 'none'}")
    with pytest.raises(GapcamError, match="holds no certificates"):
        sink_from_uri(f"mqtts://localhost/a#ca-file={secret}")


def test_a_file_with_the_options_in_its_name_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl#keep=1.jsonl").touch()
    assert sink_from_uri(str(tmp_path / "out.jsonl#keep=1.jsonl")).name.endswith("#keep=1.jsonl")


@pytest.mark.parametrize("name", ["zw\u202eei", "a\u200bb", "a\x1b[31mb", "a\nb", "a\udcffb"], ids=ascii)
def test_a_name_with_characters_that_are_not_seen_is_refused(tmp_path: Path, name: str) -> None:
    for uri, how in ((f"{tmp_path}/out.mp4", {"name": name}), (f"{tmp_path}/out.mp4#name={name}", {})):
        with pytest.raises(
            UsageError, match=r"a sink's name is '.*', with .* \(U\+[0-9A-F]{4}\); leave it out"
        ) as error:
            sink_from_uri(uri, **how)  # type: ignore[arg-type]
        assert str(error.value).isprintable()


def test_a_name_made_of_a_files_name_has_none_of_these(tmp_path: Path) -> None:
    for file, shown in (("a\u202eb.jsonl", r"a\u202eb.jsonl"), ("a\udcffb.jsonl", r"a\udcffb.jsonl")):
        assert sink_from_uri(f"{tmp_path}/{file}").name == f"{tmp_path}/{shown}"
