"""Commands that the system ends, or whose terminal is gone, unwind as by Ctrl-C; those under nohup go on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gapcam_export.termination import termination_as_interrupt

# Says that it waits, and what became of it: on stderr, and in a file.
WAITS = """
import pathlib, sys, time
from gapcam_export.termination import termination_as_interrupt
with termination_as_interrupt():
    print("waiting", flush=True)
    ended = "not at all"
    try:
        time.sleep(float(sys.argv[2]))
    except KeyboardInterrupt:
        ended = "interrupted"
    print(ended, file=sys.stderr, flush=True)
    print(ended, flush=True)
    pathlib.Path(sys.argv[1]).write_text(ended)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interrupt_within_and_what_it_was_after(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_second_hangup_does_not_interrupt_what_the_first_one_unwinds() -> None:
    with termination_as_interrupt():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)


def test_under_nohup_a_terminal_that_goes_ends_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", WAITS, tmp_path / "ended", "0.5"], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert (tmp_path / "ended").read_text() == "not at all"


def test_a_terminal_that_is_gone_is_no_error_to_what_is_still_said_and_written(tmp_path: Path) -> None:
    mine, its = pty.openpty()
    script = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{WAITS}"
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "ended", "60"],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    said = b""
    while not said.endswith(b"\n"):  # a terminal may give a line in pieces
        said += os.read(mine, 100)
    assert said == b"waiting\r\n"
    os.close(mine)  # the kernel sends SIGHUP
    assert process.wait(60) == 0
    assert (tmp_path / "ended").read_text() == "interrupted"
