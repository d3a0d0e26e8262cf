"""Weights that an ONNX model keeps in other files: read from the model's own folder, and from nowhere else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_files import CLASSES, Variant, oracle, write
from small_models import red_and_blue

import gapcam
import gapcam_export
from gapcam.cli.main import main
from gapcam.errors import ExitCode


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model in a folder of its own, with all its weights in weights.bin beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    whole = onnx.load(write(tmp_path / "whole.onnx", Variant()))
    onnx.save(whole, folder / "a.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return folder / "a.onnx"


def point_to(model: Path, key: str, value: str) -> None:
    """Change where the first weights say that they are."""
    changed = onnx.load(model, load_external_data=False)
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)
    (entry,) = [entry for entry in tensor.external_data if entry.key == key]
    entry.value = value
    model.write_bytes(changed.SerializeToString())


def refused(model: Path) -> str:
    """The one line that the command prints; nothing may have been written."""
    output = model.parent / "out.onnx"
    done = CliRunner().invoke(main, ["export", str(model), "-o", str(output)])
    assert done.exit_code == ExitCode.MODEL, done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    lines = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    assert len(lines) == 1, lines
    return lines[0]


def test_the_weights_are_not_written_over(model: Path, tmp_path: Path) -> None:
    weights = model.parent / "weights.bin"
    content = weights.read_bytes()
    with pytest.raises(gapcam.DataError, match=r"weights\.bin would be written over .*, which would be lost"):
        gapcam_export.export(str(model), weights)
    exported = onnx.load(red_and_blue(tmp_path / "exported.onnx"))
    lowered = model.parent / "b.onnx"
    onnx.save(exported, lowered, save_as_external_data=True, location="b.bin", size_threshold=0)
    with pytest.raises(gapcam.DataError, match=r"b\.bin would be written over .*, which would be lost"):
        gapcam_export.quantize(lowered, model.parent / "b.bin", gapcam_export.PrecisionOptions(precision="fp16"))
    assert weights.read_bytes() == content


def test_weights_beside_the_model_and_in_folders_below_it_are_read(model: Path, cat: NDArray[np.uint8]) -> None:
    (model.parent / "below").mkdir()
    os.link(model.parent / "weights.bin", model.parent / "below" / "weights.bin")
    (model.parent / "link.bin").symlink_to("weights.bin")
    for location in ("weights.bin", "./weights.bin", "below/weights.bin", "below/../weights.bin", "link.bin"):
        point_to(model, "location", location)
        report = gapcam_export.export(str(model), model.parent / "b.onnx")
        assert not [t for t in onnx.load(model.parent / "b.onnx").graph.initializer if t.external_data]
        with gapcam.load(model.parent / "b.onnx") as session:
            got = session(cat).maps(range(CLASSES))
        wanted = oracle(cat, report.contract.preprocessing, Variant())
        np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max())


def test_a_link_to_the_model_finds_the_weights_beside_the_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    model.rename(tmp_path / "elsewhere" / "blob")
    model.symlink_to(tmp_path / "elsewhere" / "blob")
    gapcam_export.export(str(model), model.parent / "b.onnx")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../weights.bin", "only files in the model's folder are read, and that is outside of it"),
        ("below/../../weights.bin", "that is outside of it"),
        ("{outside}/weights.bin", "expected a path relative to the model"),
        ("C:\\weights.bin", "expected a path relative to the model"),
        ("link.bin", "a link there leads out of it"),
        ("linked/weights.bin", "a link there leads out of it"),
        ("circle", "cannot be found"),
        ("nothing.bin", "and there is no such file beside it"),
        ("below", "and there is no such file beside it"),
        ("pipe", "and there is no such file beside it"),
        ("x" * 300, "cannot be found"),
        ("", "expected a path relative to the model"),
    ],
)
def test_what_leads_out_of_the_models_folder_or_nowhere_is_refused(model: Path, location: str, said: str) -> None:
    outside = model.parent.parent / "outside"
    outside.mkdir()
    for copy in (outside, model.parent.parent):
        (copy / "weights.bin").write_bytes((model.parent / "weights.bin").read_bytes())
    (model.parent / "below").mkdir()
    (model.parent / "link.bin").symlink_to(outside / "weights.bin")
    (model.parent / "linked").symlink_to(outside)
    (model.parent / "circle").symlink_to("circle")
    os.mkfifo(model.parent / "pipe")
    point_to(model, "location", location.format(outside=outside))
    line = refused(model)
    assert said in line
    assert "keeps the weights" in line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("offset", "100000000", "bytes at 100000000 in 'weights.bin', which has"),
        ("offset", "-4", "bytes at -4 in 'weights.bin'"),
        ("offset", "here", "something that is no number"),
        ("length", "8", "bytes and has 8 in 'weights.bin'"),
        ("length", "99999999999999", "bytes and has 99999999999999 in"),
    ],
)
def test_weights_that_are_not_where_they_should_be_are_refused(model: Path, key: str, value: str, said: str) -> None:
    point_to(model, key, value)
    assert said in refused(model)


def test_a_file_that_was_cut_off_is_refused(model: Path) -> None:
    weights = model.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert "are damaged" in refused(model)


@pytest.mark.parametrize(
    ("dims", "data_type", "entries", "said"),
    [
        ([-1], TensorProto.FLOAT, {}, "has the shape [-1]"),
        ([-4], TensorProto.FLOAT, {}, "has the shape [-4]"),
        ([4], 99, {}, "is of type 99, which onnx"),
        ([4], TensorProto.UNDEFINED, {}, "is of type 0, which onnx"),
        ([4], TensorProto.INT4, {"offset": "99999999"}, "bytes at 99999999 in 'weights.bin', which has"),
        ([1], TensorProto.STRING, {}, "has values that do not fill its shape [1]"),
    ],
)
def test_a_damaged_description_of_weights_elsewhere_is_refused(
    model: Path, dims: list[int], data_type: int, entries: dict[str, str], said: str
) -> None:
    changed = onnx.load(model, load_external_data=False)
    tensor = changed.graph.initializer[0]
    tensor.dims[:], tensor.data_type = dims, data_type
    del tensor.external_data[:]
    for key, value in {"location": "weights.bin", **entries}.items():  # no length
        tensor.external_data.add(key=key, value=value)
    model.write_bytes(changed.SerializeToString())
    line = refused(model)
    assert said in line
    assert "are damaged" in line


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"dims": [3]}, "needs 12 bytes and has 16"),
        ({"dims": [-4]}, "has the shape [-4]"),
        ({"dims": [2**40, 2**40]}, "and has 16"),
        ({"data_type": 99}, "is of type 99, which onnx"),
        ({"data_type": TensorProto.UNDEFINED}, "is of type 0, which onnx"),
        ({"data_type": TensorProto.STRING}, "has values that do not fill its shape [4]"),
        ({"raw_data": None, "float_data": [1.0, 2.0]}, "has values that do not fill its shape [4]"),
        ({"raw_data": None}, "has values that do not fill its shape [4]"),
    ],
    ids=str,
)
def test_weights_in_the_file_that_do_not_fill_their_shape_are_refused(
    tmp_path: Path, damage: dict[str, Any], said: str
) -> None:
    path = write(tmp_path / "a.onnx", Variant())
    changed = onnx.load(path)
    bias = next(tensor for tensor in changed.graph.initializer if list(tensor.dims) == [CLASSES])
    for name, value in damage.items():
        bias.ClearField(name)
        if isinstance(value, list):
            getattr(bias, name).extend(value)
        elif value is not None:
            setattr(bias, name, value)
    path.write_bytes(changed.SerializeToString())
    line = refused(path)
    assert said in line
    assert "are damaged" in line


def test_the_hash_of_a_source_is_of_its_weights_too(model: Path) -> None:
    def hashed() -> str:
        return gapcam_export.export(str(model), model.parent / "b.onnx").contract.source.sha256

    before = hashed()
    weights = model.parent / "weights.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert hashed() != before
    whole = onnx.load(model)
    onnx.save(whole, model)
    assert hashed() == hashlib.sha256(model.read_bytes()).hexdigest()
