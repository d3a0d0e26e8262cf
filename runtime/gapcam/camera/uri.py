"""What of a URI may be shown: everything but its user, its password and the secrets in its query."""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import quote, unquote

from gapcam.errors import UsageError

MASK = "***"
"""Stands where something secret was."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URI_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.%]*\]")
_FIELD = re.compile(r"(?P<name>[\w.%~+\[\]-]+)=(?P<value>[^&;\s]*)")
_SECRET = re.compile(r"pas|pwd|pw$|token|key|auth|secret|sign?$|signature|session|credential|jwt|user|usr|login", re.I)
"""In the names of fields: password, passwd, loginpas, access_token, api_key, Authorization, ..."""


def without_credentials(uri: str) -> str:
    """A URI as it may be logged and shown: `***` stands for user and password, and for the values of secret fields.

    Where it is not clear what belongs to a password, such as one with an unquoted "/" or "@", too much is hidden
    rather than too little. The text need not be a valid URI; file paths stay as they are.

    Example:
        >>> without_credentials("rtsp://admin:p%40ss@10.0.0.5:554/live?channel=1")
        'rtsp://***@10.0.0.5:554/live?channel=1'
        >>> without_credentials("http://10.0.0.5/video.cgi?user=admin&pwd=secret&resolution=32")
        'http://10.0.0.5/video.cgi?user=***&pwd=***&resolution=32'
    """
    if _is_path(uri):
        return uri
    found = _SCHEME.match(uri)
    scheme = found.group() if found else ""
    end = end_of_credentials(uri)
    shown = uri[end or len(scheme) :]
    fields = _FIELD.sub(_without_secret, shown) if scheme or end else shown
    return scheme + (f"{MASK}@" if end else "") + fields


def end_of_credentials(uri: str) -> int:
    """The number of characters up to the host, scheme, user and password; 0 where there are none of the latter two.

    Nothing before it may be taken for options, nor be shown.
    """
    if _is_path(uri):
        return 0
    found = _SCHEME.match(uri)
    begin = found.end() if found else 0
    end = _end_of_credentials(uri[begin:], has_scheme=bool(found))
    return begin + end if end else 0


def check_credentials(uri: str, what: str) -> None:
    """Refuse a user or a password with a "#": whatever reads the URI would take it for the end of the host.

    Raises:
        UsageError: there is one; the message shows nothing of it.
    """
    if "#" in uri[: end_of_credentials(uri)]:
        raise UsageError(
            f"{what} is {without_credentials(uri)!r}, with a '#' before its '@'; write %23 for that of a password, and "
            "no '@' in options"
        )


def redacted(text: str, uri: str) -> str:
    """A message of somebody else's, such as FFmpeg's, without the credentials of the URI that it is about.

    Args:
        text: which may hold the URI, parts of it, or other URIs.
        uri: with its credentials.
    """
    text = text.replace(uri, without_credentials(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        # A short one is looked for as a word, or little would be left of the text.
        pattern = re.escape(secret) if len(secret) > 3 else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(pattern, MASK, text)
    return _URI_IN_TEXT.sub(lambda found: without_credentials(found.group()), text)


def _is_path(uri: str) -> bool:
    return uri.startswith(("/", ".", "~")) or uri[:7].lower() == "file://"


def _end_of_credentials(rest: str, *, has_scheme: bool) -> int:
    """Where, after "scheme://", the host begins: 0 where there are no credentials."""
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]  # a "#" may be a password's that should have quoted it
    at = rest.rfind("@")
    # "host/live@main" has none, "user:pa/ss@host" has; a port's colon counts as a password's, to be safe.
    if at >= 0 and ((has_scheme and "@" in authority) or ":" in _IPV6.sub("", rest[:at], count=1)):
        return at + 1
    quoted = authority.lower().rfind("%40")
    return quoted + 3 if has_scheme and quoted >= 0 else 0


def _without_secret(field: re.Match[str]) -> str:
    name, value = field.group("name"), field.group("value")
    inner = unquote(value)
    if value and (_SECRET.search(unquote(name)) or ("://" in inner and without_credentials(inner) != inner)):
        return f"{name}={MASK}"
    return field.group()


def _secrets(uri: str) -> set[str]:
    """What must not be seen of a URI, in the ways in which a message may write it."""
    found = _SCHEME.match(uri)
    rest = uri[found.end() :] if found else uri
    end = _end_of_credentials(rest, has_scheme=bool(found))
    userinfo = re.sub(r"(@|%40)$", "", rest[:end], flags=re.I)
    if not found:  # "rtsp:/user:password@host": the scheme is no user
        userinfo = re.sub(r"^[a-z]{3,6}:/", "", userinfo, flags=re.I)
    plain = [userinfo, *userinfo.split(":", maxsplit=1)] if userinfo else []
    fields = _FIELD.finditer(rest[end:])
    plain += (field.group("value") for field in fields if _without_secret(field) != field.group())
    secrets = {way for secret in plain for way in (secret, unquote(secret), quote(unquote(secret), safe=""))}
    if userinfo:
        secrets.add(b64encode(unquote(userinfo).encode()).decode())
    return {secret for secret in secrets if secret.strip("*:@ ")}
