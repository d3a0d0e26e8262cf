"""Networks in files that need no class of the user's: PyTorch's exported programs (.pt2), with gapcam's record inside.

`torch.export.load` by itself trusts a file: weights and constants may be pickles, operators any function of torch
(some of which write files), sizes expressions that are evaluated, and names of tensors end in Python code that is run.
A file that holds any of these is refused here before anything of it is loaded.
"""

from __future__ import annotations

import contextlib
import io
import json
import keyword
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import fx, nn

from gapcam.atomic_file import write_atomically
from gapcam.contract import Preprocessing, Scores, Source
from gapcam_export.errors import SourceError
from gapcam_export.harmless_operators import is_harmless
from gapcam_export.network_input import check_network_input

HEAD_PREFIX = "head."
"""What the names of all parameters of a GAP network's new head begin with; every other one is the backbone's."""

_RECORD_FILE = "gapcam.json"
_RECORD_VERSION = 1

# Sizes as sympy writes them: symbols, numbers, arithmetic and a few functions.
_EXPRESSION_NAMES = re.compile(
    r"[su]\d+|Symbol|Integer|Rational|Float|True|False|positive|nonnegative|integer|precision|Add|Mul|Pow|Max|Min|Mod"
    r"|PythonMod|FloorDiv|CeilDiv|CleanDiv|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not"
)
_EXPRESSION_TOKENS = re.compile(r"\s+|'[su]\d+'|\d+(\.\d+)?|[A-Za-z_]\w*|[-+*/()=,<>&|~]")
_TREE_TYPES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
# What torch reads of an archive and does not merely keep: anything else there would be read in another way.
_READ_BY_TORCH = ("data/", "models/", "xl_model_weights/")
_HARMLESS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json"
)
_TENSOR_FILE = re.compile(r"(weight|tensor)_\d+")
# Names that PyTorch writes into the code of a graph's `forward`: as they are, or between quotation marks.
_IDENTIFIERS = {"name", "as_name", "forward_arg_names"}
_QUOTED = {"parameter_name", "buffer_name", "tensor_constant_name", "custom_obj_name", "user_input_name"}
_NOT_QUOTABLE = re.compile(r"[\"'\\{}\x00-\x1f\x7f]")


class ProgramRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What gapcam keeps of a network beside its graph and weights.

    Attributes:
        record: version of this record.
        producer: what wrote the file, such as "gapcam 0.1.0".
        source: where the network came from at first.
        preprocessing: how a frame becomes its input; None where nothing is on record.
        labels: K names in the order of its logits, or an empty tuple.
        scores: what makes scores of its logits; None where nobody has said it.
        history: what was done to the network since, a sentence each, oldest first.
    """

    record: int = _RECORD_VERSION
    producer: str
    source: Source
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] = ()
    scores: Scores | None = None
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A network that was read from a file.

    Attributes:
        model: takes [N,3,H,W] float32 and gives what the network gives; its parameters keep their names. It behaves as
            in evaluation until `set_training` is called; `train()` and `eval()` change nothing.
        size: (H, W) that it was traced with, in pixels; it takes no other.
        record: gapcam's, or None in a file of another tool's.
    """

    model: fx.GraphModule
    size: tuple[int, int]
    record: ProgramRecord | None


def trace(model: nn.Module, size: tuple[int, int]) -> fx.GraphModule:
    """A network as a graph of ATen operators, for any batch size.

    Args:
        model: in evaluation mode, takes [N,3,H,W] float32.
        size: (H, W) in pixels.

    Raises:
        SourceError: it takes something else, or torch.export cannot trace it.
    """
    check_network_input(model)
    return _as_module(_exported(model, size))


def save_program(model: nn.Module, size: tuple[int, int], record: ProgramRecord, path: Path) -> None:
    """Write a network and its record as an exported program; the file appears whole or not at all.

    Args:
        model: in evaluation mode, takes [N,3,H,W] float32.
        size: (H, W) in pixels.
        record: to keep in the file.
        path: of the file, `.pt2`.

    Raises:
        SourceError: torch.export cannot trace it, or it has an operator that `load_program` would refuse.
        DataError: the file cannot be written.
    """
    program = _exported(model, size)
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and not is_harmless(f"torch.ops.{node.target}"):
            raise SourceError(
                f"the network has the operator {node.target}, which gapcam does not read from a file again. "
                "Nothing was written. Replace the layer that it comes from by one of plain operators."
            )
        for note in ("stack_trace", "from_node", "source_fn_stack"):  # where the code lies on the machine it ran on
            node.meta.pop(note, None)
    program.example_inputs = None
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={_RECORD_FILE: msgspec.json.encode(record).decode()})
    write_atomically(path.resolve(), content.getvalue())


