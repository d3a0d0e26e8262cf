"""A piece of telemetry in a file: what was read while one block was measured."""

from __future__ import annotations

import io
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import numpy as np

from gapcam.atomic_file import cannot_write
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    channels: tuple[Channel, ...]
    lacking: dict[str, str]


def since(series: Series, count: int) -> Series:
    """The readings from the `count`th on."""
    return Series(
        time=series.time[count:],
        values={name: values[count:] for name, values in series.values.items()},
        channels=series.channels,
        lacking=series.lacking,
    )


def write_series(series: Series, path: Path) -> None:
    """Write a .npz file.

    Raises:
        DataError: the place cannot be written.
    """
    header = msgspec.json.encode(_Header(channels=series.channels, lacking=series.lacking))
    rows = np.array([series.values[channel.name] for channel in series.channels], np.float64)
    try:
        np.savez(path, header=np.frombuffer(header, np.uint8), time=series.time, values=rows)
    except OSError as error:
        raise cannot_write(path, error) from error


def read_series(path: Path) -> Series:
    """Read it.

    Raises:
        OSError: it is not there.
        ValueError: it is damaged.
        KeyError: likewise.
    """
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            header = msgspec.json.decode(arrays["header"].tobytes(), type=_Header)
            time, rows = arrays["time"], arrays["values"]
    except (EOFError, BadZipFile) as error:
        raise ValueError(str(error)) from error
    return Series(
        time=time,
        values={channel.name: row for channel, row in zip(header.channels, rows, strict=True)},
        channels=header.channels,
        lacking=header.lacking,
    )
