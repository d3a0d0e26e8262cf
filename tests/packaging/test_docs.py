"""README and docs promise only what is there: make targets, commands with their options, and Python that runs.

Every fenced block whose info string is exactly `python` runs, the blocks of one file one after the other in one
namespace, in a folder that holds the demo's `model.onnx`, a photograph of a cat, `cat.png`, a folder `photos` with it,
and a benchmark's `RESULT.json` with its samples. In a block that is exactly `sh`, every line that starts with `gapcam`
runs there. A block that cannot run there says so after the language: ```python not-run.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(?P<text>[^`\n]+)`(?!`)")
SHELLS = {"", "bash", "console", "sh", "shell", "text"}
END_OF_COMMAND = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>"}


class Block(NamedTuple):
    """A fenced block: its info string, its text, and the line of the page on which the text starts."""

    info: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a Markdown page."""
    return [
        Block(match["info"].strip(), match["text"], page.count("\n", 0, match.start("text")) + 1)
        for match in FENCE.finditer(page)
    ]


def commands(page: str, program: str) -> Iterator[list[str]]:
    """Argument lists that a Markdown page gives to a program, in shell blocks and in inline code."""
    lines = [match["text"] for match in INLINE.finditer(FENCE.sub("", page))]
    for block in blocks(page):
        if block.info.split(" ")[0] in SHELLS:
            lines += block.text.replace("\\\n", " ").splitlines()
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # an apostrophe in a sentence: no command
            continue
        if words[:1] == ["$"]:
            words = words[1:]
        if words[:1] == [program]:
            end = next((i for i, word in enumerate(words) if word in END_OF_COMMAND), len(words))
            yield words[1:end]


def test_commands_are_found_in_blocks_and_inline() -> None:
    text = (
        "Type `make demo`, not ```make nothing```.\n"
        "```bash\n$ make PYTHON=python3.12 test  # all\nmake \\\n  lint | tee log\n```\n"
        "```python\nmake = 1\n```\n"
    )
    assert list(commands(text, "make")) == [["demo"], ["PYTHON=python3.12", "test"], ["lint"]]


@page
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    named = [word for words in commands(page.read_text(encoding="utf-8"), "make") for word in words]
    assert [word for word in named if re.fullmatch(r"[a-z][a-z-]*", word) and word not in targets] == []


def unknown_parts(words: list[str]) -> list[str]:
    """The subcommand and options of a `gapcam` command line that the program does not have."""
    from gapcam.cli.main import main

    context = click.Context(main)
    if not words or words[0].startswith("-"):
        command: click.Command = main
    else:
        found = main.get_command(context, words[0])
        if found is None:
            return [words[0]] if words[0].islower() else []  # `gapcam COMMAND --help` names none
        command = found
        if isinstance(command, click.Group):
            inner = command.get_command(context, words[1]) if len(words) > 1 else None
            command = inner or command.make_context(words[0], ["--help"], resilient_parsing=True).command
    parameters = [*command.get_params(context), *main.get_params(context)]
    known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]
    return [option for option in options if option not in known]


def test_an_unknown_command_and_an_unknown_option_are_noticed() -> None:
    assert unknown_parts(["paint", "model.onnx"]) == ["paint"]
    assert unknown_parts(["run", "model.onnx", "--no-such-option", "-o", "out"]) == ["--no-such-option"]
    assert unknown_parts(["--help"]) == []
    assert unknown_parts(["bench", "model.onnx", "--json", "r.json", "--no-such-option"]) == ["--no-such-option"]
    assert unknown_parts(["bench", "peers", "--peer", "openvino", "--precision"]) == ["--precision"]


@page
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8"), "gapcam"):
        assert unknown_parts(words) == [], f"gapcam {' '.join(words)}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_model: Path, cat: NDArray[np.uint8]) -> Path:
    """The current folder, with what the examples work on. They measure how fast two models are only briefly."""
    from gapcam_export.comparison.latency import compare_latency

    monkeypatch.setitem(compare_latency.__kwdefaults__, "seconds", 0.5)
    shutil.copy(demo_model, tmp_path / "model.onnx")
    for name in ("RESULT.json", "RESULT.npz"):
        shutil.copy(ROOT / "tests" / "benchmarks" / "version_1" / name, tmp_path / name)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "cat.png"), cat)
    cv2.imwrite(str(tmp_path / "photos" / "cat.jpg"), cat)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pages_with(info: str) -> pytest.MarkDecorator:
    """Parametrises a test with the pages that have such blocks."""
    found = [page for page in PAGES if any(block.info == info for block in blocks(page.read_text(encoding="utf-8")))]
    return pytest.mark.parametrize("page", found, ids=lambda path: str(path.relative_to(ROOT)))


@pages_with("python")
@pytest.mark.usefixtures("folder")
def test_python_on_the_page_runs(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.info == "python":
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, str(page), "exec"), namespace)  # noqa: S102 - the project's own pages


@pages_with("sh")
def test_commands_on_the_page_run(page: Path, folder: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        for words in commands(f"```sh\n{block.text}```\n", "gapcam") if block.info == "sh" else ():
            done = subprocess.run(
                [sys.executable, "-m", "gapcam.cli.main", *words],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"gapcam {shlex.join(words)}: {done.stderr}"
