"""Where on which broker results go: what mqtt://USER:PASSWORD@HOST:PORT/TOPIC says."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gapcam.camera.sinks.secret_file import secret_from_file
from gapcam.camera.uri import without_credentials
from gapcam.errors import UsageError

PASSWORD_VARIABLE = "GAPCAM_MQTT_PASSWORD"  # noqa: S105 - the name of a variable
USER_VARIABLE = "GAPCAM_MQTT_USER"


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """A broker, a topic on it, and who one is there.

    Attributes:
        host: name or address.
        port: of it.
        tls: whether the connection is encrypted.
        topic: above all topics of this sink; no slash at its ends.
        user: empty for nobody.
        password: never shown.
    """

    host: str
    port: int
    tls: bool
    topic: str
    user: str
    password: str = field(repr=False)

    @property
    def shown(self) -> str:
        """For people, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}/{self.topic}"


def mqtt_address(uri: str, password_file: Path | None = None) -> MqttAddress:
    """Read such a URI. The user may come from GAPCAM_MQTT_USER, the password from a file or GAPCAM_MQTT_PASSWORD.

    Raises:
        UsageError: it is none.
        DataError: the file cannot be read.
    """
    expected = "expected mqtt://HOST[:1883]/TOPIC, or mqtts:// for TLS on port 8883"
    shown = without_credentials(uri)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"{shown!r} is no address of a broker; {expected}") from None
    tls = parts.scheme.lower() == "mqtts"
    # What looks like a fragment is a wildcard: options are gone already.
    topic = unquote(f"{parts.path}#{parts.fragment}" if "#" in uri else parts.path).strip("/")
    if not host or port == 0 or parts.query:
        raise UsageError(f"{shown!r} is no address of a broker; {expected}")
    if not topic:
        raise UsageError(f"{shown!r} has no topic; {expected}")
    if set(topic) & set("+#\0") or topic.startswith("$") or len(topic.encode()) > 1000:
        raise UsageError(f"one cannot publish on the topic {topic!r}; give one without '+', '#' and a '$' in front")
    user = unquote(parts.username or "") or os.environ.get(USER_VARIABLE, "")
    password = unquote(parts.password or "")
    if not password and password_file is not None:
        password = secret_from_file(password_file)
    password = password or os.environ.get(PASSWORD_VARIABLE, "")
    if password and not user:
        raise UsageError(f"there is a password for {shown!r}, but no user; {expected}")
    return MqttAddress(host, port or (8883 if tls else 1883), tls, topic, user, password)
