"""A real RTSP camera on loopback: GStreamer's server, from Debian's packages, under Debian's own Python."""

from __future__ import annotations

import functools
import socket
import subprocess
from pathlib import Path
from typing import Literal

from camera_servers.server_process import ServerProcess

PYTHON = "/usr/bin/python3"
PLUGINS = " ".join(f"gstreamer1.0-plugins-{kind}" for kind in ("base", "good", "ugly"))
PACKAGES = f"gir1.2-gst-rtsp-server-1.0 python3-gi {PLUGINS}"
_PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [name for name in ("appsrc", "x264enc", "rtph264pay") if Gst.ElementFactory.find(name) is None]
raise SystemExit(f"GStreamer has no {', '.join(missing)}" if missing else 0)
"""


@functools.cache
def missing() -> str:
    """Why there can be no RTSP server here and what to install; empty where there can."""
    if not Path(PYTHON).exists():
        return f"no {PYTHON}: an RTSP server needs Debian's packages {PACKAGES}"
    ran = subprocess.run([PYTHON, "-I", "-c", _PROBE], capture_output=True, text=True)
    if ran.returncode == 0:
        return ""
    why = (ran.stderr.strip().splitlines() or ["it does not start"])[-1]
    return f"no GStreamer RTSP server ({why}): apt install {PACKAGES}"


class RtspServer(ServerProcess):
    """H.264 at `url`, its frames stamped (`stamped_frame.read_stamp`); a context manager.

    Args:
        width: of the frames in pixels, even, 64 or more.
        height: likewise, 40 or more.
        fps: frames a second.
        user: who may watch, where not everybody may.
        password: theirs.
        auth: how they say so.
        bitrate_kbps: of the stream.
        keyframe_every: so many frames, at the latest.
        open_groups: whether only the first key frame can be decoded alone by rights, with frames in both directions.
    """

    def __init__(
        self,
        width: int = 320,
        height: int = 240,
        fps: float = 15,
        *,
        user: str = "",
        password: str = "",
        auth: Literal["basic", "digest"] = "basic",
        path: str = "/camera",
        bitrate_kbps: int = 4000,
        keyframe_every: int = 15,
        open_groups: bool = False,
    ) -> None:
        super().__init__(
            "rtsp_gst_server",
            {
                "width": width,
                "height": height,
                "fps": fps,
                "user": user,
                "password": password,
                "auth": auth,
                "path": path,
                "bitrate_kbps": bitrate_kbps,
                "keyframe_every": keyframe_every,
                "open_groups": open_groups,
            },
            python=PYTHON,
        )
        self._login = f"{user}:{password}@" if user else ""
        self.path = path

    @property
    def url(self) -> str:
        """With the credentials, where it has some."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same through a proxy's port."""
        return f"rtsp://{self._login}127.0.0.1:{port}{self.path}"

    def start(self, timeout_s: float = 20) -> None:
        """Start it, and wait until it answers a request."""
        super().start(timeout_s)
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
            connection.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            if not connection.recv(9).startswith(b"RTSP/1.0"):
                raise RuntimeError(f"port {self.port} does not speak RTSP")

    def change_size(self, width: int, height: int) -> None:
        """From the next frame on, in the same stream."""
        self.tell(do="size", width=width, height=height)
