"""A real receiver of webhooks on loopback."""

from __future__ import annotations

from camera_servers.server_process import ServerProcess


class WebhookServer(ServerProcess):
    """Takes every POST; a context manager."""

    def __init__(self) -> None:
        super().__init__("webhook_server", {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def counts(self) -> dict[str, int]:
        """posts: taken since the start; bytes: of their bodies."""
        return self.tell(do="counts")
