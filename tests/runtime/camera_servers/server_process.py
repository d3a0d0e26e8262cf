"""A server in a process of its own that is told what to do by lines on its standard input."""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

Self = TypeVar("Self", bound="ServerProcess")

FOLDER = Path(__file__).resolve().parents[1]


def lasting_port() -> int:
    """A free one that stays free while its server is away.

    Sockets that name no port get others: 32768 to 60999 on Linux, from 49152 on macOS and Windows.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class ServerProcess:
    """Starts `python -m camera_servers.MODULE`, waits until it listens, and ends it by its process id.

    The process answers each line of JSON on its standard input with one on its standard output; the first is
    {"port": N}. It ends when its standard input does, so that it does not outlive the tests.

    Attributes:
        port: on 127.0.0.1; the same after a restart.
    """

    def __init__(self, module: str, settings: dict[str, Any], *, python: str = sys.executable) -> None:
        self.port = 0
        self._settings = settings
        self._command = [python, "-m", f"camera_servers.{module}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None
        self._unread = b""

    def start(self, timeout_s: float = 20) -> None:
        """Start it; again after `kill`, on the same port."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"PYTHONPATH": str(FOLDER), "PYTHONDONTWRITEBYTECODE": "1"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._unread = b""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        self.port = self.port or lasting_port()
        try:
            self.port = self.tell(timeout_s, **self._settings, port=self.port)["port"]
        except BaseException:
            self.kill()
            raise

    def tell(self, timeout_s: float = 10, **what: Any) -> dict[str, Any]:
        """Send one command, and wait for its answer."""
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(what).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it died: the answer says so
        answer: dict[str, Any] = json.loads(self._line(process, timeout_s))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def kill(self) -> None:
        """SIGKILL, as a power cut. Nothing where it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # a line that it never read
                pipe.close()
        self._errors.close()

    def stall(self) -> None:
        """SIGSTOP: connections stay open, and nothing comes. Until it stands still it goes on for a moment: wait."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """After `stall`."""
        os.kill(self._running().pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self._command[-1]} is not running; call start()")
        return self._process

    def _line(self, process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        assert process.stdout is not None
        until = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError(f"{self._command[-1]} did not answer within {timeout_s:g} s: {self._said()}")
                read = os.read(process.stdout.fileno(), 65536)
                if not read:
                    process.wait()
                    raise RuntimeError(f"{self._command[-1]} ended with {process.returncode}: {self._said()}")
                self._unread += read
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip() or "without a word"

    def __enter__(self: Self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
