"""Keeps samples while a scenario runs, and makes arrays of them afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.scenarios.driver import Inference
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts
from gapcam_bench.subjects.protocol import STAGES


class SampleLog:
    """Samples in the order in which they are added."""

    def __init__(self) -> None:
        self._at: list[int] = []
        self._wall: list[Mapping[str, int]] = []
        self._device: list[Mapping[str, int]] = []

    def __len__(self) -> int:
        return len(self._at)

    def add(self, at: int, *inferences: Inference, **more: int) -> None:
        """Note one sample.

        Args:
            at: nanoseconds from the block's start to the sample's.
            inferences: that it took; their stages are added up. The total is from the first's beginning to the last's
                end.
            more: latency or age, in nanoseconds.
        """
        wall = {**more, "total": inferences[-1].ended - inferences[0].began}
        self._at.append(at)
        self._wall.append(_sums([each.stages.wall for each in inferences]) | wall)
        self._device.append(_sums([each.stages.device for each in inferences]))

    def of(self, name: str) -> NDArray[np.int64]:
        """Nanoseconds by the host's clock of one stage, total, latency or age."""
        return np.array([each.get(name, 0) for each in self._wall], np.int64)

    def measured(self, facts: ScenarioFacts) -> Measured:
        """All of it as arrays."""
        return Measured(
            facts=facts, wall=_arrays(self._wall), device=_arrays(self._device), at=np.array(self._at, np.int64)
        )


def _sums(stages: list[dict[str, int]]) -> dict[str, int]:
    if len(stages) == 1:
        return stages[0]
    names = {name: None for each in stages for name in each}
    return {name: sum(each.get(name, 0) for each in stages) for name in names}


def _arrays(samples: list[Mapping[str, int]]) -> dict[str, NDArray[np.int64]]:
    there = {name: None for sample in samples for name in sample}
    order = [*(name for name in STAGES if name in there), *(name for name in there if name not in STAGES)]
    return {name: np.array([sample.get(name, 0) for sample in samples], np.int64) for name in order}
