"""Why a stream did not come, in words that say what to do."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

import av

from gapcam.camera.uri import redacted, without_credentials


def explained(error: Exception, uri: str) -> str:
    """What FFmpeg says of a stream, and what it does not.

    Args:
        error: of FFmpeg or the system.
        uri: of the stream, with its credentials; the text has none of them.
    """
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, av.error.InvalidDataError):
        reason = f"what it answers is no stream that FFmpeg knows ({reason})"
    elif isinstance(error, av.error.HTTPUnauthorizedError):
        reason = f"{reason}; check the user and the password"
    elif getattr(error, "errno", None) == errno.EIO:  # FFmpeg's word for a name that was not found
        reason = _name_problem(uri) or reason
    return f"{without_credentials(uri)}: {redacted(reason, uri)}"


def _name_problem(uri: str) -> str:
    """What the resolver says of the host's name; empty where it finds it."""
    try:
        host = urlsplit(uri).hostname or ""
        socket.getaddrinfo(host, None)
    except ValueError:  # no URI, or no name that can be asked for
        return ""
    except OSError as error:
        return f"there is no host {host!r} that is known here ({error.strerror or error}); check its name"
    return ""
