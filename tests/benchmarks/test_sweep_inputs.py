"""What a plan notes of folders and paths: any change of what is measured with shows, and only that."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gapcam.errors import DataError, UsageError
from gapcam_bench.sweep.inputs import images_sha256, path_text


def listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda folder: (folder / "b.jpg").write_bytes(b"2c"), True),
        (lambda folder: (folder / "b.jpg").write_bytes(b"22 and more"), True),
        (lambda folder: (folder / "b.jpg").rename(folder / "c.jpg"), True),
        (lambda folder: (folder / "b.jpg").unlink(), True),
        (lambda folder: (folder / "z.jpg").write_bytes(b"33"), True),
        (lambda folder: (folder / "sub" / "y.jpg").write_bytes(b"4d"), False),  # the third, of which two are read
        (lambda folder: (folder / "sub" / "y.jpg").write_bytes(b"444"), True),
        (lambda folder: os.utime(folder / "b.jpg", (0, 0)), False),
    ],
)
def test_a_changed_image_changes_the_hash(tmp_path: Path, change: Callable[[Path], object], differs: bool) -> None:
    (tmp_path / "sub").mkdir()
    for name, content in (("a.jpg", b"11"), ("b.jpg", b"22"), ("sub/y.jpg", b"44")):
        (tmp_path / name).write_bytes(content)
    before = images_sha256(tmp_path, listed(tmp_path), read=2)
    assert len(before) == 64
    change(tmp_path)
    assert (images_sha256(tmp_path, listed(tmp_path), read=2) != before) == differs


def test_the_folders_own_place_is_not_in_the_hash(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"1")
    one, two = (images_sha256(tmp_path / name, listed(tmp_path / name), read=1) for name in ("one", "two"))
    assert one == two


def test_an_image_that_is_gone_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read: No such file"):
        images_sha256(tmp_path, listed(tmp_path), read=1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_text(Path("é.onnx")) == str(tmp_path / "é.onnx")
    with pytest.raises(UsageError, match=r"bad\\xff\.onnx is not UTF-8.*rename it"):
        path_text(Path(os.fsdecode(b"bad\xff.onnx")))
