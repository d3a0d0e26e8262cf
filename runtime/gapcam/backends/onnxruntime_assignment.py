"""Which nodes of a model ONNX Runtime gave to the CPU, though a GPU was asked for.

ONNX Runtime's `get_available_providers()` names what it was built with, and `get_providers()` what a session may use;
neither says what runs where. What does is read from the session, node by node. `session.disable_cpu_ep_fallback` would
refuse any node on the CPU and with it the arithmetic on shapes, which ONNX Runtime itself moves there
(GetCpuPreferredNodes in its fallback_cpu_capability.cc): a Shape gives its few integers in host memory, and computing
with them there is faster than sending them to the GPU and back. Those are no fallback. The test is by the operator: all
of these run on floats on every GPU provider, so that one of them is on the CPU only where it computes shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gapcam.backends.onnxruntime_session import CPU_PROVIDER, ORT_VERSION
from gapcam.errors import BackendError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RECORDING = ("session.record_ep_graph_assignment_info", "1")
"""The session's configuration entry that `nodes_by_provider` needs."""

SHAPE_OPERATORS = frozenset(
    {
        "Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather",
        "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Not", "Range", "ReduceMax", "ReduceMin",
        "ReduceProd", "ReduceSum", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub", "Transpose",
        "Unsqueeze", "Where",
    }
)  # fmt: skip
"""What is on the CPU to compute shapes."""


def nodes_by_provider(session: InferenceSession) -> dict[str, Counter[str]]:
    """How many nodes of each operator every provider runs; operators beside ONNX's own have their domain in front.

    Args:
        session: made with `RECORDING` among its entries.

    Raises:
        BackendError: this ONNX Runtime cannot tell.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise BackendError(
            f"ONNX Runtime {ORT_VERSION} cannot tell what runs on the GPU; install 1.24 or later, or allow what it "
            "does: --allow-cpu-fallback (in Python: allow_cpu_fallback=True)"
        )
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counted = found.setdefault(part.ep_name, Counter())
        counted.update(f"{node.domain}.{node.op_type}".removeprefix(".") for node in part.get_nodes())
    return found


def check_on_device(nodes: Mapping[str, Mapping[str, int]], provider: str, model_name: str) -> None:
    """Refuse a session of which more than arithmetic on shapes runs on the CPU.

    Args:
        nodes: of `nodes_by_provider`.
        provider: how the message calls what was asked for.
        model_name: how it calls the model.

    Raises:
        BackendError: the provider runs nothing, or the CPU runs layers; the message names them.
    """
    on_cpu = nodes.get(CPU_PROVIDER, {})
    fallen = {name: count for name, count in on_cpu.items() if name not in SHAPE_OPERATORS}
    elsewhere = any(name != CPU_PROVIDER and counted for name, counted in nodes.items())
    if elsewhere and not fallen:
        return
    shown = ", ".join(f"{count} {name}" for name, count in sorted(fallen.items(), key=lambda item: -item[1])[:5])
    more = f" and {len(fallen) - 5} more kinds" if len(fallen) > 5 else ""
    what = f"{shown}{more} on the CPU" if elsewhere else "the whole of it on the CPU"
    raise BackendError(
        f"{model_name} would run with {what} instead of {provider}. Allow it with --allow-cpu-fallback (in Python: "
        "allow_cpu_fallback=True), or take --device cpu"
    )
