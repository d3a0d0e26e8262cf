"""From a float32 model with the contract's outputs to one of lower precision, measured against it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import onnx
import onnx.inliner

import gapcam
from gapcam.cli.output import encode_image
from gapcam.contract import Contract, Fidelity
from gapcam.errors import DataError, UsageError, VerificationError
from gapcam.frame import Frame
from gapcam.interleaved import measure
from gapcam_export.comparison.answers import answers
from gapcam_export.comparison.comparison import compare
from gapcam_export.comparison.latency import compare_latency
from gapcam_export.comparison.report import FidelityReport, report_fidelity
from gapcam_export.photographs import PHOTOGRAPHS, default_photographs, photograph, photograph_paths
from gapcam_export.precision.bfloat16 import to_bfloat16
from gapcam_export.precision.calibration import calibration_images
from gapcam_export.precision.float16 import to_float16
from gapcam_export.precision.head_nodes import head_nodes, name_nodes
from gapcam_export.precision.int8 import Int8Quantizer, check_float32
from gapcam_export.precision.options import PrecisionOptions
from gapcam_export.precision.search import RANKING_IMAGES, Search, search_layers
from gapcam_export.precision.tolerances import identity_tolerance
from gapcam_export.progress import Progress, counted
from gapcam_export.section import onnx_session
from gapcam_export.tap import write_contract
from gapcam_export.verify import check_batch, measure_identity

_LOOKED_AT = 16
"""Images on which the identity is measured and half precision's ranges are looked at; the fidelity has them all."""
_EMULATED = {
    "fp16": "ONNX Runtime computes float16 in float32 on most CPUs: what was compared is a float32 model whose tensors "
    "are rounded to float16 where B has them, as on a GPU; the latency is B's own",
    "bf16": "ONNX Runtime computes no bfloat16 on a CPU: what was compared is a float32 model whose tensors are "
    "rounded to bfloat16 where B has them; there is no latency",
}
_ROUNDS, _SECONDS = 25, 20.0
"""Of the latency of what a search tried, at most."""


@dataclass(frozen=True)
class Lowered:
    """A model of lower precision.

    Attributes:
        model: with the contract's outputs, and the contract itself.
        contract: the float32 model's, with what was measured of this one.
        fidelity: how alike the two answer.
        search: which layers stayed in float32, and why; None where nothing was searched.
        html: the fidelity as a page, if it was asked for, else "".
    """

    model: onnx.ModelProto
    contract: Contract
    fidelity: FidelityReport
    search: Search | None
    html: str


