"""The command `gapcam bench report`: a result that was measured earlier, as tables and as a page."""

from __future__ import annotations

from pathlib import Path

import click

from gapcam.atomic_file import check_spares, check_writable
from gapcam.cli.console import report as say
from gapcam.cli.console import stdout

_FILE = click.Path(path_type=Path)


@click.command(name="report")
@click.argument("result", type=_FILE, metavar="RESULT.json")
@click.option("--html", type=_FILE, metavar="FILE", help="Write one self-contained page with plots.")
@click.option("--csv", type=_FILE, metavar="FILE", help="Write one line a row and stage, with every digit.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write tables to paste into an issue or a README.")
def report_command(result: Path, html: Path | None, csv: Path | None, markdown: Path | None) -> None:
    """Show a benchmark's result, and write it in other forms.

    RESULT.json is what `gapcam bench --json` wrote. The plots of single samples and of telemetry need RESULT.npz, which
    lies beside it.

    \b
    Examples:
      gapcam bench report result.json
      gapcam bench report result.json --html result.html --markdown result.md
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    from gapcam_bench.cli.forms import write_forms
    from gapcam_bench.result_file import read_result, samples_path

    outputs = [path for path in (html, csv, markdown) if path is not None]
    for place, path in enumerate(outputs):
        check_writable(path)
        check_spares(path, [result, samples_path(result), *outputs[:place]])
    from gapcam_bench.reports.table import show

    loaded = read_result(result)
    show(loaded.result, stdout)
    write_forms(loaded.result, loaded.arrays, csv=csv, markdown=markdown, html=html, lacks_samples=loaded.lacks_samples)
    for path in outputs:
        say(f"wrote {path}")
