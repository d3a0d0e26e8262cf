"""The page's own files: those in one folder, by their names alone."""

from __future__ import annotations

import gzip
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


def static_file(name: str) -> bytes | None:
    """A file's content; None where the folder has no file of this name, wherever else the name may lead."""
    names = {path.name for path in FOLDER.iterdir() if path.suffix in _TYPES}
    return (FOLDER / name).read_bytes() if name in names else None


def static_answer(name: str, request: Request, status: int = 200) -> Response | None:
    """The file, or that the client has it already; None where there is none."""
    content = static_file(name)
    if content is None:
        return None
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}  # kept by the browser, and asked for whether it changed
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    headers["vary"] = "accept-encoding"
    # Nothing secret is in these files. A form that was refused gets a line more before it is sent.
    if status == 200 and "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["content-encoding"] = gzip.compress(content, mtime=0), "gzip"
    return Response(content, status, headers, media_type=_TYPES[Path(name).suffix])
