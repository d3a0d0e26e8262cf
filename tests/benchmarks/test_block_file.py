"""A block comes back as it was written, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gapcam.errors import DataError
from gapcam_bench.block import Block, Parity
from gapcam_bench.block_file import ARRAYS, FACTS, read_block, write_block
from gapcam_bench.cell import Cell


@pytest.fixture
def block(make_block: Callable[..., Block]) -> Block:
    parity = Parity(
        against="m.onnx", pictures=4, top1=0.75, logits_error=1e-7, map_correlation=0.5, holds=False, tolerance=0.01
    )
    return make_block(Cell(model="m.onnx", device="cuda"), 3, count=7, parity=parity, notes=("a note", "ä"))


def test_what_is_read_is_what_was_written(block: Block, tmp_path: Path) -> None:
    write_block(block, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FACTS, ARRAYS]
    found = read_block(tmp_path)
    assert found.facts == block.facts
    assert found.measured.facts == block.measured.facts
    for given, read in ((block.measured.wall, found.measured.wall), (block.measured.device, found.measured.device)):
        assert list(read) == list(given)
        for stage, values in given.items():
            np.testing.assert_array_equal(read[stage], values)
    np.testing.assert_array_equal(found.measured.at, block.measured.at)
    np.testing.assert_array_equal(found.yardstick, block.yardstick)


def test_it_replaces_an_older_block(block: Block, make_block: Callable[..., Block], tmp_path: Path) -> None:
    write_block(make_block(Cell(model="other.onnx"), 0, count=3), tmp_path)
    write_block(block, tmp_path)
    assert read_block(tmp_path).facts == block.facts


@pytest.mark.parametrize("missing", [FACTS, ARRAYS])
def test_half_a_block_is_none(block: Block, tmp_path: Path, missing: str) -> None:
    write_block(block, tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=rf"no whole block.*{missing}"):
        read_block(tmp_path)


def changed(folder: Path, **arrays: np.ndarray | None) -> None:
    """Write a block's arrays again with some changed; None takes one away. "__" in a name stands for "/"."""
    with np.load(folder / ARRAYS) as held:
        kept = {name: held[name] for name in held.files}
    for name, values in arrays.items():
        if values is None:
            del kept[name.replace("__", "/")]
        else:
            kept[name.replace("__", "/")] = values
    packed = io.BytesIO()
    np.savez(packed, **kept)
    (folder / ARRAYS).write_bytes(packed.getvalue())
    facts = json.loads((folder / FACTS).read_text())
    facts["arrays_sha256"] = hashlib.sha256(packed.getvalue()).hexdigest()
    (folder / FACTS).write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"at": None}, "no array 'at'"),
        ({"yardstick": None}, "no array 'yardstick'"),
        ({"wall__total": None}, "no array 'wall/total'"),
        ({"wall__total": np.zeros(7)}, "float64"),
        ({"wall__total": np.zeros((7, 1), np.int64)}, "2 axes"),
        ({"wall__total": np.zeros(6, np.int64)}, "6 values"),
        ({"wall__cam": np.full(7, -1)}, "negative"),
        ({"other": np.zeros(7, np.int64)}, "no block has"),
        ({"wall__cam": np.array([None] * 7)}, "damaged"),
    ],
)
def test_arrays_that_no_block_has_are_refused(
    block: Block, tmp_path: Path, arrays: dict[str, np.ndarray | None], said: str
) -> None:
    write_block(block, tmp_path)
    changed(tmp_path, **arrays)
    with pytest.raises(DataError, match=said):
        read_block(tmp_path)


def test_damage_anywhere_is_refused_or_harmless(block: Block, tmp_path: Path) -> None:
    """A file cut off, or with a byte changed, is a DataError or reads as another block: never another exception."""
    write_block(block, tmp_path)
    random = np.random.default_rng(0)
    for name in (FACTS, ARRAYS):
        content = (tmp_path / name).read_bytes()
        refused = 0
        for at in random.integers(0, len(content), 40).tolist():
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(random.integers(0, 8))
            for damaged in (content[:at], bytes(flipped)):
                (tmp_path / name).write_bytes(damaged)
                try:
                    read_block(tmp_path)
                except DataError:
                    refused += 1
        (tmp_path / name).write_bytes(content)
        assert refused == 80 if name == ARRAYS else refused >= 40, "what is cut off, at least"
    read_block(tmp_path)
