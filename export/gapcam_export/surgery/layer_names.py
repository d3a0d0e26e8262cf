"""What the layers of a traced network were called; for people to read, never to decide by."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx


def layer_of(node: fx.Node) -> str:
    """The innermost module that an operator was called in, such as "features.11 (ReLU)"; "" where none is on record."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    # What torch's own passes insert stands under a name of torch's.
    named = [each for each in stack.values() if not each[0].startswith("_empty_nn_module_stack")]
    path, kind = named[-1] if named else ("", "")
    name = kind if isinstance(kind, str) else kind.__name__
    return f"{path} ({name.rpartition('.')[2]})" if path else ""


def layers_of(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    """The layers that operators were called in, each once, in order; an operator outside all layers by its own name."""
    named = (layer_of(node) or _operator(node) for node in nodes if node.op == "call_function")
    return tuple(name for name in dict.fromkeys(named) if name)


def layer_or_tensor(node: fx.Node) -> str:
    """A layer's name, or the tensor's where it was made outside all layers."""
    return layer_of(node) or node.name


def _operator(node: fx.Node) -> str:
    name = str(node.target)
    return name.split(".")[1] if name.startswith("aten.") and not name.startswith("aten.sym_") else ""
