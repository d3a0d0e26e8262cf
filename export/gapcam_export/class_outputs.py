"""Which of a graph's outputs say something of the classes, and whether all of them say it of the same logits.

What wraps a classifier adds a Softmax, the best class (ArgMax), its name (a lookup), or a map from names to
probabilities (ZipMap, of which scikit-learn's converter is fond). All of these follow from one tensor, looked for here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
from onnx import TensorProto, helper, numpy_helper

from gapcam_export.errors import SourceError
from gapcam_export.head import find_logits

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

# They give the values that they get in another shape or type, or a score for each, or the best of them.
_FOLLOWS_FROM_FIRST = frozenset(
    {
        "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Softmax", "LogSoftmax", "Sigmoid",
        "Normalizer", "ArgMax", "TopK", "ZipMap", "LabelEncoder",
    }
)  # fmt: skip
# After one of these there is no score for each class in a tensor any more, or in another order.
_CHOICES = frozenset({"ArgMax", "TopK", "ZipMap", "Normalizer", "LinearClassifier"})
# They take the constants with these numbers: (constants, numbers).
_LOOKUPS = frozenset({"ArrayFeatureExtractor", "Gather"})
_TYPES_OF_NAMES = (TensorProto.STRING, TensorProto.INT32, TensorProto.INT64)


def find_scores(graph: onnx.GraphProto, fed: str, name: str) -> str:
    """The tensor that holds the classes' scores, logits or a Softmax of them, from which all outputs follow.

    It is an output where one holds scores; where all hold the best class alone, it is what that is chosen from.

    Args:
        graph: of a classifier.
        fed: its input.
        name: how messages call the model.

    Raises:
        SourceError: outputs follow from different tensors, or are the least of the scores.
    """
    outputs = [value.name for value in graph.output]
    origins = {_origin(graph, output) for output in outputs}
    least = [name for node in graph.node if _takes_the_least(node) for name in node.output if name in origins]
    if least:
        raise SourceError(
            f"{name} gives the least of the classes' scores ({least[0]!r}); expected scores, or the best of them. Give "
            f"the scores as its output: onnx.utils.extract_model({name!r}, 'one.onnx', [{fed!r}], [their name])."
        )
    if len(origins) != 1:
        raise SourceError(
            f"{name} has {len(outputs)} outputs ({', '.join(outputs) or 'none'}); expected one, the classifier's, or "
            "several that all follow from its logits. Keep that one with "
            f"onnx.utils.extract_model({name!r}, 'one.onnx', [{fed!r}], [its name])."
        )
    found = [_before_the_choice(graph, output) for output in outputs]
    return next((scores for scores in found if find_logits(graph, scores) != scores), found[0])


def labels_in(graph: onnx.GraphProto, notes: list[str]) -> tuple[str, ...]:
    """Class names in the order of the logits that an output is made with, or none.

    Numbers of classes are names, too, where they are others than 0 to K-1.

    Args:
        graph: of a classifier.
        notes: gets what is said of names that could not be used.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for output in graph.output:
        for node, _ in _way_back(graph, output.name):
            given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            names: Sequence[str | bytes | int] = ()
            if node.op_type in _LOOKUPS and constants[node.input[0]].data_type in _TYPES_OF_NAMES:
                names = numpy_helper.to_array(constants[node.input[0]]).reshape(-1).tolist()
            elif node.op_type == "ZipMap":
                names = given.get("classlabels_strings") or given.get("classlabels_int64s") or ()
            elif node.op_type == "LabelEncoder" and ("keys_int64s" in given or "keys_tensor" in given):
                keys = given.get("keys_int64s") or []
                values = given.get("values_strings") or given.get("values_int64s") or []
                if keys and sorted(keys) == list(range(len(keys))) and len(values) == len(keys):
                    names = [value for _, value in sorted(zip(keys, values, strict=True))]
                else:
                    notes.append(
                        f"the names in the LabelEncoder that makes {node.output[0]!r} are not those of the classes 0 "
                        "to K-1, and were left out; --labels FILE gives names"
                    )
            if names and list(names) != list(range(len(names))):
                return _texts(names)
    return ()


def divided_sigmoids(graph: onnx.GraphProto) -> str:
    """The output that holds the classes' sigmoids divided by their sum, as of one-vs-rest classifiers, or ""."""
    for output in graph.output:
        operators = [node.op_type for node, _ in _way_back(graph, output.name)]
        if "Normalizer" in operators and "Sigmoid" in operators[operators.index("Normalizer") :]:
            return str(output.name)
    return ""


def _texts(names: Sequence[str | bytes | int]) -> tuple[str, ...]:
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)


def _origin(graph: onnx.GraphProto, output: str) -> str:
    """The tensor that an output follows from by what only shows classes in another way."""
    return [output, *(node_input for _, node_input in _way_back(graph, output))][-1]


def _before_the_choice(graph: onnx.GraphProto, output: str) -> str:
    """What the first choice on the way to an output chooses from, or the output."""
    chosen_from = [name for node, name in _way_back(graph, output) if node.op_type in _CHOICES]
    return chosen_from[-1] if chosen_from else output


def _way_back(graph: onnx.GraphProto, output: str) -> Iterator[tuple[onnx.NodeProto, str]]:
    """The nodes from an output back to its origin, each with the tensor that it is followed to."""
    producers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    name = output
    while name in producers:
        node = producers[name]
        is_lookup = node.op_type in _LOOKUPS and node.input[0] in constants
        if node.op_type == "LinearClassifier" and node.output[0] == name:
            name = str(node.output[1])  # the scores that the label is chosen from
        elif is_lookup or (node.op_type in _FOLLOWS_FROM_FIRST and not _takes_the_least(node)):
            name = str(node.input[1 if is_lookup else 0])
        else:
            return
        yield node, name


def _takes_the_least(node: onnx.NodeProto) -> bool:
    smallest = any(attribute.name == "largest" and not attribute.i for attribute in node.attribute)
    return node.op_type == "ArgMin" or (node.op_type == "TopK" and smallest)
