"""What systemd is told, on a datagram socket as it opens one; and the unit file that the wheel brings."""

from __future__ import annotations

import configparser
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from planned_camera import eventually
from small_models import a_contract, fake_red_and_blue

import gapcam
from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.newest_best import NewestBest
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.shown_status import LoggedStatus
from gapcam.camera.stop_signals import StopSignals
from gapcam.camera.systemd import Notifier, Watchdog, unit_file
from gapcam.camera.watching import watch


class ServiceManager:
    """The side of systemd."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(5)

    def heard(self, seconds: float = 5) -> str:
        self._socket.settimeout(seconds)
        return self._socket.recv(65536).decode()

    def is_told_of_life(self, seconds: float) -> bool:
        """Whether that is said, whatever else is, before nothing is for so long."""
        with suppress(TimeoutError):
            while self.heard(seconds) != "WATCHDOG=1":
                pass
            return True
        return False

    def forget(self) -> None:
        """What was said and not heard yet."""
        while not self.nothing_heard():
            pass

    def nothing_heard(self) -> bool:
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(5)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    if request.param == "abstract" and not sys.platform.startswith("linux"):
        pytest.skip("abstract sockets are Linux'")
    address = str(tmp_path / "notify") if request.param == "path" else f"@gapcam-tests-{os.getpid()}"
    manager = ServiceManager(address)
    yield manager
    manager.close()


def test_states_are_lines_of_one_datagram(systemd: ServiceManager) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": systemd.address})
    assert notifier.active
    notifier.send(READY=1, STATUS="2 cameras\nMAINPID=1")
    assert systemd.heard() == "READY=1\nSTATUS=2 cameras MAINPID=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_outside_of_a_unit_nothing_is_sent(environment: dict[str, str]) -> None:
    notifier = Notifier.from_environment({**environment, "WATCHDOG_USEC": "1000000"})
    assert not notifier.active
    assert notifier.watchdog_s is None
    notifier.send(READY=1)
    assert Watchdog(notifier).round(idle_s=0)


def test_a_service_manager_that_went_away_is_logged_once_and_told_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = tmp_path / "notify"
    notifier = Notifier(str(address))
    with caplog.at_level(logging.WARNING, "gapcam.camera"):
        notifier.send(WATCHDOG=1)
        notifier.send(WATCHDOG=1)
    assert [record.getMessage() for record in caplog.records] == ["systemd does not listen: No such file or directory"]
    manager = ServiceManager(str(address))
    notifier.send(WATCHDOG=1)
    assert manager.heard() == "WATCHDOG=1"
    manager.close()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),  # another process is watched
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_systemd_waits_is_read_from_the_environment(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/run/notify", **environment}).watchdog_s == seconds


def test_the_watchdog_is_fed_only_while_the_network_comes_round(
    systemd: ServiceManager, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog = Watchdog(Notifier(systemd.address, watchdog_s=2))
    assert watchdog.interval_s == 0.5
    assert watchdog.round(idle_s=0.1)
    assert systemd.heard() == "WATCHDOG=1"
    with caplog.at_level(logging.ERROR, "gapcam.camera"):
        assert not watchdog.round(idle_s=1.1)
        assert not watchdog.round(idle_s=1.6)
    assert systemd.nothing_heard()
    assert len(caplog.records) == 1
    assert "has not answered for 1.1 s" in caplog.records[0].getMessage()
    assert "systemd will start all of it again" in caplog.records[0].getMessage()
    assert watchdog.round(idle_s=0)  # it was only slow
    assert systemd.heard() == "WATCHDOG=1"


def test_without_systemd_a_network_that_hangs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Watchdog(Notifier())
    with caplog.at_level(logging.ERROR, "gapcam.camera"):
        assert not watchdog.round(idle_s=16)
    assert [record.getMessage() for record in caplog.records] == ["the network has not answered for 16.0 s"]


class Blank:
    """A source of black frames."""

    name = uri = "blank"
    live = paced = True

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def open(self) -> None:
        pass

    def read(self) -> SourceFrame | None:
        return None if self._stopped.wait(0.02) else SourceFrame(np.zeros((16, 16, 3), np.uint8), time.monotonic())

    def interrupt(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        pass


def test_a_network_that_hangs_is_no_longer_said_to_be_alive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = fake_red_and_blue(a_contract((16, 16)))
    compute, goes_on = backend.compute, threading.Event()
    goes_on.set()
    manager = ServiceManager(str(tmp_path / "notify"))
    notifier = Notifier(manager.address, watchdog_s=1.2)
    wake = threading.Event()

    def hanging(image: np.ndarray) -> object:
        goes_on.wait(60)
        return compute(image)

    with gapcam.Session(backend) as session, StopSignals(wake) as signals:
        backend.compute = hanging  # type: ignore[assignment]
        pipeline, best = Pipeline(session, [Blank()]), NewestBest()
        with pipeline:

            def look() -> None:
                watch(pipeline, LoggedStatus(best, 0), signals, wake, note=best.note, notifier=notifier)

            watching = threading.Thread(target=look)
            watching.start()
            assert manager.is_told_of_life(20)
            goes_on.clear()
            eventually(lambda: "the network has not answered for" in caplog.text)
            manager.forget()
            assert not manager.is_told_of_life(1.3)  # longer than systemd waits until it starts all of it again
            goes_on.set()
            assert manager.is_told_of_life(20)
            signals.asked.set()
            wake.set()
            watching.join()
    manager.close()


def test_the_unit_file_starts_the_gapcam_that_printed_it(tmp_path: Path) -> None:
    program = tmp_path / "a folder" / "100%" / "gapcam"
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(unit_file(program))
    assert unit["Service"]["ExecStart"] == f'"{tmp_path}/a folder/100%%/gapcam" camera $GAPCAM_MODEL $GAPCAM_CAMERA'
    assert unit["Service"]["Type"] == "notify"
    assert "WatchdogSec" in unit["Service"]
    shipped = files("gapcam.camera").joinpath("deploy/gapcam-camera.service").read_text(encoding="utf-8")
    assert unit_file(Path("/opt/gapcam/bin/gapcam")) == shipped


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit_file(tmp_path: Path) -> None:
    program = tmp_path / "gapcam"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    path = tmp_path / "gapcam-camera.service"
    path.write_text(unit_file(program), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    path.write_text(unit_file(program) + "NoSuchKey=1\n", encoding="utf-8")
    wrong = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    assert "NoSuchKey" in wrong.stderr  # it does look
