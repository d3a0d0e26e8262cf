"""From axes to cells: every combination that makes sense, and why the others are not measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import msgspec

from gapcam.contract import HeadKind
from gapcam_bench.block import ScenarioSettings
from gapcam_bench.cell import ON_A_MAP, Cell
from gapcam_bench.limits import Limits
from gapcam_bench.sweep.axes import AS_IS, Axes
from gapcam_bench.sweep.model_outline import ModelOutline

NATIVE = "cpu"
"""The device without a GPU."""


class PlannedCell(msgspec.Struct, frozen=True, kw_only=True):
    """A combination.

    Attributes:
        cell: the combination.
        skipped: why it is not measured; None where it is.
    """

    cell: Cell
    skipped: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what is measured: two runs of equal plans measure the same.

    Attributes:
        cells: in the order of the report.
        models: those of the cells, by the name that cells have for them.
        rounds: fresh processes of each cell.
        limits: of each of these.
        settings: of the scenarios.
        images: folder of photographs; None for the installed ones.
        calibrate: folder of images for int8 and fp16; None for crops of the installed photographs.
        reference: path of the model whose answers are compared with; None for none.
        images_sha256: what `images` holds: see `gapcam_bench.sweep.inputs.images_sha256`.
        calibrate_sha256: likewise.
        reference_sha256: of the file.
    """

    cells: tuple[PlannedCell, ...]
    models: dict[str, ModelOutline]
    rounds: int = 5
    limits: Limits = Limits()
    settings: ScenarioSettings = ScenarioSettings()
    images: str | None = None
    calibrate: str | None = None
    reference: str | None = None
    images_sha256: str | None = None
    calibrate_sha256: str | None = None
    reference_sha256: str | None = None

    @property
    def measured(self) -> tuple[Cell, ...]:
        """The cells that are measured."""
        return tuple(planned.cell for planned in self.cells if planned.skipped is None)


def planned_cells(
    axes: Axes,
    models: Sequence[ModelOutline],
    *,
    devices: Sequence[str],
    refused: Mapping[str, str],
    streams: int = ScenarioSettings().streams,
) -> tuple[PlannedCell, ...]:
    """All combinations in the order of the report: what is compared with one another stands together.

    Threads are the CPU's: on a GPU they would only repeat the same. With `plain` there is no map to draw, and of a
    model without a contract there is only that.

    Args:
        axes: whose devices are not looked at.
        models: the models.
        devices: that were asked for, "auto" and "all" resolved.
        refused: why each of these that does not work here does not.
        streams: pictures of one query of the scenario multi-stream.
    """
    found: dict[str, PlannedCell] = {}
    for model in models:
        for cell in _cells(axes, model, devices):
            reason = refused.get(cell.device) or _reason_against(cell, model)
            if reason is None and cell.scenario == "multi-stream" and cell.batch > streams:
                reason = f"a query of multi-stream has {streams} pictures, fewer than a batch of {cell.batch}"
            found.setdefault(cell.key, PlannedCell(cell=cell, skipped=reason))
    return tuple(found.values())


def _cells(axes: Axes, model: ModelOutline, devices: Sequence[str]) -> Iterator[Cell]:
    emits = axes.emits if model.head is not None else ("plain",)
    for device, precision, frame in product(devices, axes.precisions, axes.frames):
        threads = axes.threads if device == NATIVE else (None,)
        for thread, batch, scenario, emit in product(threads, axes.batches, axes.scenarios, emits):
            yield Cell(
                model=model.label,
                device=device,
                precision=precision,
                emit=emit,
                batch=batch,
                frame=frame,
                threads=thread,
                scenario=scenario,
                work=tuple(work for work in axes.work if emit != "plain" or work not in ON_A_MAP),
            )


def _reason_against(cell: Cell, model: ModelOutline) -> str | None:
    """Why a combination cannot be measured, as a sentence; None where it can, as far as the file says."""
    if model.runtime is not None:
        return _reason_against_engine(cell, model)
    if model.batch is not None and model.batch != 1:
        return f"{model.label} takes {model.batch} images at a time, always; export it without --static-batch"
    if cell.precision != AS_IS:
        if model.head is None:
            return f"{cell.precision} is made of models with gapcam's contract, and {model.label} has none"
        if model.precision != "fp32":
            return (
                f"{cell.precision} is made of a float32 model, and {model.label} computes in {model.precision}; "
                "as-is measures it as it is"
            )
    if "bf16" in (cell.precision, model.precision if cell.precision == AS_IS else "") and cell.device == NATIVE:
        return "ONNX Runtime does not compute in bfloat16 on the CPU"
    if model.batch is not None and cell.batch != model.batch:
        return f"{model.label} takes {model.batch} image at a time, not {cell.batch}; export it without --static-batch"
    if cell.emit == "maps" and model.head is HeadKind.NONLINEAR and "maps" not in model.outputs:
        return f"the head of {model.label} is nonlinear: export it with --emit maps for every class's map"
    return None


def _reason_against_engine(cell: Cell, model: ModelOutline) -> str | None:
    kind = cell.device.partition(":")[0]
    if kind != model.runtime:
        return f"{model.label} is an engine of {model.runtime}, which device {cell.device} does not run"
    if cell.precision != AS_IS:
        return f"{model.label} is an engine, whose precision is as it was built; give the ONNX file"
    needed = {"plain": None, "features": None, "maps": "maps", "topk": "topk_maps"}[cell.emit]
    if cell.emit == "plain" and model.head is not None:
        return f"{model.label} is an engine, whose outputs cannot be taken away; give the ONNX file"
    if needed is not None and needed not in model.outputs:
        return f"{model.label} is an engine without the output {needed}; give the ONNX file"
    if model.batch is not None and cell.batch != model.batch:
        return f"{model.label} was built for {model.batch} images at a time, not {cell.batch}; gapcam build --batch"
    return None
