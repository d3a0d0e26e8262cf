"""From an exported float32 model to one of lower precision: the order of its steps."""

from __future__ import annotations

import time
from pathlib import Path

from gapcam.atomic_file import check_spares, check_writable
from gapcam.errors import ContractError
from gapcam_export.precision.lower import lower
from gapcam_export.precision.options import PrecisionOptions
from gapcam_export.progress import Progress, silent
from gapcam_export.report import Report
from gapcam_export.sources import read_onnx
from gapcam_export.written import write_lowered


def quantize(
    model: str | Path,
    output: str | Path,
    options: PrecisionOptions,
    *,
    html: str | Path | None = None,
    progress: Progress = silent,
) -> Report:
    """Make a model of lower precision from an exported float32 model, and measure what that does to its maps.

    Args:
        model: a file that `gapcam export` wrote.
        output: the file to write. It appears last, when all has been verified, whole, or not at all.
        options: which precision, and how.
        html: file for the fidelity report as a page; None for none.
        progress: is called with what is being done, and with how much of it is done where that is counted.

    Returns:
        What was done and measured; `fidelity` is in it.

    Raises:
        ModelError: the model cannot be read, is not in float32, or cannot be quantised.
        ContractError: it has no contract.
        VerificationError: the identity does not hold within the precision's tolerance, or `options.min_map_iou` cannot
            be met; nothing was written.
        DataError: the images will not do, or a file cannot be written.
        UsageError: an option is out of its range, or contradicts another.

    Example:
        >>> options = PrecisionOptions(precision="int8", calibrate=Path("photos"))  # doctest: +SKIP
        >>> quantize("model.onnx", "model.int8.onnx", options).fidelity.comparison.summary().box_iou  # doctest: +SKIP
    """
    begin = time.monotonic()
    model, output = Path(model), Path(output)
    page = None if html is None else Path(html)
    check_writable(output)
    check_spares(output, [model])
    if page is not None:
        from gapcam_export.comparison.page import check_page  # here, since Jinja is needed for a page alone

        check_page(page, [model, output])
    options.check_folders()
    progress(f"reading {model}")
    source = read_onnx(model)
    check_spares(output, source.weight_files)
    if source.contract is None:
        raise ContractError(
            f"{model} is an ONNX model without gapcam's contract. Make one that has it with: gapcam export {model} -o "
            "exported.onnx"
        )
    notes: list[str] = []
    lowered = lower(
        source.model, source.contract, options, (model.name, output.name), notes, progress, html=page is not None
    )
    return write_lowered(lowered, output, page, notes=notes, begin=begin, progress=progress)
