"""A result in the forms that people read, as files; each is loaded where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gapcam.atomic_file import write_atomically
from gapcam.cli.console import report as say
from gapcam_bench.result import BenchResult


def write_forms(
    result: BenchResult,
    arrays: Mapping[str, NDArray[Any]],
    *,
    csv: Path | None,
    markdown: Path | None,
    html: Path | None,
    lacks_samples: str | None = None,
) -> None:
    """Write those that have a path, in this order.

    Args:
        result: to write.
        arrays: its raw samples, for the page's plots.
        csv: one line a row and stage.
        markdown: tables.
        html: the page.
        lacks_samples: why there are no samples, if there are none.

    Raises:
        DataError: a place cannot be written.
    """
    if csv is not None:
        from gapcam_bench.reports.csv_file import csv_of

        write_atomically(csv, csv_of(result).encode())
    if markdown is not None:
        from gapcam_bench.reports.markdown import markdown_of

        write_atomically(markdown, markdown_of(result).encode())
    if html is not None:
        say(f"drawing {html}")
        from gapcam_bench.reports.html import page_of

        write_atomically(html, page_of(result, arrays, lacks_samples).encode())
