"""`gapcam bench peers` as a user runs it, and the page that it writes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gapcam.cli.main import main
from gapcam_bench.cli.peers import peers_command
from gapcam_bench.limits import Limits
from gapcam_bench.peers.comparison import groups_of, name_of
from gapcam_bench.peers.names import PEERS, contract_of
from gapcam_bench.peers.page import BEGIN, END
from gapcam_bench.peers.planned import peer_cells
from gapcam_bench.peers.tables import TITLES
from gapcam_bench.result_file import read_result

pytestmark = pytest.mark.slow  # whole commands, in processes of their own

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"


def ran_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gapcam.cli.main", "bench", "peers", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench", "peers", *map(str, arguments)])


def test_a_run_is_measured_compared_and_written(tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Kept\n\n{BEGIN}\n{END}\n", encoding="utf-8")
    arguments = "--peer handwritten --frame 64x48 --rounds 1 --seconds 0 --json r.json --markdown page.md"
    done = ran_in(tmp_path, tiny_model.name, *arguments.split(), "--force")
    assert done.returncode == 0, done.stderr
    assert "x gapcam" in done.stdout
    loaded = read_result(tmp_path / "r.json")
    for group in groups_of(loaded.result, loaded.arrays):
        for line in group.lines:
            assert line.row.parity is not None, line.name
            assert line.row.parity.holds, line.name
            assert (line.ratio is None) == (line.name == "gapcam")
    assert loaded.result.command == f"gapcam bench peers {tiny_model.name} {arguments}"
    written = page.read_text(encoding="utf-8")
    assert written.startswith(f"# Kept\n\n{BEGIN}\n\n")
    assert f"\n\n**Overlay, of a 64 x 48 frame**\n\n| {' | '.join(TITLES)} |\n" in written
    assert "| handwritten" in written
    assert shlex.join(["gapcam", "bench", "peers", tiny_model.name, *arguments.split()]) in written


def test_peers_are_listed_with_why_one_cannot_run(tiny_model: Path) -> None:
    ran = invoke(tiny_model, "--list")
    assert ran.exit_code == 0, ran.output
    lines = dict(line.split(": ", 1) for line in ran.stdout.splitlines())
    assert list(lines) == list(PEERS)
    assert "not here: it explains gapcam_export.demo:efficientnet_lite0" in lines["torch-cam, eager"]
    assert "not here" not in lines["handwritten"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--peer", "captum"], 2, "there is no peer 'captum'; there are: gapcam; handwritten; openvino, fp32;"),
        (["--frame", "720"], 2, "--frame does not take '720'"),
        (["--markdown", "nowhere/there/page.md", "--json", "model"], 5, ""),
    ],
)
def test_a_mistake_is_a_line(arguments: list[str], code: int, said: str, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    made = [str(tmp_path / word) if word in ("model", "nowhere/there/page.md") else word for word in arguments]
    ran = invoke(tiny_model, *made)
    assert ran.exit_code == code, ran.output
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_without_the_demos_model_the_command_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = invoke()
    assert ran.exit_code == 3
    assert "run make demo first" in ran.stderr


def test_a_page_with_broken_marks_is_noticed_before_anything_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n", encoding="utf-8")
    ran = invoke(tiny_model, "--markdown", page)
    assert ran.exit_code == 5
    assert "expected one pair" in ran.stderr


def test_a_page_is_not_replaced_as_a_whole(tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Mine\n", encoding="utf-8")
    ran = invoke(tiny_model, "--markdown", page)
    assert ran.exit_code == 5
    assert "all of it would be replaced" in ran.stderr
    assert "round 1" not in ran.stderr
    assert page.read_text(encoding="utf-8") == "# Mine\n"


def test_what_is_not_valid_goes_into_no_page_by_itself(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of its own is written, and says so."""
    import gapcam_bench.cli.run  # so that only the command sees other limits

    monkeypatch.setattr(gapcam_bench.limits, "Limits", partial(Limits, most_variation=-1))  # everything is too noisy
    monkeypatch.chdir(tmp_path)
    page, alone = tmp_path / "page.md", tmp_path / "alone.md"
    kept = f"# Kept\n\n{BEGIN}\nof a quiet machine\n{END}\n"
    page.write_text(kept, encoding="utf-8")
    arguments = [tiny_model.name, "--peer", "gapcam", "--frame", "64x48", "--rounds", "1", "--seconds", "0"]
    ran = invoke(*arguments, "--json", "r.json", "--markdown", page.name)
    assert ran.exit_code == 1, ran.output
    assert "page.md stays as it was: gapcam's own row is INVALID (overlay, of a 64 x 48 frame" in ran.stderr
    assert "with --force; the result is in r.json." in ran.stderr
    assert page.read_text(encoding="utf-8") == kept
    assert all(row.status == "invalid" for row in read_result(tmp_path / "r.json").result.rows)
    assert not list(tmp_path.glob("*.part"))
    ran = invoke(*arguments, "--markdown", alone.name)
    assert ran.exit_code == 0, ran.output
    assert "> Not to be relied on: gapcam's own row is INVALID" in alone.read_text(encoding="utf-8")


def test_the_documented_tables_are_those_of_the_command(tiny_model: Path) -> None:
    """Rows, columns, frames and the command: what is on the page is what `make bench-peers` measures."""
    text = PAGE.read_text(encoding="utf-8")
    written = text[text.index(BEGIN) : text.index(END)]
    (frames,) = (option.default for option in peers_command.params if option.name == "frame")
    assert frames == "720p,1080p"
    cells = [
        planned.cell
        for planned in peer_cells(
            "m", contract_of(tiny_model), ("gapcam", *PEERS), frames=((720, 1280), (1080, 1920)), threads=1
        )
    ]
    titles = re.findall(r"^\*\*(.+)\*\*$", written, re.MULTILINE)
    assert titles == [
        "Overlay, of a 1280 x 720 frame",
        "Overlay, of a 1920 x 1080 frame",
        "Map alone, of a 1280 x 720 frame",
    ]
    rows = [line.strip("| ").split(" | ") for line in written.splitlines() if line.startswith("| ")]
    heads = [row for row in rows if row[0] == "way"]
    assert [tuple(head) for head in heads] == [TITLES] * 3
    ways = [re.sub(r" \([A-Z, ]+\)$", "", row[0]) for row in rows if row[0] not in ("way", "---")]
    assert ways == [name_of(cell) for cell in cells]
    explained = re.findall(r"^\| ([a-z0-9 %]+) \| ", text[text.index("The columns:") :], re.MULTILINE)
    assert explained[1 : len(TITLES)] == list(TITLES[1:])


def test_the_documented_command_is_that_of_the_makefile() -> None:
    recipe = re.search(r"bin/(gapcam bench peers .*) \$\(BENCH_ARGS\)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert recipe is not None
    text = PAGE.read_text(encoding="utf-8")
    measured = text[text.index(BEGIN) : text.index(END)]
    command = re.search(r"^gapcam bench peers .*$", measured, re.MULTILINE)
    assert command is not None
    assert command[0] == recipe[1]
