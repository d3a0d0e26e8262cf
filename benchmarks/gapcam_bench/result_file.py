"""Writes and reads a benchmark's result: RESULT.json and, beside it, RESULT.npz with the raw samples.

The two files belong together: the JSON holds the samples' hash. Files cannot be replaced two at a time, so the new
samples wait under a name of their own, RESULT.npz.new, until the JSON that names their hash is in its place, and take
the old ones' place then. Whoever reads after a kill in between finds the samples of the JSON that is there: the old
ones beside the old JSON, or those that wait beside the new.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam.atomic_file import check_writable, write_atomically
from gapcam.errors import DataError
from gapcam_bench.contradiction import contradiction
from gapcam_bench.result import BLOCK_FACTS, SCHEMA, TRIAL_FACTS, VERSION, BenchResult, Row, Samples

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

MOST_SAMPLES_BYTES = 4 << 30
"""Of all arrays together: far more than a day of samples. A file of zeros packs a thousand times as much."""

_ABOVE_ZERO = ("/wall/total", "/wall/latency", "/wall/age", "/yardstick", "/yardstick_after")
"""Arrays of what cannot take no time at all."""

_KNOWN_FACTS = ("round", "seconds", "import_s", "load_s", "first_result_s")
"""Of every block."""

_LONGEST_NS = 1 << 53
"""104 days, and what float64 holds exactly: a sum of stages cannot overflow."""

_GREATEST_READING = 1e30
"""Of telemetry, in any unit: above every counter of 64 bits, and far from where arithmetic overflows."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedResult:
    """A result that was read and checked.

    Attributes:
        path: of the JSON.
        result: what it says.
        arrays: raw samples by the names of `gapcam_bench.result`; empty where there are none.
        lacks_samples: a sentence that says why there are none; None where they are there.
    """

    path: Path
    result: BenchResult
    arrays: Arrays
    lacks_samples: str | None = None

    def needed_arrays(self) -> Arrays:
        """The arrays, for what cannot do without.

        Raises:
            DataError: there are none.
        """
        if self.lacks_samples is not None:
            raise DataError(f"{self.lacks_samples}; this needs the raw samples: put them beside the JSON.")
        return self.arrays


class _Head(msgspec.Struct):
    """What tells a result from any other JSON, and its version."""

    schema: Any = None
    version: Any = None


def samples_path(path: Path) -> Path:
    """Where the samples of a result lie: RESULT.npz beside RESULT.json."""
    return path.with_name(path.name.removesuffix(".json") + ".npz")


def check_result_writable(path: Path) -> None:
    """Notice before long work that a result cannot be written.

    Raises:
        DataError: one of its two files cannot be, or the samples would replace a file that belongs to no result.
    """
    check_writable(path)
    samples = samples_path(path)
    check_writable(samples)
    check_writable(_waiting(samples))
    if samples.exists() and not path.exists():
        raise DataError(f"{samples} is there without {path.name}, and would be replaced; name another file.")


def write_result(result: BenchResult, arrays: Arrays, path: Path) -> BenchResult:
    """Write a result, and return what was written. An older one is replaced as a whole, or stays as it was.

    Args:
        result: whose `samples` are filled in here.
        arrays: raw samples by the names of `gapcam_bench.result`; without any, no file of samples is written.
        path: of the JSON; the samples' is `samples_path(path)`.

    Raises:
        DataError: the place cannot be written.
    """
    samples = samples_path(path)
    _finish(path)
    if not arrays:
        result = msgspec.structs.replace(result, samples=None)
        write_atomically(path, _json(result))
        return result
    packed = io.BytesIO()
    # NumPy's stub takes the keyword `allow_pickle` for an array.
    np.savez_compressed(packed, **dict(arrays))  # type: ignore[arg-type]
    content = packed.getbuffer()
    named = Samples(file=samples.name, sha256=hashlib.sha256(content).hexdigest())
    write_atomically(_waiting(samples), content)
    result = msgspec.structs.replace(result, samples=named)
    write_atomically(path, _json(result))
    _waiting(samples).replace(samples)
    return result


