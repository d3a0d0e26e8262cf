"""A network from an exported program, prepared for training."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import torch
from torch import fx, nn

import gapcam
from gapcam.contract import Preprocessing
from gapcam_export.errors import SourceError
from gapcam_export.program import HEAD_PREFIX, Program, ProgramRecord, load_program


def load_network(path: Path, notes: list[str]) -> tuple[Program, ProgramRecord, Preprocessing]:
    """Read a network, its record, and how a frame becomes its input.

    Args:
        path: of the file, `.pt2`.
        notes: gets what the user should know.

    Raises:
        SourceError: it cannot be read, or was not written by gapcam.
    """
    program = load_program(path)
    record = program.record
    if record is None:
        raise SourceError(
            f"{path} has no record of gapcam's; expected what gapcam wrote. Make it with: gapcam gap SOURCE -o "
            f"{path.name}"
        )
    preprocessing = record.preprocessing
    if preprocessing is None:
        preprocessing = Preprocessing(size=program.size)
        notes.append(
            f"{path} says nothing of its preprocessing: the whole frame, RGB and ImageNet's mean and deviation were "
            "assumed"
        )
    return program, record, msgspec.structs.replace(preprocessing, size=program.size, embedded=False)


def classes_of(program: Program, path: Path) -> int:
    """K, how many logits the network gives; it is run to see.

    Raises:
        SourceError: it gives something else than logits of two or more classes.
    """
    noise = torch.randn(2, 3, *program.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = program.model(noise)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        got = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise SourceError(f"{path} gives {got} for two images; expected logits [2,K] with K of 2 or more.")
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(2), atol=1e-4):
        raise SourceError(f"{path} gives probabilities; expected logits. Take the Softmax off its end.")
    return int(logits.shape[1])


def parts_of(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of the new head, and those of the backbone; one of them may be empty."""
    head: list[nn.Parameter] = []
    backbone: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (head if name.startswith(HEAD_PREFIX) else backbone).append(parameter)
    return head, backbone


def normalizes_single_values(model: fx.GraphModule) -> bool:
    """Whether a BatchNorm sees one value a channel of each image, as after a global pooling."""
    for node in model.graph.nodes:
        if str(node.target) == "aten.batch_norm.default":
            value = node.args[0].meta.get("val")
            if isinstance(value, torch.Tensor) and math.prod(value.shape[2:]) == 1:
                return True
    return False


def move_constants(model: fx.GraphModule, device: torch.device) -> None:
    """Make the tensors that a traced network creates as it runs on this device; in place.

    `model.to` moves parameters and buffers, but a graph has written into it where a mask or a row of numbers is made.
    """
    for node in model.graph.nodes:
        if isinstance(node.kwargs.get("device"), torch.device):
            node.update_kwarg("device", device)
        for index, value in enumerate(node.args):
            if isinstance(value, torch.device):
                node.update_arg(index, device)
    model.recompile()


def drop_assertions(model: fx.GraphModule) -> None:
    """Take out what a trace asserts of its tensors' types, which mixed precision changes; in place."""
    for node in list(model.graph.nodes):
        if str(node.target) == "aten._assert_tensor_metadata.default":
            model.graph.erase_node(node)
    model.recompile()


def tuned_record(
    record: ProgramRecord, preprocessing: Preprocessing, labels: tuple[str, ...], what: str
) -> ProgramRecord:
    """The record of a network after its fine-tuning.

    Args:
        record: before.
        preprocessing: that it was trained with.
        labels: the classes in the order of its logits.
        what: was done, a sentence.
    """
    return msgspec.structs.replace(
        record,
        producer=f"gapcam {gapcam.__version__}",
        preprocessing=preprocessing,
        labels=labels,
        scores="softmax",  # what the cross-entropy has trained
        history=(*record.history, what),
    )
