"""Which nodes of an exported model are its head: what lies between the tapped tensor f and the contract's outputs.

The head is small, and what a map says hangs on it, so it keeps its precision where the rest of the network is lowered.
"""

from __future__ import annotations

import onnx

from gapcam.contract import FEATURES, Contract
from gapcam.errors import ModelError
from gapcam_export.graph import tensors_read

# What the export put between f and `features` to bring it to [N,C,h,w], last node first.
_TO_FEATURES = {
    "nchw": (),
    "nhwc": ("Transpose",),
    "tokens": ("Reshape", "Transpose"),
    "channels-tokens": ("Reshape",),
}


def name_nodes(model: onnx.ModelProto) -> None:
    """Give each node of the main graph a name of its own, in place; names that are unique already stay.

    New names are the operator and the node's number: "Conv_17". The same graph gets the same names every time.
    """
    taken: set[str] = set()
    unnamed = []
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            unnamed.append((index, node))
        else:
            taken.add(node.name)
    for index, node in unnamed:
        name = f"{node.op_type}_{index}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)


def tapped_tensor(model: onnx.ModelProto, contract: Contract) -> str:
    """The tensor f that is pooled, as it lies in the network: `features` itself, or what that was laid out from.

    Args:
        model: keeps the contract; no node between f and `features` was added after its export.
        contract: the model's.

    Raises:
        ModelError: `features` are not made from f as the export does.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    name = FEATURES
    for operator in _TO_FEATURES[contract.head.layout]:
        node = makers.get(name)
        if node is None or node.op_type != operator:
            found = "nothing" if node is None else node.op_type
            raise ModelError(
                f"{name!r} is made by {found}; expected {operator} for the layout {contract.head.layout!r}. Export the "
                "model again from its source."
            )
        name = str(node.input[0])
    return name


def head_nodes(model: onnx.ModelProto, contract: Contract) -> tuple[str, ...]:
    """Names of the nodes that make the contract's outputs of the tapped tensor f, in the graph's order.

    Those are the pooling, the way to the logits, what brings f to the layout of `features`, and what computes rows,
    maps and the best classes: every node that f itself does not need.

    Args:
        model: keeps the contract, and each of its nodes has a name of its own (`name_nodes`).
        contract: the model's.

    Raises:
        ModelError: as in `tapped_tensor`.
        ValueError: nodes without a name.
    """
    if any(not node.name for node in model.graph.node):
        raise ValueError("some nodes have no name; call name_nodes first")
    needed = {tapped_tensor(model, contract)}
    head = []
    for node in reversed(model.graph.node):
        if needed.isdisjoint(node.output):
            head.append(str(node.name))
        else:
            needed.update(tensors_read(node))
    return tuple(reversed(head))
