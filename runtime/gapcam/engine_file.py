"""An engine file: a TensorRT plan with the contract and the constants that go with it. docs/model-contract.md has the
format byte by byte.

    magic, version | length | SHA-256 | index (JSON) | tensors | plan

The index is read and checked before anything of the file is given to TensorRT: a plan is executable code in effect.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import msgspec
import numpy as np

from gapcam.atomic_file import write_atomically
from gapcam.backends.onnx_file import check_is_file
from gapcam.backends.protocol import Array
from gapcam.contract import IMAGE, METADATA_KEY, Precision
from gapcam.errors import ModelError

ENGINE_VERSION = 1
MAGIC = b"\x89GAPCAM\n"
"""Not ASCII, and with a line's end: what a transfer as text would change."""
REBUILD = "build it again with: gapcam build MODEL.onnx -o {path} --rebuild"

_HEAD = struct.Struct("<8sII32s")
"""Magic, version of the format, bytes of the index, SHA-256 of everything but itself."""
_BEFORE_DIGEST = 16
_ALIGNMENT = 64
_LONGEST_INDEX = 2**26
"""Bytes; the labels of a hundred thousand classes take less."""
_PLAN_MAGIC = (b"ptrt", b"vtrt", b"ftrt")
"""How TensorRT's own plans begin."""
_DTYPES = frozenset({"float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool"})
"""Of inputs and outputs, as TensorRT has them."""
_MOST_AXES = 8
"""TensorRT's `Dims.MAX_DIMS`."""
GREATEST_SIDE = 2**31 - 1
"""Of a tensor; far beyond any model's, and what libraries count in."""

EngineRuntime = Literal["tensorrt", "tensorrt-rtx"]
HardwareCompatibility = Literal["none", "ampere-plus", "same-compute-capability"]
StoredType = Literal["float32", "float16"]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Side = Annotated[int, msgspec.Meta(ge=1, le=GREATEST_SIDE)]
Sides = Annotated[tuple[Side, ...], msgspec.Meta(max_length=_MOST_AXES)]
OpenSides = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=0, le=GREATEST_SIDE)] | None, ...], msgspec.Meta(max_length=_MOST_AXES)
]
VersionText = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z._+-]{1,64}\Z")]
Architecture = Annotated[str, msgspec.Meta(pattern=r"^sm_[0-9]{2,3}\+?\Z")]


class ShapeRange(msgspec.Struct, frozen=True, kw_only=True):
    """The shapes of an input that an optimisation profile covers.

    Attributes:
        min: the least sides.
        opt: those that the engine is tuned for.
        max: the greatest.
    """

    min: Sides
    opt: Sides
    max: Sides


class EngineTensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of the network that the engine was built from.

    Attributes:
        name: of the contract.
        shape: None for a side that is only known when the engine runs.
        dtype: NumPy's name of it.
    """

    name: str
    shape: OpenSides
    dtype: str


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine was asked for; another choice makes another engine.

    Attributes:
        batch: least, tuned and greatest number of images; (1, 1, 1) of a model with a static batch.
        sizes: least, tuned and greatest (H, W) where the model leaves its sides open; None where it does not.
        level: TensorRT's builder optimisation level; None for its own choice.
        workspace_mib: the most scratch memory that a layer may take, in MiB; None for no limit.
        tf32: whether float32 may be computed with TF32's 10 bits of mantissa.
        maps: whether the output `maps` was kept.
        version_compatible: whether later TensorRT versions of the same major version run the engine.
        hardware_compatibility: which other GPUs run it.
        targets: the compute capabilities that were asked for, such as "86"; none for the builder's own choice.
        dla_core: the Deep Learning Accelerator of a Jetson that runs what it can; None for the GPU alone.
    """

    batch: tuple[int, int, int] = (1, 1, 1)
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    level: int | None = None
    workspace_mib: int | None = None
    tf32: bool = True
    maps: bool = False
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    targets: tuple[str, ...] = ()
    dla_core: int | None = None