def read_result(path: Path) -> LoadedResult:
    """Read a result and its samples, and check that they are what they say.

    Raises:
        DataError: no result, one of another version, a damaged one, or samples of another run.
    """
    result = _read_json(path)
    if result.samples is None:
        return LoadedResult(path, result, {}, f"{path} was written without raw samples")
    name = result.samples.file
    if not _is_plain_name(name):
        raise DataError(
            f"{path} names {name!r} as its samples; expected a file's name without a folder. It is damaged."
        )
    samples = path.with_name(name)
    content = _samples_content(path, samples, result.samples.sha256)
    if content is None:
        return LoadedResult(path, result, {}, f"{samples}, the raw samples of {path.name}, is not there")
    arrays = _unpacked(samples, content)
    _check_arrays(samples, result, arrays)
    wrong = contradiction(result, arrays)
    if wrong is not None:
        raise DataError(f"{path} is damaged: {wrong}; measure again.")
    return LoadedResult(path, result, arrays)


def _json(result: BenchResult) -> bytes:
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def _waiting(samples: Path) -> Path:
    return samples.with_name(samples.name + ".new")


def _finish(path: Path) -> None:
    """Do what a writer was killed before it could: samples that wait, and that the JSON names, take their place."""
    samples = samples_path(path)
    waiting = _waiting(samples)
    if not waiting.is_file():
        return
    try:
        named = _read_json(path).samples
        if named is not None and named.file == samples.name and _sha256(waiting.read_bytes()) == named.sha256:
            waiting.replace(samples)
    except (DataError, OSError):  # no result there, or none that can be read: nothing to finish
        return


def _read_json(path: Path) -> BenchResult:
    content = _content(path)
    try:
        head = msgspec.json.decode(content, type=_Head)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DataError(f"{path} is no result of gapcam bench: {error}; name a RESULT.json that it wrote.") from error
    if head.schema != SCHEMA:
        raise DataError(
            f"{path} is no result of gapcam bench: its schema is {_brief(head.schema)}, expected {SCHEMA!r}; "
            "name a RESULT.json that it wrote."
        )
    if head.version != VERSION or isinstance(head.version, bool):
        raise DataError(
            f"{path} is of version {_brief(head.version)} of the result's schema; this gapcam reads version {VERSION}. "
            "Measure again, or read it with the gapcam that wrote it."
        )
    try:
        result = msgspec.json.decode(content, type=BenchResult)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}; measure again.") from error
    ids = [row.id for row in result.rows]
    if len(set(ids)) != len(ids):
        raise DataError(f"{path} is damaged: two of its rows have the same id; measure again.")
    return result


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the RESULT.json in it.")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file; name a RESULT.json.")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"There is no {path}; name a RESULT.json that gapcam bench wrote.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _samples_content(path: Path, samples: Path, sha256: str) -> bytes | None:
    """The samples that the JSON names, perhaps renamed together with it; None where they are not there."""
    others: list[tuple[Path, str]] = []
    for place in dict.fromkeys((samples, _waiting(samples), samples_path(path))):
        if not place.exists():
            continue
        content = _content(place)
        if (found := _sha256(content)) == sha256:
            return content
        others.append((place, found))
    if not others:
        return None
    place, found = others[0]
    raise DataError(
        f"{place} holds other samples than those that {path.name} was computed from (sha256 {found[:12]}, expected "
        f"{sha256[:12]}): it is of another run, or damaged. Put the two files of one run side by side, or move the "
        "samples away to read the JSON alone."
    )


