"""A network that fails when told to: a TCP proxy between a client and a server on loopback."""

from __future__ import annotations

from camera_servers.server_process import ServerProcess


class FaultProxy(ServerProcess):
    """Forwards `port` to the target's port; what comes from the server is stalled, cut, corrupted; a context manager.

    Each of `stall`, `refuse`, `corrupt`, `delay` and `throttle` takes the place of the one before.

    Args:
        target: the server's port on 127.0.0.1.
        seed: of the bytes that are corrupted.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        super().__init__("fault_proxy_server", {"target": target, "seed": seed})

    def pass_all(self) -> None:
        """No faults, from now on."""
        self.tell(do="set")

    def stall(self) -> None:
        """Connections stay open, and what comes is kept back until `pass_all`."""
        self.tell(do="set", stalled=True)

    def resume(self) -> None:
        """The same as `pass_all`."""
        self.pass_all()

    def refuse(self) -> None:
        """New connections are closed at once; those that are open stay."""
        self.tell(do="set", refused=True)

    def corrupt(self, share: float) -> None:
        """Change this share of the bytes, each at random."""
        self.tell(do="set", corrupted=share)

    def delay(self, seconds: float) -> None:
        """Everything comes so much later."""
        self.tell(do="set", delay_s=seconds)

    def throttle(self, bytes_per_s: float) -> None:
        """No more than so many bytes a second, of each connection."""
        self.tell(do="set", bytes_per_s=bytes_per_s)

    def cut(self, *, reset: bool = False) -> None:
        """Close every connection now open, properly or with a reset; new ones are served."""
        self.tell(do="cut", reset=reset)

    def counts(self) -> dict[str, int]:
        """accepted: connections since the start; open: now; bytes: that came from the server."""
        return self.tell(do="counts")
