"""The process behind `webhook.WebhookServer`: takes what is posted to it, and counts it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from camera_servers.commands import answer, serve_commands, settings

COUNTS = {"posts": 0, "bytes": 0}


class Handler(BaseHTTPRequestHandler):
    """204 for every POST."""

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        COUNTS["posts"] += 1
        COUNTS["bytes"] += length
        self.send_response(204)
        self.end_headers()


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", settings()["port"]), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer(port=server.server_address[1])
    serve_commands({"counts": lambda: COUNTS})


if __name__ == "__main__":
    main()
