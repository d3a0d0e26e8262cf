"""`gapcam run`: images in; overlays, JSON lines and a summary out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import click

from gapcam.cam import Normalization, check_normalization
from gapcam.cli.class_options import class_indices
from gapcam.cli.device_options import device_options, loading, report_device
from gapcam.cli.finite_number import FiniteNumber, FiniteRange
from gapcam.cli.printable import all_printable
from gapcam.cli.session_options import session_options
from gapcam.errors import (
    DataError,
    ExitCode,
    FrameError,
    MapNotComputedError,
    VerificationError,
)

RESULTS = "results.jsonl"


@click.command(short_help="Classify images and show where the network looked.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|GLOB...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write overlays and results.jsonl here. Without it nothing is written.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON lines instead of the summary.")
@click.option(
    "--topk", type=click.IntRange(min=1), default=5, show_default=True, help="List so many of the best classes."
)
@click.option(
    "--classes",
    multiple=True,
    metavar="CLASS[,CLASS...]",
    help="Explain these classes, by label or index, instead of the best one; the overlay shows the first. "
    "May be repeated.",
)
@click.option(
    "--threshold",
    type=FiniteRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Boxes: keep map values above this part of the maximum.",
)
@click.option(
    "--percentile",
    type=FiniteRange(0, 100, min_open=True),
    help="Boxes: take the threshold relative to this percentile instead of the maximum.",
)
@click.option("--all-boxes", is_flag=True, help="Boxes: one for every connected component, not only for the largest.")
@click.option(
    "--normalize",
    "normalization",
    type=click.Choice(get_args(Normalization)),
    default="minmax",
    show_default=True,
    help="Overlay: what the ends of the colours mean. minmax: the map's least and greatest value; max: zero and its "
    "greatest; fixed: the --limits.",
)
@click.option(
    "--limits",
    type=FiniteNumber(),
    nargs=2,
    metavar="LOW HIGH",
    help="Overlay: map values at the ends of the colours, with --normalize fixed.",
)
@click.option("--clamp-negative", is_flag=True, help="Leave negative weights out of the maps (Bae et al. 2020).")
@click.option(
    "--colormap",
    default="jet",
    show_default=True,
    metavar="NAME",
    help="Overlay: any of OpenCV's colour maps, such as turbo or viridis.",
)
@click.option(
    "--alpha",
    type=FiniteRange(0, 1),
    default=0.5,
    show_default=True,
    help="Overlay: how much the map covers the image.",
)
@click.option(
    "--alpha-by-heat",
    is_flag=True,
    help="Overlay: cover the image by --alpha times the map, so that only what is warm is covered.",
)
@click.option("--overlays/--no-overlays", default=True, show_default=True, help="Whether to write overlays.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "jpg"]),
    default="png",
    show_default=True,
    help="Overlay: its file format.",
)
@click.option("--recursive", is_flag=True, help="Look into a folder's subfolders too.")
@device_options
@session_options
def run(
    model: Path,
    images: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    topk: int,
    classes: tuple[str, ...],
    threshold: float,
    percentile: float | None,
    all_boxes: bool,
    normalization: Normalization,
    limits: tuple[float, float] | None,
    clamp_negative: bool,
    colormap: str,
    alpha: float,
    alpha_by_heat: bool,
    overlays: bool,
    suffix: str,
    recursive: bool,
    device: str,
    allow_cpu_fallback: bool,
    threads: int | None,
    provider_options: dict[str, str],
    session_options: dict[str, str],
) -> int:
    """Classify images with MODEL, an ONNX file or an engine, and show where the network looked.

    Each image becomes an overlay, NAME.overlay.png, and a line of results.jsonl in the output folder. An image that
    cannot be read or explained is reported and skipped; its line says why, and the exit code is then 1 (5 if none was
    left).

    \b
    Examples:
      gapcam run model.onnx cat.jpg -o out/
      gapcam run model.onnx photos/ "more/**/*.png" -o out/ --classes "Egyptian cat,tabby" --alpha 0.6
      gapcam run model.onnx frames/ -o out/ --normalize fixed --limits 0 20
      gapcam run model.onnx cat.jpg --json --no-overlays | jq .top[0].label
      gapcam run model.engine frames/ -o out/ --device tensorrt
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    # What is wrong with an image is reported once, by us. OpenCV reads this when it is loaded.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

    # Here, so that --help needs no OpenCV and no inference engine.
    from gapcam import load, read_image
    from gapcam.atomic_file import check_spares, write_atomically
    from gapcam.boxes import check_threshold
    from gapcam.cli.console import NOT_EXACT, progress_bar, report, write_line
    from gapcam.cli.inputs import find_images
    from gapcam.cli.output import (
        JsonLines,
        check_output_folder,
        display_name,
        encodable,
        encode_image,
        json_line,
        output_names,
    )
    from gapcam.overlay import check_alpha, color_table

    # Whatever can be wrong with the options is found before any work is done, and before old results are replaced.
    check_normalization(normalization, limits)
    check_threshold(threshold, percentile)
    check_alpha(alpha)
    color_table(colormap)
    inputs = find_images(images, recursive=recursive)
    draw = overlays and output is not None
    if output is not None:
        check_output_folder(output)
        check_spares(output / RESULTS, [model, *(image.path for image in inputs)])
    names = output_names([image.path for image in inputs], output or Path(), f".{suffix}")
    box_options: dict[str, Any] = {
        "threshold": threshold,
        "percentile": percentile,
        "all_components": all_boxes,
        "clamp_negative": clamp_negative,
    }
    skipped = 0
    with ExitStack() as stack:
        with loading():
            session = load(
                model,
                device=device,
                threads=threads,
                provider_options=provider_options,
                session_options=session_options,
                allow_cpu_fallback=allow_cpu_fallback,
            )
        stack.enter_context(session)
        report_device(session, device)
        for warning in session.warnings:
            report(f"{session.engine.partition(',')[0]} warns: {warning}")
        targets = [index for text in classes for index in class_indices(text, session.classes)]
        if not session.exact:
            report(NOT_EXACT)
        lines = None if output is None else stack.enter_context(JsonLines(output / RESULTS))
        progress = stack.enter_context(progress_bar())
        for image, name in progress.track(list(zip(inputs, names, strict=True)), description="images"):
            row: dict[str, Any] = {"image": display_name(image.path)}
            picture = None
            try:
                if image.problem:
                    raise DataError(image.problem)
                result = session(read_image(image.path))
                shown = result.prediction(targets[0]) if targets else result.top[0]
                if draw:
                    overlay = result.overlay(
                        shown.index,
                        colormap=colormap,
                        alpha=alpha,
                        alpha_by_heat=alpha_by_heat,
                        normalization=normalization,
                        limits=limits,
                        clamp_negative=clamp_negative,
                        boxes=result.boxes(shown.index, **box_options),
                        caption=f"{shown.label} {shown.score:.2f}",
                    )
                    picture = encode_image(overlay, name.suffix)
                row |= {
                    "overlay": name.name if draw else None,
                    "engine": session.engine,
                    **result.to_dict(targets, count=topk, **box_options),
                }
            except (
                DataError,
                FrameError,
                MapNotComputedError,
                VerificationError,
            ) as error:  # this image's fault: the others go on
                skipped += 1
                row["error"] = encodable(" ".join(str(error).split()))
                report(f"skipped {row['image']}: {row['error']}")
            if picture is not None:  # outside the try: where a result cannot be kept, there is no use in going on
                write_atomically(name, picture)
            if lines is not None:
                lines.write(row)
            if as_json:
                write_line(json_line(row, ascii_only=True))
            elif "error" not in row:
                write_line(_summary(row))
    if not as_json:
        write_line(_closing(len(inputs) - skipped, skipped, output))
    if not skipped:
        return ExitCode.DONE
    return ExitCode.PARTIAL if skipped < len(inputs) else ExitCode.DATA


def _summary(row: dict[str, Any]) -> str:
    """An image in two or more lines, for people; labels and file names cannot add any."""
    row = all_printable(row)
    ranks = ", ".join(f"{entry['label']} {entry['score']:.3f}" for entry in row["top"])
    lines = [f"{row['image']}: {ranks}"]
    for entry in row["classes"]:
        corners = "; ".join("x {:.0f} to {:.0f}, y {:.0f} to {:.0f}".format(*_x_then_y(box)) for box in entry["boxes"])
        lines.append(f"  {entry['label']}: {corners or 'no box, its map marks nothing'}")
    if row["overlay"]:
        lines.append(f"  overlay: {row['overlay']}")
    return "\n".join(lines)


def _x_then_y(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0, x1, y0, y1


def _closing(done: int, skipped: int, output: Path | None) -> str:
    counted = f"{done} image{'' if done == 1 else 's'} done" + (f", {skipped} skipped" if skipped else "")
    return counted if output is None else f"{counted}; see {output}"
