"""What every answer tells a browser: load nothing from elsewhere, run nothing inline, show it in no frame."""

from __future__ import annotations

from gapcam.camera.page.server_options import is_loopback

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; manifest-src 'self'"
)

_ALWAYS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def security_headers(path: str, scheme: str, host: str) -> dict[str, str]:
    """The headers of an answer.

    Args:
        path: of the request.
        scheme: "https" or "wss" under TLS.
        host: that the request named, without a port.
    """
    # A form's browser sends "null" as its origin where no referrer may be sent at all.
    headers = {**_ALWAYS, "referrer-policy": "same-origin" if path == "/login" else "no-referrer"}
    # It holds for all of a host's ports: on localhost, for other people's.
    if scheme in ("https", "wss") and not is_loopback(host):
        headers["strict-transport-security"] = "max-age=31536000"
    return headers
