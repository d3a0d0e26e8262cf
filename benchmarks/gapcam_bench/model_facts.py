"""A model as its file says: whose hash, in which precision, with what input."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gapcam.backends.onnx_file import ENGINE_SUFFIXES
from gapcam.backends.onnx_outline import read_outline
from gapcam.contract import METADATA_KEY, contract_from_metadata
from gapcam.engine_file import BuiltPrecision, is_engine, read_engine
from gapcam_bench.block import ModelFacts
from gapcam_bench.file_hash import file_sha256
from gapcam_bench.subjects.plain_subject import image_input, plain_size

_QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
     "MatMulInteger"}
)  # fmt: skip
"""Operators that int8 models are made of."""

_FLOATS = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16"}
"""TensorProto.DataType of weights."""


def model_facts(path: Path) -> ModelFacts:
    """What a file says of itself.

    The precision is the contract's; of an engine what the engine inspector saw, or what it was asked for where that was
    not read back; and without a contract what most weights are stored in, or int8 where nodes quantise.

    Args:
        path: of an ONNX file or an engine.

    Raises:
        ModelError: it is missing, no model, or damaged; or it has no contract and no image for an input.
    """
    if is_engine(path) or path.suffix.lower() in ENGINE_SUFFIXES:
        with read_engine(path) as file:
            metadata, built = dict(file.metadata), file.header.precision
        contract = contract_from_metadata(metadata, str(path))
        precision, source = _of_engine(built)
        size, head = contract.preprocessing.size, contract.head.kind.value
    else:
        outline = read_outline(path)
        if METADATA_KEY in outline.metadata:
            contract = contract_from_metadata(outline.metadata, str(path))
            precision, source = contract.precision, "contract"
            size, head = contract.preprocessing.size, contract.head.kind.value
        else:
            return _facts(path, *_of_graph(path), plain_size(image_input(outline.inputs, str(path))), None)
    return _facts(path, precision, source, size, head)


def _facts(path: Path, precision: str | None, source: str, size: tuple[int, int], head: str | None) -> ModelFacts:
    return ModelFacts(
        name=path.name,
        sha256=file_sha256(path),
        precision=precision,
        precision_source=source,
        input_size=size,
        head=head,
    )


def _of_engine(built: BuiltPrecision) -> tuple[str | None, str]:
    """An engine's precision, and where that was read."""
    if not built.engine:
        return built.asked, f"the engine's file: what was asked for ({built.not_read or 'not read back'})"
    counted = ", ".join(f"{count} layers in {precision}" for precision, count in built.engine.items())
    found = built.asked if any(built.asked in name.split("+") for name in built.engine) else None
    return found or max(built.engine, key=lambda name: built.engine[name]), f"engine inspector: {counted}"


def _of_graph(path: Path) -> tuple[str | None, str]:
    """The precision of a model without a contract, and where that was read."""
    try:
        import onnx
    except ModuleNotFoundError:
        return None, "no contract, and the package onnx, which reads weights, is not installed"
    graph = onnx.load(path, load_external_data=False).graph
    quantised = sum(node.op_type in _QUANTISED for node in graph.node)
    if quantised:
        return "int8", f"{quantised} nodes of the graph that quantise"
    values: Counter[str] = Counter()
    for tensor in graph.initializer:
        count = 1
        for side in tensor.dims:
            count *= side
        if tensor.data_type in _FLOATS:
            values[_FLOATS[tensor.data_type]] += count
    if not values:
        return None, "no weights among the graph's initializers"
    precision, most = values.most_common(1)[0]
    return precision, f"{most / sum(values.values()):.0%} of the weights"
