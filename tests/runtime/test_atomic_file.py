"""Files are written whole or not at all."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

import gapcam
from gapcam.atomic_file import check_spares, check_writable, write_atomically


def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that fills up."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(gapcam.DataError, match=r"cannot write .*a\.bin: File too large"):
            write_atomically(target, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, synced = tmp_path / "a.bin", []

    def fsync(file: int) -> None:
        assert target.read_bytes() == b"old"
        synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    target.write_bytes(b"old")
    write_atomically(target, b"the new content")
    assert synced == [15]
    assert target.read_bytes() == b"the new content"


def test_a_file_may_have_the_longest_name_there_is_and_its_folder_is_made(tmp_path: Path) -> None:
    target = tmp_path / "new" / ("a" * 255)
    write_atomically(target, b"content")
    assert target.read_bytes() == b"content"


def test_what_cannot_be_written_is_noticed_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path, "is a folder; expected the name of a file to write, which may be in it"),
        (tmp_path / "pipe", "is no regular file, and would be replaced by one; choose another place"),
        (tmp_path / "file" / "a", r"cannot be written: .*file is a file, not a folder; choose another place"),
        (tmp_path / ("a" * 256), "cannot be written: File name too long; choose another place"),
        (tmp_path / "circle", "cannot be written: Too many levels of symbolic links; choose another place"),
    ):
        with pytest.raises(gapcam.DataError, match=f"{path} {said}"):
            check_writable(path)
    for path in (tmp_path / "file", tmp_path / "new" / "folder" / "a"):
        check_writable(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "file", "pipe"]


def test_a_file_that_would_be_written_over_another_is_noticed_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    for path, other in (("a", "a"), ("a", "link"), ("link", "a"), ("b", "b"), ("new/../a", "a")):
        with pytest.raises(gapcam.DataError, match=r"would be written over .*; name another file"):
            check_spares(tmp_path / path, [None, tmp_path / "c", tmp_path / other])
    check_spares(tmp_path / "b", [tmp_path / "a", tmp_path / "link", None])


def test_a_file_has_the_permissions_that_others_have(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
