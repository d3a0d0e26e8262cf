"""A network of VGG's shape learns real digits, loses its FC layers, and regains its accuracy; some minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from digits import SmallVgg, save, write_digits

import gapcam
import gapcam_export
from gapcam_export.finetune.labelled_images import find_class_folders
from gapcam_export.finetune.original import Original
from gapcam_export.finetune.settings import Hardware, Settings
from gapcam_export.finetune.steps import finetune


@pytest.mark.slow
def test_a_vgg_without_its_fc_layers_regains_its_accuracy(tmp_path: Path) -> None:
    data = write_digits(tmp_path / "data")
    hardware = Hardware(accelerator="cpu", workers=0)
    torch.manual_seed(0)
    untrained = save(SmallVgg(), tmp_path / "untrained.pt2")
    from_scratch = Settings(epochs=8, lr=2e-3, batch=64, augment="none")
    original = finetune(untrained, data, tmp_path / "original", settings=from_scratch, hardware=hardware)
    assert original is not None
    assert original.after.top1 > 0.9 * original.after.images > original.before.top1  # it learned: chance is 0.1

    trained = tmp_path / "original" / "gapnet.pt2"
    cut = gapcam_export.gap_surgery(str(trained), tmp_path / "cut.pt2", conv=64, cut_stride=4)
    assert sum("Linear" in name for name in cut.removed) == 3
    assert cut.initial == "random"
    tuned = finetune(
        tmp_path / "cut.pt2",
        data,
        tmp_path / "tuned",
        settings=Settings(epochs=6, frozen_epochs=2, lr=5e-3, batch=64, augment="none"),
        hardware=hardware,
        original=Original(str(trained)),
    )
    assert tuned is not None
    assert tuned.original == original.after
    assert tuned.before.top1 < 0.5 * tuned.before.images
    images = tuned.after.images
    assert images == 359
    assert tuned.after.top1 / images >= original.after.top1 / images - 0.02

    exported = gapcam_export.export(str(tmp_path / "tuned" / "gapnet.pt2"), tmp_path / "model.onnx")
    assert exported.contract.head.exact
    assert exported.contract.verification.identity_error < 1e-5
    # What was measured in PyTorch is what the runtime does on a device, image for image.
    folders = find_class_folders(data, val_fraction=0.2, seed=0)
    with gapcam.load(tmp_path / "model.onnx") as session:
        answers = [
            session(gapcam.read_image(path)).top[0].label == name
            for name in folders.names
            for path in folders.val[name]
        ]
    assert (sum(answers), len(answers)) == (tuned.after.top1, images)
