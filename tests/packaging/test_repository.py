"""What the files of the repository must not hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

SOMEBODYS_FOLDER = re.compile(r"(?<![\w.~)-])/(?:home|root|work|Users)/\w")
CONSTRAINT = re.compile(r"[\w.-]+==[\w.]+( ; [\w.'<>=!() ,*-]+)?")


@pytest.mark.parametrize(
    ("text", "found"),
    [("see /home/ann/model.onnx", True), ("a/home/page", False), ("~/work/x", False), ('"/work/x"', True)],
)
def test_a_path_into_somebodys_folder_is_recognised(text: str, found: bool) -> None:
    assert bool(SOMEBODYS_FOLDER.search(text)) is found


def test_no_file_names_a_path_into_somebodys_folder(root: Path) -> None:
    if not (root / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of the repository's files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    files = [root / name for name in listed.split("\0") if name and root / name != Path(__file__).resolve()]
    assert files
    wrong = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in files
        if file.is_file()
        for line in file.read_bytes().decode("utf-8", errors="ignore").splitlines()
        if SOMEBODYS_FOLDER.search(line)
    ]
    assert not wrong


def test_constraints_are_names_versions_and_markers_only(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if not line.startswith("#")]
    assert entries
    assert [line for line in entries if not CONSTRAINT.fullmatch(line)] == []


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", "constraints.txt", "pyproject.toml"])
def test_installing_follows_the_users_own_choice_of_index(root: Path, name: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    assert not re.search(r"index-url|find-links|://", text)
