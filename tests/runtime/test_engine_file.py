"""An engine file is what was written, or it is refused with a line that says what to do."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_headers import PLAN, TENSORS, a_header

import gapcam
from gapcam.engine_file import MAGIC, is_engine, read_engine, write_engine

HEAD = 48


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    write_engine(path, a_header(), TENSORS, PLAN)
    return path


def rewritten(path: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """Change the index and make the checksum right again."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    index = json.loads(content[HEAD : HEAD + length])
    change(index)
    return write_index(path, json.dumps(index).encode())


def write_index(path: Path, text: bytes) -> Path:
    """Put another index into a file, with a checksum that is right."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    text += b" " * (-(HEAD + len(text)) % 64)
    before = content[:12] + struct.pack("<I", len(text))
    rest = text + content[HEAD + length :]
    path.write_bytes(before + hashlib.sha256(before + rest).digest() + rest)
    return path


def test_what_is_read_is_what_was_written(engine: Path) -> None:
    with read_engine(engine) as read:
        assert read.header == a_header()
        assert read.metadata == a_header().metadata
        assert bytes(read.plan) == PLAN
        assert read.plan.readonly
        assert list(read.tensors) == list(TENSORS)
        for name, tensor in TENSORS.items():
            assert read.tensors[name].dtype == tensor.dtype
            np.testing.assert_array_equal(read.tensors[name], tensor)
    assert read.tensors["cam_bias"][1] == -2  # they outlive the file
    with pytest.raises(ValueError, match="released"):
        bytes(read.plan)
    read.close()


def test_the_file_is_as_the_documentation_says_byte_by_byte(engine: Path) -> None:
    content = engine.read_bytes()
    assert content[:8] == b"\x89GAPCAM\n"
    version, length = struct.unpack_from("<II", content, 8)
    assert version == 1
    assert content[16:48] == hashlib.sha256(content[:16] + content[48:]).digest()
    data = 48 + length
    assert data % 64 == 0
    index = json.loads(content[48:data])
    assert index["header"]["targets"] == ["sm_87"]
    weights, bias = index["tensors"]
    assert (weights["name"], weights["dtype"], weights["shape"]) == ("cam_weights", "float32", [3, 5])
    begin = data + weights["offset"]
    assert content[begin : begin + weights["length"]] == TENSORS["cam_weights"].astype("<f4").tobytes()
    assert bias["offset"] % 64 == 0
    assert content[data + index["plan_offset"] :] == PLAN
    assert len(content) == data + index["plan_offset"] + index["plan_length"]


def test_an_engine_without_constants_has_none(tmp_path: Path) -> None:
    write_engine(tmp_path / "a.engine", a_header(), {}, memoryview(PLAN))
    with read_engine(tmp_path / "a.engine") as read:
        assert read.tensors == {}
        assert bytes(read.plan) == PLAN


@pytest.mark.parametrize("size", [0, 4, 8, 20, 47, 48, 60, 600, -4000, -1])
def test_a_file_that_was_cut_off_is_refused(engine: Path, size: int) -> None:
    content = engine.read_bytes()
    engine.write_bytes(content[: size if size >= 0 else len(content) + size])
    with pytest.raises(gapcam.ModelError, match=r"is empty|is cut off|cut off|is no engine file") as refused:
        read_engine(engine)
    assert "\n" not in str(refused.value)


def test_a_changed_bit_anywhere_is_noticed(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    for position in (0, 9, 13, 17, 47, 48, 100, 1000, len(content) // 2, len(content) - 1):
        content[position] ^= 4
        engine.write_bytes(content)
        with pytest.raises(gapcam.ModelError):
            read_engine(engine)
        content[position] ^= 4
    engine.write_bytes(content)
    read_engine(engine).close()


def test_damage_is_said_with_what_to_do(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[-7] ^= 1
    engine.write_bytes(content)
    with pytest.raises(gapcam.ModelError, match=r"damaged or cut off: its checksum is wrong; copy it again, or build"):
        read_engine(engine)


def test_a_longer_file_is_damaged(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes() + b"more")
    with pytest.raises(gapcam.ModelError, match="damaged"):
        read_engine(engine)


def test_a_newer_format_asks_for_an_update(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[8] = 2
    engine.write_bytes(content)
    with pytest.raises(gapcam.ModelError, match=r"of version 2; this gapcam knows version 1\. Update gapcam, or build"):
        read_engine(engine)


def test_a_length_that_is_no_length_reserves_no_memory(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    struct.pack_into("<I", content, 12, 0xFFFFFFFF)
    engine.write_bytes(content)
    with pytest.raises(gapcam.ModelError, match="cut off or damaged"):
        read_engine(engine)


def image(index: dict[str, Any]) -> dict[str, Any]:
    """What the header says of the input."""
    found: dict[str, Any] = index["header"]["inputs"][0]
    return found


def profile(index: dict[str, Any]) -> dict[str, Any]:
    """The shapes of its one profile."""
    found: dict[str, Any] = index["header"]["profiles"][0]["image"]
    return found


LIES: dict[str, Callable[[dict], None]] = {  # type: ignore[type-arg]
    "a huge shape": lambda index: index["tensors"][0].update(shape=[2**40, 2**40]),
    "a shape that it does not fill": lambda index: index["tensors"][0].update(shape=[3, 4]),
    "a negative length": lambda index: index["tensors"][0].update(length=-60),
    "tensors over each other": lambda index: index["tensors"][1].update(offset=0),
    "a tensor in the plan": lambda index: index["tensors"][1].update(offset=index["plan_offset"]),
    "a plan that is longer": lambda index: index.update(plan_length=index["plan_length"] + 1),
    "a plan elsewhere": lambda index: index.update(plan_offset=0),
    "another type": lambda index: index["tensors"][0].update(dtype="object"),
    "no header": lambda index: index.pop("header"),
    "a runtime that there is not": lambda index: index["header"].update(runtime="openvino"),
    "sides of which one is nothing": lambda index: index["tensors"][0].update(shape=[0, 10**30], length=0),
    "more axes than there are": lambda index: index["tensors"][0].update(shape=[1] * 70 + [3, 5]),
    "an offset beyond all numbers": lambda index: index["tensors"][0].update(offset=10**40),
    "a version of 6000 digits": lambda index: index["header"].update(runtime_version="9" * 6000),
    "a target of 6000 digits": lambda index: index["header"].update(targets=["sm_" + "9" * 6000]),
    "a target with a colour": lambda index: index["header"].update(targets=["sm_87\x1b[31m"]),
    "a driver beyond all numbers": lambda index: index["header"].update(cuda_driver=[10**30, 0]),
    "an output beyond all numbers": lambda index: index["header"]["outputs"][0].update(shape=[None, 10**25]),
    "an output of less than nothing": lambda index: index["header"]["outputs"][0].update(shape=[None, -5]),
    "an output of no type": lambda index: index["header"]["outputs"][0].update(dtype="object"),
    "an output and a constant of one name": lambda index: index["tensors"][0].update(name="logits"),
    "two constants of one name": lambda index: index["tensors"][1].update(name="cam_weights"),
    "no input": lambda index: index["header"].update(inputs=[]),
    "two inputs": lambda index: index["header"]["inputs"].append({**image(index), "name": "mask"}),
    "another input": lambda index: image(index).update(name="picture"),
    "an input of no type": lambda index: image(index).update(dtype="object"),
    "a profile of another input": lambda index: index["header"].update(profiles=[{"foo": profile(index)}]),
    "a profile of an input more": lambda index: index["header"]["profiles"][0].update(foo=profile(index)),
    "a profile with an axis less": lambda index: profile(index).update(min=[1, 3, 8]),
    "a profile that falls": lambda index: profile(index).update(opt=[9, 3, 8, 8]),
    "a profile that leaves a fixed side": lambda index: profile(index).update(max=[4, 4, 32, 32]),
    "no contract": lambda index: index["header"]["metadata"].pop("gapcam"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_though_its_checksum_is_right(engine: Path, lie: str) -> None:
    rewritten(engine, LIES[lie])
    with pytest.raises(gapcam.ModelError, match=r"damaged or cut off: .*; copy it again") as refused:
        read_engine(engine)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("nonsense", ["[" * 200_000, '{"header":' * 200_000, "\ud800", "\xff"])
def test_a_header_that_is_no_json_is_damaged_whatever_it_is(engine: Path, nonsense: str) -> None:
    """Nested deeper than Python's stack; text that is no UTF-8."""
    write_index(engine, nonsense.encode("latin-1" if nonsense == "\xff" else "utf-8", "surrogatepass"))
    with pytest.raises(gapcam.ModelError, match="damaged or cut off: its header cannot be read") as refused:
        read_engine(engine)
    assert "\n" not in str(refused.value)


