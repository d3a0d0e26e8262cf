"""Profiles and buffers of an engine: arithmetic, by hand."""

from __future__ import annotations

import pytest
from engine_headers import a_header

from gapcam.backends.tensorrt_shapes import (
    batch_shape,
    check_tensors,
    known_shape,
    largest_shape,
    nbytes,
    profile_of,
)
from gapcam.engine_file import EngineTensor, ShapeRange
from gapcam.errors import BackendError, ModelError

OPEN = EngineTensor(name="image", shape=(None, 3, None, None), dtype="float32")
FIXED = EngineTensor(name="image", shape=(1, 3, 8, 8), dtype="float32")
SMALL = {"image": ShapeRange(min=(1, 3, 8, 8), opt=(1, 3, 16, 16), max=(2, 3, 32, 32))}
WIDE = {"image": ShapeRange(min=(1, 3, 8, 64), opt=(4, 3, 8, 64), max=(8, 3, 8, 128))}


@pytest.mark.parametrize(
    ("shape", "number"),
    [((1, 3, 8, 8), 0), ((2, 3, 32, 32), 0), ((1, 3, 8, 64), 1), ((8, 3, 8, 128), 1), ((2, 3, 9, 31), 0)],
)
def test_the_first_profile_that_covers_a_shape_is_taken(shape: tuple[int, ...], number: int) -> None:
    assert profile_of((SMALL, WIDE), OPEN, shape) == number


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (3, 3, 8, 8), (1, 3, 33, 8), (1, 4, 8, 8), (1, 3, 8), (1, 3, 8, 8, 1)])
def test_a_shape_that_none_covers_is_told_what_is_covered(shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match="1 x 3 x 8 x 8 to 2 x 3 x 32 x 32 or 1 x 3 x 8 x 64 to 8 x 3 x 8 x 128"):
        profile_of((SMALL, WIDE), OPEN, shape)


def test_an_engine_without_open_sides_takes_that_shape_alone() -> None:
    assert profile_of((), FIXED, (1, 3, 8, 8)) == 0
    with pytest.raises(BackendError, match="takes an input of 1 x 3 x 8 x 8, and got 2 x 3 x 8 x 8"):
        profile_of((), FIXED, (2, 3, 8, 8))


def test_the_largest_shape_is_the_one_with_most_elements() -> None:
    assert largest_shape((SMALL, WIDE), OPEN) == (8, 3, 8, 128)  # 24576 against 6144
    assert largest_shape((SMALL,), OPEN) == (2, 3, 32, 32)
    assert largest_shape((), FIXED) == (1, 3, 8, 8)
    with pytest.raises(ModelError, match=r"\? x 3 x \? x \?, and no profile"):
        largest_shape((), OPEN)


def test_a_batch_has_the_sides_that_its_profile_is_tuned_for() -> None:
    assert batch_shape((SMALL, WIDE), OPEN, 2) == (2, 3, 16, 16)
    assert batch_shape((SMALL, WIDE), OPEN, 3) == (3, 3, 8, 64)
    assert batch_shape((), FIXED, 1) == (1, 3, 8, 8)
    for profiles, tensor, batch in (((SMALL, WIDE), OPEN, 9), ((SMALL,), OPEN, 0), ((), FIXED, 2)):
        with pytest.raises(BackendError):
            batch_shape(profiles, tensor, batch)


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [((1, 3, 224, 224), "float32", 602112), ((2, 5), "float16", 20), ((7,), "int64", 56), ((0, 3), "float32", 1)],
)
def test_bytes_are_elements_times_their_size_and_never_none(shape: tuple[int, ...], dtype: str, expected: int) -> None:
    assert nbytes(shape, dtype) == expected


def test_a_side_that_only_a_run_would_tell_is_refused() -> None:
    assert known_shape("logits", (1, 3)) == (1, 3)
    with pytest.raises(BackendError, match=r"boxes is 1 x \?: its size is only known when it has run"):
        known_shape("boxes", (1, -1))


def test_tensors_must_be_the_header_s() -> None:
    check_tensors(a_header(), {"image": "FLOAT", "logits": "FLOAT"}, "m.engine")
    with pytest.raises(ModelError, match=r"m\.engine holds an engine with image float32, logits float16, and"):
        check_tensors(a_header(), {"image": "FLOAT", "logits": "HALF"}, "m.engine")
    with pytest.raises(ModelError, match="holds an engine with image float32, and its header"):
        check_tensors(a_header(), {"image": "FLOAT"}, "m.engine")
    with pytest.raises(ModelError, match="logits bf16, which NumPy has no type for"):
        check_tensors(a_header(), {"image": "FLOAT", "logits": "BF16"}, "m.engine")
