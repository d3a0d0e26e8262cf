"""`gapcam fidelity`: what it prints, the page that it writes, and its exit codes."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from fidelity_models import BIAS, CLASSES, WEIGHTS, blocks, pictures

import gapcam
import gapcam_export
from gapcam.cli.console import stdout
from gapcam.cli.main import main
from gapcam.errors import ExitCode
from gapcam_export.comparison.answers import answer
from gapcam_export.comparison.page import COLORMAP
from gapcam_export.comparison.pictures import shrunk, with_map
from gapcam_export.comparison.tables import print_fidelity, say_about

OTHER_WEIGHTS = WEIGHTS + np.random.default_rng(2).normal(size=WEIGHTS.shape).astype(np.float32) * 4
EVIL = """<script>alert("1")</script> & 'co'"""
VOID = {"br", "hr", "img", "input", "link", "meta"}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as wide as they need to be."""
    monkeypatch.setattr(stdout, "width", 400)


def fidelity(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in ("fidelity", *arguments)])
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def images(tmp_path: Path) -> Path:
    pictures(tmp_path / "images" / "deeper", 6)
    return tmp_path / "images"


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return blocks(tmp_path / "a.onnx")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return blocks(tmp_path / "b.onnx", weights=OTHER_WEIGHTS)


def cells(out: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in out.splitlines()]


def test_the_terminal_shows_both_models_and_every_figure(a: Path, b: Path, images: Path) -> None:
    code, out, err = fidelity(a, b, "--images", images, "--threads", 1)
    assert code == ExitCode.DONE, err
    report = gapcam_export.fidelity(a, b, images=images, latency=False)
    figures = report.comparison.figures()
    rows = {row[0]: row[1:] for row in cells(out) if len(row) == 3}
    assert rows["model"] == [str(a), str(b)]
    assert rows["precision"] == ["fp32", "fp32"]
    assert rows["file"] == ["0.00 MB", "0.00 MB"]
    assert rows["top-1 agreement"] == [f"{figures['top1_agreement']:.2%}", ""]
    assert rows["box IoU"] == [f"{figures['box_iou']:.4f}", f"{figures['box_iou_min']:.4f}"]
    assert rows["map correlation, Pearson"] == [f"{figures['map_pearson']:.4f}", f"{figures['map_pearson_min']:.4f}"]
    assert rows["peak shift, pixels of A's input"] == [f"{figures['peak_shift_px']:.2f}", ""]
    assert re.fullmatch(r"\d+\.\d\d times A's", rows["speed, 200 samples"][1])
    assert "inference on 1 thread, median" in rows
    assert err == ""


def test_json_is_the_report(a: Path, b: Path, images: Path) -> None:
    code, out, _ = fidelity(a, b, "--images", images, "--no-latency", "--json", "--threshold", 0.4, "--min-top1", 0)
    report = gapcam_export.fidelity(a, b, images=images, latency=False, threshold=0.4).to_dict()
    top1 = report["fidelity"]["top1_agreement"]
    limit = {"figure": "top1_agreement", "at_least": 0.0, "measured": top1, "met": True}
    assert code == ExitCode.DONE
    assert json.loads(out) == {**report, "limits": [limit]}
    assert report["fidelity"]["threshold"] == 0.4


def test_figures_below_their_limits_are_named_and_give_exit_code_4(a: Path, b: Path, images: Path) -> None:
    figures = gapcam_export.fidelity(a, b, images=images, latency=False).comparison.figures()
    assert figures["box_iou"] < 0.9999
    limits = ("--min-top1", 0, "--min-box-iou", 0.9999, "--min-correlation", 1)
    code, out, err = fidelity(a, b, "--images", images, "--no-latency", *limits)
    assert code == ExitCode.VERIFICATION
    assert err == (
        f"error: {b} is not alike enough: the mean IoU of the boxes is {figures['box_iou']:.4f}, and at least 0.9999 "
        f"was asked for; the mean correlation of the maps (Pearson) is {figures['map_pearson']:.4f}, and at least 1 "
        "was asked for\n"
    )
    verdicts = {row[0]: row[3:] for row in cells(out) if len(row) == 5}
    assert verdicts["top-1 agreement"] == ["0", "met"]
    assert verdicts["box IoU"] == ["0.9999", "MISSED"]
    code, out, _ = fidelity(a, b, "--images", images, "--no-latency", *limits, "--json")
    assert code == ExitCode.VERIFICATION
    assert [limit["met"] for limit in json.loads(out)["limits"]] == [True, False, False]
    perfect = ("--min-top1", 1, "--min-box-iou", 1, "--min-correlation", 1)
    assert fidelity(a, a, "--images", images, "--no-latency", *perfect)[0] == ExitCode.DONE