def test_a_header_longer_than_any_is_refused_unread(engine: Path) -> None:
    index = engine.read_bytes()[HEAD:]
    (length,) = struct.unpack_from("<I", engine.read_bytes(), 12)
    write_index(engine, index[:length] + b" " * 2**26)
    with pytest.raises(gapcam.ModelError, match="is cut off or damaged"):
        read_engine(engine)


def test_unknown_fields_of_a_known_version_are_ignored(engine: Path) -> None:
    rewritten(engine, lambda index: index["header"].update(weather="fine"))  # type: ignore[attr-defined]
    with read_engine(engine) as read:
        assert read.header == a_header()


def test_a_bare_plan_and_other_files_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "some.engine"
    for content, said in (
        (PLAN, "is a bare TensorRT plan, as trtexec writes it, without gapcam's header.*gapcam build MODEL.onnx"),
        (b"vtrt" + bytes(60), "is a bare TensorRT plan"),
        (b"\x08\x0a\x12\x07pytorch", "is no engine file of gapcam; give one made by: gapcam build"),
        (b"", "is empty; copy or build it again"),
        (MAGIC.replace(b"\n", b"\r\n"), "is no engine file"),
    ):
        path.write_bytes(content)
        with pytest.raises(gapcam.ModelError, match=said):
            read_engine(path)
        assert not is_engine(path)


def test_no_file_a_folder_and_a_closed_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.engine", Path("/dev/null")):
        with pytest.raises(gapcam.ModelError):
            read_engine(path)
        assert not is_engine(path)


def test_an_engine_is_told_by_its_first_bytes_not_by_its_name(engine: Path) -> None:
    renamed = engine.rename(engine.with_suffix(".onnx"))
    assert is_engine(renamed)


def test_a_failed_write_leaves_the_old_engine(engine: Path) -> None:
    with pytest.raises(gapcam.DataError, match="cannot write"):
        write_engine(engine / "below", a_header(), TENSORS, PLAN)
    with read_engine(engine) as read:
        assert bytes(read.plan) == PLAN
