"""What of a URI is shown, and what of other people's messages about it."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam.camera.sinks.sink_uri import sink_from_uri
from gapcam.camera.sources.source_uri import source_from_uri
from gapcam.camera.uri import redacted, without_credentials
from gapcam.errors import UsageError


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://admin:secret@cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin@cam/live", "rtsp://***@cam/live"),
        ("RTSP://admin:secret@cam:554/live", "RTSP://***@cam:554/live"),
        ("rtsps://ad%6Din:s%40cr%3Aet%2F@cam/live", "rtsps://***@cam/live"),
        ("rtsp://admin:se@cr@et@cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin:se/cr#e?t@cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin:12345/x@cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin%3Asecret%40cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin:secret@[fe80::1%25eth0]:554/live", "rtsp://***@[fe80::1%25eth0]:554/live"),
        ("rtsp://[::1]:8554/live@main", "rtsp://***@main"),  # the port may be a password: more is hidden, not less
        ("rtsp://[::1]/live@main", "rtsp://[::1]/live@main"),
        ("http://cam/a?user=admin&password=secret&x=1", "http://cam/a?user=***&password=***&x=1"),
        ("http://cam/a?loginuse=admin&loginpas=secret", "http://cam/a?loginuse=***&loginpas=***"),
        ("http://cam/a?access_token=secret;x=1", "http://cam/a?access_token=***;x=1"),
        ("http://cam/a?p%61ssword=secret", "http://cam/a?p%61ssword=***"),
        ("http://cam/a?API-KEY=secret", "http://cam/a?API-KEY=***"),
        ("http://cam/a?auth=secret#rate=15,rotate=90", "http://cam/a?auth=***"),
        ("http://cam/a?password=&x=1", "http://cam/a?password=&x=1"),
        ("rtsp://cam/user=admin&password=secret&channel=1.sdp", "rtsp://cam/user=***&password=***&channel=1.sdp"),
        ("rtsp://cam/user=admin_password=secret_channel=1.sdp", "rtsp://cam/user=***"),
        ("http://proxy/?src=rtsp%3A%2F%2Fadmin%3Asecret%40cam", "http://proxy/?src=***"),
        ("http://proxy/?src=rtsp://admin:secret@cam", "http://***@cam"),
        ("mqtts://admin:secret@broker:8883/topic", "mqtts://***@broker:8883/topic"),
        ("admin:secret@cam/live", "***@cam/live"),
        ("rtsp:/admin:secret@cam/live", "***@cam/live"),
        ("rtsp://admin:pa#rate=secret@cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin#rate=secret@cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin%3Apa#rate=secret%40cam/live", "rtsp://***@cam/live"),
    ],
)
def test_no_secret_of_a_uri_is_shown(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cam:554/live?channel=1&subtype=0",
        "http://cam/live@main/video.mjpg",
        "http://[2001:db8::1]:8080/?action=stream",
        "csi://0",
        "test://?size=1280x720&fps=15",
        "/dev/video0",
        "0",
        "film 10:30.mp4",
        "/films/10:30@home?password=no.mp4",
        "./a:b@c.mp4",
        "file:///films/a:b@c.mp4",
        "photos/*.jpg",
        "-",
        "",
    ],
)
def test_what_has_no_credentials_stays_as_it_is(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    "userinfo",
    [
        "user:pa#rate=hunter2",
        "user:pa#rate=5,size=hunter2",
        "user:pa#name=hunter2",
        "user:pa#colour=hunter2",
        "user:pa/#rate=hunter2",
        "user:pa#rate=hunter2/",
        "user:#qos=hunter2",
        "user:pa#qos=hunter2",
        "user:pa#Qos=hunter2",
        "user:pa#hunter2",
        "user#qos=hunter2",
        "user:pa#sources=hunter2,keep=x",
        "user%3Apa#rate=hunter2%40cam/live?a=",
    ],
)
@pytest.mark.parametrize("after", ["@cam/live", "@cam/live#rate=fast", "@cam/live#qos=9"])
@pytest.mark.parametrize("scheme", ["rtsp", "http", "https", "mqtt", "mqtts", "gopher"])
def test_no_part_of_a_password_is_taken_for_options(scheme: str, userinfo: str, after: str) -> None:
    uri = f"{scheme}://{userinfo}{after}"
    for make in (source_from_uri, sink_from_uri):
        with pytest.raises(UsageError) as raised:
            make(uri)
        assert "hunter2" not in str(raised.value)
    assert "hunter2" not in without_credentials(uri)


def test_options_may_hold_an_at_sign_where_it_cannot_be_a_password_s() -> None:
    assert source_from_uri("rtsp://cam/live#name=door@home").name == "door@home"
    assert source_from_uri("./film.mp4#name=door@home").name == "door@home"
    assert sink_from_uri("mqtt://broker/topic#name=door@home").name == "door@home"


def test_masking_twice_is_masking_once() -> None:
    once = without_credentials("rtsp://admin:secret@cam/live?token=abc")
    assert without_credentials(once) == once


_PRINTED = st.characters(min_codepoint=33, max_codepoint=126)
_USER = st.text(_PRINTED.filter(lambda character: character != ":"), min_size=4, max_size=12)
_PASSWORD = st.text(_PRINTED, max_size=12).map(lambda inner: f"Geheim{inner}Ende")


@given(user=_USER, password=_PASSWORD)
def test_no_password_survives_whatever_its_characters(user: str, password: str) -> None:
    uri = f"rtsp://{user}:{password}@cam/live"
    assert without_credentials(uri) == "rtsp://***@cam/live"
    assert password not in redacted(f"[Errno 1] cannot open {uri!s}: {password}", uri)


@pytest.mark.parametrize(
    "message",
    [
        "[Errno 111] Connection refused: 'rtsp://admin:s%40cret@cam/live'",
        "Connection to tcp://admin:s@cret@cam:554?timeout=0 failed",
        "user admin with s@cret was refused",
        "user admin with s%40cret was refused",
        "Authorization: Basic " + b64encode(b"admin:s@cret").decode(),
    ],
)
def test_a_message_keeps_no_part_of_the_credentials(message: str) -> None:
    shown = redacted(message, "rtsp://admin:s%40cret@cam/live")
    assert "***" in shown
    for secret in ("cret", "admin", b64encode(b"admin:s@cret").decode()):
        assert secret not in shown


def test_a_message_is_cleaned_of_secrets_in_a_query_and_of_other_uris() -> None:
    shown = redacted("GET /a?token=abcdef failed; moved to http://u:pw@b/", "http://cam/a?token=abcdef&x=1")
    assert shown == "GET /a?token=*** failed; moved to http://***@b/"


def test_a_short_password_does_not_eat_the_message() -> None:
    assert redacted("a stream was not found, a=1", "rtsp://u:a@cam/") != "*** stre*** w***s"
    assert redacted("password a, user u, again", "rtsp://u:a@cam/") == "password ***, user ***, again"


def test_without_credentials_the_message_stays_as_it_is() -> None:
    assert redacted("Connection refused: rtsp://cam:554/live", "rtsp://cam:554/live").startswith(
        "Connection refused: r"
    )
    assert redacted("Server returned 404 Not Found", "rtsp://cam/live") == "Server returned 404 Not Found"
