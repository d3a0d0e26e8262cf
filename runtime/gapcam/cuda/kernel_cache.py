"""The kernels as code for one GPU: compiled the first time, then read from the user's cache folder.

An entry is named after what it was compiled from and for, so that a new version of gapcam or of NVRTC makes a new one
and nothing ever has to be thrown away:

    kernels-<hash of source, options and NVRTC's version>-<architecture>.cubin

and holds a line, the SHA-256 of the cubin, and the cubin. What does not match its checksum is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
from importlib.resources import files
from pathlib import Path

from gapcam.atomic_file import write_atomically
from gapcam.cache_folder import cache_folder
from gapcam.cuda.driver import Driver, Module
from gapcam.cuda.nvrtc import OPTIONS, compile_kernels, nvrtc_version
from gapcam.errors import DataError

_MAGIC = b"gapcam kernels 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


def kernel_source() -> str:
    """The text of kernels.cu."""
    return files("gapcam.cuda").joinpath("kernels.cu").read_text(encoding="utf-8")


def load_kernels(driver: Driver) -> Module:
    """The kernels, loaded into a device. The first time ever they are compiled, in some seconds.

    Called inside `driver.active()`.

    Raises:
        MissingExtraError: they must be compiled, and cuda-core or NVRTC is not installed.
        BackendError: they cannot be compiled for this device or loaded into it.
    """
    return driver.load(cubin(kernel_source(), driver.architecture))


def cubin(source: str, architecture: str) -> bytes:
    """Code for an architecture, from the cache or compiled. A cache that cannot be read or written is done without.

    Raises:
        MissingExtraError: cuda-core or NVRTC is not installed.
        BackendError: it cannot be compiled.
    """
    key = hashlib.sha256(repr((source, OPTIONS, nvrtc_version())).encode()).hexdigest()[:24]
    entry = cache_folder() / f"kernels-{key}-{architecture}.cubin"
    content = _read(entry)
    if content is None:
        content = compile_kernels(source, architecture).cubin
        # Two processes may both write it: each its own temporary file, then the same content under one name.
        with contextlib.suppress(DataError):
            write_atomically(entry, _MAGIC + hashlib.sha256(content).digest() + content)
    return content


def _read(entry: Path) -> bytes | None:
    """What was cached, if it is there and whole."""
    try:
        content = entry.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST_BYTES
    cached = content[start:]
    whole = content.startswith(_MAGIC) and hashlib.sha256(cached).digest() == content[len(_MAGIC) : start]
    return cached if whole else None
