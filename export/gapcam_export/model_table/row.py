"""One row of the table: one model, exported in a process of its own.

python -m gapcam_export.model_table.row torchvision:resnet18 FOLDER
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec

import gapcam
import gapcam_export
from gapcam.contract import HeadKind, Preprocessing
from gapcam.errors import GapcamError

ROW_FILE = "row.json"
# Where the packages lie here.
_PACKAGES = {package.__name__: Path(str(package.__file__)).parent for package in (gapcam, gapcam_export)}
_LONGEST_REASON = 220
_MOVES = frozenset(
    [
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Range",
        "Reshape",
        "Shape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)

Outcome = Literal["exported", "refused", "traceback", "crash", "timeout"]
Size = tuple[int, int]


class Row(msgspec.Struct, kw_only=True, frozen=True):
    """What came of one model.

    Attributes:
        outcome: "refused" for an error that gapcam foresaw; the last three are bugs, or a machine too small.
        reason: why there is no model, in one sentence, or "".
        mended_by_gap: whether `gapcam gap` mends it, by the error's own words.
        head: the head's kind, or None where the export did not come so far.
        parameters: of the network, or None where it could not be built.
        size: (H, W) of its input in pixels, likewise.
        maps: (h, w) of the feature maps.
        exact: whether the maps are all that the logits are made of.
        identity_error: measured on the photographs, relative to the greatest logit, mean of a map or bias.
        gradient_error: of kind "nonlinear", relative to the greatest change of a logit.
        source_error: between the exported model and PyTorch, relative to the largest logit.
        seconds: that the export took.
        code: hashes of the modules of gapcam's that made the row, by their files, such as "gapcam/session.py".
        versions: of the libraries that made it.
    """

    outcome: Outcome
    reason: str = ""
    mended_by_gap: bool = False
    head: HeadKind | None = None
    parameters: int | None = None
    size: Size | None = None
    maps: Size | None = None
    exact: bool | None = None
    identity_error: float | None = None
    gradient_error: float | None = None
    source_error: float | None = None
    seconds: float | None = None
    code: dict[str, str] = msgspec.field(default_factory=dict)
    versions: dict[str, str] = msgspec.field(default_factory=dict)


def make_row(source: str, folder: Path) -> Row:
    """Give a model random weights, export it into `folder`, and tell what came of it; errors are told, too."""
    row = Row(outcome="refused")
    try:
        row = _built(source, folder)
        row = _exported(source, folder, row)
    except GapcamError as error:
        message = str(error)
        row = msgspec.structs.replace(
            row,
            head=getattr(error, "kind", None),
            reason=one_sentence(message),
            mended_by_gap="gapcam gap" in message,
        )
    except Exception as error:  # noqa: BLE001  # a bug, which is what the table is to show
        traceback.print_exc()
        row = msgspec.structs.replace(row, outcome="traceback", reason=f"{type(error).__name__}: {_line(str(error))}")
    return msgspec.structs.replace(row, code=_code(), versions=library_versions())


def one_sentence(message: str) -> str:
    """The first sentence of an error's message, without the names of tensors, which change with every exporter.

    Of a list of operators each is named once, those that only move values not at all.
    """
    text = re.sub(r"^the head is of kind '[\w-]+': ", "", _line(message))
    text = re.sub(r"(?<=\w) '[^' ]+'(?=[ ,.:])", "", text)
    text = re.sub(r"(?<=stand )\w+(?:, \w+)+", lambda match: _telling(match[0].split(", ")), text)
    sentence = re.split(r"(?<=[^.A-Z])\.(?= [A-Z]|$)| \(--debug", text, maxsplit=1)[0]
    return sentence if len(sentence) <= _LONGEST_REASON else f"{sentence[: _LONGEST_REASON - 3]}..."


def is_current(row: Row) -> bool:
    """Whether the modules and libraries that made a row are what they were."""
    return row.versions == library_versions() and all(_hash(file) == was for file, was in row.code.items())


def library_versions() -> dict[str, str]:
    """Of what the figures depend on."""
    return {name: version(name) for name in ("torch", "torchvision", "timm", "onnxruntime")}


def _telling(operators: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(operator for operator in operators if operator not in _MOVES)) or operators[0]


def _line(text: str) -> str:
    return " ".join(text.split())


def _built(source: str, folder: Path) -> Row:
    """Build the network, and write a checkpoint of random weights."""
    import torch

    from gapcam_export.classifier import DEFAULT_SIZE
    from gapcam_export.model_table.random_weights import give_random_weights
    from gapcam_export.photographs import default_photographs
    from gapcam_export.sources import TorchSource, load_source

    torch.manual_seed(0)
    loaded = load_source(source, checkpoint=None, pretrained=False)
    assert isinstance(loaded, TorchSource)  # noqa: S101  # the table has no ONNX files
    preprocessing = loaded.preprocessing or Preprocessing(size=DEFAULT_SIZE)
    with contextlib.suppress(Exception):  # somebody else's code; the export meets the same and explains it
        give_random_weights(loaded.model, preprocessing, default_photographs())
    torch.save(loaded.model.state_dict(), folder / "weights.pt")
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    return Row(outcome="refused", parameters=parameters, size=preprocessing.size)


def _exported(source: str, folder: Path, row: Row) -> Row:
    report = gapcam_export.export(source, folder / "model.onnx", checkpoint=folder / "weights.pt")
    (features,) = (tensor.shape for tensor in report.outputs if tensor.name == "features")
    measured = report.contract.verification
    return msgspec.structs.replace(
        row,
        outcome="exported",
        head=report.contract.head.kind,
        maps=(int(features[2]), int(features[3])),
        exact=report.contract.head.exact,
        identity_error=measured.identity_error,
        gradient_error=measured.gradient_error,
        source_error=measured.source_error,
        seconds=report.seconds,
    )


def _code() -> dict[str, str]:
    """Hashes of the modules of gapcam's that this process has loaded."""
    loaded = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    names = [
        f"{package}/{file.relative_to(folder).as_posix()}"
        for file in loaded
        for package, folder in _PACKAGES.items()
        if file.is_relative_to(folder)
    ]
    return {name: _hash(name) for name in sorted(names)}


def _hash(name: str) -> str:
    package, _, rest = name.partition("/")
    try:
        return hashlib.sha256((_PACKAGES[package] / rest).read_bytes()).hexdigest()
    except (KeyError, OSError):
        return ""


def main() -> None:
    """See the module."""
    warnings.simplefilter("ignore")  # libraries' own, about their own
    source, folder = sys.argv[1], Path(sys.argv[2])
    # Where the memory runs out, Linux is to end this process, and nobody else's.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    row = make_row(source, folder)
    (folder / ROW_FILE).write_bytes(msgspec.json.encode(row))


if __name__ == "__main__":
    main()
