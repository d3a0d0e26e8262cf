"""ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gapcam.backends.onnx_file import check_is_file
from gapcam.backends.onnxruntime_session import (
    CPU_PROVIDER,
    ORT_ERRORS,
    ORT_VERSION,
    make_options,
    make_session,
    one_line,
    tensor_infos,
)
from gapcam.backends.protocol import CLOSED, Array
from gapcam.errors import BackendError, UsageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class OnnxRuntimeBackend:
    """A model in ONNX Runtime.

    Args:
        path: of the .onnx file.
        threads: that one inference may use; None leaves it to ONNX Runtime, which takes every physical core.
        provider_options: handed to the CPU provider, which ignores all of them.
        session_options: a name with a dot is a configuration entry ("session.intra_op.allow_spinning": "0"); another
            is an attribute of onnxruntime.SessionOptions, which may be given as text, too
            ("graph_optimization_level": "ORT_DISABLE_ALL", "enable_profiling": "true").

    Raises:
        ModelError: the file is missing, no ONNX model, damaged, or uses what this ONNX Runtime does not know.
        BackendError: a session option is not understood.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        provider_options: Mapping[str, str] | None = None,
        session_options: Mapping[str, object] | None = None,
    ) -> None:
        check_is_file(path)
        settings = dict(session_options or {})
        session = make_session(
            path, make_options(threads, settings), [(CPU_PROVIDER, dict(provider_options or {}))], settings=settings
        )
        self._session: InferenceSession | None = session
        self.inputs = tensor_infos(session.get_inputs())
        self.outputs = tensor_infos(session.get_outputs())
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self.engine = f"onnxruntime {ORT_VERSION}, {CPU_PROVIDER}"

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names. Safe to call from several threads, and while another one closes."""
        session = self._session
        if session is None:
            raise UsageError(CLOSED)
        (name,) = self.inputs
        try:
            return list(session.run(list(outputs), {name: image}))
        except ORT_ERRORS as error:
            raise BackendError(f"ONNX Runtime failed on an input of shape {image.shape}: {one_line(error)}") from error

    def close(self) -> None:
        """Drop the session, and with it the model's memory when the last run is done."""
        self._session = None