class BuiltPrecision(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine computes in.

    Attributes:
        asked: what the model's contract says.
        network: how many layers with weights (convolutions and matrix products) the parsed network has in each
            precision. TensorRT may not change it: the network is strongly typed.
        engine: the same of the built engine, as the engine inspector tells it; empty where it could not be read back.
        not_read: why it could not; "" where it could.
    """

    asked: Precision
    network: dict[str, Count]
    engine: dict[str, Count] = {}
    not_read: str = ""


class EngineHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine was built from, with and for.

    Attributes:
        producer: what wrote the file: "gapcam 0.1.0".
        runtime: which of the two libraries runs it.
        runtime_version: the library's version, such as "10.13.3.9".
        platform: operating system and processor, such as "linux-x86_64" or "linux-aarch64".
        targets: the GPU architectures that it runs on: "sm_87", or "sm_80+" for that one and all later.
        device: name of the GPU that it was built and tuned on; "" where there was none.
        cuda_driver: the newest CUDA that this GPU's driver ran; None where there was none.
        model: name of the ONNX file.
        model_sha256: of that file, and of the weights that it keeps in others.
        options: how it was asked for.
        profiles: by input, the shapes that each optimisation profile covers.
        inputs: of the network.
        outputs: of the network.
        precision: what it computes in.
        metadata: the ONNX model's metadata entries; the contract is among them.
    """

    producer: str
    runtime: EngineRuntime
    runtime_version: VersionText
    platform: str
    targets: tuple[Architecture, ...]
    device: str = ""
    cuda_driver: tuple[Count, Count] | None = None
    model: str
    model_sha256: str
    options: BuildOptions
    profiles: tuple[dict[str, ShapeRange], ...]
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    precision: BuiltPrecision
    metadata: dict[str, str]


class _StoredTensor(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    dtype: StoredType
    shape: Sides
    offset: Count
    length: Count


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    header: EngineHeader
    tensors: tuple[_StoredTensor, ...]
    plan_offset: Count
    plan_length: Count


class EngineFile:
    """An engine file that was read, its checksum right. The plan stays on the disk until it is used.

    Use it as a context manager, or call `close`.

    Attributes:
        path: of the file.
        header: what it was built from, with and for.
        tensors: the constants that are not in the plan, by name: `cam_weights` and `cam_bias` where the head has them.
        plan: what TensorRT deserialises. It is valid until `close`.
    """

    def __init__(self, path: Path, header: EngineHeader, tensors: Mapping[str, Array], content: mmap.mmap, begin: int):
        self.path, self.header, self.tensors = path, header, dict(tensors)
        self._content = content
        self.plan = memoryview(content)[begin:]

    @property
    def metadata(self) -> Mapping[str, str]:
        """For `gapcam.contract.contract_from_metadata`."""
        return self.header.metadata

    def close(self) -> None:
        """Give the file back. Closing twice does nothing."""
        self.plan.release()
        self._content.close()

    def __enter__(self) -> EngineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_engine(path: Path, header: EngineHeader, tensors: Mapping[str, Array], plan: bytes | memoryview) -> None:
    """Write an engine file, whole or not at all.

    Args:
        path: of the file; a link stays one.
        header: what the plan was built from, with and for.
        tensors: float32 or float16 constants by name.
        plan: what TensorRT built, as bytes.

    Raises:
        DataError: the place cannot be written.
    """
    stored: list[_StoredTensor] = []
    data = bytearray()
    for name, array in tensors.items():
        dtype: StoredType = "float16" if array.dtype == np.float16 else "float32"
        content = array.astype(dtype).tobytes()
        stored.append(_StoredTensor(name=name, dtype=dtype, shape=array.shape, offset=len(data), length=len(content)))
        data += content + bytes(-len(content) % _ALIGNMENT)
    view = memoryview(plan).cast("B")
    index = msgspec.json.encode(
        _Index(header=header, tensors=tuple(stored), plan_offset=len(data), plan_length=view.nbytes)
    )
    index += b" " * (-(_HEAD.size + len(index)) % _ALIGNMENT)
    fixed = _HEAD.pack(MAGIC, ENGINE_VERSION, len(index), bytes(32))[:_BEFORE_DIGEST]
    digest = hashlib.sha256(fixed)
    for part in (index, data, view):
        digest.update(part)
    write_atomically(path.resolve(), fixed, digest.digest(), index, data, view)


def is_engine(path: Path) -> bool:
    """Whether a file begins as an engine file does; False where it cannot be read."""
    if not os.path.isfile(path):  # noqa: PTH113 - a name may be too long; to open a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_engine(path: Path) -> EngineFile:
    """Open an engine file, and check that it is whole and the one that was written.

    Raises:
        ModelError: there is none, or it is truncated, damaged, of a newer version, or no engine file.
    """
    check_is_file(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(_HEAD.size)
        if not head.startswith(MAGIC):
            raise ModelError(f"{path} {_foreign(head)}")
        if len(head) < _HEAD.size:
            raise ModelError(f"{path} is cut off: it has {size} bytes; copy it again, or {_rebuild(path)}")
        _, version, length, digest = _HEAD.unpack(head)
        if version != ENGINE_VERSION:
            raise ModelError(
                f"{path} is an engine file of version {version}; this gapcam knows version {ENGINE_VERSION}. Update "
                f"gapcam, or {_rebuild(path)}"
            )
        if length > min(size - _HEAD.size, _LONGEST_INDEX):
            raise ModelError(f"{path} is cut off or damaged: it has {size} bytes; copy it again, or {_rebuild(path)}")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        index = _checked_index(path, content, _HEAD.size + length, digest)
        data = _HEAD.size + length
        tensors = {
            tensor.name: np.frombuffer(content, tensor.dtype, prod(tensor.shape), data + tensor.offset)
            .reshape(tensor.shape)
            .copy()
            for tensor in index.tensors
        }
        return EngineFile(path, index.header, tensors, content, data + index.plan_offset)
    except BaseException:
        content.close()
        raise


def _checked_index(path: Path, content: mmap.mmap, data: int, digest: bytes) -> _Index:
    """The index, after the checksum and all lengths were found right; `data` is where the tensors begin."""
    damaged = f"{path} is damaged or cut off{{}}; copy it again, or {_rebuild(path)}"
    with memoryview(content) as view:
        hashed = hashlib.sha256(view[:_BEFORE_DIGEST])
        hashed.update(view[_HEAD.size :])
    if hashed.digest() != digest:
        raise ModelError(damaged.format(": its checksum is wrong"))
    try:
        index = msgspec.json.decode(content[_HEAD.size : data], type=_Index)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ModelError(damaged.format(f": its header cannot be read ({said})")) from error
    wrong = _wrong(index)
    if wrong:
        raise ModelError(damaged.format(f": its header {wrong}"))
    rest, end = len(content) - data, 0
    for tensor in index.tensors:
        if tensor.length != prod(tensor.shape) * np.dtype(tensor.dtype).itemsize:
            raise ModelError(damaged.format(f": {tensor.name} does not fill its shape"))
        if tensor.offset < end or tensor.offset + tensor.length > index.plan_offset:
            raise ModelError(damaged.format(f": {tensor.name} is not where its header says"))
        end = tensor.offset + tensor.length
    if index.plan_length == 0 or index.plan_offset + index.plan_length != rest:
        raise ModelError(damaged.format(": the plan is not as long as its header says"))
    return index


def _wrong(index: _Index) -> str:
    """What cannot be of an engine that gapcam built, as an end of the sentence "its header ..."; "" for nothing."""
    header = index.header
    if METADATA_KEY not in header.metadata:
        return "holds no contract"
    if [tensor.name for tensor in header.inputs] != [IMAGE]:
        return f"names {len(header.inputs)} inputs, or another than {IMAGE!r}"
    tensors = (*header.inputs, *header.outputs)
    names = [*(tensor.name for tensor in tensors), *(tensor.name for tensor in index.tensors)]
    if len(set(names)) < len(names):
        return "gives two tensors one name"
    if not {tensor.dtype for tensor in tensors} <= _DTYPES:
        return f"has tensors of other types than {', '.join(sorted(_DTYPES))}"
    (image,) = header.inputs
    for profile in header.profiles:
        if list(profile) != [IMAGE] or not _within(profile[IMAGE], image.shape):
            return f"has a profile that does not fit the input {IMAGE!r}"
    return ""


def _within(shapes: ShapeRange, sides: OpenSides) -> bool:
    """Whether a profile has as many axes as its input, each rising from least to greatest, and fixed where that is."""
    if not len(shapes.min) == len(shapes.opt) == len(shapes.max) == len(sides):
        return False
    axes = zip(shapes.min, shapes.opt, shapes.max, sides, strict=True)
    return all(
        least <= tuned <= greatest and (side is None or side == least == greatest)
        for least, tuned, greatest, side in axes
    )


def _rebuild(path: Path) -> str:
    return REBUILD.format(path=path)


def _foreign(head: bytes) -> str:
    """What a file is that does not begin as engine files do, as an end of the sentence "PATH ..."."""
    if not head:
        return "is empty; copy or build it again"
    if head.startswith(_PLAN_MAGIC):
        return (
            "is a bare TensorRT plan, as trtexec writes it, without gapcam's header: nothing in it says what its maps "
            "are made of. Build an engine of the ONNX model with: gapcam build MODEL.onnx -o model.engine"
        )
    return "is no engine file of gapcam; give one made by: gapcam build MODEL.onnx -o model.engine"