def lower(
    model: onnx.ModelProto,
    contract: Contract,
    options: PrecisionOptions,
    names: tuple[str, str],
    notes: list[str],
    step: Progress,
    *,
    html: bool = False,
) -> Lowered:
    """Make a model of lower precision, and measure what it costs.

    Args:
        model: in float32, with the contract's outputs; its nodes get names and its functions are written out, else it
            is left as it is.
        contract: the model's.
        options: what is wanted.
        names: how the report calls the two models.
        notes: gets what the user should know.
        step: is called with what is being done, and with how much of it is done where that is counted.
        html: make the page, too.

    Raises:
        DataError: the images will not do.
        ModelError: the model is not in float32, or cannot be lowered.
        VerificationError: the identity does not hold within this precision's tolerance, or `options.min_map_iou` cannot
            be met.
    """
    check_float32(model, contract, names[0])
    if model.functions:
        model.CopyFrom(onnx.inliner.inline_local_functions(model))
    name_nodes(model)
    _note_large_head(model, contract, options, notes)
    with TemporaryDirectory(prefix="gapcam-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        float32 = stack.enter_context(_session(model, contract, folder / "float32.onnx", options.threads))
        calibration = _calibration_images(options, contract, notes, step)
        checked = _images_to_check(options, calibration, folder, notes)
        frames = _frames(checked)
        search = None
        if options.precision == "int8":
            made, contract, search = _int8(model, contract, options, float32, calibration, folder, notes, step)
        else:
            looked_at = _frames(calibration) if calibration else default_photographs()
            made, contract = _half(model, contract, options, looked_at, notes, step)
        step("verifying the identity")
        contract = _verified(made, contract, frames)
        answering = stack.enter_context(_session(made.answering, contract, folder / "lowered.onnx", options.threads))
        report = report_fidelity(
            float32,
            answering,
            checked,
            names=names,
            latency=False,
            on_image=counted(step, "comparing with the float32 model", len(checked)),
        )
        summary = msgspec.structs.replace(report.comparison.summary(), emulated=made.is_emulated)
        contract = msgspec.structs.replace(contract, fidelity=summary)
        write_contract(made.model, contract)
        other = replace(report.other, size_bytes=made.model.ByteSize())
        if made.is_emulated:
            other = replace(other, engine=f"emulated in float32 by {other.engine}")
            report = replace(report, notes=(*report.notes, _EMULATED[options.precision]))
        report = replace(report, other=other)
        if made.runs_here:
            timed = answering
            if made.is_emulated:
                timed = stack.enter_context(_session(made.model, contract, folder / "timed.onnx", options.threads))
            step("measuring the latency of both")
            report = replace(report, latency=compare_latency(float32, timed, frames[0], threads=options.threads))
            if report.latency is not None and report.latency.speedup < 1:
                notes.append(
                    f"on this machine it is slower: {report.latency.speedup:.2f} times as fast as the float32 model"
                )
        page = report.to_html() if html else ""
    return Lowered(made.model, contract, report, search, page)


@dataclass(frozen=True)
class _Made:
    """A lowered model.

    Attributes:
        model: the model.
        answering: what answers like it on this machine: itself, or a float32 model that rounds as it does.
        runs_here: whether the model itself runs on this machine.
    """

    model: onnx.ModelProto
    answering: onnx.ModelProto
    runs_here: bool = True

    @property
    def is_emulated(self) -> bool:
        """Whether something else answers for it."""
        return self.answering is not self.model


def _int8(
    model: onnx.ModelProto,
    contract: Contract,
    options: PrecisionOptions,
    float32: gapcam.Session,
    images: Sequence[Path],
    folder: Path,
    notes: list[str],
    step: Progress,
) -> tuple[_Made, Contract, Search | None]:
    quantizer = Int8Quantizer(
        model,
        contract,
        images,
        method=options.method,
        target=options.int8_target,
        reduce_range=options.reduce_range,
        lower_head=options.lower_head,
        on_image=counted(step, "calibrating", len(images)),
    )
    _check_kept(options.keep, quantizer.layers)
    if quantizer.unquantizable:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(quantizer.unquantizable.items()))
        notes.append(f"left in float32, since {options.int8_target} has no int8 form of them: {listed}")
    kept, search = options.keep, None
    if options.min_map_iou is not None:
        search = _search(quantizer, contract, options, float32, images, folder, step)
        kept = (*options.keep, *search.kept)
    step("quantising")
    quantized = quantizer.quantize(kept)
    contract = msgspec.structs.replace(
        contract,
        precision="int8",
        head_precision="int8" if options.lower_head else "fp32",
        quantization=quantizer.quantization(quantized, kept),
    )
    return _Made(quantized, quantized), contract, search


def _note_large_head(model: onnx.ModelProto, contract: Contract, options: PrecisionOptions, notes: list[str]) -> None:
    """Say where convolutions over space follow the features, and stay as they are with the head."""
    head = set(head_nodes(model, contract))
    after = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.name in head
        and any(attribute.name == "kernel_shape" and max(attribute.ints) > 1 for attribute in node.attribute)
    ]
    if after and not options.lower_head:
        notes.append(
            f"convolutions that follow the features belong to the head and stay in float32: {len(after)}, such as "
            f"{after[0]}; --lower-head lowers them, too"
        )


def _check_kept(keep: Collection[str], layers: Collection[str]) -> None:
    unknown = [name for name in keep if name not in layers]
    if unknown:
        names = sorted(layers)
        close = get_close_matches(unknown[0], names, n=3) or names[:3]
        raise UsageError(
            f"there is no layer {unknown[0]!r} that would be quantised; there are {len(names)}, such as "
            f"{', '.join(close)}."
        )


def _search(
    quantizer: Int8Quantizer,
    contract: Contract,
    options: PrecisionOptions,
    float32: gapcam.Session,
    images: Sequence[Path],
    folder: Path,
    step: Progress,
) -> Search:
    """Which layers to keep in float32 so that the maps are as good as `options.min_map_iou` says."""
    reference = answers(float32, images, on_image=counted(step, "asking the float32 model", len(images)))

    def fidelity_of(quantized: onnx.ModelProto, count: int) -> Fidelity:
        with _session(quantized, contract, folder / "candidate.onnx", options.threads) as candidate:
            return compare(reference[:count], candidate, images[:count]).summary()

    found = search_layers(
        {layer: quantizer.weights[layer] for layer in quantizer.layers if layer not in options.keep},
        lambda layer: fidelity_of(quantizer.quantize(only={layer}), RANKING_IMAGES),
        lambda kept: fidelity_of(quantizer.quantize((*options.keep, *kept)), len(images)),
        options.min_map_iou or 0.0,
        step,
    )
    return _timed(found, quantizer, contract, options, float32, gapcam.read_image(images[0]), folder, step)


