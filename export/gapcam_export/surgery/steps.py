"""GAP surgery, from SOURCE to a file: the order of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
from torch import fx, nn

import gapcam
from gapcam.contract import Preprocessing, Scores, Source
from gapcam.errors import UsageError
from gapcam_export.affine import Affine
from gapcam_export.labels import labels_for
from gapcam_export.onnx_from_torch import sha256_of_weights
from gapcam_export.program import ProgramRecord, save_program, trace
from gapcam_export.sources import TorchSource
from gapcam_export.surgery.calibration import Teacher, compare, fit_head
from gapcam_export.surgery.cost import measure_cost
from gapcam_export.surgery.cut import Cut, backbone_of, find_cut, logits_of
from gapcam_export.surgery.dataflow import needed_for
from gapcam_export.surgery.dilation import dilated
from gapcam_export.surgery.gap_network import GapHead, GapNetwork, initialize, set_linear
from gapcam_export.surgery.layer_names import layer_or_tensor, layers_of
from gapcam_export.surgery.old_head import read_old_head
from gapcam_export.surgery.options import Options
from gapcam_export.surgery.presets import check_preset
from gapcam_export.surgery.report import Initial, SurgeryReport

DEFAULT_SIZE = (224, 224)
_RANDOM = "the linear layer has random values"
# Of the largest logit: float32 sums in another order.
_TOLERANCE = 1e-3


def operate(
    loaded: TorchSource,
    output: Path | None,
    options: Options,
    photographs: Sequence[Path] | None,
    step: Callable[[str], None],
) -> SurgeryReport:
    """Make a GAP network; see `gapcam_export.gap_surgery`.

    Args:
        loaded: the network.
        output: the file to write, or None.
        options: what was asked for.
        photographs: to fit the new head on, or None.
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
    old, old_maps = _old_network(loaded.model, traced, own_size, size, step)

    notes = _notes(cut)
    preprocessing = _preprocessing(loaded, size, options)
    initial, sentence = _initialize_linear(network, old_head, size, options)
    if initial == "kept" and own_size == size and not (options.stride or options.conv) and not _agree(network, old):
        initialize(network.head)
        initial, sentence = "random", _RANDOM
        notes.append("the old head's values are not kept: with them the new network gave other logits on noise")
    compared = None
    if initial == "random" and photographs is not None:
        step(f"fitting to the old logits on {len(photographs)} photographs")
        compared, note = fit_head(network, old, photographs, preprocessing, options.views, step)
        initial, sentence = "fitted", f"the linear layer was fitted to the old logits on {len(photographs)} photographs"
        notes += [note] if note else []
    elif initial == "kept":
        compared = compare(network, old, photographs, preprocessing, step)
    else:
        notes.append("the linear layer is random: the network's answers mean nothing before it is fine-tuned")
    is_known = loaded.preprocessing is not None or bool(options.preprocessing)
    if not is_known:
        notes.append(
            "SOURCE has no record of its preprocessing: the whole frame, RGB and ImageNet's mean and deviation are "
            "taken; --resize, --color, --mean and --std set it"
        )

    step("counting parameters and FLOPs")
    before = measure_cost(old.network, own_size, old_maps)
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
        record = _record(loaded, preprocessing if is_known else None, labels, _scores(loaded, cut), history)
        save_program(network, size, record, output)
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
        agreement=None if compared is None else compared.agreement,
        agreement_on="" if compared is None else compared.on,
        notes=tuple(notes),
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
) -> tuple[Teacher, tuple[int, int, int]]:
    """The old network at its own size, and (C, h, w) of the last maps before its head."""
    if own_size != size:
        step(f"tracing the network at {own_size[0]}x{own_size[1]}, to compare")
        traced = trace(model, own_size)
    cut = find_cut(traced, own_size, before_pooling=False)
    return Teacher(logits_of(traced, cut), own_size), cut.features


def _network(backbone: fx.GraphModule, cut: Cut, options: Options) -> GapNetwork:
    channels = cut.features[0]
    if channels % options.groups:
        raise UsageError(f"--groups {options.groups} does not divide the {channels} feature maps. Choose a divisor.")
    classes = options.classes or cut.classes
    head = GapHead(channels, classes, conv=options.conv, groups=options.groups, dropout=options.dropout)
    initialize(head)
    return GapNetwork(backbone, head).eval()


def _initialize_linear(
    network: GapNetwork, old_head: Affine | None, size: tuple[int, int], options: Options
) -> tuple[Initial, str]:
    """Keep the old head's values where they are right, and say in a sentence where the values are from."""
    fits = options.classes is None and old_head is not None and _passes_unchanged(network, size, options)
    if fits and old_head is not None and set_linear(network.head, old_head):
        return "kept", "the linear layer has the old head's weights and bias"
    return "random", _RANDOM


def _agree(network: GapNetwork, old: Teacher) -> bool:
    """Whether two networks that should be equal give the same logits on noise."""
    noise = torch.randn(2, 3, *old.size, generator=torch.Generator().manual_seed(0))
    expected = old.logits(noise.clone())
    with torch.no_grad():
        got = network(noise).numpy()
    return bool(abs(got - expected).max() <= _TOLERANCE * abs(expected).max())


def _passes_unchanged(network: GapNetwork, size: tuple[int, int], options: Options) -> bool:
    """Whether the old features reach the pooling as they were; with nothing to fit on, nearly is enough."""
    if network.head.conv is None or not options.calibrate:
        return True
    with torch.no_grad():  # what is negative does not pass the ReLU
        noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        return bool(network.backbone(noise).min() >= 0)


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


def _preprocessing(loaded: TorchSource, size: tuple[int, int], options: Options) -> Preprocessing:
    known = loaded.preprocessing or Preprocessing(size=size)
    return msgspec.structs.replace(known, size=size, **options.preprocessing)


def _scores(loaded: TorchSource, cut: Cut) -> Scores | None:
    """What made scores of the old logits, where the network or its record says it."""
    if cut.scores:
        return "sigmoid" if "sigmoid" in cut.scores else "softmax"
    return None if loaded.record is None else loaded.record.scores


def _record(
    loaded: TorchSource,
    preprocessing: Preprocessing | None,
    labels: tuple[str, ...],
    scores: Scores | None,
    history: tuple[str, ...],
) -> ProgramRecord:
    old = loaded.record
    source = Source(spec=loaded.spec, sha256=sha256_of_weights(loaded.model), checkpoint=loaded.checkpoint)
    return ProgramRecord(
        producer=f"gapcam {gapcam.__version__}",
        source=source if old is None else old.source,
        preprocessing=preprocessing,
        labels=labels,
        scores=scores,
        history=(*(() if old is None else old.history), *history),
    )


def _notes(cut: Cut) -> list[str]:
    notes = []
    if cut.scores:
        notes.append(f"the {cut.scores} at the network's end went, too: the new network gives logits")
    if cut.skipped_tokens:
        notes.append(
            f"tokens that belong to no place in the image (class, register; {cut.skipped_tokens} of them) are left out "
            "of the maps, and with them what the old head made of them"
        )
    return notes
