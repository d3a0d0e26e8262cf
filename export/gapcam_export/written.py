"""The last step of an export: the file appears, whole, and what was done is put together."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from gapcam.atomic_file import write_atomically
from gapcam.contract import Contract
from gapcam_export.graph import graph_inputs, opset_of
from gapcam_export.progress import Progress
from gapcam_export.report import Report, summarize
from gapcam_export.tap import write_contract

if TYPE_CHECKING:
    from gapcam_export.precision.lower import Lowered  # ONNX Runtime's quantiser, which it needs, is slow to import


def write_model(
    model: onnx.ModelProto, contract: Contract, output: Path, *, notes: Sequence[str], begin: float
) -> Report:
    """Write a model with its contract, whole or not at all.

    Args:
        model: with the contract's outputs; the contract is put into it.
        contract: what it says of itself.
        output: the file; a link stays one.
        notes: what the user should know.
        begin: the time.monotonic() at which all began.

    Raises:
        DataError: the place cannot be written.
    """
    write_contract(model, contract)
    content = model.SerializeToString()
    write_atomically(output.resolve(), content)
    return Report(
        path=output,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        opset=opset_of(model),
        contract=contract,
        inputs=tuple(summarize(value) for value in graph_inputs(model.graph)),
        outputs=tuple(summarize(value) for value in model.graph.output),
        notes=tuple(notes),
        seconds=time.monotonic() - begin,
    )


def write_lowered(
    lowered: Lowered, output: Path, page: Path | None, *, notes: Sequence[str], begin: float, progress: Progress
) -> Report:
    """Write a model of lower precision, and before it the page that compares it with the float32 model.

    Args:
        lowered: the model, and what was measured of it.
        output: the file.
        page: the page's file, or None for none.
        notes: as in `write_model`.
        begin: likewise.
        progress: is called before each file.

    Raises:
        DataError: a place cannot be written.
    """
    if page is not None:
        progress(f"writing {page}")
        write_atomically(page, lowered.html.encode())
    progress(f"writing {output}")
    report = write_model(lowered.model, lowered.contract, output, notes=notes, begin=begin)
    return replace(report, fidelity=lowered.fidelity, search=lowered.search)
