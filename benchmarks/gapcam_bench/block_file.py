"""A block as two files: block.npz with the arrays, and block.json, which is written last and so says that all is there.

block.json is {"arrays_sha256": ..., "facts": ...}: the hash of block.npz, and `gapcam_bench.block.BlockFacts`.

| name          | what                                                             |
| ------------- | ---------------------------------------------------------------- |
| `wall/STAGE`  | int64 nanoseconds by the host's clock, one a sample; with `total` |
| `device/STAGE` | int64 nanoseconds by the device's events, likewise               |
| `at`          | int64 nanoseconds from the block's start to each sample's        |
| `yardstick`   | int64 nanoseconds of the fixed piece of work, before              |
| `yardstick_after` | likewise, after                                               |
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam_bench.block import Block, BlockFacts
from gapcam_bench.scenarios.measured import Measured

ARRAYS, FACTS = "block.npz", "block.json"

_WALL, _DEVICE, _AT, _TOTAL = "wall/", "device/", "at", "total"
_YARDSTICK, _AFTER = "yardstick", "yardstick_after"


class _File(msgspec.Struct, frozen=True, kw_only=True):
    arrays_sha256: str
    facts: BlockFacts


def write_block(block: Block, folder: Path) -> None:
    """Write a block's two files, each whole or not at all; an older block there is replaced.

    Raises:
        DataError: the place cannot be written.
    """
    from gapcam.atomic_file import write_atomically  # here: a worker must not import gapcam before it times that

    measured = block.measured
    arrays: dict[str, NDArray[np.int64]] = {
        _AT: measured.at,
        _YARDSTICK: block.yardstick,
        _AFTER: block.yardstick_after,
    }
    arrays |= {_WALL + stage: values for stage, values in measured.wall.items()}
    arrays |= {_DEVICE + stage: values for stage, values in measured.device.items()}
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]  # its stubs take a keyword's value for the option allow_pickle
    (folder / FACTS).unlink(missing_ok=True)  # the two belong together
    content = packed.getvalue()
    write_atomically(folder / ARRAYS, content)
    file = _File(arrays_sha256=hashlib.sha256(content).hexdigest(), facts=block.facts)
    write_atomically(folder / FACTS, msgspec.json.format(msgspec.json.encode(file)))


def read_block(folder: Path) -> Block:
    """Read what `write_block` wrote.

    Raises:
        DataError: there is no block, half of one, or one that is damaged.
    """
    from gapcam.errors import DataError

    try:
        file = msgspec.json.decode((folder / FACTS).read_bytes(), type=_File)
        content = (folder / ARRAYS).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no whole block: there is no {Path(str(error.filename)).name}") from None
    except OSError as error:
        raise DataError(f"the block in {folder} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DataError(
            f"the block in {folder} is damaged: {' '.join(str(error).split())}; measure it again"
        ) from error
    if hashlib.sha256(content).hexdigest() != file.arrays_sha256:
        raise DataError(f"the block in {folder} is damaged: {ARRAYS} is not what {FACTS} names; measure it again")
    arrays: dict[str, NDArray[np.int64]] = {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            arrays |= {name: held[name] for name in held.files}
        wrong = _wrong(arrays)
    # Its hash is right, so it was written so: by another program, or another version.
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        wrong = " ".join(str(error).split())
    if wrong:
        raise DataError(f"the block in {folder} is damaged: {wrong}; measure it again")
    facts = file.facts
    measured = Measured(
        facts=facts.facts,
        wall=_stages(arrays, _WALL),
        device=_stages(arrays, _DEVICE),
        at=arrays[_AT],
        span=(facts.began_at, facts.ended_at),
    )
    return Block(facts=facts, measured=measured, yardstick=arrays[_YARDSTICK], yardstick_after=arrays[_AFTER])


def _stages(arrays: dict[str, NDArray[np.int64]], prefix: str) -> dict[str, NDArray[np.int64]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _wrong(arrays: dict[str, NDArray[np.int64]]) -> str:
    """What is wrong with the arrays; "" for nothing."""
    for needed in (_AT, _YARDSTICK, _AFTER, _WALL + _TOTAL):
        if needed not in arrays:
            return f"it has no array {needed!r}"
    count = len(arrays[_AT].reshape(-1))
    for name, values in arrays.items():
        if name not in (_AT, _YARDSTICK, _AFTER) and not name.startswith((_WALL, _DEVICE)):
            return f"it has an array {name[:40]!r}, which no block has"
        if values.dtype != np.int64 or values.ndim != 1:
            return f"{name!r} is {values.dtype} with {values.ndim} axes; expected int64 with one"
        if name not in (_YARDSTICK, _AFTER) and len(values) != count:
            return f"{name!r} has {len(values)} values and 'at' {count}"
        if name != _AT and (values < 0).any():
            return f"{name!r} has a negative time"
    return ""
