"""The process behind `fault_proxy.FaultProxy`."""

from __future__ import annotations

import queue
import random
import socket
import struct
import threading
import time
from contextlib import suppress

from camera_servers.commands import answer, serve_commands, settings

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time
CHUNK = 16384
WAITING = 64  # chunks between the two sides; then the sender has to wait, as through any router


class Faults:
    """What happens to bytes that come from the server at present."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.flowing = threading.Event()
        self.connections: set[tuple[socket.socket, socket.socket]] = set()
        self.accepted = 0
        self.passed = 0
        self.set()

    def set(
        self,
        *,
        stalled: bool = False,
        refused: bool = False,
        corrupted: float = 0,
        delay_s: float = 0,
        bytes_per_s: float = 0,
    ) -> None:
        self.refused, self.corrupted, self.delay_s, self.bytes_per_s = refused, corrupted, delay_s, bytes_per_s
        (self.flowing.clear if stalled else self.flowing.set)()

    def cut(self, reset: bool) -> None:
        """Close every connection, with a reset as of a machine that lost its power, or properly."""
        for pair in list(self.connections):
            for side in pair:
                with suppress(OSError):  # it has ended by itself
                    if reset:
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                _shut(side)

    def counts(self) -> dict[str, int]:
        return {"accepted": self.accepted, "open": len(self.connections), "bytes": self.passed}

    def spoil(self, data: bytes) -> bytes:
        if not self.corrupted:
            return data
        spoiled = bytearray(data)
        for at in range(len(spoiled)):
            if self.random.random() < self.corrupted:
                spoiled[at] ^= self.random.randrange(1, 256)
        return bytes(spoiled)


def accept(listener: socket.socket, target: tuple[str, int], faults: Faults) -> None:
    while True:
        client, _ = listener.accept()
        faults.accepted += 1
        if faults.refused:
            client.close()
            continue
        try:
            server = socket.create_connection(target, timeout=5)
        except OSError:
            client.close()
            continue
        server.settimeout(None)
        threading.Thread(target=connect, args=(client, server, faults), daemon=True).start()


def connect(client: socket.socket, server: socket.socket, faults: Faults) -> None:
    pair = (client, server)
    faults.connections.add(pair)
    threads = [
        threading.Thread(target=forward, args=(client, server), daemon=True),
        threading.Thread(target=forward_with_faults, args=(server, client, faults), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults.connections.discard(pair)
    for side in pair:
        side.close()


def forward(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(CHUNK):
            target.sendall(data)
    except OSError:
        pass  # either side went away, which is passed on
    _shut(source, target)


def forward_with_faults(source: socket.socket, target: socket.socket, faults: Faults) -> None:
    chunks: queue.Queue[tuple[float, bytes]] = queue.Queue(WAITING)
    sender = threading.Thread(target=send, args=(chunks, source, target, faults), daemon=True)
    sender.start()
    try:
        while data := source.recv(CHUNK):
            chunks.put((time.monotonic(), data))
    except OSError:
        pass  # it went away, which is passed on
    chunks.put((time.monotonic(), b""))
    sender.join()


def send(
    chunks: queue.Queue[tuple[float, bytes]], source: socket.socket, target: socket.socket, faults: Faults
) -> None:
    gone = False
    while True:
        came, data = chunks.get()
        if not data:
            break
        if gone:
            continue
        faults.flowing.wait()
        time.sleep(max(0.0, came + faults.delay_s - time.monotonic()))
        if faults.bytes_per_s:
            time.sleep(len(data) / faults.bytes_per_s)
        try:
            target.sendall(faults.spoil(data))
            faults.passed += len(data)
        except OSError:
            gone = True
            _shut(source, target)
    _shut(source, target)


def _shut(*sides: socket.socket) -> None:
    """Wake whoever reads from it, and tell the other side, unless `close` is to reset it."""
    for side in sides:
        with suppress(OSError):  # it is shut already
            resets = side.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(RESET)) == RESET
            side.shutdown(socket.SHUT_RD if resets else socket.SHUT_RDWR)


def main() -> None:
    wanted = settings()
    faults = Faults(wanted["seed"])
    listener = socket.create_server(("127.0.0.1", wanted["port"]))
    target = ("127.0.0.1", wanted["target"])
    threading.Thread(target=accept, args=(listener, target, faults), daemon=True).start()
    answer(port=listener.getsockname()[1])
    serve_commands({"set": faults.set, "cut": faults.cut, "counts": faults.counts})


if __name__ == "__main__":
    main()
