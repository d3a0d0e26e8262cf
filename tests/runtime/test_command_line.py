"""The command group: finding commands, and how errors end."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.cli import main as group
from gapcam.cli.main import main


def invoke(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, list(arguments))
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """The entry points that the group finds; a test puts its own in."""
    found: dict[str, EntryPoint] = {}
    monkeypatch.setattr(group, "_entry_points", lambda: found)
    return found


def add(commands: dict[str, EntryPoint], name: str, value: str) -> None:
    commands[name] = EntryPoint(name, value, group.GROUP)


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


def test_help_lists_the_installed_commands_with_their_own_summaries() -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    for name in ("run", "inspect"):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert f"{name}  " in out
        assert command.get_short_help_str(100) in out


def test_version_is_the_packages() -> None:
    assert invoke("--version") == (0, f"gapcam {gapcam.__version__}\n", "")


def test_without_arguments_the_help_is_shown_and_the_exit_code_is_2() -> None:
    code, out, err = invoke()
    assert code == 2
    assert "Commands:" in out + err


def test_an_unknown_command_is_a_usage_error() -> None:
    code, _, err = invoke("rnu")
    assert code == 2
    assert err.startswith("error: No such command 'rnu'")


def test_a_package_that_is_not_part_of_the_installation_is_named(commands: dict[str, EntryPoint]) -> None:
    add(commands, "export", "gapcam_absent.cli:export_command")
    code, _, err = invoke("export", "x")
    assert code == 6
    assert err.startswith("error: gapcam_absent is not part of this installation")
    assert "pip install" in err
    assert invoke("--help")[0] == 0  # the others still work


def test_a_missing_package_of_gapcams_own_is_one_line_that_installs_it(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(commands, "need", "gapcam.cli.main:needy")
    monkeypatch.setattr(
        group, "needy", raising(ModuleNotFoundError("No module named 'cv2'", name="cv2")), raising=False
    )
    code, _, err = invoke("need")
    assert code == 6
    assert err.endswith("pip install opencv-python-headless\n")


@pytest.mark.parametrize(("package", "extra"), [("torch", "export"), ("onnx", "export"), ("onnxruntime", "cpu")])
def test_a_missing_extra_is_one_line_that_names_what_installs_it(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    add(commands, "need", "gapcam.cli.main:needy")
    needy = raising(ModuleNotFoundError(f"No module named '{package}.nn'", name=f"{package}.nn"))
    monkeypatch.setattr(group, "needy", needy, raising=False)
    code, _, err = invoke("need")
    assert code == 6
    assert (
        err == f"error: {package} is not installed, and this needs it. Install it with: pip install 'gapcam[{extra}]'\n"
    )


ENDS = [
    (gapcam.UsageError("u"), 2, "error: u\n"),
    (gapcam.ModelError("two\nlines"), 3, "error: two lines\n"),
    (gapcam.VerificationError("v"), 4, "error: v\n"),
    (gapcam.DataError("d"), 5, "error: d\n"),
    (gapcam.BackendError("b"), 6, "error: b\n"),
    (KeyboardInterrupt(), 130, "\nerror: interrupted\n"),
    (click.BadParameter("p"), 2, "error: Invalid value: p See: gapcam fail --help\n"),
]


@pytest.mark.parametrize(("error", "code", "line"), ENDS, ids=lambda value: type(value).__name__)
def test_every_kind_of_error_ends_in_one_line_and_its_exit_code(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    add(commands, "fail", "gapcam.cli.main:failing")
    monkeypatch.setattr(group, "failing", raising(error), raising=False)
    assert invoke("fail") == (code, "", line)


def test_an_error_that_nobody_foresaw_is_one_line_and_70(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(commands, "fail", "gapcam.cli.main:failing")
    monkeypatch.setattr(group, "failing", raising(ZeroDivisionError("oh")), raising=False)
    code, _, err = invoke("fail")
    assert code == 70
    assert err.startswith("error: ZeroDivisionError: oh")
    assert "--debug" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("--debug", "fail"), ("fail", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    add(commands, "fail", "gapcam.cli.main:failing")
    monkeypatch.setattr(group, "failing", raising(gapcam.DataError("gone")), raising=False)
    code, _, err = invoke(*arguments)
    assert code == 5
    assert "Traceback (most recent call last)" in err
    assert err.endswith("error: gone\n")


def test_after_two_dashes_debug_is_an_argument(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    @click.argument("name")
    def echo(name: str) -> None:
        click.echo(name)

    add(commands, "echo", "gapcam.cli.main:echoing")
    monkeypatch.setattr(group, "echoing", echo, raising=False)
    assert invoke("echo", "--", "--debug") == (0, "--debug\n", "")


def test_the_installed_script_ends_with_the_exit_code(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("gapcam")
    done = subprocess.run([script, "inspect", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == f"error: {tmp_path} is a folder; give the .onnx file in it\n"


def test_a_reader_that_closes_the_pipe_early_causes_no_traceback(tmp_path: Path) -> None:
    labels = tuple(f"a rather long label {number}" for number in range(2))
    model = red_and_blue(tmp_path / "m.onnx", contract=a_contract(labels=labels))
    reader, writer = os.pipe()
    os.close(reader)  # before the first word: there is no telling when a program that ends at once has ended
    command = [sys.executable, "-m", "gapcam.cli.main", "inspect", model, "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_every_exit_code_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for code in gapcam.ExitCode:
        assert f"| {int(code)} | `{code.name}` |" in documented


def test_an_option_without_its_value_names_its_command() -> None:
    expected = "error: Option '--device' requires an argument. See: gapcam run --help\n"
    assert invoke("run", "m.onnx", "--device") == (2, "", expected)


def test_an_interrupt_while_the_command_is_imported_shows_no_traceback() -> None:
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "import gapcam.cli.main\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


def test_an_error_that_a_library_made_of_ctrl_c_is_an_interrupt(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    add(commands, "need", "gapcam.cli.main:needy")
    monkeypatch.setattr(group, "needy", raising(error), raising=False)
    assert invoke("need") == (130, "", "error: interrupted\n")


def test_an_error_that_says_how_to_go_on_after_ctrl_c_is_shown(
    commands: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def command() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise gapcam.UsageError("stopped; the same command goes on") from None

    add(commands, "need", "gapcam.cli.main:needy")
    monkeypatch.setattr(group, "needy", command, raising=False)
    assert invoke("need") == (2, "", "error: stopped; the same command goes on\n")