def _unpacked(samples: Path, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_SAMPLES_BYTES:
            raise DataError(
                f"{samples} would unpack to {size / 1e9:.1f} GB; expected at most {MOST_SAMPLES_BYTES / 1e9:.1f} GB. "
                "It is damaged."
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except DataError:
        raise
    # What a damaged archive does to zipfile, zlib and NumPy's parser of headers has no common type: a dozen of them.
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{samples} is damaged: {said}; measure again, or move it away to read the JSON alone."
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{samples} is damaged: {_brief(name)} is no array; move it away to read the JSON alone.")
    return arrays


def _check_arrays(samples: Path, result: BenchResult, arrays: Arrays) -> None:
    wrong = next(_wrong_arrays(result, arrays), None)
    if wrong is not None:
        raise DataError(f"{samples} is damaged: {wrong}; measure again, or move it away to read the JSON alone.")


def _wrong_arrays(result: BenchResult, arrays: Arrays) -> Iterator[str]:
    """What is wrong with the arrays, a phrase each; what comes after the first may not make sense."""
    for row in result.rows:
        if row.blocks:
            yield from _wrong_row(row, arrays)
    if result.channels:
        times = arrays.get("telemetry/time", np.empty(0))
        names = [f"telemetry/value/{channel.name}" for channel in result.channels]
        yield from _wrong(arrays, ["telemetry/time", *names], np.float64, (times.size,))
        if not np.all(np.isfinite(times)) or np.any(np.diff(times) < 0):
            yield "telemetry/time does not rise"
        for name in names:
            if np.any(np.abs(arrays[name]) > _GREATEST_READING):
                yield f"{_brief(name)} holds readings out of range"
        if "telemetry/idle" in arrays:
            yield from _wrong(arrays, ["telemetry/idle"], np.float64, (arrays["telemetry/idle"].size // 2, 2))


def _wrong_row(row: Row, arrays: Arrays) -> Iterator[str]:
    block = arrays.get(f"{row.id}/block", np.empty(0))
    yardsticks = [f"{row.id}/yardstick"]
    yardsticks += [name for name in (f"{row.id}/yardstick_after",) if name in arrays]  # older results have none
    stages = [f"{row.id}/wall/{name}" for name in ("total", *row.wall) if name != "unexplained"]
    stages += [f"{row.id}/device/{name}" for name in row.device]
    stages += [n for n in arrays if n.startswith((f"{row.id}/wall/", f"{row.id}/device/")) and n not in stages]
    facts = [f"{row.id}/blocks/{name}" for name in BLOCK_FACTS]
    yield from _wrong(arrays, [f"{row.id}/block"], np.int32, (block.size,))
    yield from _wrong(arrays, [*stages, f"{row.id}/at"], np.int64, block.shape)
    for name in yardsticks:
        owners = arrays.get(f"{name}_block", np.empty(0))
        yield from _wrong(arrays, [f"{name}_block"], np.int32, (owners.size,))
        yield from _wrong(arrays, [name], np.int64, owners.shape)
    yield from _wrong(arrays, facts, np.float64, (row.blocks,))
    yield from _wrong(arrays, [f"{row.id}/span"], np.float64, (row.blocks, 2))
    for name in (*stages, f"{row.id}/at", *yardsticks):
        values = arrays[name]
        least = 1 if name.endswith(_ABOVE_ZERO) else 0
        if values.size and not least <= values.min() <= values.max() < _LONGEST_NS:
            yield f"{name} holds durations out of range"
    for name in (f"{row.id}/span", *(f"{row.id}/blocks/{fact}" for fact in _KNOWN_FACTS)):
        if not np.all(np.isfinite(arrays[name])) or np.any(arrays[name] < 0):
            yield f"{name} holds what is no time"
    rounds = arrays[f"{row.id}/blocks/round"]
    if not np.array_equal(np.unique(block), rounds):
        yield f"the samples of {row.id} are of other blocks than the row's"
    if not all(np.isin(arrays[f"{name}_block"], rounds).all() for name in yardsticks):
        yield f"the yardstick of {row.id} is of other blocks than the row's"
    if f"{row.id}/trials/round" in arrays:
        names = [f"{row.id}/trials/{name}" for name in TRIAL_FACTS]
        yield from _wrong(arrays, names, np.float64, (arrays[names[0]].size,))


def _wrong(arrays: Arrays, names: list[str], dtype: type, shape: tuple[int, ...]) -> Iterator[str]:
    for name in names:
        array = arrays.get(name)
        if array is None:
            yield f"it has no {_brief(name)}"
        elif array.dtype != dtype or array.shape != shape:
            yield f"{_brief(name)} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}"


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0", ":"}


def _brief(value: object) -> str:
    """As Python writes it, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
