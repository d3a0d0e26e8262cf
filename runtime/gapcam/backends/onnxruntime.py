"""ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from gapcam.backends.onnx_file import check_is_file, computes_in_bfloat16, explain_unreadable
from gapcam.backends.protocol import CLOSED, Array, TensorInfo
from gapcam.errors import BackendError, MissingExtraError, ModelError, UsageError

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as pybind11_state
except ModuleNotFoundError as missing:
    raise MissingExtraError("onnxruntime", "cpu") from missing

if TYPE_CHECKING:
    from onnxruntime import NodeArg

onnxruntime.disable_telemetry_events()  # a camera reports to its owner only

_PROVIDER = "CPUExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of types where NumPy's differ."""

_STATES = (
    "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile",
    "NotFound", "NotImplemented", "RuntimeException",
)  # fmt: skip
"""ONNX Runtime's exceptions: they have no base of their own, and older versions have fewer."""

_BINDING_ERRORS = (RuntimeError, ValueError)
"""What its Python binding raises; for a whole model, because of an option's value."""

ORT_ERRORS: tuple[type[Exception], ...] = (
    *(getattr(pybind11_state, name) for name in _STATES if hasattr(pybind11_state, name)),
    *_BINDING_ERRORS,
)
"""All that ONNX Runtime raises when it cannot load or run a model."""


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
        options = _options(threads, session_options or {})
        try:
            session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=[(_PROVIDER, dict(provider_options or {}))],
                enable_fallback=0,  # it would print to stdout and try the same again; known from 1.23 on
            )
        except ORT_ERRORS as error:
            why = explain_unreadable(path)
            if why is None and session_options and isinstance(error, _BINDING_ERRORS):
                raise BackendError(f"ONNX Runtime refuses the session options: {_one_line(error)}") from error
            if why is None and computes_in_bfloat16(path):
                why = (
                    "computes in bfloat16, which ONNX Runtime does not on a CPU; run it on a GPU, or take the model in "
                    "fp32, fp16 or int8"
                )
            if why is None:
                why = (
                    f"cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {_one_line(error)}; export it again, "
                    "update onnxruntime, or, if weights lie in a file beside it, put that there too"
                )
            raise ModelError(f"{path} {why}") from error
        self._session: onnxruntime.InferenceSession | None = session
        self.inputs = {info.name: info for info in map(_info, session.get_inputs())}
        self.outputs = {info.name: info for info in map(_info, session.get_outputs())}
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self.engine = f"onnxruntime {onnxruntime.__version__}, {_PROVIDER}"

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names. Safe to call from several threads, and while another one closes."""
        session = self._session
        if session is None:
            raise UsageError(CLOSED)
        (name,) = self.inputs
        try:
            return list(session.run(list(outputs), {name: image}))
        except ORT_ERRORS as error:
            raise BackendError(f"ONNX Runtime failed on an input of shape {image.shape}: {_one_line(error)}") from error

    def close(self) -> None:
        """Drop the session, and with it the model's memory when the last run is done."""
        self._session = None


def _options(threads: int | None, settings: Mapping[str, object]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong becomes an exception; the same on stderr would say it twice
    if threads is not None:
        options.intra_op_num_threads = threads
    known = [name for name in dir(options) if not name.startswith("_") and not callable(getattr(options, name))]
    for name, value in settings.items():
        if "." in name:
            try:
                options.add_session_config_entry(name, str(value))
            except ORT_ERRORS as error:
                raise BackendError(f"session option {name[:40]} is refused: {_one_line(error)}") from error
            continue
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}, and entries with a dot"
            raise BackendError(f"ONNX Runtime has no session option {name!r}{hint}")
        kind = type(getattr(options, name))
        try:
            setattr(options, name, _from_text(value, kind) if isinstance(value, str) else value)
        except (TypeError, ValueError) as error:
            expected = ", ".join(sorted(getattr(kind, "__members__", ()))) or kind.__name__
            raise BackendError(f"session option {name} cannot be {value!r}; expected {expected}") from error
    return options


def _from_text(text: str, kind: type) -> object:
    """The value of this kind that a text names, so that a command line can give it; the text where there is none."""
    if kind is int:
        return int(text)
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return getattr(kind, "__members__", {}).get(text, text)


def _info(node: NodeArg) -> TensorInfo:
    name = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else None for side in node.shape)
    return TensorInfo(node.name, shape, _DTYPES.get(name, name))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).removeprefix("[ONNXRuntimeError] : ")
