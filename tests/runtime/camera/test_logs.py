"""Logs as lines: for people and for programs, one line a record, without secrets and without commands to a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from planned_camera import no_thread_left

from gapcam.camera.logs import LineFormatter, Redaction, goes_to_journal, logging_to
from gapcam.errors import DataError

LOG = logging.getLogger("gapcam.camera")
URI = "rtsp://admin:s3cr%40et!@10.0.0.5/live"


def lines_of(form: str, **options: object) -> list[str]:
    """What three records become."""
    lines: list[str] = []
    with logging_to(lines.append, form=form, **options):  # type: ignore[arg-type]
        LOG.info("reopened after %.1f s", 3.14159, extra={"source": "front door", "attempts": 2})
        LOG.debug("not shown")
        LOG.warning("odd: \x1b[31m\r\nsecond line\u2028third", extra={"note": "\x9b2J"})
    return lines


def test_a_line_for_people_has_time_level_message_and_fields() -> None:
    first, second = lines_of("text")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(stamp + ' INFO reopened after 3.1 s source="front door" attempts=2', first)
    assert second.endswith(r"WARNING odd: \x1b[31m\r\nsecond line\u2028third note=\x9b2J")


def test_a_line_of_json_has_the_same() -> None:
    first, second = map(json.loads, lines_of("json"))
    assert {key: first[key] for key in ("level", "message", "source", "attempts")} == {
        "level": "info",
        "message": "reopened after 3.1 s",
        "source": "front door",
        "attempts": 2,
    }
    assert first["time"] <= second["time"]
    assert second["message"] == "odd: \x1b[31m\r\nsecond line\u2028third"
    assert all(line.isascii() and line.isprintable() for line in lines_of("json"))


def test_the_journal_gets_the_level_as_a_number_and_no_time_of_its_own() -> None:
    assert lines_of("text", journal=True)[0] == '<6>reopened after 3.1 s source="front door" attempts=2'
    assert [line[:4] for line in lines_of("json", journal=True)] == ["<6>{", "<4>{"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_credentials_and_secrets_are_masked_wherever_they_are(form: str) -> None:
    lines: list[str] = []
    with logging_to(lines.append, form=form, redact=Redaction([URI], ["a-long-token", "x"])):  # type: ignore[arg-type]
        LOG.info("cannot open %s", URI)
        LOG.info("the server said", extra={"answer": "no user admin with s3cr@et!", "header": "Bearer a-long-token"})
        LOG.info("next http://other:pw12@host/?token=12345")
        try:
            raise DataError(f"{URI} is away")
        except DataError:
            LOG.exception("failed")
    text = "\n".join(lines)
    assert len(lines) == 4
    for secret in ("admin", "s3cr", "a-long-token", "pw12", "12345"):
        assert secret not in text
    assert "rtsp://***@10.0.0.5/live is away" in text
    assert "next http" in text  # a secret of one letter is not looked for


def test_without_known_uris_those_of_any_text_are_masked() -> None:
    assert Redaction()("see rtsp://a:b@c/d") == "see rtsp://***@c/d"
    assert Redaction()("nothing to see") == "nothing to see"


def test_an_error_that_is_shown_keeps_its_kind_and_cause_but_for_secrets() -> None:
    redact = Redaction([URI])
    cause = OSError(f"no answer of {URI}")
    error = DataError(f"lost {URI}")
    error.__cause__ = cause
    redact.clean(error)
    assert str(error) == "lost rtsp://***@10.0.0.5/live"
    assert error.__cause__ is None
    harmless = DataError("no such file")
    harmless.__cause__ = FileNotFoundError("no such file")
    redact.clean(harmless)
    assert isinstance(harmless.__cause__, FileNotFoundError)


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_error_is_one_line_with_its_traceback(form: str) -> None:
    lines: list[str] = []
    with logging_to(lines.append, form=form):  # type: ignore[arg-type]
        try:
            raise ValueError("two\nlines")
        except ValueError as error:
            LOG.exception("failed")
            LOG.warning("went on", exc_info=error)
    assert len(lines) == 2
    assert all("\n" not in line and "ValueError: two lines" in line for line in lines)
    assert "Traceback" in lines[0]
    assert "Traceback" not in lines[1]


def test_warnings_and_threads_that_end_by_an_error_are_logged() -> None:
    lines: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError("oh")

    hook = threading.excepthook
    with logging_to(lines.append), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=fail, name="capture of door")
        thread.start()
        thread.join()
    assert "DeprecationWarning: old" in lines[0]
    assert "CRITICAL capture of door ended by an error" in lines[1]
    assert "ZeroDivisionError: oh" in lines[1]
    assert threading.excepthook is hook


def test_whoever_writes_slowly_holds_nobody_up_and_what_is_lost_is_counted() -> None:
    lines: list[str] = []
    may_write = threading.Event()

    def write(line: str) -> None:
        may_write.wait(10)
        lines.append(line)

    with logging_to(write, form="json"):
        for number in range(1500):
            LOG.info("line", extra={"number": number})
        may_write.set()
    rows = [json.loads(line) for line in lines]
    lost = sum(row.get("lines", 0) for row in rows)
    assert lost >= 498  # a thousand wait, one or two are with the writer
    assert len([row for row in rows if row["message"] == "line"]) + lost == 1500


def test_a_stderr_that_cannot_be_written_is_no_error() -> None:
    def write(line: str) -> None:
        raise BrokenPipeError(line)

    with logging_to(write):
        LOG.info("unheard")


def test_afterwards_logging_is_as_it_was() -> None:
    root, own = logging.getLogger(), logging.getLogger("gapcam")
    before = (list(root.handlers), own.level)
    with no_thread_left():
        lines_of("text", level=logging.DEBUG)
    assert (list(root.handlers), own.level) == before


def test_a_record_with_a_field_that_json_has_not_is_written() -> None:
    record = logging.makeLogRecord(
        {"msg": "m", "levelname": "INFO", "levelno": 20, "where": Path("a"), "x": float("nan")}
    )
    assert json.loads(LineFormatter("json", str).format(record))["where"] == repr(Path("a"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd's")
def test_the_journal_is_known_by_the_device_and_inode_of_stderr(tmp_path: Path) -> None:
    code = "from gapcam.camera.logs import goes_to_journal; print(goes_to_journal())"
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        for given, expected in ((f"{status.st_dev}:{status.st_ino}", "True"), (f"{status.st_dev}:1", "False")):
            environment = {**os.environ, "JOURNAL_STREAM": given}
            done = subprocess.run(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment,
                text=True,
                check=True,
            )
            assert done.stdout == f"{expected}\n"
    assert not goes_to_journal({})
