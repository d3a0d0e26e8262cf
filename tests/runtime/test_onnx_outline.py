"""What an ONNX file says of itself, read without an engine, against the onnx package and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from small_models import a_contract, red_and_blue

from gapcam.backends.onnx_outline import OnnxOutline, read_outline
from gapcam.backends.onnxruntime_session import tensor_infos
from gapcam.errors import ModelError


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("batch", ["N", 1])
def test_the_outline_is_what_an_engine_reads(tmp_path: Path, *, embedded: bool, batch: str | int) -> None:
    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract((6, 8), embedded=embedded), batch=batch)
    outline = read_outline(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert outline.inputs == tensor_infos(session.get_inputs())
    assert outline.outputs == tensor_infos(session.get_outputs())
    assert outline.metadata == session.get_modelmeta().custom_metadata_map


def test_the_outline_of_a_real_network_is_what_an_engine_reads(demo_model: Path) -> None:
    outline = read_outline(demo_model)
    session = onnxruntime.InferenceSession(str(demo_model), providers=["CPUExecutionProvider"])
    assert outline.inputs == tensor_infos(session.get_inputs())
    assert outline.outputs == tensor_infos(session.get_outputs())
    assert outline.metadata == session.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "UINT8", "BOOL"])
def test_types_have_numpys_names(tmp_path: Path, dtype: str) -> None:
    value = helper.make_tensor_value_info("image", getattr(TensorProto, dtype), ["N", None, 4])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "g", [value], [value])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    info = read_outline(path).inputs["image"]
    names = {"FLOAT16": "float16", "BFLOAT16": "bfloat16", "DOUBLE": "float64"}
    assert (info.shape, info.dtype) == ((None, None, 4), names.get(dtype, dtype.lower()))


def test_a_value_and_a_metadata_entry_that_say_nothing_are_read_as_that(tmp_path: Path) -> None:
    model = onnx.ModelProto(ir_version=10)
    model.graph.input.add(name="image")
    model.metadata_props.add(key="gapcam")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    outline = read_outline(path)
    assert (outline.inputs["image"].shape, outline.inputs["image"].dtype) == ((), "unknown")
    assert outline.metadata == {"gapcam": ""}


def outline_or_refusal(path: Path) -> OnnxOutline | str:
    try:
        return read_outline(path)
    except ModelError as error:
        return str(error)


def test_every_place_where_a_file_may_be_cut_off_is_one_line(tmp_path: Path) -> None:
    whole = red_and_blue(tmp_path / "m.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    found = []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found.append(outline_or_refusal(path))
    refusals = [text for text in found if isinstance(text, str)]
    assert all(str(path) in text and "\n" not in text for text in refusals)
    # Cut between two of the outermost fields: a smaller, whole message.
    smaller = [outline for outline in found if isinstance(outline, OnnxOutline)]
    assert len(smaller) <= 3
    assert all(set(outline.inputs) == {"image"} for outline in smaller)


def test_damage_anywhere_is_a_refusal_or_another_outline_and_never_another_exception(tmp_path: Path) -> None:
    whole = bytearray(red_and_blue(tmp_path / "m.onnx").read_bytes())
    path = tmp_path / "damaged.onnx"
    found = []
    for place in range(len(whole)):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        found.append(outline_or_refusal(path))
    refusals = [text for text in found if isinstance(text, str)]
    assert len(refusals) > 20
    assert all("\n" not in text for text in refusals)
