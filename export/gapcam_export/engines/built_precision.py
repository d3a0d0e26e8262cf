"""What a network computes in, as TensorRT parsed it, and what the engine that it built computes in.

Networks are strongly typed: TensorRT may not change their types. The engine inspector shows whether it did. Only the
layers that the time is spent in count: convolutions and matrix products.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapcam.contract import Precision
from gapcam.engine_file import BuiltPrecision
from gapcam.errors import VerificationError

_COUNTED = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_PRECISIONS: Mapping[str, Precision] = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}
_MOVES = ("SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")
"""Layers that hand int8 on as it is."""

_UNTOLD = re.compile(r"ForeignNode|^Reformatting CopyNode")
"""Layers that tell nothing of those that they name: a block, of which only the ends are shown, and a change of layout
or type before or after a layer."""

_WORDS: tuple[tuple[Precision, re.Pattern[str]], ...] = (
    ("bf16", re.compile(r"BF16|BFloat16", re.IGNORECASE)),
    ("int8", re.compile(r"INT8", re.IGNORECASE)),
    ("fp16", re.compile(r"(?<!B)FP16|Half|(?<!B)Float16", re.IGNORECASE)),
    ("fp32", re.compile(r"FP32|\bFloat(32)?\b", re.IGNORECASE)),
)
"""How the engine inspector calls them: "Half", or "Channel major FP16 format where channel % 8 == 0"."""


@dataclass(frozen=True)
class CountedLayer:
    """A convolution or matrix product of a parsed network.

    Attributes:
        name: of the layer, which is that of its ONNX node.
        precision: what it computes in.
    """

    name: str
    precision: str


def network_layers(network: Any) -> list[CountedLayer]:
    """The convolutions and matrix products of a parsed network, with what each computes in.

    In a network with Q/DQ pairs a layer is int8 if its input comes from a DequantizeLinear: TensorRT joins the two.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    return [CountedLayer(layer.name, _precision(layer, makers)) for layer in layers if layer.type.name in _COUNTED]


def _precision(layer: Any, makers: Mapping[str, Any]) -> str:
    source = layer.get_input(0)
    maker = makers.get(source.name)
    while maker is not None and maker.type.name in _MOVES and maker.num_inputs:
        maker = makers.get(maker.get_input(0).name)
    if maker is not None and maker.type.name == "DEQUANTIZE":
        return "int8"
    return str(_PRECISIONS.get(source.dtype.name, source.dtype.name.lower()))


def engine_layers(information: str, counted: Sequence[CountedLayer]) -> dict[str, frozenset[str]]:
    """What the layers of a built engine that hold the counted ones read, keep and give.

    Args:
        information: JSON of the engine inspector for an engine built with detailed profiling verbosity.
        counted: the network's layers.

    Returns:
        By the counted layer's name; without those that the inspector does not show, or whose types it does not.
    """
    try:
        layers = json.loads(information).get("Layers", [])
    except (json.JSONDecodeError, AttributeError):
        return {}
    shown: dict[str, frozenset[str]] = {}
    for layer in layers:
        if not isinstance(layer, dict) or _UNTOLD.search(str(layer.get("Name", ""))):
            continue  # a name alone: it was built without details
        found = frozenset(_found_in(_types(layer)))
        title = f"{layer.get('Name', '')} {layer.get('Metadata', '')}"
        held = [other for other in counted if found and _names(title, other.name)]
        for other in held:
            if len(held) == 1 or other.precision in found:  # of several in one, what is not shown may be inside
                shown[other.name] = shown.get(other.name, frozenset()) | found
    return shown


def _names(title: str, layer: str) -> bool:
    return re.search(rf"(?<![\w/.]){re.escape(layer)}(?![\w/.])", title) is not None


def _types(layer: Mapping[str, Any]) -> Iterator[str]:
    for tensor in (*layer.get("Inputs", ()), *layer.get("Outputs", ())):
        if isinstance(tensor, dict):
            yield str(tensor.get("Format/Datatype", tensor.get("Datatype", "")))
    weights = layer.get("Weights")
    if isinstance(weights, dict):
        yield str(weights.get("Type", ""))


def _found_in(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (precision for precision, word in _WORDS if word.search(text))


def check_network(counted: Sequence[CountedLayer], asked: Precision, name: str) -> None:
    """Notice before the build that a model is not what its contract says.

    Raises:
        VerificationError: no layer computes in the contract's precision.
    """
    if asked != "fp32" and counted and all(layer.precision != asked for layer in counted):
        has = ", ".join(f"{count} in {precision}" for precision, count in _count(counted).items())
        raise VerificationError(
            f"{name} should compute in {asked}, and as TensorRT reads it no layer does ({has}); export it again, with "
            f"--precision {asked}"
        )


def built_precision(
    counted: Sequence[CountedLayer], asked: Precision, information: str | None, why_not: str, name: str
) -> BuiltPrecision:
    """What an engine computes in.

    A layer counts as what it is in the network where the engine's types have it, else as what the engine has.

    Args:
        counted: the network's layers.
        asked: the contract's precision.
        information: the engine inspector's; None where the engine could not be opened.
        why_not: why it could not.
        name: how messages call the model.

    Raises:
        VerificationError: layers in float16 or bfloat16, or all in int8, became something else.
    """
    network = _count(counted)
    if information is None:
        return BuiltPrecision(asked=asked, network=network, not_read=why_not)
    shown = engine_layers(information, counted)
    if not shown:
        why = "the engine inspector shows no layer's types: the engine is compiled as one block"
        return BuiltPrecision(asked=asked, network=network, not_read=why)
    engine = Counter(
        layer.precision if layer.precision in shown[layer.name] else "+".join(sorted(shown[layer.name]))
        for layer in counted
        if layer.name in shown
    )
    wanted = [layer.name for layer in counted if layer.precision == asked and layer.name in shown]
    lost = [layer for layer in wanted if asked not in shown[layer]]
    if asked != "fp32" and lost and (asked != "int8" or len(lost) == len(wanted)):
        became = ", ".join(sorted({kind for layer in lost for kind in shown[layer]}))
        shortened = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        raise VerificationError(
            f"{name}: {len(lost)} of {len(wanted)} layers in {asked} became {became} in the engine ({shortened}); this "
            f"TensorRT has no {asked} for them on this GPU. Build the model in another precision"
        )
    return BuiltPrecision(asked=asked, network=network, engine=dict(sorted(engine.items())))


def _count(counted: Sequence[CountedLayer]) -> dict[str, int]:
    return dict(sorted(Counter(layer.precision for layer in counted).items()))
