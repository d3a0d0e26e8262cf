"""`gapcam inspect`: what a model says of itself, and whether it holds here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gapcam.cli.device_options import device_options, loading
from gapcam.errors import ExitCode, GapcamError

if TYPE_CHECKING:
    from gapcam.session import Session


@click.command(short_help="Show what a model says of itself, and check it here.")
@click.argument("model", type=click.Path(path_type=Path))
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def inspect(model: Path, device: str, allow_cpu_fallback: bool, as_json: bool) -> int:
    """Show the contract, head, tensors, preprocessing of MODEL (an ONNX file or an engine) and what was verified, and
    check it on this device.

    The exit code is 4 where the identity logit = mean(map) + bias does not hold here. A model that this machine cannot
    run (an engine without its GPU, bfloat16 on a CPU) is shown unchecked, unless --device asks for one.

    \b
    Examples:
      gapcam inspect model.onnx
      gapcam inspect model.engine
      gapcam inspect model.onnx --device cuda
      gapcam inspect model.onnx --json | jq .contract.preprocessing
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    from gapcam import load  # here, so that --help needs no inference engine
    from gapcam.cli.described import build_of, described, is_described_alone
    from gapcam.cli.output import display_name, json_line

    passed_over: tuple[str, ...] = ()
    not_run = None
    try:
        with loading():
            session = load(model, device=device, allow_cpu_fallback=allow_cpu_fallback, verify=False)
    except GapcamError as error:
        if device != "auto" or not is_described_alone(model, error):
            raise
        checked, not_run = described(model), " ".join(str(error).split())
    else:
        with session:
            checked, passed_over = _facts(session), session.passed_over
    facts = {
        "file": display_name(model),
        "size_bytes": model.stat().st_size,
        **checked,
        "passed_over": list(passed_over),
        "not_run": not_run,
        "build": build_of(model),
    }
    if as_json:
        click.echo(json_line(facts, ascii_only=True))
    else:
        _print_table(facts)
    fails = facts["identity"] is not None and not facts["identity"]["holds"]
    return ExitCode.VERIFICATION if fails else ExitCode.DONE


def _facts(session: Session) -> dict[str, Any]:
    import msgspec
    import numpy as np

    error = session.identity_error
    return {
        "contract": msgspec.to_builtins(session.contract),
        "classes": len(session.labels),
        "map_size": list(session.map_size),
        "inputs": [msgspec.to_builtins(info) for info in session.inputs.values()],
        "outputs": [msgspec.to_builtins(info) for info in session.outputs.values()],
        "engine": session.engine,
        "identity": {
            "error": error if np.isfinite(error) else None,
            "tolerance": session.identity_tolerance,
            "holds": bool(error <= session.identity_tolerance),
        },
    }


def _print_table(facts: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gapcam.cli.console import stdout
    from gapcam.cli.printable import all_printable

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(all_printable(facts)):
        table.add_row(name, escape(text))
    stdout.print(table)


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from gapcam.cli.console import NOT_EXACT
    from gapcam.cli.described import build_rows

    contract = facts["contract"]
    head, source = contract["head"], contract["source"]
    labels = contract["labels"]
    shown = f"{', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''}" if labels else "none; classes have numbers"
    return [
        ("file", f"{facts['file']}, {facts['size_bytes'] / 1e6:.2f} MB"),
        ("contract", f"version {contract['contract']}, written by {contract['producer']}"),
        ("source", f"{source['spec']}, weights {source['checkpoint'] or 'as the source had them'}"),
        ("source sha256", source["sha256"]),
        ("precision", _precision(contract)),
        ("head", f"{head['kind']}, tapped at {head['tapped']} ({head['layout']})"),
        ("maps", "exact: a logit is the mean of its map, plus its bias" if head["exact"] else NOT_EXACT),
        ("scores", head["scores"]),
        ("inputs", "\n".join(map(_tensor, facts["inputs"]))),
        ("outputs", "\n".join(map(_tensor, facts["outputs"]))),
        ("map", "{} x {} (height x width)".format(*("?" if side is None else side for side in facts["map_size"]))),
        ("classes", f"{facts['classes']}; labels: {shown}"),
        ("preprocessing", _preprocessing(contract["preprocessing"])),
        ("verified at export", _verified(contract["verification"])),
        *([("against float32", _fidelity(contract["fidelity"]))] if contract["fidelity"] else []),
        *(build_rows(facts["build"]) if facts["build"] else []),
        ("verified here", _verified_here(facts)),
        *(("not taken", reason) for reason in facts["passed_over"]),
    ]


def _verified_here(facts: dict[str, Any]) -> str:
    identity = facts["identity"]
    if identity is None:
        return f"NOT RUN: {facts['not_run']}"
    error = "not finite" if identity["error"] is None else f"{identity['error']:.1e}"
    return (
        f"{'identity holds' if identity['holds'] else 'IDENTITY DOES NOT HOLD'}: {error} "
        f"(allowed {identity['tolerance']:.0e}), on {facts['engine']}"
    )


def _precision(contract: dict[str, Any]) -> str:
    how = contract["quantization"]
    if how is None:
        head = contract["head_precision"]
        return str(contract["precision"]) + (f", head in {head}" if head != contract["precision"] else "")
    kept = f", {len(how['kept_layers'])} layers kept in fp32" if how["kept_layers"] else ""
    return (
        f"int8 for {how['target']}, ranges by {how['method']} on {how['calibration_images']} images, head in "
        f"{contract['head_precision']}{kept}"
    )


def _verified(measured: dict[str, Any]) -> str:
    identity = f"identity to {measured['identity_error']:.1e} (allowed {measured['identity_tolerance']:.0e})"
    rest = (
        f"against {measured['reference']}: max abs {measured['source_max_abs']:.1e}, relative "
        f"{measured['source_error']:.1e} (allowed {measured['source_tolerance']:.0e}), cosine "
        f"{measured['source_cosine']:.7f}, same first class on {measured['source_top1']:.0%}"
    )
    if measured["gradient_error"] is not None and measured["gradient_tolerance"] is not None:
        gradient = f"gradient to {measured['gradient_error']:.1e} (allowed {measured['gradient_tolerance']:.0e})"
        rest = f"{gradient}; {rest}"
    if measured["identity_images"] is None:
        return f"{measured['images']} images: {identity}; {rest}"
    return f"{measured['identity_images']} images: {identity}. Before, in fp32, {measured['images']} images: {rest}"


def _fidelity(measured: dict[str, Any]) -> str:
    return (
        f"{measured['images']} images{', emulated' if measured['emulated'] else ''}: same first class on "
        f"{measured['top1_agreement']:.1%}, box IoU "
        f"{measured['box_iou']:.3f}, map correlation {measured['map_pearson']:.4f}, logit error "
        f"{measured['logit_error']:.1e}"
    )


def _tensor(info: dict[str, Any]) -> str:
    sides = ", ".join("N" if side is None else str(side) for side in info["shape"])
    return f"{info['name']} [{sides}] {info['dtype']}"


def _preprocessing(how: dict[str, Any]) -> str:
    height, width = how["size"]
    resize = how["resize"]
    if resize == "crop":
        resize += f" to {how['crop_pct']:.3g} of the centre"
    elif resize == "letterbox":
        resize += f" with {how['pad']}"
    where = "in the graph" if how["embedded"] else "before it"
    mean, std = (", ".join(f"{value:.4g}" for value in how[name]) for name in ("mean", "std"))
    return (
        f"{height} x {width} (height x width), {resize}, {how['interpolation']}, {how['color']}; "
        f"{where}: (pixel / 255 - mean) / std with mean {mean} and std {std}"
    )
