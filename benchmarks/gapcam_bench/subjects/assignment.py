"""Which execution provider of ONNX Runtime really runs how many nodes of a model that was opened."""

from __future__ import annotations

from gapcam.backends.protocol import Backend
from gapcam.errors import BackendError

RECORDING = {"session.record_ep_graph_assignment_info": "1"}
"""The session's entry that this needs; `gapcam.backends.onnxruntime_assignment.RECORDING`, before the import of
ONNX Runtime, which takes part in what is measured."""


def assigned_nodes(backend: Backend) -> dict[str, int] | None:
    """Nodes by provider, of the graph that is left after ONNX Runtime's optimisations.

    None for another engine, for an ONNX Runtime that cannot tell, and where it was not asked to take notes.

    Args:
        backend: opened with `RECORDING` among its session options.
    """
    session = getattr(backend, "_session", None)  # of gapcam's two backends of ONNX Runtime
    if session is None:
        return None
    from gapcam.backends.onnxruntime_assignment import nodes_by_provider
    from gapcam.backends.onnxruntime_session import ORT_ERRORS

    cannot_tell: tuple[type[Exception], ...] = (BackendError, *ORT_ERRORS)  # too old, or not opened so
    try:
        found = nodes_by_provider(session)
    except cannot_tell:
        return None
    return {provider: sum(counted.values()) for provider, counted in found.items()} or None
