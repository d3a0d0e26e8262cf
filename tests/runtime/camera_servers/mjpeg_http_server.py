"""The process behind `mjpeg.MjpegServer`: JPEGs as multipart/x-mixed-replace over HTTP, as cheap cameras send them."""

from __future__ import annotations

import base64
import hmac
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2

from camera_servers.commands import answer, serve_commands, settings
from camera_servers.stamped_frame import stamped_frame

BOUNDARY = "frame"
HEADER = {"plain": BOUNDARY, "quoted": f'"{BOUNDARY}"', "dashes": f"--{BOUNDARY}", "wrong": "another"}


class Camera:
    """Makes frames in a thread of its own; whoever watches gets the newest one."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.size = (wanted["width"], wanted["height"])
        self.status = 200
        self.endless = False
        self.closed = 0  # how often all responses were ended
        self.watching = 0
        self._random = random.Random(wanted["seed"])  # noqa: S311
        self._share, self._kind = 0.0, "garbage"
        self._new = threading.Condition()
        self._ended = threading.Event()
        self._number, self._jpeg, self._made, self._broken = -1, b"", 0, 0

    def run(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            picture = stamped_frame(self._number + 1, *self.size)
            jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            with self._new:
                if self._random.random() < self._share:
                    jpeg, self._broken = self._spoiled(jpeg), self._broken + 1
                self._number, self._jpeg, self._made = self._number + 1, jpeg, self._made + 1
                self._new.notify_all()
            interval = 1 / self.wanted["fps"]
            due = max(due + interval, time.monotonic() - interval)

    def end(self) -> None:
        """No more frames."""
        self._ended.set()

    def after(self, number: int) -> tuple[int, bytes]:
        """The newest frame after that one."""
        with self._new:
            self._new.wait_for(lambda: self._number > number)
            return self._number, self._jpeg

    def set_size(self, width: int, height: int) -> None:
        self.size = (width, height)

    def set_broken(self, share: float, kind: str) -> None:
        if kind not in ("garbage", "truncated", "flipped", "empty"):
            raise ValueError(kind)
        with self._new:
            self._share, self._kind = share, kind

    def set_status(self, status: int) -> None:
        self.status = status

    def set_endless(self, endless: bool) -> None:
        self.endless = endless

    def close_all(self) -> None:
        self.closed += 1

    def counts(self) -> dict[str, Any]:
        with self._new:
            return {"frames": self._made, "broken": self._broken, "watching": self.watching}

    def _spoiled(self, jpeg: bytes) -> bytes:
        if self._kind == "empty":
            return b""
        if self._kind == "garbage":
            return self._random.randbytes(len(jpeg))
        if self._kind == "truncated":
            return jpeg[: len(jpeg) // 2]
        spoiled = bytearray(jpeg)
        for _ in range(20):
            spoiled[self._random.randrange(len(jpeg))] ^= self._random.randrange(1, 256)
        return bytes(spoiled)


class Handler(BaseHTTPRequestHandler):
    """Any path is the stream; with Basic authorization where a user is set."""

    camera: Camera
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        camera, wanted = self.camera, self.camera.wanted
        if wanted["user"] and not self._may():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(camera.status)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={HEADER[wanted['boundary']]}")
        self.end_headers()
        if camera.status != 200:
            return
        camera.watching += 1
        try:
            self._send_frames(camera)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it went away
        finally:
            camera.watching -= 1

    def _send_frames(self, camera: Camera) -> None:
        number, closed = -1, camera.closed
        while camera.closed == closed:
            if camera.endless:
                self.wfile.write(bytes(65536))
                continue
            number, jpeg = camera.after(number)
            lines = [f"--{BOUNDARY}", "Content-Type: image/jpeg"]
            if camera.wanted["content_length"]:
                lines.append(f"Content-Length: {len(jpeg)}")
            self.wfile.write("\r\n".join([*lines, "", ""]).encode() + jpeg + b"\r\n")
        self.wfile.write(f"--{BOUNDARY}--\r\n".encode())

    def _may(self) -> bool:
        login = f"{self.camera.wanted['user']}:{self.camera.wanted['password']}".encode()
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), b"Basic " + base64.b64encode(login))


class Server(ThreadingHTTPServer):
    """A client that goes away mid-frame is none of its troubles."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing."""


def main() -> None:
    cv2.setNumThreads(1)
    wanted = settings()
    Handler.camera = camera = Camera(wanted)
    making = threading.Thread(target=camera.run, daemon=True)
    making.start()
    server = Server(("127.0.0.1", wanted["port"]), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer(port=server.server_address[1])
    serve_commands(
        {
            "size": camera.set_size,
            "broken": camera.set_broken,
            "status": camera.set_status,
            "endless": camera.set_endless,
            "close": camera.close_all,
            "counts": camera.counts,
        }
    )
    camera.end()
    making.join()  # Python's end, while a thread is within OpenCV, would be an abort


if __name__ == "__main__":
    main()
