"""The wheel holds what it promises and works where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = {"gapcam": "runtime", "gapcam_export": "export", "gapcam_bench": "benchmarks"}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command, which must succeed."""
    ran = subprocess.run(
        [str(part) for part in command],
        check=False,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(source_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make wheel` builds it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source_copy)
    (built,) = out.glob("gapcam-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel alone is installed; as PYTHONPATH it comes before the editable install."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(wheel: Path, source_copy: Path) -> None:
    expected = {
        path.relative_to(source_copy / folder).as_posix()
        for package, folder in PACKAGES.items()
        for path in (source_copy / folder / package).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert not [
        name for name in held if any(part.startswith(("test_", "tests", "conftest")) for part in Path(name).parts)
    ]


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_the_wheel_carries_the_licence_and_the_notice(wheel: Path, root: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (held,) = (entry for entry in archive.namelist() if entry.endswith(f".dist-info/licenses/{name}"))
        text = archive.read(held).decode()
    assert text == (root / name).read_text(encoding="utf-8")
    assert {"LICENSE": "Apache License", "NOTICE": "gapcam"}[name] in text


def test_the_three_packages_come_from_the_installed_wheel_in_another_folder(site: Path, tmp_path: Path) -> None:
    script = f"import {', '.join(PACKAGES)}\nfor m in ({', '.join(PACKAGES)}): print(m.__file__)"
    files = run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    assert files == [str(site / package / "__init__.py") for package in PACKAGES]


def test_the_installed_command_says_the_wheels_version(site: Path, wheel: Path, tmp_path: Path) -> None:
    said = run(site / "bin" / "gapcam", "--version", cwd=tmp_path, PYTHONPATH=str(site))
    assert wheel.name.split("-")[1] in said


@pytest.mark.parametrize("command", ["run", "inspect", "build", "doctor", "export", "fidelity", "finetune"])
def test_the_installed_command_finds_the_commands_of_every_package(site: Path, tmp_path: Path, command: str) -> None:
    said = run(site / "bin" / "gapcam", command, "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert f"gapcam {command}" in said
