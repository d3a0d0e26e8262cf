"""Builds a network by a callable of the user's, from a module or a file."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from torch import nn

from gapcam_export.errors import SourceError


def network_from_factory(origin: str, name: str) -> nn.Module:
    """What a callable without arguments returns.

    Args:
        origin: "package.module", looked for among the installed packages and in the current folder, or
            "path/to/file.py", which may import what lies beside it.
        name: of the callable.

    Raises:
        SourceError: it cannot be found, or it or its module fails, or it returns something else than a network.
    """
    path = Path(origin) if origin.endswith(".py") else None
    if path is not None and not path.is_file():
        raise SourceError(f"there is no file {path}.")
    # As `python file.py` and `python -m module` have it.
    with _importable(Path.cwd() if path is None else path.resolve().parent):
        module = _import_module(origin) if path is None else _import_file(path)
        factory = getattr(module, name, None)
        if not callable(factory):
            callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise SourceError(f"{origin} has no callable {name!r}.{did_you_mean(name, callables)}")
        try:
            model = factory()
        except (Exception, SystemExit) as error:  # somebody else's code may raise anything
            raise SourceError(f"{origin}:{name}() failed with {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise SourceError(f"{origin}:{name}() returned a {type(model).__name__}; expected a torch.nn.Module.")
    return model


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A sentence that names what is close, or nothing."""
    close = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise SourceError(f"{name} needs the package {error.name}, which is not installed.") from error
        raise SourceError(
            f"there is no module {name} (looked in the installed packages and in the current folder). A file is given "
            f"with its suffix: path/to/file.py:factory."
        ) from error
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        raise SourceError(f"importing {name} failed with {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018  # so it is for every .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        raise SourceError(f"running {path} failed with {type(error).__name__}: {error}") from error
    return module
