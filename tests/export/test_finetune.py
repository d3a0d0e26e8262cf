"""Fine-tuning in this process: what is trained when, what is written, what is refused."""

from __future__ import annotations

import csv
import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import cv2
import msgspec
import pytest
import torch
from click.testing import CliRunner
from digits import SIDE, TinyGap, save, write_digits
from scipy.stats import binomtest
from torch import Tensor, nn

from gapcam.cli.main import main
from gapcam.errors import BackendError, DataError, GapcamError, UsageError
from gapcam_export.errors import SourceError
from gapcam_export.finetune.accuracy import wilson_interval
from gapcam_export.finetune.errors import InterruptedTrainingError, TrainingError
from gapcam_export.finetune.network import drop_assertions, move_constants
from gapcam_export.finetune.original import Original
from gapcam_export.finetune.report import Report
from gapcam_export.finetune.settings import Hardware, Settings
from gapcam_export.finetune.steps import finetune
from gapcam_export.finetune.training import learning_rate_factor
from gapcam_export.program import load_program, trace

ON_CPU = Hardware(accelerator="cpu", workers=0)
QUICK = Settings(epochs=2, frozen_epochs=1, lr=1e-2, augment="light", flip=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "data", per_class=10, classes=3)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save(TinyGap(), tmp_path / "network.pt2")


class AlwaysOne(nn.Module):
    """Answers the same class, whatever it is shown."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.head = nn.Linear(1, 3)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(2 * torch.eye(3)[answer])

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.mean((1, 2, 3))[:, None])


def tune(network: Path, data: Path, output: Path, settings: Settings = QUICK, **options: Any) -> Report:
    report = finetune(network, data, output, settings=settings, hardware=options.pop("hardware", ON_CPU), **options)
    assert report is not None
    return report


def weights(path: Path) -> dict[str, Tensor]:
    return dict(load_program(path).model.state_dict())


def test_all_results_are_written_and_nothing_else_anywhere(
    network: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    report = tune(network, data, tmp_path / "out")
    results = {path.name for path in (tmp_path / "out").iterdir()}
    assert results == {"gapnet.pt2", "learning-curve.png", "metrics.csv", "report.json", "run.json", ".lock"}
    assert list(current.iterdir()) == []

    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert [(row["epoch"], row["frozen"]) for row in rows] == [("1", "True"), ("2", "False")]
    assert [float(row["val_loss"]) for row in rows] == [epoch.val_loss for epoch in report.epochs]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    curve = cv2.imread(str(tmp_path / "out" / "learning-curve.png"))
    assert curve is not None
    assert curve.shape == (480, 1200, 3)
    record = load_program(tmp_path / "out" / "gapnet.pt2").record
    assert record is not None
    assert record.labels == ("0", "1", "2")
    assert record.history[-1].startswith("Fine-tuned on 24 images of 3 classes, 2 epochs")


def test_a_frozen_backbone_keeps_every_bit_and_the_head_does_not(network: Path, data: Path, tmp_path: Path) -> None:
    tune(network, data, tmp_path / "out", Settings(epochs=2, frozen_epochs=2, lr=1e-2, train_batch_norm=True))
    before, after = weights(network), weights(tmp_path / "out" / "gapnet.pt2")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("head.")}


def test_a_frozen_backbone_gets_no_gradient(network: Path, data: Path, tmp_path: Path) -> None:
    stepped = {}

    def look(line: str) -> None:
        if line.startswith("epoch "):
            last = tmp_path / "out" / ".gapcam-checkpoints" / "last.ckpt"
            (optimizer,) = torch.load(last, weights_only=True)["optimizer_states"]
            # AdamW has a state for what has had a gradient; the groups are the head and the backbone.
            groups = [set(group["params"]) for group in optimizer["param_groups"]]
            stepped[line.split()[1]] = [group & set(optimizer["state"]) == group for group in groups]
            assert stepped[line.split()[1]][1] or not groups[1] & set(optimizer["state"])

    tune(network, data, tmp_path / "out", progress=look)
    assert stepped == {"1": [True, False], "2": [True, True]}


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_after_the_unfreezing_all_is_trained_and_batch_norms_statistics_if_asked_for(
    network: Path, data: Path, tmp_path: Path, train_batch_norm: bool
) -> None:
    # The loss of a batch's own statistics may be worse than before: the last epoch has to be the one that is kept.
    settings = Settings(epochs=1, frozen_epochs=0, lr=1e-2, train_batch_norm=train_batch_norm)
    tune(network, data, tmp_path / "out", settings)
    before, after = weights(network), weights(tmp_path / "out" / "gapnet.pt2")
    same = {name for name in before if torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running_" in name}
    assert len(statistics) == 2
    assert {name for name in same if "num_batches" not in name} == (set() if train_batch_norm else statistics)


def test_a_network_without_a_new_head_is_trained_from_the_start_and_says_so(data: Path, tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = TinyGap()

        def forward(self, image: Tensor) -> Tensor:
            return self.layers(image)

    path = save(Plain(), tmp_path / "plain.pt2")
    report = tune(path, data, tmp_path / "out", Settings(epochs=1, frozen_epochs=1))
    assert [epoch.frozen for epoch in report.epochs] == [False]
    assert any("no new head" in note for note in report.notes)
    before, after = weights(path), weights(tmp_path / "out" / "gapnet.pt2")
    assert not torch.equal(before["layers.backbone.0.weight"], after["layers.backbone.0.weight"])


class Squeezed(TinyGap):
    """With a BatchNorm after a pooling, as in split attention: one value a channel of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone(image)
        return self.head(features * self.gate(features))


