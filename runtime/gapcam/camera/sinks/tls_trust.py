"""Whose certificates a sink trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

from gapcam.errors import DataError, UsageError


def client_tls(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer; the other side is checked.

    Args:
        ca_file: certificates, PEM, to trust instead of the system's.

    Raises:
        DataError: the file cannot be read.
        UsageError: it holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise UsageError(f"{ca_file} holds no certificates; expected a PEM file") from None
    except OSError as error:
        raise DataError(f"the certificates in {ca_file} cannot be read: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
