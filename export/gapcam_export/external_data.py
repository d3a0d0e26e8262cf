"""Reads the weights that an ONNX model keeps in other files: from its own folder, and from nowhere else.

A model names those files itself, and models come from anywhere: what leads out of the folder is refused, or a file from
a stranger could put any file of this machine into the export. Weights that do not fill their shape are refused, be they
in the model's own file or in others.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto, numpy_helper

from gapcam_export.errors import SourceError
from gapcam_export.graph import all_tensors

# Types of which a byte holds several values, and texts: how many bytes those take is left to whoever decodes them.
_NO_WHOLE_BYTES = frozenset({"INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2", "STRING"})


def load_external_data(model: onnx.ModelProto, path: Path, read: Callable[[bytes], object]) -> tuple[Path, ...]:
    """Read, in place, all tensors that a model keeps in other files; look at those in its own.

    Args:
        model: as its file has it.
        path: of that file; the others are looked for beside it.
        read: is called with the content of each tensor that another file holds, in the model's order.

    Returns:
        Those files, each once.

    Raises:
        SourceError: one is missing, outside of the model's folder, or does not fill its shape.
    """
    files: dict[Path, None] = {}
    for tensor in all_tensors(model):
        wanted = _bytes_of(tensor, path)
        if tensor.data_location == TensorProto.EXTERNAL:
            found, content = _read(tensor, wanted, path)
            files[found] = None
            read(content)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = content
        _check_content(tensor, wanted, path)
    return tuple(files)


def _read(tensor: TensorProto, wanted: int | None, path: Path) -> tuple[Path, bytes]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    found = _file_inside(path, location, tensor.name)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError as error:
        raise _damaged(
            path, tensor.name, f"says where it is in {location!r} with something that is no number"
        ) from error
    size = found.stat().st_size
    if length < 0:
        length = size - offset if wanted is None else wanted
    if wanted is not None and length != wanted:
        raise _damaged(path, tensor.name, f"needs {wanted} bytes and has {length} in {location!r}")
    if offset < 0 or length < 0 or offset + length > size:
        raise _damaged(path, tensor.name, f"is {length} bytes at {offset} in {location!r}, which has {size}")
    try:
        with found.open("rb") as file:
            file.seek(offset)
            return found, file.read(length)
    except OSError as error:
        raise SourceError(f"{location!r}, where {path} keeps weights, cannot be read: {error.strerror}.") from error


def _file_inside(path: Path, location: str, tensor: str) -> Path:
    folder = path.resolve().parent if not path.is_symlink() else path.parent.resolve()
    kept = f"{path} keeps the weights {tensor!r} in {location!r}"
    mend = "Put them into the model's own folder, or into the model: onnx.save(onnx.load(...), 'whole.onnx')."
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
    if not location or "\0" in location or absolute:
        raise SourceError(f"{kept}; expected a path relative to the model. {mend}")
    beside = folder / location
    try:
        found = beside.resolve()
        is_file = found.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle
        raise SourceError(f"{kept}, which cannot be found: {error}.") from error
    if not found.is_relative_to(folder):
        how = "a link there leads out of it" if ".." not in Path(location).parts else "that is outside of it"
        raise SourceError(f"{kept}; only files in the model's folder are read, and {how}. {mend}")
    if not is_file:
        raise SourceError(f"{kept}, and there is no such file beside it. Copy it there, too.")
    return found


def _bytes_of(tensor: TensorProto, path: Path) -> int | None:
    """How many bytes a tensor's values take, or None where they do not take whole ones each."""
    if min(tensor.dims, default=0) < 0:
        raise _damaged(path, tensor.name, f"has the shape {list(tensor.dims)}")
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        raise _damaged(
            path, tensor.name, f"is of type {tensor.data_type}, which onnx {onnx.__version__} does not know"
        ) from error
    if TensorProto.DataType.Name(tensor.data_type) in _NO_WHOLE_BYTES:
        return None
    return int(prod(tensor.dims) * dtype.itemsize)


def _check_content(tensor: TensorProto, wanted: int | None, path: Path) -> None:
    if wanted is not None and tensor.HasField("raw_data"):
        if len(tensor.raw_data) != wanted:
            raise _damaged(path, tensor.name, f"needs {wanted} bytes and has {len(tensor.raw_data)}")
        return
    try:
        numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:  # as NumPy says that values do not fill a shape
        shape = list(tensor.dims)
        raise _damaged(path, tensor.name, f"has values that do not fill its shape {shape}: {error}") from error


def _damaged(path: Path, tensor: str, what: str) -> SourceError:
    return SourceError(f"the weights {tensor!r} of {path} are damaged: {tensor!r} {what}. Copy the files again.")
