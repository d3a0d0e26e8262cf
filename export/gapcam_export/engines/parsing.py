"""What TensorRT's ONNX parser could not take, as one line."""

from __future__ import annotations

import re
from typing import Any

from gapcam.errors import ModelError
from gapcam.tensorrt_log import readable

_NO_PLUGIN = "Plugin not found"
_FIRST = re.compile(r"^(Invalid Node - \S+|.*?\bfailed:)\s*", re.IGNORECASE)


def parse(parser: Any, content: bytes, name: str, title: str) -> None:
    """Read an ONNX model into the parser's network.

    Args:
        parser: TensorRT's.
        content: the model.
        name: how messages call it.
        title: TensorRT's name and version.

    Raises:
        ModelError: it uses what TensorRT does not know.
    """
    if parser.parse(content):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = [_one(error) for error in errors]
    shown = "; ".join(dict.fromkeys(said[:2])) or "it gave no reason"
    more = f" (and {len(said) - 2} more)" if len(said) > 2 else ""
    raise ModelError(
        f"{title} cannot read {name}: {shown}{more}. Export it with another --opset, replace the operator, or run the "
        "model with ONNX Runtime"
    )


def _one(error: Any) -> str:
    operator = getattr(error, "node_operator", lambda: "")()
    node = getattr(error, "node_name", lambda: "")()
    where = f"{operator} {node!r}: " if operator else ""
    if operator and _NO_PLUGIN in error.desc():
        return f"{where}it has no such operator, and no plugin of that name is loaded"
    described = [line for line in str(error.desc()).splitlines() if line.strip() and "catchCudaError" not in line]
    if len(described) > 1 and _FIRST.match(described[0]):
        described = described[1:]
    return where + readable(" ".join(described)).rstrip(".")
