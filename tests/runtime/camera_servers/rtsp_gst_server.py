"""The process behind `rtsp.RtspServer`: H.264 over RTSP by GStreamer's server. Debian's own Python runs it."""

from __future__ import annotations

import threading
import time
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

from camera_servers.commands import answer, serve_commands, settings  # noqa: E402
from camera_servers.stamp import COLUMNS, ROWS, block_size, now_ms, to_bits  # noqa: E402

PERIOD = 64  # pixels, of the stripes below the stamp
BLACK, WHITE = b"\x10", b"\xeb"
ROLE = "viewer"


class Camera:
    """Makes frames of the size and at the rate asked for, one number for all who watch."""

    def __init__(self, width: int, height: int, fps: float) -> None:
        self.fps = fps
        self.number = 0
        self.set_size(width, height)

    def set_size(self, width: int, height: int) -> None:
        # One row and PERIOD rows more than a frame has: a frame is a slice of it, which moves by a row a frame.
        wave = bytes(60 + 4 * abs(x % PERIOD - PERIOD // 2) for x in range(width + PERIOD))
        rows = b"".join(wave[y % PERIOD : y % PERIOD + width] for y in range(height + PERIOD))
        colour = bytes([110]) * (width * height // 4) + bytes([150]) * (width * height // 4)
        self._drawn = (width, height, rows, colour)

    def frame(self) -> tuple[int, int, bytes]:
        """(width, height, I420 bytes), the next one."""
        width, height, rows, colour = self._drawn
        block_width, block_height = block_size(width, height)
        start = self.number % PERIOD * width
        luma = bytearray(rows[start : start + width * height])
        for at, bits in enumerate(to_bits(self.number, now_ms())):
            line = b"".join((WHITE if bit else BLACK) * block_width for bit in bits)
            for y in range(at * block_height, (at + 1) * block_height):
                luma[y * width : y * width + COLUMNS * block_width] = line
        assert len(luma) == width * height
        assert ROWS * block_height <= height
        self.number += 1
        return width, height, bytes(luma) + colour


class Factory(GstRtspServer.RTSPMediaFactory):
    """One encoded stream, shared by all who watch; made while somebody does."""

    def __init__(self, camera: Camera, bitrate_kbps: int, keyframe_every: int, open_groups: bool) -> None:
        super().__init__()
        self._camera = camera
        self.set_shared(True)
        self.set_latency(0)
        frames, profile = "tune=zerolatency", "constrained-baseline"
        if open_groups:
            frames, profile = "option-string=open-gop=1:scenecut=0:bframes=3:rc-lookahead=4:b-adapt=0", "main"
        self.set_launch(
            "( appsrc name=frames is-live=true do-timestamp=true format=time"
            f" ! x264enc {frames} speed-preset=ultrafast threads=1 bitrate={bitrate_kbps}"
            f" key-int-max={keyframe_every} ! video/x-h264,profile={profile}"
            " ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        )
        self.connect("media-configure", lambda _, media: self._feed(media))

    def _feed(self, media: GstRtspServer.RTSPMedia) -> None:
        stopped = threading.Event()
        media.connect("unprepared", lambda _: stopped.set())
        source = media.get_element().get_child_by_name("frames")
        threading.Thread(target=self._push, args=(source, stopped), daemon=True).start()

    def _push(self, source: Gst.Element, stopped: threading.Event) -> None:
        camera, size, due = self._camera, (0, 0), time.monotonic()
        while not stopped.is_set():
            width, height, picture = camera.frame()
            if size != (width, height):
                size = (width, height)
                rate = f"{round(camera.fps * 1000)}/1000"
                source.set_property(
                    "caps",
                    Gst.Caps.from_string(f"video/x-raw,format=I420,width={width},height={height},framerate={rate}"),
                )
            if source.emit("push-buffer", Gst.Buffer.new_wrapped(picture)) == Gst.FlowReturn.EOS:
                return
            # After a stall the frames that were missed stay missed, as a camera's.
            due = max(due + 1 / camera.fps, time.monotonic() - 1 / camera.fps)
            stopped.wait(max(0.0, due - time.monotonic()))


def authorization(user: str, password: str, method: str) -> tuple[GstRtspServer.RTSPAuth, object]:
    """Who may watch."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", ROLE)
    auth = GstRtspServer.RTSPAuth()
    if method == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    permissions = GstRtspServer.RTSPPermissions()
    for what in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role(ROLE, what, True)
    return auth, permissions


def watch(wanted: dict[str, Any], port: int) -> Gst.Element:
    """Watch the stream as long as the process lives, and wait until it comes.

    GStreamer's server takes a stream apart when the last one leaves, and makes it anew for the next; where both happen
    at once, it hangs now and then, as no camera does.
    """
    watcher = Gst.parse_launch("rtspsrc name=source protocols=tcp latency=0 ! fakesink name=sink sync=false")
    source, sink = watcher.get_by_name("source"), watcher.get_by_name("sink")
    source.set_property("location", f"rtsp://127.0.0.1:{port}{wanted['path']}")
    source.set_property("user-id", wanted["user"])
    source.set_property("user-pw", wanted["password"])
    came = threading.Event()
    sink.connect("handoff", lambda *_: came.set())
    sink.set_property("signal-handoffs", True)
    watcher.set_state(Gst.State.PLAYING)
    if not came.wait(15):
        raise SystemExit("the stream does not come")
    sink.set_property("signal-handoffs", False)
    return watcher


def main() -> None:
    wanted = settings()
    Gst.init(None)
    camera = Camera(wanted["width"], wanted["height"], wanted["fps"])
    factory = Factory(camera, wanted["bitrate_kbps"], wanted["keyframe_every"], wanted["open_groups"])
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(wanted["port"]))
    if wanted["user"]:
        auth, permissions = authorization(wanted["user"], wanted["password"], wanted["auth"])
        server.set_auth(auth)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory(wanted["path"], factory)
    if not server.attach(None):
        raise SystemExit(f"port {wanted['port']} is taken")
    loop = GLib.MainLoop()
    threading.Thread(target=loop.run, daemon=True).start()
    watcher = watch(wanted, server.get_bound_port())
    answer(port=server.get_bound_port())
    serve_commands({"size": camera.set_size, "counts": lambda: {"frames": camera.number}})
    watcher.set_state(Gst.State.NULL)


if __name__ == "__main__":
    main()
