"""Where the page is served, and who may see it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gapcam.errors import UsageError

DEFAULT_PORT = 8080
MIN_TOKEN = 16
"""Characters of a token, at the least: a shorter one can be guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How the page is served.

    Attributes:
        address: "HOST:PORT", "[::1]:8080", "HOST" or ":PORT"; a host that is left out is 127.0.0.1, a port 8080. Port 0
            is any free one.
        token: what people type and programs send; at least 16 characters. None where everybody who reaches the address
            may watch.
        insecure: whether an address that other machines reach may be served without a token.
        tls_cert: a PEM file with the server's certificate, and those that lead from it to the issuer.
        tls_key: a PEM file with its key, which no passphrase protects; None where it is in `tls_cert`.
        origins: other origins at which browsers find the page, such as a proxy's: "https://cameras.example".
        max_clients: how many may watch at once: live pages and MJPEG streams.

    Raises:
        UsageError: `address` is none, the token is too short, another address than a loopback one has neither token nor
            `insecure`, a key without a certificate, an origin that is none, or `max_clients` is below 1.
    """

    address: str = f"127.0.0.1:{DEFAULT_PORT}"
    token: str | None = None
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    origins: tuple[str, ...] = ()
    max_clients: int = 16

    def __post_init__(self) -> None:
        host, _ = split_address(self.address)
        if self.token is not None:
            check_token(self.token)
        elif not self.insecure and not is_loopback(host):
            raise UsageError(
                f"other machines reach {self.address}, so it needs a token: give a file that holds one (--token-file), "
                f"or serve 127.0.0.1. To let everybody in that network watch, say so (--insecure)"
            )
        if self.tls_key is not None and self.tls_cert is None:
            raise UsageError(f"a TLS key was given, {self.tls_key}, but no certificate (--tls-cert)")
        object.__setattr__(self, "origins", tuple(checked_origin(origin) for origin in self.origins))
        if self.max_clients < 1:
            raise UsageError(f"max_clients is {self.max_clients}; give a number from 1")

    def __repr__(self) -> str:
        """Without the token, wherever it is printed."""
        return f"ServerOptions(address={self.address!r}, token={'set' if self.token else None})"

    @property
    def host(self) -> str:
        """Of the address, without brackets."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """Of the address; 0 for any free one."""
        return split_address(self.address)[1]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", "[::1]:8080", "HOST", ":PORT" or "PORT".

    Raises:
        UsageError: it is none of these.
    """
    text = address.strip()
    found = re.fullmatch(
        r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>[A-Za-z0-9._-]*))(?::(?P<port>[0-9]{1,5}))?", text
    )
    if found is None or not text:
        raise UsageError(f"got {address!r} as the address to serve; give HOST:PORT, say 127.0.0.1:{DEFAULT_PORT}")
    host, port = found["v6"] or found["name"], found["port"]
    if port is None and host.isdecimal():
        host, port = "", host
    number = DEFAULT_PORT if port is None else int(port)
    if number > 65535:
        raise UsageError(f"got port {number} in {address!r}; give one from 1 to 65535, or 0 for any free one")
    return host or "127.0.0.1", number


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def check_token(token: str) -> None:
    """Refuse a token that can be guessed, or that no header can carry.

    Raises:
        UsageError: too short, or not of printable ASCII characters without blanks.
    """
    if len(token) < MIN_TOKEN:
        raise UsageError(
            f"the token has {len(token)} characters; give at least {MIN_TOKEN}. "
            f"This makes one: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise UsageError("the token has blanks or other characters than ASCII's letters, digits and signs")


def checked_origin(origin: str) -> str:
    """An origin as browsers write it: "https://cameras.example", without a path.

    Raises:
        UsageError: it is none.
    """
    wrong = UsageError(f"got {origin!r} as an origin; give a scheme and a host, say https://cameras.example")
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        raise wrong from None
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and parts.username is None
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if port in (None, default) else f":{port}")
