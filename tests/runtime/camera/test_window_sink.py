"""Windows. With a real X server where Xvfb and xdotool are installed, and an OpenCV that has windows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gapcam.camera.sinks import window
from gapcam.camera.sinks.sink_uri import sink_from_uri
from gapcam.errors import UsageError

SHOW = Path(__file__).parents[1] / "show_window.py"
FOLDER_VARIABLE = "GAPCAM_OPENCV_WITH_WINDOWS"
"""Names the folder of such an OpenCV: pip install --no-deps --target FOLDER opencv-python."""

headless = pytest.mark.skipif(window._window_system() != "NONE", reason="this OpenCV has windows")


@headless
def test_a_headless_opencv_is_said_in_a_line_that_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"put opencv-python in its place.*--serve 127\.0\.0\.1:8080") as raised:
        sink_from_uri("window")
    assert "\n" not in str(raised.value)


def test_no_display_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("elsewhere there is always a display")
    monkeypatch.setattr(window, "_window_system", lambda: "QT5")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="there is no display for a window: DISPLAY is not set"):
        sink_from_uri("window")
    monkeypatch.setenv("DISPLAY", ":77")
    with pytest.raises(UsageError, match="no window can be opened on the display ':77'"):
        sink_from_uri("window")


class Screen:
    """An X server without a screen, and what is to be seen on it."""

    def __init__(self, folder: Path) -> None:
        read, write = os.pipe()
        command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-fbdir", str(folder)]
        self._server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as numbers:
            self.display = f":{numbers.readline().strip()}"
        self._buffer = folder / "Xvfb_screen0"

    def xdotool(self, *arguments: str) -> str:
        environment = {**os.environ, "DISPLAY": self.display}
        done = subprocess.run(
            ["xdotool", *arguments], env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout.strip()

    def pixels(self) -> np.ndarray:
        """H x W x 3 uint8 BGR. The file is in the format of xwd: a header of big-endian words, colours, pixels."""
        data = self._buffer.read_bytes()
        header = np.frombuffer(data, ">u4", 25)
        width, height, line, colors = (int(header[n]) for n in (4, 5, 12, 19))
        begin = int(header[0]) + 12 * colors
        rows = np.frombuffer(data, np.uint8, height * line, begin).reshape(height, line)
        return rows[:, : 4 * width].reshape(height, width, 4)[..., :3]

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    for tool in ("Xvfb", "xdotool"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install xvfb xdotool")
    if window._window_system() == "NONE" and FOLDER_VARIABLE not in os.environ:
        pytest.skip(
            "needs an OpenCV with windows: pip install --no-deps --target FOLDER opencv-python, and "
            f"{FOLDER_VARIABLE}=FOLDER"
        )
    one = Screen(tmp_path)
    yield one
    one.close()


@pytest.fixture
def shown(screen: Screen) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join([os.environ.get(FOLDER_VARIABLE, ""), str(SHOW.parent)])
    environment = {**os.environ, "DISPLAY": screen.display, "PYTHONPATH": path, "QT_QPA_PLATFORM": "xcb"}
    process = subprocess.Popen(
        [sys.executable, str(SHOW), "20,30,250"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, process.communicate()[1]
    return line


def window_of(screen: Screen, source: str) -> str:
    until = time.monotonic() + 20
    while not (found := screen.xdotool("search", "--onlyvisible", "--name", f"^gapcam: {source}$")):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found.split()[0]


@pytest.mark.parametrize(("key", "name"), [("q", "'q'"), ("Escape", r"'\x1b'")])
def test_each_source_is_shown_in_a_window_until_a_key_is_pressed(
    screen: Screen, shown: subprocess.Popen[str], key: str, name: str
) -> None:
    assert said(shown) == "shown"
    front, back = window_of(screen, "front"), window_of(screen, "back")
    assert front != back
    near = np.abs(screen.pixels().astype(int) - (20, 30, 250)).max(axis=2) <= 4
    assert near.sum() > 240 * 320 * 0.9  # two windows may lie upon each other
    screen.xdotool("windowfocus", "--sync", front)
    screen.xdotool("key", key)
    assert said(shown) == f"stopped: the key {name} was pressed"
    assert shown.wait(20) == 0


def test_closing_a_window_ends_it(screen: Screen, shown: subprocess.Popen[str]) -> None:
    assert said(shown) == "shown"
    # As a window manager asks when its button is clicked; there is none here.
    subprocess.run(
        [sys.executable, "-c", _CLOSE, window_of(screen, "back")],
        env={**os.environ, "DISPLAY": screen.display},
        check=True,
        timeout=20,
    )
    assert said(shown) == "stopped: a window was closed"
    assert shown.wait(20) == 0


_CLOSE = """
import ctypes, sys

class Message(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int), ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong), ("kind", ctypes.c_ulong), ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5), ("rest", ctypes.c_long * 24),
    ]

x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
x.XInternAtom.restype = ctypes.c_ulong
display = ctypes.c_void_p(x.XOpenDisplay(None))
message = Message(type=33, window=int(sys.argv[1]), format=32)
message.kind = x.XInternAtom(display, b"WM_PROTOCOLS", 0)
message.data[0] = x.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
x.XSendEvent(display, ctypes.c_ulong(message.window), 0, 0, ctypes.byref(message))
x.XFlush(display)
"""
