"""A real MJPEG camera over HTTP on loopback."""

from __future__ import annotations

from typing import Literal

from camera_servers.server_process import ServerProcess

Broken = Literal["garbage", "truncated", "flipped", "empty"]


class MjpegServer(ServerProcess):
    """JPEGs at `url`, their frames stamped (`stamped_frame.read_stamp`); a context manager.

    Args:
        width: of the frames in pixels, 64 or more.
        height: likewise, 40 or more.
        fps: frames a second.
        user: who may watch, where not everybody may: Basic authorization.
        password: theirs.
        boundary: how the header names it: as it is, in quotes, with the two dashes that parts have, or another one.
        content_length: whether parts say how long they are.
        seed: of what is broken.
    """

    def __init__(
        self,
        width: int = 320,
        height: int = 240,
        fps: float = 15,
        *,
        user: str = "",
        password: str = "",
        boundary: Literal["plain", "quoted", "dashes", "wrong"] = "plain",
        content_length: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            "mjpeg_http_server",
            {
                "width": width,
                "height": height,
                "fps": fps,
                "user": user,
                "password": password,
                "boundary": boundary,
                "content_length": content_length,
                "seed": seed,
            },
        )
        self._login = f"{user}:{password}@" if user else ""

    @property
    def url(self) -> str:
        """With the credentials, where it has some."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same through a proxy's port."""
        return f"http://{self._login}127.0.0.1:{port}/stream.mjpg"

    def change_size(self, width: int, height: int) -> None:
        """From the next frame on, in the same response."""
        self.tell(do="size", width=width, height=height)

    def break_frames(self, share: float = 1.0, kind: Broken = "garbage") -> None:
        """Spoil a share of the JPEGs: random bytes, the first half, 20 bytes changed, or none. A share of 0 ends it."""
        self.tell(do="broken", share=share, kind=kind)

    def end_responses(self) -> None:
        """End the stream of everybody who watches, politely."""
        self.tell(do="close")

    def answer_with(self, status: int) -> None:
        """New requests get this HTTP status: 503, say; 200 ends it."""
        self.tell(do="status", status=status)

    def send_endlessly(self, endless: bool = True) -> None:
        """Zeros without a boundary, as fast as they are read, to everybody who watches."""
        self.tell(do="endless", endless=endless)

    def counts(self) -> dict[str, int]:
        """frames: made since the start; broken: of these; watching: how many watch now."""
        return self.tell(do="counts")
