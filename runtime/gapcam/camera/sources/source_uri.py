"""Which source a text on the command line means."""

# ruff: noqa: PTH110, PTH112 - Path.exists and its like raise where a name is too long or a folder is closed

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from urllib.parse import unquote

from gapcam.camera.names import check_name
from gapcam.camera.sources.protocol import Source
from gapcam.camera.sources.source_options import SourceOptions, split_options, with_options
from gapcam.camera.uri import MASK, check_credentials, without_credentials
from gapcam.errors import MissingExtraError, UsageError
from gapcam.image_file import SUFFIXES

KINDS = "a device (0, /dev/video0), csi://0, rtsp://..., http://..., a video file, a folder or pattern of images, or test://"

_DEFAULT_OPTIONS = SourceOptions()
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)


def source_from_uri(uri: str, *, name: str = "", options: SourceOptions = _DEFAULT_OPTIONS) -> Source:
    """The source that a text means; it is not opened yet.

    Args:
        uri: a device's number or path, `csi://N`, `rtsp://`, `rtsps://`, `http://`, `https://`, `test://`, or the path
            of a video, an image, a folder of images, or a pattern with "*", "?" or "[". Options of its own may follow:
            `film.mp4#loop=yes,rate=5,rotate=90,name=door`, unless a file of just that name exists.
        name: for people; "name" among the options comes first, and one made from the URI last.
        options: those of the URI come over them.

    Raises:
        UsageError: there is no such kind of source, or an option is not understood.
        MissingExtraError: the extra `camera` is not installed.
    """
    plain, own = split_options(uri)
    name = _checked_name(own.get("name") or name or name_of(plain))
    options = with_options(options, own)
    found = _SCHEME.fullmatch(plain)
    if found is None:
        return _local(plain, name, options)
    scheme, rest = found.group("scheme").lower(), found.group("rest")
    if scheme in ("rtsp", "rtsps", "http", "https"):
        if not re.match(r"(.*@)?[^/?#@]", rest):
            raise UsageError(f"source is {without_credentials(plain)!r}; give its host: {scheme}://HOST/PATH")
        check_credentials(plain, "source")
        return _streamed(f"{scheme}://{rest}", name, options)
    if scheme == "test":
        from gapcam.camera.sources.moving_clock import MovingClock

        return MovingClock(f"test://{rest}", name=name, options=options)
    if scheme == "csi":
        from gapcam.camera.sources.csi import CsiCamera

        if not re.fullmatch(r"\d{1,3}", rest):
            raise UsageError(f"source is {without_credentials(plain)!r}; give the sensor's number: csi://0")
        return CsiCamera(int(rest), name=name, options=options)
    if scheme == "v4l2":
        return _local(rest, name, options)
    if scheme == "file":
        return _local(unquote(rest.removeprefix("localhost")), name, options)
    raise UsageError(f"source is {without_credentials(plain)!r}; expected {KINDS}")


def name_of(uri: str) -> str:
    """A short name made from a URI: video0, csi0, host-path, a file's name without its suffix."""
    shown = without_credentials(uri).replace(f"{MASK}@", "").replace(MASK, "")
    found = _SCHEME.fullmatch(shown)
    if found is None or found.group("scheme").lower() in ("file", "v4l2"):
        path = found.group("rest") if found else shown
        text = f"video{path}" if path.isdecimal() else Path(path.rstrip("/")).stem or path
    elif found.group("scheme").lower() in ("csi", "test"):
        text = found.group("scheme").lower() + found.group("rest").partition("?")[0]
    else:
        text = re.split(r"[?#]", found.group("rest"))[0]
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:48] or "source"


def _local(path: str, name: str, options: SourceOptions) -> Source:
    """A device, a file, a folder or a pattern."""
    if not path or "\0" in path:
        raise UsageError(f"source is {path!r}; expected {KINDS}")
    device = f"/dev/video{int(path)}" if re.fullmatch(r"\d{1,3}", path) and not os.path.exists(path) else path
    if device.startswith("/dev/"):
        from gapcam.camera.sources.v4l2 import V4l2Camera

        return V4l2Camera(device, name=name, options=options)
    is_pattern = not os.path.exists(path) and glob.has_magic(path)
    if os.path.isdir(path) or is_pattern or path.lower().endswith(SUFFIXES):
        from gapcam.camera.sources.image_files import ImageFiles

        return ImageFiles(path, name=name, options=options)
    try:
        from gapcam.camera.sources.video_file import VideoFile
    except ModuleNotFoundError as error:
        raise _explained(error) from error
    return VideoFile(path, name=name, options=options)


def _streamed(uri: str, name: str, options: SourceOptions) -> Source:
    try:
        from gapcam.camera.sources.network_stream import NetworkStream
    except ModuleNotFoundError as error:
        raise _explained(error) from error
    return NetworkStream(uri, name=name, options=options)


def _explained(error: ModuleNotFoundError) -> Exception:
    return MissingExtraError("av", "camera") if error.name == "av" else error


def _checked_name(name: str) -> str:
    """Names go into file names, topics and metrics."""
    check_name(name, "source")
    if not re.fullmatch(r"[^/\\+#\x00-\x1f\x7f]{1,64}", name) or name.strip(". ") == "":
        raise UsageError(f"a source's name is {name!r}; give 1 to 64 characters, none of them / \\ + # or a line break")
    return name
