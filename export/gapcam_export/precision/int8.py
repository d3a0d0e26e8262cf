"""INT8 by Q/DQ pairs: a network is calibrated once, then quantised as often as somebody asks, by ONNX Runtime.

r = s (q - z): each activation has one scale s and zero point z, each channel of a weight its own s, with z = 0 (Jacob
et al. 2018, equation 1; Wu et al. 2020). The file stays plain ONNX: QuantizeLinear and DequantizeLinear stand where the
values are rounded, and the runtime makes int8 kernels of what stands between them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

from gapcam.contract import CAM_BIAS, CAM_WEIGHTS, LOGITS, CalibrationMethod, Contract, Quantization, Target
from gapcam.errors import ModelError
from gapcam_export.errors import NothingToQuantiseError
from gapcam_export.float32 import half_type, integer_arithmetic
from gapcam_export.graph import nodes_between, opset_of, remove_unused, tensors_read, unused_name
from gapcam_export.precision.float_layers import shield_float_layers
from gapcam_export.precision.folding import fold_batch_norms, fold_constants
from gapcam_export.precision.head_nodes import head_nodes, name_nodes, tapped_tensor
from gapcam_export.precision.quiet import quiet
from gapcam_export.precision.ranges import Ranges, activation_ranges
from gapcam_export.precision.targets import FORMS, LAYERS

_LEAST_OPSET = 13  # DequantizeLinear with one scale a channel
# What ONNX Runtime's quantiser leaves among the metadata, and calls a constant that it has quantised.
_INFERRED, _DEQUANTIZED = "onnx.infer", "_DequantizeLinear_Output"
# They compute nothing of a pixel's value, or say where others are.
_NO_ARITHMETIC = frozenset(
    {"Identity", "Dropout", "Cast", "Shape", "Size", "Constant", "ConstantOfShape", "Expand", "Gather", "GatherND"}
    | {"ScatterND", "Range", "Tile", "DepthToSpace", "SpaceToDepth"}
)
# An activation that is always (as good as) zero on the images has no step of its own; it gets that of values up to 1.
_LEAST_RANGE = np.float32(1e-20)
_RANGE_OF_ZEROS = (np.float32(0), np.float32(1))


def check_float32(model: onnx.ModelProto, contract: Contract, name: str = "the model") -> None:
    """Refuse what is in lower precision already, by its graph as well as by its contract.

    Args:
        model: with the contract's outputs.
        contract: the model's.
        name: how the message calls it.

    Raises:
        ModelError: it is.
    """
    integer, half = integer_arithmetic(model), half_type(model)
    if integer or contract.precision == "int8":
        why = f"quantised already ({f'it has {integer}' if integer else 'its contract says int8'})"
    elif half or contract.precision != "fp32":
        why = f"in {half or contract.precision} already"
    else:
        return
    raise ModelError(
        f"the precision of {name} cannot be lowered: it is {why}; give the float32 model that it was made from."
    )


class Int8Quantizer:
    """A calibrated network.

    Args:
        model: in float32, with the contract's outputs; it is not changed.
        contract: the model's.
        images: to calibrate on, as `calibration_images` gives them.
        method: how ranges are chosen: see `gapcam_export.precision.ranges`.
        target: what the result is to be fast on.
        reduce_range: weights of seven bits, for x86 CPUs without VNNI: there pairs of products are summed in 16 bits.
        lower_head: quantise the head, too.
        on_image: is called with how many images are done.

    Attributes:
        layers: names of the nodes with weights that the target can quantise, in the graph's order.
        weights: the name of each layer's weights, which mostly says more than the node's.
        unquantizable: operators that stay in float32 on this target, and how many there are of each.

    Raises:
        ModelError: the model is in lower precision already, has no layer to quantise, or gives values that are not
            finite.
        DataError: an image cannot be read.
    """

    layers: tuple[str, ...]
    unquantizable: Mapping[str, int]
    weights: Mapping[str, str]

    def __init__(
        self,
        model: onnx.ModelProto,
        contract: Contract,
        images: Sequence[Path],
        *,
        method: CalibrationMethod,
        target: Target,
        reduce_range: bool = False,
        lower_head: bool = False,
        on_image: Callable[[int], None] | None = None,
    ) -> None:
        check_float32(model, contract)
        self._contract, self._method, self._target = contract, method, target
        self._form, self._reduce_range, self._count = FORMS[target], reduce_range, len(images)
        self._producer = (model.producer_name, model.producer_version)
        self._model = _prepared(model)
        graph = self._model.graph
        self._tapped = tapped_tensor(self._model, contract)
        float_nodes = set(head_nodes(self._model, contract))
        if lower_head:
            float_nodes -= {node.name for node in nodes_between(graph, self._tapped, LOGITS)[0]}
        constants = {tensor.name for tensor in graph.initializer}
        of_weights = [node for node in graph.node if node.name not in float_nodes and _is_layer(node, constants)]
        self._without_form = {
            node.name for node in of_weights if self._form.quantizes_followers and _needs_float_bias(node)
        }
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self.layers = tuple(node.name for node in of_weights if node.name not in self._without_form)
        self.weights = {str(node.name): str(node.input[1]) for node in graph.node if node.name in self.layers}
        if not self.layers:
            raise NothingToQuantiseError(
                f"the model has no layer with constant weights ({', '.join(sorted(LAYERS))}) before its head, so "
                "there is nothing to quantise. Use it as it is."
            )
        _unshare_weights(graph, frozenset(self.layers), float_nodes if lower_head else ())
        self._layer_before = _layers_before(graph, frozenset(self.layers), self._form.followers, float_nodes)
        self.unquantizable = self._stay_in_float32(float_nodes)
        self._ranges = _with_steps(activation_ranges(self._model, images, contract.preprocessing, method, on_image))

    def quantize(self, keep: Collection[str] = (), only: Collection[str] | None = None) -> onnx.ModelProto:
        """The network with Q/DQ pairs, and the outputs that it had.

        What follows a layer (its activation, an addition) goes with it.

        Args:
            keep: names of layers that stay in float32.
            only: where given, all other layers stay in float32.
        """
        chosen = {name for name in self.layers if name not in keep and (only is None or name in only)}
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        if chosen:
            with quiet():
                model = self._with_pairs(model, chosen)
        shield_float_layers(model, {name for name in self.layers if name not in chosen} | self._without_form)
        _tidy(model, self._producer)
        return model

    def quantization(self, model: onnx.ModelProto, keep: Collection[str] = ()) -> Quantization:
        """What a contract says of a model that `quantize` made."""
        scale, zero_point = _step_of(model, tapped_tensor(model, self._contract))
        return Quantization(
            target=self._target,
            method=self._method,
            calibration_images=self._count,
            kept_layers=tuple(name for name in self.layers if name in keep),
            features_scale=scale,
            features_zero_point=zero_point,
        )

    def _with_pairs(self, model: onnx.ModelProto, chosen: set[str]) -> onnx.ModelProto:
        form = self._form
        lowered = set(chosen)
        followers = {name for name, layer in self._layer_before.items() if layer in chosen}
        if form.quantizes_followers:
            lowered |= followers
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=self._reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=form.activations,
            # Made anew each time: it is changed.
            tensors_range={
                name: TensorData(lowest=np.asarray(least), highest=np.asarray(greatest))
                for name, (least, greatest) in self._ranges.items()
            },
            nodes_to_quantize=sorted(lowered),
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(LAYERS | form.followers),
            extra_options={
                "ActivationSymmetric": form.symmetric,
                "QuantizeBias": form.quantizes_followers,
                "OpTypesToExcludeOutputQuantization": sorted(form.float_outputs),
            },
        )
        for name in () if form.quantizes_followers else self._residuals(chosen, followers):
            quantizer.quantize_activation_tensor(name)
        maker = self._makers.get(self._tapped)
        if maker is not None and maker.name in chosen | followers:
            quantizer.quantize_activation_tensor(self._tapped)
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        made: onnx.ModelProto = quantizer.model.model
        return made

    def _residuals(self, chosen: set[str], followers: set[str]) -> list[str]:
        """The other input of each addition that a quantised layer's output goes into.

        The layer before the addition runs as one kernel with it where that input is int8.
        """
        residuals = []
        for node in self._model.graph.node:
            if node.op_type != "Add" or node.name not in followers or len(node.input) != 2:
                continue
            makers = [self._makers.get(name) for name in node.input]
            direct = [index for index, maker in enumerate(makers) if maker is not None and maker.name in chosen]
            if direct and all(maker is not None for maker in makers):
                order = [self.layers.index(str(makers[index].name)) for index in direct]  # type: ignore[union-attr]
                fused = direct[int(np.argmax(order))]
                residuals.append(str(node.input[1 - fused]))
        return residuals

    def _stay_in_float32(self, float_nodes: Collection[str]) -> Mapping[str, int]:
        """Operators before the head that compute with float32 values and have no int8 form, sorted by name."""
        graph = self._model.graph
        types = {each.name: each.type.tensor_type.elem_type for each in (*graph.value_info, *graph.output)}
        counts: dict[str, int] = {}
        for node in self._model.graph.node:
            is_float = any(types.get(name) == TensorProto.FLOAT for name in node.output)
            is_lowered = node.name in self.layers or node.op_type in self._form.followers
            if is_float and not is_lowered and node.name not in float_nodes and node.op_type not in _NO_ARITHMETIC:
                name = "ConvTranspose in groups" if node.name in self._without_form else node.op_type
                counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items()))


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which all weights are initializers, each node has a name, and types are known."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if copied.functions:
        copied = onnx.inliner.inline_local_functions(copied)
    if opset_of(copied) < _LEAST_OPSET:
        entries = list(copied.metadata_props)
        copied = onnx.version_converter.convert_version(copied, _LEAST_OPSET)
        del copied.metadata_props[:]
        copied.metadata_props.extend(entries)
    name_nodes(copied)
    fold_constants(copied)
    fold_batch_norms(copied)
    remove_unused(copied.graph)
    with quiet():
        inferred: onnx.ModelProto = save_and_reload_model_with_shape_infer(copied)
    return inferred


def _unshare_weights(graph: onnx.GraphProto, layers: Collection[str], followers: Collection[str]) -> None:
    """Give a layer that may be quantised its own copy of a weight that also others read, which may stay in float32.

    Of several layers the last keeps the weight: it may be the head's, which is an output by its name.

    Args:
        graph: is changed.
        layers: names of the nodes that may be quantised.
        followers: names of nodes that read what the layer computes with, int8 or not: a lowered head's rows and maps.
    """
    readers: dict[str, list[onnx.NodeProto]] = {tensor.name: [] for tensor in graph.initializer}
    for node in graph.node:
        for name in dict.fromkeys(tensors_read(node)):
            if name in readers:
                readers[name].append(node)
    for tensor in list(graph.initializer):
        sharing = [node for node in readers[tensor.name] if node.name in layers and node.input[1] == tensor.name]
        others = [node for node in readers[tensor.name] if node not in sharing and node.name not in followers]
        for node in sharing if others else sharing[:-1]:
            copied = graph.initializer.add()
            copied.CopyFrom(tensor)
            copied.name = node.input[1] = unused_name(graph, f"{tensor.name}_copy")


def _is_layer(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """Whether a node multiplies its input with constant weights."""
    return node.op_type in LAYERS and node.input[0] not in constants and node.input[1] in constants


def _needs_float_bias(node: onnx.NodeProto) -> bool:
    """Whether a layer's bias has no int8 form: its channels are more than its weights have scales.

    A ConvTranspose's weights are [C, K / groups, ...]; ONNX gives them one scale for each of the second axis.
    """
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "ConvTranspose" and groups > 1 and len(node.input) > 2 and bool(node.input[2])


def _layers_before(
    graph: onnx.GraphProto, layers: Collection[str], followers: Collection[str], float_nodes: Collection[str]
) -> Mapping[str, str]:
    """For each node that goes with a layer, which one: the last layer that it is made from through other such nodes.

    What adds or multiplies a constant does not: a bias after a matrix product, a layer's scale. In 8 bits these cost a
    transformer's maps much, and gain no time.
    """
    order = {node.name: index for index, node in enumerate(graph.node)}
    constants = {tensor.name for tensor in graph.initializer}
    of_tensor: dict[str, str] = {}
    found = {}
    for node in graph.node:
        if node.name in layers:
            layer = str(node.name)
        elif node.op_type in followers and node.name not in float_nodes:
            if node.op_type in ("Add", "Mul") and not constants.isdisjoint(node.input):
                continue
            before = [of_tensor[name] for name in tensors_read(node) if name in of_tensor]
            if not before:
                continue
            layer = found[str(node.name)] = max(before, key=lambda name: order[name])
        else:
            continue
        of_tensor.update((name, layer) for name in node.output)
    return found


def _with_steps(ranges: Ranges) -> Ranges:
    """Ranges that a scale follows from: finite and positive."""
    return {name: _RANGE_OF_ZEROS if max(-both[0], both[1]) < _LEAST_RANGE else both for name, both in ranges.items()}


def _tidy(model: onnx.ModelProto, producer: tuple[str, str]) -> None:
    """Take out what the quantiser noted for itself, and let W and b be what a quantised head computes with."""
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in (CAM_WEIGHTS, CAM_BIAS):
        maker = makers.get(f"{name}{_DEQUANTIZED}")
        if maker is not None:
            integers, scale, zero_point = (numpy_helper.to_array(constants[each]) for each in maker.input)
            shape = (-1,) + (1,) * (integers.ndim - 1)  # one scale a class
            values = (integers.astype(np.float32) - zero_point.reshape(shape)) * scale.reshape(shape)
            constants[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    entries = [entry for entry in model.metadata_props if entry.key != _INFERRED]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    model.producer_name, model.producer_version = producer
    remove_unused(model.graph)


def _step_of(model: onnx.ModelProto, tensor: str) -> tuple[float | None, int | None]:
    """Scale and zero point of a tensor that a DequantizeLinear gives; two times None for another."""
    maker = next((node for node in model.graph.node if tensor in node.output), None)
    if maker is None or maker.op_type != "DequantizeLinear":
        return None, None
    constants = {each.name: each for each in model.graph.initializer}
    scale, zero_point = (numpy_helper.to_array(constants[name]) for name in maker.input[1:])
    return float(scale), int(zero_point)