def test_images_that_cannot_be_read_are_named_and_give_exit_code_1(a: Path, images: Path) -> None:
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    missing = images / "nowhere" / "*.png"
    code, out, err = fidelity(a, a, "--images", images, "--images", missing, "--no-latency")
    assert code == ExitCode.PARTIAL
    assert "Agreement on 6 images" in out
    assert f"skipped {images / 'bad.jpg'}: " in err
    assert f"skipped {missing}: no file matches {missing}" in err
    assert fidelity(a, a, "--images", images / "bad.jpg")[0] == ExitCode.DATA
    assert fidelity(a, a, "--images", missing)[0] == ExitCode.DATA


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--threshold", 1), ExitCode.USAGE, "'--threshold'"),
        (("--min-top1", 1.5), ExitCode.USAGE, "the limit of the top-1 agreement is 1.5; give a number from 0 to 1"),
        (("--min-correlation", -2), ExitCode.USAGE, "give a number from -1 to 1"),
        (("--min-box-iou", "nan"), ExitCode.USAGE, "'--min-box-iou': nan is not a finite number"),
        (("--threads", 0), ExitCode.USAGE, "'--threads'"),
        (("--threads", 5000), ExitCode.USAGE, "threads is 5000"),
        (("--worst", -1), ExitCode.USAGE, "'--worst'"),
        (("--pretrained",), ExitCode.USAGE, "neither model is a network in PyTorch"),
        (("--html", "."), ExitCode.DATA, ". is a folder; expected the name of a file to write, which may be in it"),
        (("--html", ""), ExitCode.USAGE, "'--html': '' names no file; give one, such as report.html"),
        (("--html", "-"), ExitCode.USAGE, "'--html': '-' names no file"),
        (("--html", os.devnull), ExitCode.DATA, "is no regular file, and would be replaced by one; choose another"),
    ],
)
def test_bad_options_end_with_a_line(
    a: Path, images: Path, arguments: tuple[object, ...], code: ExitCode, said: str
) -> None:
    got, out, err = fidelity(a, a, "--images", images, *arguments)
    assert (got, out) == (code, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_models_that_cannot_be_compared_end_with_a_line(a: Path, tmp_path: Path, images: Path) -> None:
    fewer = blocks(tmp_path / "fewer.onnx", weights=WEIGHTS[:3], bias=BIAS[:3])
    (tmp_path / "text.onnx").write_text("no model")
    for other, said in ((fewer, "3 classes"), ("none.onnx", "none.onnx"), (tmp_path / "text.onnx", "text.onnx")):
        code, out, err = fidelity(a, other, "--images", images)
        assert (code, out) == (ExitCode.MODEL, "")
        assert said in err
        assert len(err.splitlines()) == 1
    assert fidelity(a, a)[0] == ExitCode.USAGE


def test_the_page_is_not_written_over_what_is_compared(
    a: Path, b: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network, weights = tmp_path / "network.py", tmp_path / "weights.pt"
    for path in (network, weights):
        path.write_text("raise SystemExit('was loaded')")
    (tmp_path / "link.html").symlink_to(a)
    image = images / "deeper" / "002.png"
    given = (f"{network}:build", b, "--checkpoint", weights, "--images", images, "--no-latency")
    for arguments, page in (
        ((a, b, "--images", images), a),
        ((a, b, "--images", images), "b.onnx"),
        ((a, b, "--images", images), "link.html"),
        ((a, b, "--images", images), image),
        ((a, b, "--images", images / "*" / "*.png"), "images/../images/deeper/002.png"),
        (given, network),
        (given, weights),
    ):
        before = Path(page).read_bytes()
        code, out, err = fidelity(*arguments, "--html", page)
        assert (code, out) == (ExitCode.DATA, "")
        assert err.startswith(f"error: {page} would be written over ")
        assert len(err.splitlines()) == 1
        assert Path(page).read_bytes() == before
    Path("page.html").write_text("an older page")
    assert fidelity(a, b, "--images", images, "--no-latency", "--html", "page.html")[0] == ExitCode.DONE
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")


def test_the_figures_are_printed_where_the_page_cannot_be_written(
    a: Path, b: Path, images: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for a disk that fills up."""
    page, before = tmp_path / "page.html", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code, out, err = fidelity(a, b, "--images", images, "--no-latency", "--json", "--html", page)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == ExitCode.DATA
    assert json.loads(out)["fidelity"]["images"] == 6
    assert err == f"error: cannot write {page}: File too large; make room, or choose another place\n"
    assert not page.exists()


def test_the_page_is_written_where_nobody_reads_the_figures(a: Path, b: Path, images: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "gapcam.cli.main", "fidelity", a, b, "--images", images, "--no-latency"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run([*command, "--html", page], check=False, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert ran.returncode == ExitCode.PARTIAL
    assert ran.stderr == f"{page} was written\n"
    Page(page.read_text(encoding="utf-8"))


def test_what_ran_a_model_and_what_to_know_of_it_are_on_the_terminal_and_on_the_page(
    a: Path, b: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that measured a stand-in says so in the report."""
    (images / "bad.png").write_bytes(b"no image")
    made = gapcam_export.fidelity(a, b, images=images, latency=False)
    made = replace(made, other=replace(made.other, engine="a <stand-in>"), notes=("a & b [bold]",))
    print_fidelity(made)
    say_about(made)
    out, err = capsys.readouterr()
    assert ["engine", made.reference.engine, "a <stand-in>"] in cells(out)
    skipped, note = err.splitlines()
    assert skipped == f"skipped {images / 'bad.png'}: {made.skipped[0].error}"
    assert note == "note: a & b [bold]"
    text = Page(made.to_html()).text
    assert "a <stand-in>" in text
    assert "a & b [bold]" in text
    assert f"left out: {made.skipped[0].error}" in text


class Page(HTMLParser):
    """A page's elements, checked to be closed in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(tmp_path: Path, *arguments: object) -> Page:
    path = tmp_path / "out" / "page.html"
    code, _, err = fidelity(*arguments, "--no-latency", "--html", path)
    assert code in (ExitCode.DONE, ExitCode.PARTIAL), err
    assert f"{path} was written" in err
    assert [found.name for found in path.parent.iterdir()] == ["page.html"]
    return Page(path.read_text(encoding="utf-8"))


def picture(uri: str | None) -> np.ndarray:
    assert uri is not None
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))


def test_the_page_asks_for_nothing_and_forbids_itself_the_rest(a: Path, b: Path, images: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, a, b, "--images", images)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall("<style>(.*?)</style>", page.rawdata or (tmp_path / "out/page.html").read_text(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", "the policy would drop it"
            if name in ("src", "href", "action", "data", "srcset", "xlink:href"):
                assert (value or "").startswith("data:image/jpeg;base64,")
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_the_page_shows_the_worst_images_with_both_maps(a: Path, b: Path, images: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, a, b, "--images", images, "--worst", 2)
    report = gapcam_export.fidelity(a, b, images=images, latency=False, worst=2)
    pictures = page.all("img")
    assert len(pictures) == 6
    assert all(it["alt"] for it in pictures)
    with gapcam.load(a) as one, gapcam.load(b) as other:
        for number, case in enumerate(report.worst):
            frame = gapcam.read_image(case.path)
            expected = [frame]
            for session in (one, other):
                it = answer(session, frame, "", target=case.row.target)
                expected.append(with_map(frame, it, COLORMAP))
            for shown, image in zip(pictures[3 * number : 3 * number + 3], expected, strict=True):
                assert np.abs(picture(shown["src"]).astype(int) - image).mean() < 12  # JPEG
    text = " ".join(" ".join(page.text).split())
    figures = report.comparison.figures()
    for shown in (f"{figures['top1_agreement']:.2%}", f"{figures['map_spearman']:.4f}", report.worst[1].row.name):
        assert shown in text
    curves = [it["points"] or "" for it in page.all("polyline")]
    values = [100 - float(point.split(",")[1]) for point in curves[0].split()]
    assert len(values) == 6
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_what_strangers_wrote_is_text_on_the_page(tmp_path: Path) -> None:
    labels = [f'{EVIL}{index}" onload="x' for index in range(CLASSES)]
    a = blocks(tmp_path / "a&<b>.onnx", labels=labels)
    b = blocks(tmp_path / "b.onnx", labels=[*labels[1:], "a"], weights=OTHER_WEIGHTS)
    (image,) = pictures(tmp_path / "images", 1)
    image.rename(image.with_name('<img src=x onerror=y> & ".png'))
    (tmp_path / "images" / "<script>.png").write_bytes(b"")
    (tmp_path / "images" / "{{ 7 * 7 }}.png").write_bytes(b"")
    page = page_of(tmp_path, a, b, "--images", tmp_path / "images")
    text = "".join(page.text)
    assert not page.all("script")
    assert len(page.all("img")) == 3
    assert labels[gapcam_export.fidelity(a, b, images=image.parent, latency=False).comparison.rows[0].target] in text
    for name in ("a&<b>.onnx", '<img src=x onerror=y> & ".png', "<script>.png", "{{ 7 * 7 }}.png"):
        assert name in text
    source = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert html.escape("<script>", quote=False) in source


def test_pictures_are_at_most_480_pixels_wide_and_what_is_drawn_keeps_its_place(a: Path) -> None:
    frame = np.zeros((1000, 1500, 3), np.uint8)
    frame[250:500, 750:1000] = 255
    weights = np.tile(np.arange(1, CLASSES + 1, dtype=np.float32)[:, None], 3)
    with gapcam.load(blocks(a, weights=weights)) as session:
        it = answer(session, frame, "")
    drawn = with_map(frame, it, COLORMAP)
    assert shrunk(frame).shape == drawn.shape == (320, 480, 3)
    assert it.box is not None
    x0, y0 = round(it.box.x0 * 0.32), round(it.box.y0 * 0.32)
    np.testing.assert_array_equal(drawn[y0 + 20, x0], [255] * 3)
    np.testing.assert_array_equal(drawn[y0, x0 + 20], [255] * 3)
    assert it.peak is not None
    np.testing.assert_array_equal(drawn[int(it.peak[1] * 0.32), int(it.peak[0] * 0.32)], [255] * 3)
    assert shrunk(frame[:20, :30]).shape == (20, 30, 3)
    assert shrunk(np.zeros((9000, 10, 3), np.uint8)).shape == (1920, 2, 3)


def test_a_page_without_worst_images_and_one_of_one_image_are_pages_too(a: Path, images: Path, tmp_path: Path) -> None:
    assert page_of(tmp_path, a, a, "--images", images, "--worst", 0).all("img") == []
    (curve, _) = page_of(tmp_path, a, a, "--images", images / "deeper" / "000.png").all("polyline")
    assert curve["points"] == "0.00,0.00 100.00,0.00"


def test_a_network_in_pytorch_is_compared_with_its_export_and_what_it_prints_is_no_json(
    tmp_path: Path, images: Path
) -> None:
    (tmp_path / "printing.py").write_text(
        "import torch\nfrom torch import nn\n\ndef network():\n    torch.manual_seed(3)\n    print('hello')\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(8, 6))\n"
    )
    source, model = f"{tmp_path / 'printing.py'}:network", tmp_path / "model.onnx"
    gapcam_export.export(source, model, size=(64, 64))
    code, out, err = fidelity(source, model, "--images", images, "--no-latency", "--json")
    assert code == ExitCode.DONE, err
    assert "hello" in err
    found = json.loads(out)
    assert found["fidelity"]["top1_agreement"] == 1
    assert found["fidelity"]["box_iou_min"] == pytest.approx(1)
    assert 0 < found["fidelity"]["logit_error"] < 1e-4  # two engines, not one twice
    assert found["reference"]["engine"].startswith("torch")
    assert found["reference"]["size_bytes"] is None
    assert found["other"]["size_bytes"] == model.stat().st_size


def test_where_jinja_is_absent_that_is_said_before_any_work(a: Path, images: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['jinja2'] = None\nfrom gapcam.cli.main import main\n"
        f"main(['fidelity', {str(a)!r}, {str(a)!r}, '--images', {str(images)!r}, '--html', {str(tmp_path / 'p')!r}])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (ExitCode.MISSING, "")
    assert (
        ran.stderr
        == "error: jinja2 is not installed, and this needs it. Install it with: pip install 'gapcam[export]'\n"
    )


def test_help_answers_without_an_engine() -> None:
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(['onnxruntime', 'torch', 'onnx', 'cv2', 'jinja2']))\n"
        "from gapcam.cli.main import main\nmain(['fidelity', '--help'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "--min-box-iou" in ran.stdout
