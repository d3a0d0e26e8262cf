"""One combination of a sweep: what one row of a report measures."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

Emit: TypeAlias = Literal["plain", "features", "maps", "topk"]
"""What the graph gives: logits only; feature maps, too; every class's map; the best classes' maps."""

ScenarioName: TypeAlias = Literal["single-stream", "multi-stream", "offline", "server", "camera"]

Work: TypeAlias = Literal["decode", "overlay", "boxes"]
"""What a frame goes through beside preprocessing, inference and map. With `plain` there is no map to draw or box."""

ON_A_MAP: tuple[Work, ...] = ("overlay", "boxes")
"""What needs a map."""

EMITS: tuple[Emit, ...] = get_args(Emit)
SCENARIOS: tuple[ScenarioName, ...] = get_args(ScenarioName)
WORK: tuple[Work, ...] = get_args(Work)

GAPCAM = "gapcam"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One combination.

    Attributes:
        subject: what is measured: "gapcam", or a peer by its name, such as "torch-cam, eager".
        model: the model's file as the user gave it.
        device: as `gapcam.load` takes it, such as "cpu" or "cuda:1"; never "auto".
        precision: "as-is" for the file's own, or the one that is made of it first: "fp16", "bf16", "int8".
        emit: what the graph gives.
        batch: images of one inference, at least 1.
        frame: (height, width) of the frames in pixels.
        threads: of one inference on the CPU; None for every physical core.
        scenario: how frames arrive.
        work: which of `WORK` a frame goes through, in that order.
    """

    subject: str = GAPCAM
    model: str
    device: str = "cpu"
    precision: str = "as-is"
    emit: Emit = "features"
    batch: Annotated[int, msgspec.Meta(ge=1)] = 1
    frame: tuple[int, int] = (720, 1280)
    threads: int | None = None
    scenario: ScenarioName = "single-stream"
    work: tuple[Work, ...] = WORK

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that are the same for the same combination, in every run."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]
