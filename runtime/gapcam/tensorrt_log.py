"""What TensorRT says while it parses, builds and runs: collected, not printed.

A process has one logger for each of the two libraries: TensorRT keeps the first that it is given, and ignores others
with a warning.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_SOURCE = re.compile(r" ?\bIn \S+ at \S+:\d+(?=[\s)\].]|$)|\b\w+\.cpp:\d+: ")
"""Where in its own source code TensorRT was."""
_METHOD = re.compile(r"^I[A-Z]\w*::\w+: Error Code \d+: ")
"""Which of its own functions failed, before the reason."""
_NOISE = ("Make sure output", "The logger passed into", "checkMacros.cpp::catchCudaError")
"""Warnings that int64 outputs are int64 and that other loggers are ignored, and what repeats the line before."""

_lock = threading.Lock()
_loggers: dict[str, Any] = {}
_listening: dict[str, list[list[str]]] = {}


def logger_of(module: ModuleType) -> Any:
    """The process's logger, to be given to `module.Builder` and `module.Runtime`.

    Args:
        module: from `gapcam.tensorrt_module.import_tensorrt`.
    """
    with _lock:
        if module.__name__ not in _loggers:
            _listening[module.__name__] = []
            _loggers[module.__name__] = _new_logger(module, _listening[module.__name__])
        return _loggers[module.__name__]


@contextmanager
def collected(module: ModuleType) -> Iterator[list[str]]:
    """Warnings and errors of the library, each as one line, from all threads while the `with` block lasts.

    Example:
        >>> with collected(module) as said:  # doctest: +SKIP
        ...     plan = builder.build_serialized_network(network, config)
        >>> print("; ".join(said))  # doctest: +SKIP
    """
    logger_of(module)
    said: list[str] = []
    listening = _listening[module.__name__]
    listening.append(said)
    try:
        yield said
    finally:
        listening[:] = [other for other in listening if other is not said]


def readable(message: str) -> str:
    """A message of the library on one line, without the places in its source code."""
    return " ".join(_METHOD.sub("", _SOURCE.sub("", message)).split())


def _new_logger(module: ModuleType, listening: list[list[str]]) -> Any:
    grave = (module.ILogger.WARNING, module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR)

    class Collector(module.ILogger):  # type: ignore[misc, name-defined, unused-ignore]  # untyped
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in grave and not any(noise in message for noise in _NOISE):
                line = readable(message)
                for said in tuple(listening):
                    if line and line not in said:
                        said.append(line)

    return Collector()
