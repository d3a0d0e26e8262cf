"""GAP surgery, from SOURCE to a file: the order of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import fx, nn

import gapcam
from gapcam.contract import Source
from gapcam.errors import UsageError
from gapcam_export.affine import Affine
from gapcam_export.labels import labels_for
from gapcam_export.onnx_from_torch import sha256_of_weights
from gapcam_export.program import ProgramRecord, save_program, trace
from gapcam_export.sources import TorchSource
from gapcam_export.surgery.cost import measure_cost
from gapcam_export.surgery.cut import Cut, backbone_of, find_cut, section_of
from gapcam_export.surgery.dataflow import needed_for
from gapcam_export.surgery.dilation import dilated
from gapcam_export.surgery.gap_network import GapHead, GapNetwork, initialize, set_linear
from gapcam_export.surgery.layer_names import layer_or_tensor, layers_of
from gapcam_export.surgery.old_head import read_old_head
from gapcam_export.surgery.options import Options
from gapcam_export.surgery.presets import check_preset
from gapcam_export.surgery.report import Initial, SurgeryReport

DEFAULT_SIZE = (224, 224)


class _OldNetwork(NamedTuple):
    """The network that goes in, as it was.

    Attributes:
        logits: from [N,3,H,W] to [N,K].
        size: (H, W) in pixels, its own.
        features: (C, h, w) of the last maps before its head.
    """

    logits: fx.GraphModule
    size: tuple[int, int]
    features: tuple[int, int, int]


def operate(loaded: TorchSource, output: Path | None, options: Options, step: Callable[[str], None]) -> SurgeryReport:
    """Make a GAP network; see `gapcam_export.gap_surgery`.

    Args:
        loaded: the network.
        output: the file to write, or None.
        options: what was asked for.
        step: is called with each step's name before it begins.
    """
    begin = time.monotonic()
    own_size, size = _sizes(loaded, options)
    step(f"tracing the network at {size[0]}x{size[1]}")
    traced = trace(loaded.model, size)
    step("finding where to cut")
    cut, old_head = _cut(traced, size, options)
    if options.preset is not None:
        check_preset(options.preset, cut.features, size, loaded.spec)
    labels = _labels(loaded, options, cut.classes)

    backbone = backbone_of(traced, cut)
    if options.stride is not None:
        step(f"turning strides into dilation, for maps of stride {options.stride}")
        backbone = dilated(backbone, size, options.stride)
    network = _network(backbone, cut, options)
    old = _old_network(loaded.model, traced, own_size, size, step)
    initial, sentence = _initialized(network, old_head, options)

    step("counting parameters and FLOPs")
    before = measure_cost(old.logits, own_size, old.features)
    after = measure_cost(network, size, _pooled_maps(network, size))
    cut_after, removed, added = layer_or_tensor(cut.node), _removed(traced, cut), _added(network.head, after.features)
    if output is not None:
        step(f"writing {output}")
        history = (
            f"cut after {cut_after}; went: {', '.join(removed)}",
            *((f"strides turned into dilation, for maps of stride {options.stride}",) if options.stride else ()),
            f"came: {', '.join(added)}",
            sentence,
        )
        save_program(network, size, _record(loaded, size, labels, history), output)
    return SurgeryReport(
        network=network,
        path=output,
        file_bytes=0 if output is None else output.stat().st_size,
        source=loaded.spec,
        preset=options.preset.name if options.preset else "",
        cut_after=cut_after,
        removed=removed,
        added=added,
        initial=initial,
        before=before,
        after=after,
        agreement=None,
        agreement_on="",
        notes=_notes(cut, sentence),
        seconds=time.monotonic() - begin,
    )


def _sizes(loaded: TorchSource, options: Options) -> tuple[tuple[int, int], tuple[int, int]]:
    """The network's own (H, W) and the one that was asked for."""
    own = loaded.size or (loaded.preprocessing.size if loaded.preprocessing else options.size or DEFAULT_SIZE)
    if loaded.size is not None and options.size not in (None, loaded.size):
        raise UsageError(
            f"{loaded.spec} was traced at {own[0]}x{own[1]} and takes no other size. Make it again from its own "
            "SOURCE, with gapcam gap ... --size H W."
        )
    return own, options.size or own


