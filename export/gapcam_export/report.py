"""What an export did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import onnx

from gapcam.contract import Contract

if TYPE_CHECKING:
    from gapcam_export.comparison.report import FidelityReport
    from gapcam_export.precision.search import Search


@dataclass(frozen=True)
class TensorSummary:
    """One input or output of the exported model: name, shape ("batch" or a number each), and dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} [{','.join(map(str, self.shape))}] {self.dtype}"


def summarize(value: onnx.ValueInfoProto) -> TensorSummary:
    """What a graph says of one of its inputs or outputs."""
    if value.type.WhichOneof("value") not in ("tensor_type", None):
        return TensorSummary(value.name, (), str(value.type.WhichOneof("value")).removesuffix("_type"))
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return TensorSummary(value.name, shape, onnx.TensorProto.DataType.Name(tensor.elem_type).lower())


@dataclass(frozen=True)
class Report:
    """What an export did.

    Attributes:
        path: the file that was written.
        size_bytes: of that file.
        sha256: of that file.
        opset: version of ONNX's operator set in it.
        contract: what the file says of itself; `contract.verification` holds what was measured.
        inputs: of the model.
        outputs: of the model.
        notes: what the user should know: values that were assumed, inputs that were renamed.
        seconds: how long it took.
        fidelity: of a model of lower precision: how alike it and the float32 model answer; else None.
        search: which layers of an int8 model stayed in float32; None where nothing was searched.
    """

    path: Path
    size_bytes: int
    sha256: str
    opset: int
    contract: Contract
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    notes: tuple[str, ...]
    seconds: float
    fidelity: FidelityReport | None = None
    search: Search | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; `fidelity` and `search` only where there are some."""
        plain: dict[str, Any] = asdict(replace(self, fidelity=None, search=None))
        plain["path"] = str(self.path)
        plain["contract"] = msgspec.to_builtins(self.contract)
        del plain["fidelity"], plain["search"]
        if self.fidelity is not None:
            plain["fidelity"] = self.fidelity.to_dict()
        if self.search is not None:
            plain["search"] = msgspec.to_builtins(self.search)
        return plain
