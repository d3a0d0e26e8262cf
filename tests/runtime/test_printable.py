"""What files of strangers say does not command the terminal."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from gapcam.cli.console import report
from gapcam.cli.main import main
from gapcam.cli.printable import all_printable, printable


def test_control_characters_are_written_out() -> None:
    assert printable("\x1b]0;pwned\x07\x1b[31mred\x9b0m\x7f") == r"\x1b]0;pwned\x07\x1b[31mred\x9b0m\x7f"
    assert printable("a\nb\r\tc\u2028d\u202ee") == r"a\nb\r\tc\u2028d\u202ee"
    assert printable("a\nb\x1b", lines=True) == "a\nb\\x1b"


@pytest.mark.parametrize(
    "text",
    [
        "Katze, Schäfer (2)",
        "猫",
        "कुत्ता",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "👨\u200d👩",
        "[bold]",
        "",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text


def test_every_text_of_a_value_is_made_printable() -> None:
    facts = {"a\x1b": ["\x07", 1, None, ("b", {"c": "\x1b"})], "d": 2.5}
    assert all_printable(facts) == {r"a\x1b": [r"\x07", 1, None, ["b", {"c": r"\x1b"}]], "d": 2.5}


def test_reports_and_errors_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    report("note: \x1b[2J\nsecond line")
    assert capsys.readouterr().err == "note: \\x1b[2J\nsecond line\n"
    assert "no-\\x1b[31mfile" in CliRunner().invoke(main, ["inspect", "no-\x1b[31mfile.onnx"]).stderr