def test_batch_norm_learns_from_a_last_batch_of_one_image_and_refuses_batches_of_one(
    data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = save(Squeezed(), tmp_path / "squeezed.pt2")
    next((data / "0").iterdir()).unlink()
    settings = Settings(epochs=2, frozen_epochs=0, batch=22, lr=1e-2, train_batch_norm=True, val_fraction=0.25)
    report = tune(path, data, tmp_path / "out", settings)
    assert report.train_images == 23
    assert all(value.isfinite().all() for value in weights(tmp_path / "out" / "gapnet.pt2").values())
    with pytest.raises(UsageError, match=r"batch is 1, one image a device, .*; expected a batch of 2 or more"):
        tune(path, data, tmp_path / "one", msgspec.structs.replace(settings, batch=1))
    tune(path, data, tmp_path / "kept", Settings(epochs=1, batch=1, frozen_epochs=0))


def test_the_kept_weights_are_the_best_epochs(network: Path, data: Path, tmp_path: Path) -> None:
    report = tune(network, data, tmp_path / "out", msgspec.structs.replace(QUICK, epochs=6, lr=0.05))
    losses = [epoch.val_loss for epoch in report.epochs]
    assert report.best_epoch == losses.index(min(losses)) + 1
    assert report.after.top1 / report.after.images == pytest.approx(report.epochs[report.best_epoch - 1].val_top1)


def test_training_stops_when_nothing_gets_better_but_not_before_the_backbone_was_trained(
    network: Path, data: Path, tmp_path: Path
) -> None:
    # At a rate that changes next to nothing the validation's top-1 stays where it is.
    still = Settings(epochs=12, frozen_epochs=4, lr=1e-9, patience=2, monitor="top1", augment="none")
    report = tune(network, data, tmp_path / "out", still)
    assert [epoch.frozen for epoch in report.epochs] == [True] * 4 + [False] * 3


def test_classes_are_matched_to_the_networks_labels(tmp_path: Path) -> None:
    # Class "1" alone has two validation images.
    data = write_digits(tmp_path / "data", per_class=5, classes=3)
    for image in list(write_digits(tmp_path / "more", per_class=10, classes=2).glob("1/*.png")):
        image.replace(data / "1" / image.name)
    path = save(AlwaysOne(2), tmp_path / "labelled.pt2", labels=("2", "0", "1"))
    report = tune(path, data, tmp_path / "out", Settings(epochs=1, lr=1e-12))
    assert report.classes == ("2", "0", "1")
    assert not any("sorted" in note for note in report.notes)
    assert (report.before.top1, report.after.top1, report.after.images) == (2, 2, 4)


def test_the_original_is_measured_on_the_same_images_and_later_if_it_is_named_later(
    network: Path, data: Path, tmp_path: Path
) -> None:
    same = Original(str(network))
    report = tune(network, data, tmp_path / "out", original=same)
    assert report.original == report.before
    late = tune(network, data, tmp_path / "late")
    assert late.original is None
    again = tune(network, data, tmp_path / "late", original=same)
    assert again.original == report.original
    assert (again.after, again.epochs) == (late.after, late.epochs)


def test_another_original_of_the_same_name_is_measured_anew(network: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part, counts in (("train", (4, 4, 4)), ("val", (4, 2, 1))):
        write_digits(data / part, per_class=4, classes=3)
        for label, count in enumerate(counts):
            for image in sorted((data / part / str(label)).iterdir())[count:]:
                image.unlink()
    named = Original(str(tmp_path / "original.pt2"))
    right = []
    for answer in (0, 1, 1):
        save(AlwaysOne(answer), tmp_path / "original.pt2", labels=("0", "1", "2"))
        report = tune(network, data, tmp_path / "out", original=named)
        assert report.original is not None
        right.append((report.original.top1, report.already_finished))
    assert right == [(4, False), (2, False), (2, True)]
    # The first logit of this one is class "2"'s, and it answers it: one image of the seven shows a 2.
    save(AlwaysOne(0), tmp_path / "original.pt2", labels=("2", "0", "1"))
    report = tune(network, data, tmp_path / "out", original=named)
    assert report.original is not None
    assert report.original.top1 == 1


def test_a_finished_run_is_reported_again_and_left_alone(network: Path, data: Path, tmp_path: Path) -> None:
    first = tune(network, data, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != ".lock"}
    again = tune(network, data, tmp_path / "out")
    assert again == msgspec.structs.replace(first, already_finished=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    fresh = tune(network, data, tmp_path / "out", fresh=True)
    assert not fresh.already_finished
    assert fresh.after == first.after


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gapnet.pt2", None, "which the finished run there wrote, is missing"),
        ("report.json", None, "of a finished run, cannot be read"),
        ("report.json", b"{", "of a finished run, cannot be read"),
        ("report.json", b"[1]", "of a finished run, cannot be read"),
        ("report.json", b'{"original": 1}', "of a finished run, cannot be read"),
        ("run.json", b"{", "cannot be read"),
    ],
)
def test_a_damaged_finished_run_is_refused_by_the_files_name(
    network: Path, data: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    settings = Settings(epochs=1)
    tune(network, data, tmp_path / "out", settings)
    path = tmp_path / "out" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for original in (None, Original(str(network))):
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}.* {said}.*start anew with --fresh\.$"):
            tune(network, data, tmp_path / "out", settings, original=original)


@pytest.mark.parametrize("name", ["last.ckpt", "epoch-1.pt"])
def test_a_damaged_checkpoint_is_refused_before_training(network: Path, data: Path, tmp_path: Path, name: str) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("epoch 1 "):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedTrainingError):
        tune(network, data, tmp_path / "out", progress=interrupt)
    path = tmp_path / "out" / ".gapcam-checkpoints" / name
    whole = path.read_bytes()
    said: list[str] = []
    for content in (whole[: len(whole) // 2], b"", b"garbage"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}, .* it is cut off or damaged; start anew with --fresh\.$"):
            tune(network, data, tmp_path / "out", progress=said.append)
    if name != "last.ckpt":  # without that one the run begins again
        path.unlink()
        with pytest.raises(DataError, match=rf"{name}, .* it is missing; start anew with --fresh\.$"):
            tune(network, data, tmp_path / "out", progress=said.append)
    assert not [line for line in said if "training" in line or line.startswith("epoch ")]
    path.write_bytes(whole)
    assert tune(network, data, tmp_path / "out").continued


def test_an_interrupt_says_how_to_go_on_and_ctrl_c_works_as_before(network: Path, data: Path, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("epoch 1 "):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedTrainingError, match="the same command goes on") as raised:
        tune(network, data, tmp_path / "out", progress=interrupt)
    assert raised.value.exit_code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("settings", [QUICK, Settings(epochs=12, frozen_epochs=0, lr=1e-9, patience=2, augment="none")])
def test_a_run_that_is_stopped_after_training_does_not_train_on(
    network: Path, data: Path, tmp_path: Path, settings: Settings
) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("writing"):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedTrainingError):
        tune(network, data, tmp_path / "out", settings, progress=interrupt)
    said: list[str] = []
    report = tune(network, data, tmp_path / "out", settings, progress=said.append)
    assert not [line for line in said if line.startswith("epoch ")]
    straight = tune(network, data, tmp_path / "straight", settings)
    assert len(report.epochs) == len(straight.epochs) <= 3
    assert (report.best_epoch, report.after) == (straight.best_epoch, straight.after)


def test_another_run_in_the_same_folder_is_refused(network: Path, data: Path, tmp_path: Path) -> None:
    tune(network, data, tmp_path / "out", Settings(epochs=1))
    with pytest.raises(UsageError, match=r"has a run with epochs 1, now it is 2\. .*--fresh"):
        tune(network, data, tmp_path / "out", Settings(epochs=2))
    torch.manual_seed(1)
    other = save(TinyGap(), tmp_path / "other.pt2")
    with pytest.raises(UsageError, match="has a run of another network"):
        tune(other, data, tmp_path / "out", Settings(epochs=1))
    next((data / "0").iterdir()).unlink()
    with pytest.raises(UsageError, match="has a run with other images"):
        tune(network, data, tmp_path / "out", Settings(epochs=1))
    with pytest.raises(UsageError, match="would be overwritten"):
        tune(tmp_path / "out" / "gapnet.pt2", data, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.csv").write_text("mine")
    with pytest.raises(DataError, match=r"has a metrics\.csv that no run there wrote"):
        tune(network, data, tmp_path / "mine")
    assert (tmp_path / "mine" / "metrics.csv").read_text() == "mine"


def test_only_what_gapcam_wrote_is_removed(network: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mine = [out / "checkpoints" / "last.ckpt", out / "epoch-1.pt", out / ".gapcam-checkpoints" / "notes.txt"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    for fresh in (False, True):
        tune(network, data, out, fresh=fresh)
        assert [path.read_text() for path in mine] == ["mine"] * 3
    assert [path.name for path in (out / ".gapcam-checkpoints").iterdir()] == ["notes.txt"]


def test_a_folder_in_which_another_run_works_is_refused(network: Path, data: Path, tmp_path: Path) -> None:
    from gapcam_export.finetune.run_folder import RunFolder

    with RunFolder(tmp_path / "out").locked(), pytest.raises(DataError, match="another run works in"):
        tune(network, data, tmp_path / "out")


def test_images_that_cannot_be_read_are_skipped_by_name(network: Path, data: Path, tmp_path: Path) -> None:
    for name in ("one.heic", "two.HEIC", ".hidden"):
        (data / "1" / name).write_bytes(b"somebody's format")
    bad = data / "1" / "bad.png"
    bad.write_bytes(next((data / "1").iterdir()).read_bytes()[:50])
    report = tune(network, data, tmp_path / "out")
    assert list(report.skipped) == ["1/bad.png"]
    assert report.train_images + report.val_images == 30
    heic = data / "1" / "one.heic"
    assert f"2 files are no images by their suffix and were passed over, such as {heic}" in report.notes
    for image in (data / "1").iterdir():
        image.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"none of the \d+ training images of class '1' can be read"):
        tune(network, data, tmp_path / "other")


def test_an_image_that_goes_during_training_is_named(network: Path, data: Path, tmp_path: Path) -> None:
    def remove(line: str) -> None:
        if line.startswith("training on"):
            for image in (data / "2").iterdir():
                image.unlink()

    for workers in (0, 1):
        if workers:
            write_digits(tmp_path / "again", per_class=10, classes=3)
            for image in (tmp_path / "again" / "2").iterdir():
                image.rename(data / "2" / image.name)
        hardware = Hardware(accelerator="cpu", workers=workers)
        with pytest.raises(DataError, match=r"^there is no file .*2/\d+\.png; check the name$"):
            tune(network, data, tmp_path / f"out{workers}", hardware=hardware, progress=remove)


def test_networks_that_cannot_be_trained_are_refused(data: Path, network: Path, tmp_path: Path) -> None:
    def refused(model: nn.Module, match: str, kind: type[GapcamError] = SourceError) -> None:
        with pytest.raises(kind, match=match):
            tune(save(model, tmp_path / "refused.pt2"), data, tmp_path / "out")

    refused(nn.Sequential(TinyGap(), nn.Softmax(1)), "gives probabilities; expected logits")
    refused(TinyGap(classes=1), r"gives \[2, 1\] for two images; expected logits \[2,K\]")
    refused(TinyGap(classes=4), "3 classes, the network 4. Give it as many with: gapcam gap SOURCE", UsageError)
    program = torch.export.export(TinyGap().eval(), (torch.zeros(1, 3, SIDE, SIDE),))
    torch.export.save(program, tmp_path / "somebodys.pt2")
    with pytest.raises(SourceError, match="has no record of gapcam's"):
        tune(tmp_path / "somebodys.pt2", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"gives \[2, 4\] for two images, the network \[2,3\]"):
        tune(network, data, tmp_path / "out", original=Original(str(save(TinyGap(4), tmp_path / "four.pt2"))))


def test_training_that_diverges_says_so_and_keeps_the_checkpoint_before(
    network: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"the loss in epoch \d is .*smaller --lr \(--fresh\)"):
        tune(network, data, tmp_path / "out", Settings(epochs=3, frozen_epochs=0, lr=1e30))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0), ("frozen_epochs", -1), ("batch", 0), ("lr", 0.0), ("lr", math.inf), ("lr", math.nan),
        ("backbone_lr", 2.0), ("label_smoothing", 1.0), ("patience", 0), ("val_fraction", 1.0), ("augment", "wild"),
    ],
)  # fmt: skip
def test_a_setting_out_of_its_range_is_refused(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{option} is {value!r}; expected"):
        Settings(**{option: value})


@pytest.mark.parametrize("devices", ["0", "", "two", "1.5", "-1"])
def test_devices_that_are_no_number_are_refused(devices: str) -> None:
    with pytest.raises(UsageError, match=r"devices is .*; expected"):
        Hardware(devices=devices)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_done(network: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="PyTorch sees no GPU here"):
        tune(network, data, tmp_path / "out", hardware=Hardware(accelerator="gpu"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("right", [0, 1, 47, 99, 100])
def test_the_interval_is_scipys(right: int) -> None:
    expected = binomtest(right, 100).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, 100) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_learning_rates_rise_from_their_begin_and_fall_to_zero() -> None:
    factors = [learning_rate_factor(step, begin=20, total=120, epoch=5) for step in range(121)]
    assert factors[:20] == [0] * 20
    assert factors[20:25] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[25:] == sorted(factors[25:], reverse=True)
    assert factors[25] == 1
    assert factors[25 + 95 // 2] == pytest.approx(0.5, abs=0.02)
    assert factors[120] == pytest.approx(0, abs=1e-12)


def test_what_a_graph_makes_itself_moves_to_the_device() -> None:
    class Counts(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.mean((2, 3)) + torch.arange(3, device=image.device) + torch.ones(3)

    model = trace(Counts(), (8, 8))
    move_constants(model, torch.device("meta"))
    assert model.to("meta")(torch.zeros(2, 3, 8, 8, device="meta")).device.type == "meta"
    move_constants(model, torch.device("cpu"))
    assert model(torch.zeros(2, 3, 8, 8)).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_a_network_that_casts_is_trained_in_mixed_precision(data: Path, tmp_path: Path) -> None:
    class Casts(TinyGap):
        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.backbone(image).float()).float()

    path = save(Casts(), tmp_path / "casts.pt2")
    model = load_program(path).model
    asserted = [node for node in model.graph.nodes if "assert" in str(node.target)]
    assert asserted  # or this test holds nothing
    drop_assertions(model)
    hardware = Hardware(accelerator="cpu", workers=0, precision="bf16-mixed")
    assert len(tune(path, data, tmp_path / "out", hardware=hardware).epochs) == 2


def test_the_command_prints_a_table_or_json_and_its_exit_code_tells_of_skipped_images(
    network: Path, data: Path, tmp_path: Path
) -> None:
    (data / "0" / "bad.jpg").write_bytes(b"no image")
    line = [
        "finetune",
        str(network),
        "--data",
        str(data),
        "-o",
        str(tmp_path / "out"),
        "--epochs",
        "1",
        "--workers",
        "0",
    ]
    done = CliRunner().invoke(main, [*line, "--accelerator", "cpu"])
    assert done.exit_code == 1, done.stderr
    assert "before fine-tuning" in done.stdout
    assert "not given" in done.stdout
    assert "skipped: " in done.stderr
    assert "epoch 1 of 1" in done.stderr
    assert "1 images could not be read" in done.stderr
    for chatter in ("GPU available", "Tip", "lightning_logs", "max_epochs", "Warning"):
        assert chatter not in done.stderr + done.stdout
    again = CliRunner().invoke(main, [*line, "--json"])
    report = json.loads(again.stdout)
    assert report["already_finished"]
    assert report["after"]["top1"]["interval95"][0] <= report["after"]["top1"]["share"]
    assert report["after"]["top5"] is None
    wrong = CliRunner().invoke(main, [*line, "--original-pretrained"])
    assert (wrong.exit_code, "--original SOURCE" in wrong.stderr) == (2, True)