def load_program(path: Path) -> Program:
    """Read an exported program, gapcam's or somebody else's, without running any code that it brings.

    Raises:
        SourceError: it is no exported program, is damaged, would run code when loaded, or takes something else than one
            image [N,3,H,W].
    """
    if not path.is_file():
        raise SourceError(f"there is no file {path}.")
    extra = {_RECORD_FILE: ""}
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_code(archive, path)
        with warnings.catch_warnings(), _no_logs():
            warnings.simplefilter("ignore")  # of a newer or older torch; what it cannot read it raises on
            program = torch.export.load(path, extra_files=extra)
    except SourceError:
        raise
    except Exception as error:  # torch takes the file's word for what is in it, and fails on damage as it happens
        raise SourceError(
            f"{path} is no exported program that torch {torch.__version__} reads, or is damaged: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    try:
        record = msgspec.json.decode(extra[_RECORD_FILE], type=ProgramRecord) if extra[_RECORD_FILE] else None
    except msgspec.DecodeError as error:
        raise SourceError(f"{path} has a damaged record of gapcam's: {error}. Make it again.") from error
    return Program(_as_module(program), _image_size(program, path), record)


def set_training(model: fx.GraphModule, *, dropout: bool, batch_norm: bool) -> None:
    """Let a traced network's Dropout drop, and its BatchNorm use and track the batch's statistics, or not; in place.

    Evaluation is False for both.
    """
    for node in model.graph.nodes:
        operator = str(node.target)
        if operator in ("aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default"):
            node.update_arg(2, dropout)
        elif operator == "aten.batch_norm.default":
            node.update_arg(5, batch_norm)
    model.recompile()


def _exported(model: nn.Module, size: tuple[int, int]) -> torch.export.ExportedProgram:
    image = torch.zeros(2, 3, *size)
    try:
        # Without gradients, because autograd refuses changes in place of a split's parts.
        with warnings.catch_warnings(), torch.no_grad(), _no_fused_attention():
            warnings.simplefilter("ignore")  # deprecations inside other people's networks
            return torch.export.export(model, (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except Exception as error:  # torch.export raises what it likes, and so does somebody else's network
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise SourceError(
            f"torch.export cannot trace the network on {list(image.shape)}: {type(error).__name__}: {first} (--debug "
            "shows all). If it wants another size, give it with --size H W; branches on pixel values must go."
        ) from error


def _as_module(program: torch.export.ExportedProgram) -> fx.GraphModule:
    # Anew, because the module of an exported program refuses train() and eval().
    module = program.module(check_guards=False)
    return fx.GraphModule(module, module.graph)


def _image_size(program: torch.export.ExportedProgram, path: Path) -> tuple[int, int]:
    names = program.graph_signature.user_inputs
    shapes = [
        list(node.meta["val"].shape)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    if len(names) != 1 or len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3:
        shown = ", ".join(str([str(side) for side in shape]) for shape in shapes) or "no tensor"
        raise SourceError(f"{path} takes {shown}; expected one image [N,3,H,W].")
    height, width = shapes[0][2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise SourceError(f"{path} takes images of any size; expected one size. Trace it again with H and W fixed.")
    return height, width


def _refuse_code(archive: zipfile.ZipFile, path: Path) -> None:
    """Look at everything in an exported program that torch would execute.

    Raises:
        SourceError: some of it could be code.
    """
    members = archive.namelist()
    inside = [name.partition("/")[2] for name in members]
    # What torch's reader finds under a name must be what is looked at here.
    of_torch = torch._C.PyTorchFileReader(str(path)).get_all_records()
    if len({name.partition("/")[0] for name in members}) != 1 or sorted(inside) != sorted(set(of_torch)):
        raise _unsafe(path, "files of one name, or of names that not all readers read alike")
    for member, name in zip(members, inside, strict=True):
        if name.startswith(_READ_BY_TORCH) and not _HARMLESS.fullmatch(name):
            raise _unsafe(path, f"the file {name!r}")
        if name.startswith("data/sample_inputs/") and archive.getinfo(member).file_size:
            _refuse_pickle(archive.read(member), path)
        elif name.startswith("data/") and name.endswith("_config.json"):
            for full_name, payload in json.loads(archive.read(member))["config"].items():
                if payload["use_pickle"] or not _TENSOR_FILE.fullmatch(payload["path_name"]):
                    raise _unsafe(path, f"{full_name!r}, which is no plain tensor")
                _refuse_expression("parameter_name", full_name, path)
        elif name.startswith("models/"):
            for key, text in _strings(json.loads(archive.read(member))):
                _refuse_expression(key, text, path)


def _refuse_pickle(content: bytes, path: Path) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # whatever it is, torch.export.load would unpickle it in the unsafe way next
        raise _unsafe(path, "sample inputs that are more than tensors") from error


def _refuse_expression(key: str, text: str, path: Path) -> None:
    if key == "target" and not is_harmless(text) and not text.isidentifier():
        raise _unsafe(path, f"the operator {text!r}")
    if key == "expr_str":
        rest = _EXPRESSION_TOKENS.sub("", text)
        names = re.findall(r"[A-Za-z_]\w*", re.sub(r"'[su]\d+'", "", text))
        if rest or not all(_EXPRESSION_NAMES.fullmatch(name) for name in names):
            raise _unsafe(path, f"the size {text!r}")
    if (key in _IDENTIFIERS and text and not _is_name(text)) or (key in _QUOTED and _NOT_QUOTABLE.search(text)):
        raise _unsafe(path, f"the name {text!r}")
    if key in ("in_spec", "out_spec") and text:
        for inner, kind in _strings(json.loads(text)):
            if inner == "type" and kind not in _TREE_TYPES:
                raise _unsafe(path, f"inputs or outputs of type {kind!r}")
            if inner == "context" and not all(_is_name(name) for _, name in _strings(json.loads(kind))):
                raise _unsafe(path, f"inputs or outputs called {kind!r}")


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def _unsafe(path: Path, what: str) -> SourceError:
    return SourceError(
        f"{path} holds {what}, which could run code when it is loaded, or read and write files; gapcam reads exported "
        "programs of tensors and known ATen operators alone. Export the network again, or give its factory as SOURCE."
    )


@contextlib.contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` from the operator that it takes without gradients, and that has none."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _no_logs() -> Iterator[None]:
    """Keep torch's log from the user: it repeats with a traceback what is then raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a JSON value, each with the key that it stands under."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _strings(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part, key)
    elif isinstance(value, str):
        yield key, value
