"""By which names the server may be called, and from which pages.

A page elsewhere that has its name resolve to this machine (DNS rebinding) sends that name as the host: it is refused.
One that sends requests across origins shows its own origin: it is refused, too.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from gapcam.camera.page.server_options import ServerOptions, checked_origin, is_loopback
from gapcam.errors import UsageError

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class AllowedHosts:
    """The rules of one server.

    Names that are allowed: those of `origins`; on a loopback address localhost, 127.0.0.1 and [::1]; on another one
    that address and the loopback ones; on all addresses any address as a number, which no name server can forge, and
    this machine's own name, with ".local" behind it or without. Ports are not compared: a tunnel has another one.

    Args:
        options: how the page is served.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._origins = frozenset(options.origins)
        names = {urlsplit(origin).hostname or "" for origin in options.origins} | _LOOPBACK
        host = options.host.lower()
        self._any_number = False
        if not is_loopback(host):
            names.add(host)
            with suppress(ValueError):  # of a name
                self._any_number = ipaddress.ip_address(host).is_unspecified
            if self._any_number:
                own = socket.gethostname().lower()
                names |= {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}
        self._names = frozenset(names)

    def is_host(self, header: str) -> bool:
        """Whether the server goes by the name in a Host header."""
        name = _host_name(header)
        if not name:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_number

    def is_origin(self, origin: str, scheme: str, host: str) -> bool:
        """Whether a page of this origin may talk to the server that is called by this scheme and Host header."""
        try:
            return checked_origin(origin) in {*self._origins, checked_origin(f"{scheme}://{host}")}
        except UsageError:
            return False  # "null", say


def _host_name(header: str) -> str:
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # not a number?
    except ValueError:
        return ""
    if parts.netloc != header or "@" in header or not parts.hostname:
        return ""
    return parts.hostname
