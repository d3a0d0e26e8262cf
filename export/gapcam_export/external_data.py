"""Reads the weights that an ONNX model keeps in other files: from its own folder, and from nowhere else.

A model names those files itself, and models come from anywhere: what leads out of the folder is refused, or a file from
a stranger could put any file of this machine into the export.
"""

from __future__ import annotations

from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from gapcam_export.errors import SourceError
from gapcam_export.graph import all_tensors

# Types of which a byte holds several values: how many bytes those take is left to whoever decodes them.
_PACKED = frozenset({"INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2"})


def load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read, in place, all tensors that a model keeps in other files.

    Args:
        model: as its file has it.
        path: of that file; the others are looked for beside it.

    Raises:
        SourceError: one is missing, outside of the model's folder, or too short.
    """
    for tensor in all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            content = _read(tensor, path)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = content


def _read(tensor: TensorProto, path: Path) -> bytes:
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
    wanted = _bytes_of(tensor)
    if length < 0:
        length = size - offset if wanted is None else wanted
    if wanted is not None and length != wanted:
        raise _damaged(path, tensor.name, f"needs {wanted} bytes and has {length} in {location!r}")
    if offset < 0 or offset + length > size:
        raise _damaged(path, tensor.name, f"is {length} bytes at {offset} in {location!r}, which has {size}")
    try:
        with found.open("rb") as file:
            file.seek(offset)
            return file.read(length)
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


def _bytes_of(tensor: TensorProto) -> int | None:
    """How many bytes a tensor's values take, or None where several share one."""
    if TensorProto.DataType.Name(tensor.data_type) in _PACKED:
        return None
    return int(prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _damaged(path: Path, tensor: str, what: str) -> SourceError:
    return SourceError(f"the weights {tensor!r} of {path} are damaged: {tensor!r} {what}. Copy the files again.")
