"""What people read names the files that they gave, not those that a sweep made of them for a while."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gapcam_bench.result import Row
from gapcam_bench.sweep.model_outline import ModelOutline, model_label
from gapcam_bench.sweep.plan import Plan

_MADE_ON_THE_WAY = rf"{re.escape(tempfile.gettempdir())}/gapcam-[^/\s]+/[^/\s:;,]+\.onnx"
"""A file that `gapcam_export` makes and removes."""


def user_names(plan: Plan, model: ModelOutline, file: str) -> dict[str, str]:
    """What people call each file that a message about a cell may name; a key that ends in "/" is for all in a folder.

    Args:
        plan: of the cell.
        model: of the cell.
        file: that was made of it, or its own.
    """
    made = {file: model.label, Path(file).name: model.label, f"{Path(file).parent}/": model.label}
    if not _is_made(file, model):
        made = {}
    given = [path for path in (plan.images, plan.calibrate, plan.reference) if path is not None]
    return {**made, **{path: model_label(Path(path)) for path in given}, model.path: model.label}


def renamed(text: str, names: Mapping[str, str], label: str) -> str:
    """A message with people's names; `label` in place of a file of the moment."""
    longest_first = sorted(names, key=len, reverse=True)
    known = "|".join(re.escape(name) + (r"[^\s:;,]+" if name.endswith("/") else "") for name in longest_first)
    return re.sub(f"{_MADE_ON_THE_WAY}|{known}", lambda found: names.get(found[0], label), text)


def row_with_user_names(row: Row, plan: Plan, file: str) -> Row:
    """A row that names the user's models, and has the hash of the one that it is of.

    Args:
        row: of a cell of the plan.
        plan: the plan.
        file: that the cell's processes loaded; "" where there is none.
    """
    model = plan.models.get(row.cell.model)
    if model is None:
        return row
    names = user_names(plan, model, file)
    parity, fidelity = row.parity, row.fidelity
    if parity is not None and (_is_made(file, model) or parity.against == Path(model.path).name):
        parity = msgspec.structs.replace(parity, against=model.label)
    if fidelity is not None:
        reference = model.label if plan.reference is None else model_label(Path(plan.reference))
        fidelity = msgspec.structs.replace(fidelity, against=reference)
    return msgspec.structs.replace(
        row,
        reasons=tuple(renamed(reason, names, model.label) for reason in row.reasons),
        notes=tuple(renamed(note, names, model.label) for note in row.notes),
        model=None
        if row.model is None
        else msgspec.structs.replace(row.model, name=model.label, source_sha256=model.sha256),
        parity=parity,
        fidelity=fidelity,
    )


def _is_made(file: str, model: ModelOutline) -> bool:
    return file not in ("", model.path)
