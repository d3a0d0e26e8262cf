"""Telling systemd that the camera is up, how it is doing, and that it is alive: sd_notify(3), in Python's own sockets.

Outside of a unit of `Type=notify`, nothing is sent and nothing is an error.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

LOG = logging.getLogger("gapcam.camera")

_UNWATCHED_S = 30.0
"""Where systemd does not watch, a hung network is logged as if it waited for so long."""

_PROGRAM = "/opt/gapcam/bin/gapcam"
"""What the unit file that is shipped starts."""


class Notifier:
    """Sends states to the service manager that started this process.

    Args:
        address: of systemd's datagram socket: a path, "@name" in Linux' abstract namespace, or "" for none.
        watchdog_s: the service manager kills the process that says nothing for so long; None where it does not.

    Example:
        >>> notifier = Notifier.from_environment()
        >>> notifier.send(READY=1, STATUS="2 cameras running")
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = watchdog_s if address else None
        self._refused = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """As systemd says it in NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        address = environment.get("NOTIFY_SOCKET", "")
        if address and not address.startswith(("/", "@")):
            LOG.warning("NOTIFY_SOCKET is neither a path nor abstract: nothing is told to systemd")
            address = ""
        microseconds = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watched = mine and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if watched else None)

    @property
    def active(self) -> bool:
        """Whether somebody listens."""
        return bool(self._address)

    def send(self, **states: object) -> None:
        """Send states such as READY=1, STATUS="..." or WATCHDOG=1; a line each, whatever is in them.

        A service manager that does not take them is logged once: it is no reason to stop watching, nor to tell it
        nothing later, when it is back.
        """
        if not self._address:
            return
        message = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in states.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
                to_systemd.settimeout(1)
                to_systemd.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._refused:
                LOG.warning("systemd does not listen: %s", error.strerror or error)
            self._refused = True
        else:
            self._refused = False


class Watchdog:
    """Says to systemd that all is well, while it is.

    Args:
        notifier: to systemd.

    Attributes:
        interval_s: how often to call `round`. Half of WATCHDOG_USEC is what systemd advises: a quarter, so that one
            late round does no harm.
    """

    def __init__(self, notifier: Notifier) -> None:
        period_s = notifier.watchdog_s or _UNWATCHED_S
        self.interval_s = period_s / 4
        self._greatest_idle_s = period_s / 2
        self._notifier = notifier
        self._hung = False

    def round(self, idle_s: float) -> bool:
        """Say that all is well, unless the thread that runs the network has not come round for too long.

        Args:
            idle_s: `PipelineStatus.idle_s`.

        Returns:
            Whether all is well.
        """
        hung = idle_s > self._greatest_idle_s
        if hung and not self._hung:
            LOG.error(
                "the network has not answered for %.1f s%s",
                idle_s,
                ": systemd will start all of it again" if self._notifier.watchdog_s else "",
            )
        self._hung = hung
        if not hung and self._notifier.watchdog_s:
            self._notifier.send(WATCHDOG=1)
        return not hung


def unit_file(program: Path) -> str:
    """The text of gapcam-camera.service, with the place of this machine's `gapcam` in it."""
    text = files("gapcam.camera").joinpath("deploy/gapcam-camera.service").read_text(encoding="utf-8")
    path = str(program).replace("%", "%%")
    return text.replace(_PROGRAM, f'"{path}"' if any(c.isspace() for c in path) else path)
