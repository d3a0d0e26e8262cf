"""TLS with the files that were given."""

from __future__ import annotations

import ssl
from pathlib import Path

from gapcam.errors import DataError


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """For a server: TLS 1.2 or newer, with OpenSSL's choice of ciphers.

    Raises:
        DataError: a file is missing or damaged, the key belongs to another certificate, or a passphrase protects it.
    """
    for file in (certificate, key):
        if file is not None:
            try:
                file.read_bytes()
            except OSError as error:
                raise DataError(f"cannot read {file} for TLS: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without this OpenSSL would ask for a passphrase at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        what = f"{certificate} with {key}" if key else str(certificate)
        raise DataError(
            f"cannot serve TLS with {what}: {reason}. Give a PEM certificate and its key, without a passphrase"
        ) from None
    return context
