"""Where commands write: results to stdout, everything else to stderr, so that output can be piped."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gapcam.cli.printable import printable

stdout = Console(highlight=False, emoji=False)
"""For tables that people read. It follows sys.stdout."""

stderr = Console(stderr=True, highlight=False, emoji=False)
"""For progress and reports. It follows sys.stderr."""


def progress_bar() -> Progress:
    """A bar on stderr that goes when it is done; silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
        # rich sends what is printed meanwhile to its own console. Right on a terminal; wrong for a pipe on stdout.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )


def report(message: str) -> None:
    """A line on stderr: no markup, no wrapping, no commands to the terminal; above a progress bar if one is shown."""
    stderr.print(printable(message, lines=True), markup=False, soft_wrap=True)


NOT_EXACT = (
    "not exact: the head is nonlinear, so that a class's map is weighted by its logit's gradient at each image "
    "(Grad-CAM before its ReLU) and is not all that the logit is made of"
)
"""What commands say, once, of a model whose maps are not exact."""


def write_line(line: str) -> None:
    """A line of results on stdout, at once; a progress bar on the same terminal makes way for it."""
    if sys.stdout is not None:  # None: it was closed before the start
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
