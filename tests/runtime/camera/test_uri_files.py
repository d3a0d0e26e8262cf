"""URIs of a file, so that no password is on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapcam.camera.uri_files import uris_from_texts
from gapcam.errors import DataError, UsageError


def test_each_line_of_a_file_is_a_uri_but_for_remarks(tmp_path: Path) -> None:
    file = tmp_path / "cameras"
    file.write_text(
        "# the door\n\n  rtsp://u:p@10.0.0.5/a#rate=5  \n\t# film.mp4\nrtsp://10.0.0.6/b\n", encoding="utf-8"
    )
    assert uris_from_texts(["0", f"@{file}", "test://"]) == [
        "0",
        "rtsp://u:p@10.0.0.5/a#rate=5",
        "rtsp://10.0.0.6/b",
        "test://",
    ]


def test_a_file_without_a_uri_is_said(tmp_path: Path) -> None:
    (tmp_path / "remarks").write_text("# rtsp://10.0.0.5/a\n", encoding="utf-8")
    with pytest.raises(UsageError, match="there is no URI in"):
        uris_from_texts([f"@{tmp_path}/remarks"])
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="it is no text"):
        uris_from_texts([f"@{tmp_path}/bytes"])
