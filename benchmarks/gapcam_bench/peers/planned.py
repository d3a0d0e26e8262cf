"""What `gapcam bench peers` measures: gapcam and its peers, drawing and not drawing, on the same frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gapcam.contract import Contract
from gapcam_bench.cell import GAPCAM, Cell, Emit, Work
from gapcam_bench.peers.names import PEERS, why_not
from gapcam_bench.sweep.plan import PlannedCell

DRAWN: tuple[Work, ...] = ("overlay",)
MAP_ALONE: tuple[Work, ...] = ()


def peer_cells(
    model: str, contract: Contract, subjects: Sequence[str], *, frames: Sequence[tuple[int, int]], threads: int
) -> tuple[PlannedCell, ...]:
    """The cells, those that are compared with one another together: overlays of each frame, then maps of the first.

    The map alone depends on the frame's size only by the preprocessing, so one size is enough. gapcam has three rows of
    its own: with the features (the default), with the best classes' maps computed in the graph, and the classifier
    without a map, for scale.

    Args:
        model: the name that cells have for it.
        contract: of it.
        subjects: "gapcam", which is always measured, and peers' names.
        frames: (height, width) in pixels.
        threads: of each subject.
    """
    groups = [(frame, DRAWN) for frame in frames] + [(frame, MAP_ALONE) for frame in frames[:1]]
    return tuple(
        PlannedCell(
            cell=Cell(
                subject=subject,
                model=model,
                device="cpu",
                emit=emit,
                frame=frame,
                threads=threads,
                work=work if emit != "plain" else (),
            ),
            skipped=None if subject == GAPCAM else why_not(PEERS[subject], contract),
        )
        for frame, work in groups
        for subject, emit in _ways(subjects, work)
    )


def _ways(subjects: Sequence[str], work: tuple[Work, ...]) -> Iterator[tuple[str, Emit]]:
    yield GAPCAM, "features"
    yield GAPCAM, "topk"
    if work == MAP_ALONE:
        yield GAPCAM, "plain"
    yield from ((subject, "features") for subject in subjects if subject != GAPCAM)
