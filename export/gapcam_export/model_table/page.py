"""The page: rows as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gapcam_export.model_table.chosen import LIBRARIES, Chosen
from gapcam_export.model_table.row import Row, Size

# Rounded to one of these, seconds stay mostly what they were when the page is made again.
_STEPS = (1, 2, 3, 5, 7, 10)

_HEAD = """\
# What the export makes of other people's models

Made by `make models`, which runs `python -m gapcam_export.model_table --output docs/models.md`, on {cores} with
{versions}.
Do not edit it: make it again. A test holds that no family of torchvision's classifiers is missing; timm's are a choice,
the most used first.

The weights are random, drawn with a fixed seed, and nothing was downloaded: parameters that a library initialises to a
constant have random values, and BatchNorm statistics that were measured on scikit-image's four photographs. What head a
network has does not depend on its weights; a trained network's errors are other figures, which its own export measures.

- **head**: its [kind](export.md#heads), as found on the graph.
- **identity**: max |logit - mean(map) - bias| over all classes and the photographs, relative to the greatest logit,
  mean of a map or bias: how exact the maps are. Maps of kind `nonlinear` are not; there it is the error of the gradient
  that they are made of.
- **source**: max |difference| between the exported model's logits and PyTorch's, relative to the largest logit.
- **input** is the library's own size for that model, **maps** that of its feature maps: height x width.
- **parameters** in millions. **seconds** that the export took, to the nearest of 1, 2, 3, 5, 7, 10, 20, ...
"""


def write_page(rows: Mapping[Chosen, Row], versions: Mapping[str, str], cores: int) -> str:
    """The page.

    Args:
        rows: in the order of the page.
        versions: of the libraries that were used.
        cores: of the processor that the seconds were measured on.
    """
    parts = [
        _HEAD.format(
            versions=", ".join(f"{name} {version}" for name, version in versions.items()),
            cores=f"{cores} CPU core{'s' if cores > 1 else ''}",
        )
    ]
    for library in LIBRARIES:
        ours = {model: row for model, row in rows.items() if model.library == library}
        if ours:
            parts.append(_section(library, ours))
    return "\n".join(parts)


def _section(library: str, rows: Mapping[Chosen, Row]) -> str:
    exported = [_exported(model, row) for model, row in rows.items() if row.outcome == "exported"]
    refused = [_refused(model, row) for model, row in rows.items() if row.outcome == "refused"]
    failed = [_failed(model, row) for model, row in rows.items() if row.outcome not in ("exported", "refused")]
    parts = [f"## {library}\n\nOf {len(rows)}, {len(exported)} exported and {len(refused)} refused.\n"]
    columns: tuple[str, ...]
    if exported:
        columns = ("model", "what it is", "head", "identity", "source", "input", "maps", "parameters", "seconds")
        parts.append(_table(columns, exported))
    if refused:
        columns = ("model", "what it is", "head", "input", "parameters", "why", "mended by")
        parts += [f"### Refused, {library}\n", _table(columns, refused)]
    if failed:
        columns = ("model", "what it is", "outcome", "what happened")
        parts += [f"### Failed, {library}\n", _table(columns, failed)]
    return "\n".join(parts)


def _exported(model: Chosen, row: Row) -> tuple[str, ...]:
    return (
        *_named(model),
        _head(row),
        _error(row.identity_error) if row.exact else f"not exact (gradient {_error(row.gradient_error)})",
        _error(row.source_error),
        _size(row.size),
        _size(row.maps),
        _millions(row.parameters),
        _seconds(row.seconds),
    )


def _refused(model: Chosen, row: Row) -> tuple[str, ...]:
    mended = "`gapcam gap`" if row.mended_by_gap else ""
    return (*_named(model), _head(row), _size(row.size), _millions(row.parameters), row.reason, mended)


def _failed(model: Chosen, row: Row) -> tuple[str, ...]:
    return (*_named(model), row.outcome, row.reason)


def _named(model: Chosen) -> tuple[str, str]:
    return f"`{model.name}`", model.about


def _head(row: Row) -> str:
    return "" if row.head is None else f"`{row.head.value}`"


def _size(size: Size | None) -> str:
    return "" if size is None else f"{size[0]}x{size[1]}"


def _error(error: float | None) -> str:
    if error is None:
        return ""
    return "0" if error == 0 else f"{error:.0e}".replace("e-0", "e-")


def _millions(parameters: int | None) -> str:
    return "" if parameters is None else f"{parameters / 1e6:.1f}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    scale = 10 ** max(math.floor(math.log10(max(seconds, 1))), 0)
    return str(min(_STEPS, key=lambda step: abs(step * scale - seconds)) * scale)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
