"""The output folder: what a run is of, how far it got, and that only one process works in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from gapcam.atomic_file import write_atomically
from gapcam.cli.output import check_output_folder
from gapcam.errors import DataError, UsageError
from gapcam_export.finetune.accuracy import Accuracy
from gapcam_export.finetune.settings import Settings

NETWORK, CURVE, METRICS, REPORT = "gapnet.pt2", "learning-curve.png", "metrics.csv", "report.json"
_RUN, _CHECKPOINTS, _LOCK = "run.json", ".gapcam-checkpoints", ".lock"

_CHECKPOINT_FILES = ("last.ckpt", "epoch-*.pt", ".gapcam-*.tmp")
"""What a run writes into the folder of its checkpoints."""


class Run(msgspec.Struct, kw_only=True):
    """What a run is of, and what is known before and after training.

    Attributes:
        network: SHA-256 of the network's file.
        data: the fingerprint of the images.
        settings: of the training.
        skipped: images that could not be read, by their place in the data folder, and why; None before the check.
        before: the network's accuracy before training; None before it was measured.
        original: the original network's; None if there is none, or before it was measured.
        original_spec: what the original is.
        original_weights: SHA-256 of the original's weights: two files may have the same name.
        finished: whether all results were written.
    """

    network: str
    data: str
    settings: Settings
    skipped: dict[str, str] | None = None
    before: Accuracy | None = None
    original: Accuracy | None = None
    original_spec: str = ""
    original_weights: str = ""
    finished: bool = False


class RunFolder:
    """The output folder of a run.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """The folder of what is needed to go on."""
        return self.path / _CHECKPOINTS

    @property
    def last_checkpoint(self) -> Path:
        """Of the last epoch that came to its end."""
        return self.checkpoints / "last.ckpt"

    def file(self, name: str) -> Path:
        """One of the results."""
        return self.path / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other runs out of it.

        Raises:
            DataError: it cannot be written, or another run works in it.
        """
        check_output_folder(self.path)
        lock = FileLock(self.path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"another run works in {self.path}; wait for it, or choose another folder with -o"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def unlocked(self) -> nullcontext[None]:
        """For the helpers of a run that has the lock."""
        return nullcontext()

    def open(self, network: str, data: str, settings: Settings, *, fresh: bool) -> Run:
        """The run that is here, or a new one.

        Args:
            network: SHA-256 of the network's file.
            data: fingerprint of the images.
            settings: of the training.
            fresh: forget the run that is here.

        Raises:
            UsageError: the run that is here is of something else.
            DataError: it cannot be read, or files of the results' names are here without a run.
        """
        run = None if fresh else self.read()
        if run is None:
            self._clear(fresh=fresh)
            run = Run(network=network, data=data, settings=settings)
            self.save(run)
            return run
        if run.network != network:
            raise self._other("of another network, or of this one before it was changed")
        for name in Settings.__struct_fields__:
            was, now = getattr(run.settings, name), getattr(settings, name)
            if was != now:
                raise self._other(f"with {name.replace('_', '-')} {was}, now it is {now}")
        if run.data != data:
            raise self._other("with other images")
        return run

    def opened(self) -> Run:
        """The run that another process has opened.

        Raises:
            DataError: there is none.
        """
        run = self.read()
        if run is None:
            raise DataError(f"{self.path / _RUN} has gone; begin again.")
        return run

    def read(self) -> Run | None:
        """The run that is here, or None.

        Raises:
            DataError: it cannot be read.
        """
        path = self.path / _RUN
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Run)
        except (OSError, msgspec.DecodeError) as error:
            raise DataError(f"{path} cannot be read ({error}); start anew with --fresh.") from error

    def check_network(self) -> None:
        """That a finished run's network is here.

        Raises:
            DataError: it is not.
        """
        path = self.path / NETWORK
        if not path.is_file():
            raise DataError(f"{path}, which the finished run there wrote, is missing; start anew with --fresh.")

    def save(self, run: Run) -> None:
        """Keep what is known of a run."""
        write_atomically(self.path / _RUN, msgspec.json.format(msgspec.json.encode(run)))

    def remove_checkpoints(self) -> None:
        """When they are needed no more; what else lies in their folder stays, and the folder then does, too."""
        with suppress(OSError):  # what cannot be removed takes room and does no harm
            for path in list(self.checkpoints.iterdir()) if self.checkpoints.is_dir() else []:
                if any(fnmatchcase(path.name, pattern) for pattern in _CHECKPOINT_FILES):
                    path.unlink()
            self.checkpoints.rmdir()

    def _clear(self, *, fresh: bool) -> None:
        there = [name for name in (NETWORK, CURVE, METRICS, REPORT) if (self.path / name).exists()]
        if there and not fresh:
            raise DataError(
                f"{self.path} has a {there[0]} that no run there wrote; choose another folder with -o, or let it be "
                "replaced with --fresh."
            )
        for name in (*there, _RUN):
            (self.path / name).unlink(missing_ok=True)
        self.remove_checkpoints()
        if self.last_checkpoint.exists():
            raise DataError(f"{self.last_checkpoint} is of an earlier run and cannot be removed; remove it.")

    def _other(self, what: str) -> UsageError:
        return UsageError(
            f"{self.path} has a run {what}. Give what it was given to go on with it, another folder with -o, or "
            "--fresh to start anew there."
        )
