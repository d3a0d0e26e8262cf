"""Files that a sink would take from a source or from another sink: noticed before anything is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from gapcam.camera.sinks.file_names import identity
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sources.protocol import Source
from gapcam.cli.inputs import find_images
from gapcam.errors import UsageError


@runtime_checkable
class FileSink(Protocol):
    """What a sink that writes files has beside the methods of `Sink`, to have them looked after."""

    def endangered(self, read: Sequence[Path]) -> Path | None:
        """The first of these files, which are read, that it might change, replace or delete."""

    def clashes_with(self, other: Sink) -> bool:
        """Whether the other one writes to the same files."""


def check_files_of(sink: Sink, sources: Iterable[Source], others: Iterable[Sink]) -> None:
    """Refuse a sink that would write over a file of a source or of another sink, whatever name or link it is given by.

    Raises:
        UsageError: it would.
    """
    if not isinstance(sink, FileSink):
        return
    for source in sources:
        path = None if source.live else sink.endangered(_files_of(source))
        if path is not None:
            raise UsageError(
                f"the sink {sink.name} would write over {path}, which the source {source.name!r} reads; give the sink "
                "another place"
            )
    for other in others:
        if sink.clashes_with(other):
            raise UsageError(
                f"the sinks {other.name} and {sink.name} write to the same files; give one of them another place"
            )


def check_spares_files(sink: Sink, read: Sequence[Path]) -> None:
    """Refuse a sink that would write over a file that is read beside the sources: a model, a token.

    Raises:
        UsageError: it would.
    """
    path = sink.endangered(read) if isinstance(sink, FileSink) else None
    if path is not None:
        raise UsageError(f"the sink {sink.name} would write over {path}, which is read; give the sink another place")


def _files_of(source: Source) -> list[Path]:
    found = (image.path for image in find_images([source.uri], recursive=False) if not image.problem)
    return [path for path in found if identity(path) is not None]  # test:// is none
