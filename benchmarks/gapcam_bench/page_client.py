"""Somebody who watches the page, without a browser: `python -m gapcam_bench.page_client ws://127.0.0.1:8080/api/live`.

A process of its own, as a browser is. It asks for the next frame as soon as it has one, until its standard input ends,
and then prints what came as one line of JSON.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from typing import Any

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url")
@click.option("--view", default="{}", help="What to see, JSON: source, class, map, boxes, max_width and so on.")
@click.option("--token", default="", help="Where the page wants one.")
def watch(url: str, view: str, token: str) -> None:
    """Watch the page at URL, which ends in /api/live."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    ended = threading.Event()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    seen: dict[str, Any] = {"frames": 0, "bytes": 0, "ages_ms": [], "gap_s": 0.0, "closed": ""}
    with connect(url, additional_headers=headers, max_size=None) as socket:
        threading.Thread(target=_end_with_stdin, args=(ended,), daemon=True).start()
        socket.send(json.dumps({"type": "view", **json.loads(view)}))
        click.echo("watching")
        last = time.monotonic()
        while not (ended.is_set() and seen["frames"]):  # a first frame that is on its way is waited for
            try:
                message = socket.recv(timeout=0.5)
            except TimeoutError:
                if ended.is_set():
                    break
                continue
            except ConnectionClosed as closed:
                seen["closed"] = str(closed)
                break
            if isinstance(message, str):
                continue
            length = struct.unpack(">I", message[:4])[0]
            header = json.loads(message[4 : 4 + length])
            now = time.monotonic()
            seen["gap_s"], last = max(seen["gap_s"], now - last), now
            seen["frames"] += 1
            seen["bytes"] += len(message)
            seen["ages_ms"].append(round((time.time() - header["time"]) * 1e3, 3))
            socket.send('{"type":"ready"}')
    click.echo(json.dumps(seen))


def _end_with_stdin(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    watch(prog_name="python -m gapcam_bench.page_client")