def _cut(traced: fx.GraphModule, size: tuple[int, int], options: Options) -> tuple[Cut, Affine | None]:
    """Where to cut, and the old head where it is affine in the mean of the maps there."""
    cut = find_cut(traced, size, options.cut_stride, before_pooling=False)
    old_head = read_old_head(traced, cut, size)
    return (cut, old_head) if old_head else (find_cut(traced, size, options.cut_stride), None)


def _old_network(
    model: nn.Module,
    traced: fx.GraphModule,
    own_size: tuple[int, int],
    size: tuple[int, int],
    step: Callable[[str], None],
) -> _OldNetwork:
    if own_size != size:
        step(f"tracing the network at {own_size[0]}x{own_size[1]}, to compare")
        traced = trace(model, own_size)
    cut = find_cut(traced, own_size, before_pooling=False)
    logits = section_of(traced, cut.image, cut.logits)
    assert logits is not None  # noqa: S101  # all there is comes from the image
    return _OldNetwork(logits, own_size, cut.features)


def _network(backbone: fx.GraphModule, cut: Cut, options: Options) -> GapNetwork:
    channels = cut.features[0]
    if channels % options.groups:
        raise UsageError(f"--groups {options.groups} does not divide the {channels} feature maps. Choose a divisor.")
    classes = options.classes or cut.classes
    head = GapHead(channels, classes, conv=options.conv, groups=options.groups, dropout=options.dropout)
    initialize(head)
    return GapNetwork(backbone, head).eval()


def _initialized(network: GapNetwork, old_head: Affine | None, options: Options) -> tuple[Initial, str]:
    """Give the new head its initial values, and say in a sentence where they are from."""
    if options.classes is None and old_head is not None and set_linear(network.head, old_head):
        return "kept", "the linear layer has the old head's weights and bias"
    return "random", "the linear layer has random values"


def _pooled_maps(network: GapNetwork, size: tuple[int, int]) -> tuple[int, int, int]:
    """(C, h, w) of the maps that are pooled, for an image of (H, W) pixels; the backbone is run once."""
    with torch.no_grad():
        rows, columns = network.backbone(torch.zeros(1, 3, *size)).shape[2:]
    return network.head.linear.in_features, rows, columns


def _removed(traced: fx.GraphModule, cut: Cut) -> tuple[str, ...]:
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    kept = set(needed_for(cut.node, ()))
    return layers_of(node for node in needed_for(output, ()) if node not in kept)


def _added(head: GapHead, features: tuple[int, int, int]) -> tuple[str, ...]:
    conv, linear = head.conv, head.linear
    shown = []
    if conv is not None:
        grouped = f" in {conv.groups} groups" if conv.groups > 1 else ""
        shown += [f"3x3 convolution to {conv.out_channels} units{grouped}", "ReLU"]
    shown.append(f"global average pooling of {features[1]}x{features[2]}")
    if head.dropout is not None:
        shown.append(f"dropout of {head.dropout.p:g} in training")
    return (*shown, f"linear layer from {linear.in_features} values to {linear.out_features} classes")


def _labels(loaded: TorchSource, options: Options, old_classes: int) -> tuple[str, ...]:
    """Names of the new network's classes, or none; ImageNet's are the export's to add."""
    classes = options.classes or old_classes
    if options.labels is not None:
        return labels_for(classes, options.labels, ())
    inherited = () if loaded.record is None or options.classes else loaded.record.labels
    return inherited if len(inherited) == classes else ()


def _record(
    loaded: TorchSource, size: tuple[int, int], labels: tuple[str, ...], history: tuple[str, ...]
) -> ProgramRecord:
    old = loaded.record
    source = Source(spec=loaded.spec, sha256=sha256_of_weights(loaded.model), checkpoint=loaded.checkpoint)
    preprocessing = loaded.preprocessing
    return ProgramRecord(
        producer=f"gapcam {gapcam.__version__}",
        source=source if old is None else old.source,
        preprocessing=None if preprocessing is None else msgspec.structs.replace(preprocessing, size=size),
        labels=labels,
        history=(*(() if old is None else old.history), *history),
    )


def _notes(cut: Cut, sentence: str) -> tuple[str, ...]:
    notes = []
    if cut.scores:
        notes.append(f"the {cut.scores} at the network's end went, too: the new network gives logits")
    if cut.skipped_tokens:
        notes.append(
            f"{cut.skipped_tokens} tokens that belong to no place in the image (class, register) are left out of the "
            "maps; what the old head made of them is lost"
        )
    if "random" in sentence:
        notes.append("the new linear layer is random: the network must be fine-tuned before its answers mean anything")
    return tuple(notes)
