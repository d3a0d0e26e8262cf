"""Making an ONNX Runtime session, and what all its providers have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gapcam.backends.onnx_file import check_is_file, computes_in_bfloat16, explain_unreadable
from gapcam.backends.protocol import TensorInfo
from gapcam.errors import BackendError, MissingExtraError, ModelError

try:
    import onnxruntime as onnxruntime  # "as": other modules have it from here, after this check
    from onnxruntime.capi import onnxruntime_pybind11_state as pybind11_state
except ModuleNotFoundError as missing:
    raise MissingExtraError("onnxruntime", "cpu") from missing

if TYPE_CHECKING:
    from onnxruntime import NodeArg

onnxruntime.disable_telemetry_events()  # `import gapcam` came too late where others imported it before

ORT_VERSION: str = onnxruntime.__version__

CPU_PROVIDER = "CPUExecutionProvider"

Providers: TypeAlias = Sequence[tuple[str, dict[str, str]]]
"""Names of providers with their options, the preferred one first."""

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


_PLACE = re.compile(r"^\d+ : FAIL : |\b[\w/]+\.(?:h|cc):\d+ (?:\w+ )?| ; GPU=-?\d+ ; hostname=.*")
_OF_A_DEVICE = re.compile(r"provider option|CUDA failure|CUDNN|cudnn|CUBLAS|cudaError|CUDA error|TensorRT")
"""In messages that are not about the model."""


def make_options(threads: int | None, settings: Mapping[str, object]) -> onnxruntime.SessionOptions:
    """Options of a session.

    Args:
        threads: that one inference may use; None for every physical core.
        settings: a name with a dot is a configuration entry, another an attribute of SessionOptions, also as text.

    Raises:
        BackendError: a setting is not understood.
    """
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
                raise BackendError(f"session option {name[:40]} is refused: {one_line(error)}") from error
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


def make_session(
    path: Path,
    options: onnxruntime.SessionOptions,
    providers: Providers | None,
    *,
    settings: Mapping[str, object],
    title: str = "",
) -> onnxruntime.InferenceSession:
    """Load a model.

    Args:
        path: of the .onnx file.
        options: of `make_options`.
        providers: in the order of preference; None where the options hold them.
        settings: the user's own of those that `options` were made of, for messages.
        title: what messages call the provider, of one for GPUs.

    Raises:
        ModelError: the file is missing, no ONNX model, damaged, or uses what these providers do not know.
        BackendError: an option's value is refused, or a GPU fails.
    """
    check_is_file(path)
    try:
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=providers,
            enable_fallback=0,  # it would print to stdout and try the same again; known from 1.23 on
        )
    except ORT_ERRORS as error:
        why = explain_unreadable(path)
        if why is None and title and _OF_A_DEVICE.search(str(error)):
            raise BackendError(f"{title} of ONNX Runtime {ORT_VERSION} fails: {one_line(error)}") from error
        if why is None and settings and isinstance(error, _BINDING_ERRORS):
            raise BackendError(f"ONNX Runtime refuses the session options: {one_line(error)}") from error
        on_cpu = providers is not None and [name for name, _ in providers] == [CPU_PROVIDER]
        if why is None and computes_in_bfloat16(path):
            why = (
                "computes in bfloat16, which ONNX Runtime does not on a CPU; run it on a GPU, or take the model in "
                "fp32, fp16 or int8"
                if on_cpu
                else "computes in bfloat16, of which ONNX Runtime's provider does not know all that it needs: "
                f"{one_line(error)}; build an engine of it (gapcam build), or take the model in fp32, fp16 or int8"
            )
        if why is None:
            why = (
                f"cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {one_line(error)}; export it again, "
                "update onnxruntime, or, if weights lie in a file beside it, put that there too"
            )
        raise ModelError(f"{path} {why}") from error


def tensor_infos(nodes: Sequence[NodeArg]) -> dict[str, TensorInfo]:
    """A session's inputs or outputs, by name."""
    return {info.name: info for info in map(_info, nodes)}


def one_line(error: Exception) -> str:
    """ONNX Runtime's message without its state and the places in its source code."""
    text = " ".join(str(error).split()).rpartition("[ONNXRuntimeError] : ")[2]
    return _PLACE.sub("", text)


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