def _timed(
    search: Search,
    quantizer: Int8Quantizer,
    contract: Contract,
    options: PrecisionOptions,
    float32: gapcam.Session,
    frame: Frame,
    folder: Path,
    step: Progress,
) -> Search:
    """What each step of a search costs in time: all of them and the float32 model, measured in one run."""
    image = gapcam.preprocess(frame, contract.preprocessing)[None]
    with ExitStack() as stack:
        runs = [partial(float32.infer, image)]
        for tried in search.steps:
            model = quantizer.quantize((*options.keep, *tried.kept))
            session = _session(model, contract, folder / "candidate.onnx", options.threads)
            runs.append(partial(stack.enter_context(session).infer, image))
        step("measuring the latency of what was tried")
        found = measure(dict(zip(map(str, range(len(runs))), runs, strict=True)), rounds=_ROUNDS, seconds=_SECONDS)
    first, *others = found.values()
    return search.with_latencies(first, others)


def _half(
    model: onnx.ModelProto,
    contract: Contract,
    options: PrecisionOptions,
    frames: Sequence[Frame],
    notes: list[str],
    step: Progress,
) -> tuple[_Made, Contract]:
    """float16 or bfloat16."""
    images = [gapcam.preprocess(frame, contract.preprocessing) for frame in frames]
    head = () if options.lower_head else head_nodes(model, contract)
    step(f"converting to {options.precision}")
    contract = msgspec.structs.replace(
        contract, precision=options.precision, head_precision=options.precision if options.lower_head else "fp32"
    )
    if options.precision == "fp16":
        half, emulation = to_float16(model, head=head, images=images, notes=notes)
        return _Made(half, emulation), contract
    half, emulation = to_bfloat16(model, head=head, notes=notes)
    return _Made(half, emulation, runs_here=False), contract


def _calibration_images(
    options: PrecisionOptions, contract: Contract, notes: list[str], step: Progress
) -> Sequence[Path]:
    if options.calibrate is None:
        return []
    return calibration_images(
        options.calibrate,
        contract.preprocessing,
        notes,
        lambda done, total: step("looking at the calibration images", done, total),
    )


def _images_to_check(
    options: PrecisionOptions, calibration: Sequence[Path], folder: Path, notes: list[str]
) -> Sequence[Path]:
    """What both models are compared on."""
    if options.check is not None:
        return photograph_paths(options.check, "--check")
    if calibration:
        notes.append("the fidelity was measured on the calibration images; --check DIR names others")
        return calibration
    for name in PHOTOGRAPHS:
        (folder / f"{name}.png").write_bytes(encode_image(photograph(name), ".png"))
    notes.append("the fidelity was measured on four photographs of scikit-image's; --check DIR names others")
    return [folder / f"{name}.png" for name in PHOTOGRAPHS]


def _frames(paths: Sequence[Path]) -> list[Frame]:
    """The first images that can be read; the report of the comparison names those that cannot.

    Raises:
        DataError: none can.
    """
    frames: list[Frame] = []
    for path in paths:
        with suppress(DataError):
            frames.append(gapcam.read_image(path))
        if len(frames) == _LOOKED_AT:
            break
    if not frames:
        raise DataError(
            f"none of the {len(paths)} images to compare the models on can be read; the first is {paths[0]}."
        )
    return frames


def _verified(made: _Made, contract: Contract, frames: Sequence[Frame]) -> Contract:
    """The contract with the error of the identity: the worse one, of the model and of what answers for it.

    Raises:
        VerificationError: it is beyond this precision's tolerance.
    """
    tolerance = identity_tolerance(contract.precision, contract.head_precision)
    worst = 0.0
    for model in (made.answering, made.model) if made.is_emulated and made.runs_here else (made.answering,):
        session = onnx_session(model)
        error = measure_identity(session, contract.preprocessing, frames, tolerance)
        if not error <= tolerance:
            raise VerificationError(
                f"in {contract.precision} the maps do not explain the logits: |logit - mean(map) - bias| is "
                f"{error:.1e} of the greatest of them; at most {tolerance:.0e} was expected. Nothing was written. "
                "Leave the head in float32, or take a higher precision."
            )
        check_batch(session, contract.preprocessing, frames)
        worst = max(worst, error)
    verification = msgspec.structs.replace(
        contract.verification, identity_error=worst, identity_tolerance=tolerance, identity_images=len(frames)
    )
    return msgspec.structs.replace(contract, verification=verification)


def _session(model: onnx.ModelProto, contract: Contract, path: Path, threads: int | None) -> gapcam.Session:
    """The model as the runtime has it, which reads files."""
    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    write_contract(complete, contract)
    try:
        path.write_bytes(complete.SerializeToString())
    except OSError as error:
        raise DataError(
            f"cannot write to the temporary folder {path.parent.parent}: {error.strerror}; make room there, or name "
            "another with the environment variable TMPDIR."
        ) from error
    return gapcam.load(path, device="cpu", threads=threads)
