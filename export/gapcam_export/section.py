"""A part of a network, cut out so that it can be run on inputs of our choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from gapcam.backends.onnxruntime_session import ORT_ERRORS
from gapcam.errors import ModelError
from gapcam_export.graph import graph_inputs, nodes_between, tensors_read

# Vectors of one run: what a shape-only input costs in memory is multiplied by it.
_CHUNK = 64

Array = NDArray[Any]


def onnx_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU.

    Raises:
        ModelError: ONNX Runtime does not know an operator or a version of it, or finds the graph wrong.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what is wrong becomes an exception
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load the model: {' '.join(str(error).split())}"
        ) from error


def run_session(session: ort.InferenceSession, names: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of these names.

    Raises:
        ModelError: ONNX Runtime fails on these inputs.
    """
    try:
        return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))
    except ORT_ERRORS as error:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
        raise ModelError(f"ONNX Runtime fails to run the model on {shapes}: {' '.join(str(error).split())}") from error


def observe(model: onnx.ModelProto, names: Sequence[str], image: Array) -> dict[str, Array]:
    """Values that tensors inside a network have for one input.

    Args:
        model: with exactly one input to feed.
        names: of tensors anywhere in the main graph.
        image: what to feed, [N,...].
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    (fed,) = graph_inputs(model.graph)
    session = onnx_session(probe)
    try:
        values = run_session(session, names, {fed.name: image})
    except ModelError as error:
        if len(image) == 1:
            raise
        raise ModelError(f"{error} If it takes one image at a time, export it with --static-batch.") from error
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}  # else a sequence


class Section:
    """The computation from tensor `start` to tensor `target` of a network, as a function.

    Args:
        model: the whole network.
        start: name of the tensor that is fed; every path of data to `target` must pass through it.
        target: name of the tensor that is computed.
        observed: values [N,...] that `start` and all tensors of which somebody asks the shape had in a run, for their
            shapes and dtypes.
        static_batch: True where the network takes exactly that many samples at a time.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        start: str,
        target: str,
        *,
        observed: Mapping[str, Array],
        static_batch: bool,
    ) -> None:
        nodes, self._shape_only = nodes_between(model.graph, start, target)
        self._start, self._observed = start, observed
        self._chunk = observed[start].shape[0] if static_batch else _CHUNK
        needed = {name for node in nodes for name in tensors_read(node)}
        fed = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(observed[name].dtype), [None] * observed[name].ndim
            )
            for name in (start, *self._shape_only)
        ]
        self._target = target if nodes else f"{start}_unchanged"
        graph = onnx.helper.make_graph(
            nodes or [onnx.helper.make_node("Identity", [start], [self._target])],
            "section",
            fed,
            [onnx.ValueInfoProto(name=self._target)],
            initializer=[tensor for tensor in model.graph.initializer if tensor.name in needed],
        )
        section = onnx.helper.make_model(
            graph, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
        )
        self._session = onnx_session(section)

    def __call__(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """`target` flattened to [N,-1], for `start` = `values` reshaped to [N, *the shape it has in the network]."""
        shape = self._observed[self._start].shape[1:]
        dtype = self._observed[self._start].dtype
        results = []
        for begin in range(0, len(values), self._chunk):
            part = values[begin : begin + self._chunk].astype(dtype)
            count = len(part)
            if count < self._chunk:  # also where the batch is static: fill up, then drop
                part = np.concatenate([part, np.zeros((self._chunk - count, *part.shape[1:]), dtype)])
            feeds = {self._start: part.reshape(self._chunk, *shape)}
            for name in self._shape_only:
                like = self._observed[name]
                feeds[name] = np.zeros((self._chunk, *like.shape[1:]), like.dtype)
            (result,) = run_session(self._session, [self._target], feeds).values()
            if result.size % self._chunk:
                raise ModelError(f"{self._target!r} is {list(result.shape)} for {self._chunk} images: it mixes them.")
            results.append(result.reshape(self._chunk, -1)[:count])
        return np.concatenate(results)
