"""What a sweep needs to know of a model's file before anything is measured; no engine is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from gapcam import contract as names
from gapcam.backends.onnx_file import ENGINE_SUFFIXES, check_is_file
from gapcam.backends.onnx_outline import read_outline
from gapcam.contract import METADATA_KEY, HeadKind, contract_from_metadata
from gapcam.engine_file import is_engine, read_engine
from gapcam.errors import UsageError
from gapcam_bench.file_hash import file_sha256
from gapcam_bench.sweep.inputs import path_text


class ModelOutline(msgspec.Struct, frozen=True, kw_only=True):
    """One model.

    Attributes:
        label: how rows call it: its path from the working folder, or its name where it lies elsewhere, with as many
            folders before it as tell it from the others.
        path: of the file, absolute.
        sha256: of the file.
        head: the contract's kind of head; None without a contract, or where the head gives no maps: such a model is
            measured as a plain classifier.
        precision: of its contract; None without.
        batch: images that it takes at once; None where it leaves that open.
        outputs: names.
        runtime: of an engine file: the device that runs it; None of an ONNX file.
    """

    label: str
    path: str
    sha256: str
    head: HeadKind | None
    precision: str | None
    batch: int | None
    outputs: tuple[str, ...]
    runtime: str | None = None

    @property
    def shown(self) -> Path:
        """The path as messages have it: from the working folder where the file lies there."""
        near = Path(self.label)
        return near if os.path.normpath(near.absolute()) == os.path.normpath(self.path) else Path(self.path)

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return Path(self.path).stem


def outlines(models: Sequence[str | Path]) -> tuple[ModelOutline, ...]:
    """Read all of a command line's models.

    Raises:
        UsageError: one is given twice, or its name is not UTF-8.
        ModelError: one is missing, no model, or damaged.
        ContractError: a contract is damaged, or newer than this gapcam.
    """
    paths = [Path(model) for model in models]
    labels = _labels(paths)
    for path, label in zip(paths, labels, strict=True):
        if labels.count(label) > 1:
            raise UsageError(f"{path} is given {labels.count(label)} times; once is enough")
    return tuple(_outline(path, label) for path, label in zip(paths, labels, strict=True))


def model_label(path: Path) -> str:
    """A path from the working folder, with slashes; the name alone of a file elsewhere."""
    return next(_longer_labels(path))


def _labels(paths: Sequence[Path]) -> list[str]:
    """How models are called: as short as it can be where each is to have a name of its own."""
    longer = [_longer_labels(path) for path in paths]
    labels = [next(each) for each in longer]
    while True:
        alike = [number for number, label in enumerate(labels) if labels.count(label) > 1]
        found = {number: next(longer[number], None) for number in alike}
        if not any(found.values()):  # the same file
            return labels
        labels = [found.get(number) or label for number, label in enumerate(labels)]


def _longer_labels(path: Path) -> Iterator[str]:
    whole = Path(os.path.normpath(path.absolute()))
    try:
        yield whole.relative_to(Path.cwd()).as_posix()
    except ValueError:
        parts = whole.relative_to(whole.anchor).parts
        for count in range(1, len(parts) + 1):
            yield "/".join(parts[-count:])


def _outline(path: Path, label: str) -> ModelOutline:
    where = path_text(path)
    check_is_file(path)
    digest = file_sha256(path)
    runtime: str | None = None
    if is_engine(path) or path.suffix.lower() in ENGINE_SUFFIXES:
        with read_engine(path) as file:
            header = file.header
        metadata, runtime = dict(header.metadata), header.runtime
        outputs = tuple(tensor.name for tensor in header.outputs)
        least, _, most = header.options.batch
        batch = least if least == most else None
    else:
        outline = read_outline(path)
        metadata, outputs = dict(outline.metadata), tuple(outline.outputs)
        fed = outline.inputs.get(names.IMAGE) or next(iter(outline.inputs.values()), None)
        batch = fed.shape[0] if fed is not None and fed.shape else None
    contract = contract_from_metadata(metadata, label) if METADATA_KEY in metadata else None
    return ModelOutline(
        label=label,
        path=where,
        sha256=digest,
        head=None if contract is None or contract.head.kind is HeadKind.NONE else contract.head.kind,
        precision=None if contract is None else contract.precision,
        batch=batch,
        outputs=outputs,
        runtime=runtime,
    )
