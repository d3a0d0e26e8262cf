"""Logs of a camera as lines on stderr: for people, or as JSON for what collects logs.

A line is one line whatever is in it, commands to a terminal are written out, and credentials are masked. A stderr that
nobody reads holds nobody up: lines wait in a queue, and what does not fit is counted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from queue import Full, Queue
from types import TracebackType
from typing import Any, Literal, TypeAlias

from gapcam.camera.uri import MASK, redacted
from gapcam.cli.printable import printable

LogFormat: TypeAlias = Literal["text", "json"]

LOGGER = "gapcam"
"""The name of the logger above all of gapcam's."""

_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_WAITING_LINES = 1000
_SHORTEST_SECRET = 4
"""Characters: to mask shorter ones would leave little of any text."""


class Redaction:
    """Masks what must not be seen in any text: the credentials of URIs, these and all others, and given secrets.

    Args:
        uris: as the user gave them.
        secrets: tokens and passwords.
    """

    def __init__(self, uris: Collection[str] = (), secrets: Collection[str] = ()) -> None:
        self._uris = tuple(filter(None, uris)) or ("file://",)  # which has none, so that those of all others are masked
        self._secrets: list[str] = []
        self.add_secrets(secrets)

    def __call__(self, text: str) -> str:
        """The text without them."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for uri in self._uris:
            text = redacted(text, uri)
        return text

    def add_secrets(self, secrets: Collection[str]) -> None:
        """More to mask, from now on."""
        long_enough = (secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)
        self._secrets = sorted({*self._secrets, *long_enough}, key=len, reverse=True)

    def clean(self, error: BaseException) -> None:
        """Mask an error's own texts. What caused it is forgotten where a traceback would show a secret of it."""
        shown = "".join(traceback.format_exception(error))
        if self(shown) == shown:
            return
        error.args = tuple(self(part) if isinstance(part, str) else part for part in error.args)
        error.__cause__ = error.__context__ = None


class LineFormatter(logging.Formatter):
    """One line a record: its time in UTC, its level, its message, and what it brings as `extra`.

    Args:
        form: "text", with `key=value` at the end for what the message does not say; or "json", an object with all.
        redact: masks secrets.
        journal: systemd's journal reads along: it has the time, and takes the level from a number before the line.
    """

    def __init__(self, form: LogFormat, redact: Callable[[str], str], *, journal: bool = False) -> None:
        super().__init__()
        self._form, self._redact, self._journal = form, redact, journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message = self._redact(record.getMessage())
        fields = {key: value for key, value in vars(record).items() if key not in _OF_EVERY_RECORD}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= _of_error(*record.exc_info, whole=record.levelno >= logging.ERROR)
        shown = {key: self._redact(value) if isinstance(value, str) else value for key, value in fields.items()}
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        time, level = moment.replace("+00:00", "Z"), record.levelname.lower()
        if self._form == "json":
            line = json.dumps({"time": time, "level": level, "message": message, **shown}, default=repr)
        else:
            words = [] if self._journal else [time, level.upper()]
            unsaid = (f"{key}={_value(value)}" for key, value in shown.items() if f"{key} {value}" not in message)
            line = printable(" ".join([*words, message, *unsaid]))
        return f"<{_priority(record.levelno)}>{line}" if self._journal else line


@contextmanager
def logging_to(
    write: Callable[[str], None],
    *,
    form: LogFormat = "text",
    level: int = logging.INFO,
    redact: Callable[[str], str] = Redaction(),  # noqa: B008 - it has no state that changes
    journal: bool = False,
) -> Iterator[None]:
    """Within this context, gapcam's records of a level, and everybody's warnings, become lines.

    So do Python's own warnings, and errors that end a thread.

    Args:
        write: takes a line, without its end; called in a thread of its own.
        form: see `LineFormatter`.
        level: of gapcam's own records.
        redact: masks secrets.
        journal: see `LineFormatter`.
    """
    handler = _QueuedLines(write)
    handler.setFormatter(LineFormatter(form, redact, journal=journal))
    root, own = logging.getLogger(), logging.getLogger(LOGGER)
    level_before, hook_before = own.level, threading.excepthook
    root.addHandler(handler)
    own.setLevel(level)
    logging.captureWarnings(True)
    threading.excepthook = _log_error_of_thread
    try:
        yield
    finally:
        threading.excepthook = hook_before
        logging.captureWarnings(False)
        own.setLevel(level_before)
        root.removeHandler(handler)
        handler.close()


def goes_to_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether stderr is a stream of systemd's journal: its device and inode are those in JOURNAL_STREAM."""
    if sys.stderr is None:
        return False
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no real file
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _QueuedLines(logging.Handler):
    """Formats where the record is made, writes in a thread of its own."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write
        self._lines: Queue[str | None] = Queue(_WAITING_LINES)
        self._lost = 0
        self._thread = threading.Thread(target=self._write_lines, name="gapcam logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except Full:
            self._lost += 1
        except Exception:  # noqa: BLE001 - a record with a wrong format is no reason to stop a camera
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, for up to two seconds."""
        with suppress(Full):
            self._lines.put(None, timeout=2)
            self._thread.join(timeout=2)
        super().close()

    def _write_lines(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError, ValueError):  # stderr is closed or its disk is full: there is no one to tell
                self._write(line)
                if self._lost:
                    lost, self._lost = self._lost, 0
                    text = "lines of this log were lost: they came faster than they could be written"
                    facts = {"name": LOGGER, "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
                    self._write(self.format(logging.makeLogRecord({**facts, "lines": lost})))


def _of_error(
    _: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, *, whole: bool
) -> dict[str, str]:
    """An error as fields; with its traceback where it is worth one."""
    text = " ".join(str(error).split())
    fields = {"error": f"{type(error).__name__}: {text}"}
    if whole and where is not None:
        fields["traceback"] = "".join(traceback.format_exception(error))
    return fields


def _log_error_of_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is None or failed.exc_type is SystemExit:
        return
    name = failed.thread.name if failed.thread else "a thread"
    error = failed.exc_value
    logging.getLogger(f"{LOGGER}.camera").critical(
        "%s ended by an error that gapcam did not foresee", name, exc_info=(type(error), error, failed.exc_traceback)
    )


def _priority(level: int) -> int:
    """Of syslog."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def _value(value: Any) -> str:
    """A value as it stands behind `key=`: in quotation marks where its end could not be seen."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if text and not any(c.isspace() or c in "\"'=" for c in text) else json.dumps(text, ensure_ascii=False)
