"""Heads of several labels, of one class, and of very many."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import gapcam
import gapcam_export
from gapcam.cli.main import main
from gapcam.contract import HeadKind

NETWORKS = Path(networks.__file__)


def test_a_network_that_ends_in_a_sigmoid_gives_logits_and_is_of_several_labels(
    tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    report = gapcam_export.export("networks:with_sigmoid", tmp_path / "model.onnx", size=(64, 96))
    assert report.contract.head.kind is HeadKind.AFFINE
    assert report.contract.head.scores == "sigmoid"
    assert (
        "the network ends in a Sigmoid; its output is called 'output', and 'logits' is what goes into it"
        in report.notes
    )
    model = networks.with_sigmoid()
    with gapcam.load(tmp_path / "model.onnx") as session, torch.no_grad():
        result = session(cat)
        image = torch.from_numpy(gapcam.preprocess(cat, report.contract.preprocessing))[None]
        np.testing.assert_allclose(result.scores, model(image)[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(result.logits, torch.logit(model(image))[0].numpy(), atol=1e-4)
    # The file says so, and its own Sigmoid follows the logits still.
    again = gapcam_export.export(str(tmp_path / "model.onnx"), tmp_path / "again.onnx")
    assert again.contract.head.scores == "sigmoid"


@pytest.mark.parametrize("name", ["one_class", "one_class_sigmoid"])
def test_a_head_of_one_class_has_a_map_and_a_score_of_its_own(
    name: str, tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    report = gapcam_export.export(f"networks:{name}", tmp_path / "model.onnx", size=(64, 96), emit=("maps", "topk"))
    assert report.contract.head.scores == "sigmoid"
    assert "topk_maps [batch,1,4,6] float" in map(str, report.outputs)
    model = getattr(networks, name)()
    with gapcam.load(tmp_path / "model.onnx") as session, torch.no_grad():
        result = session(cat)
        image = torch.from_numpy(gapcam.preprocess(cat, report.contract.preprocessing))[None]
        features = model.features(image)
        logit = model.head(features.mean((2, 3)))
        expected = torch.einsum("kc,nchw->nkhw", model.head.weight, features)[0, 0]
        np.testing.assert_allclose(result.map(0), expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(result.scores, torch.sigmoid(logit)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "scores"), [("gap_network", "sigmoid"), ("with_sigmoid", "softmax")])
def test_what_makes_scores_can_be_said(name: str, scores: str, tmp_path: Path) -> None:
    arguments = ["export", f"{NETWORKS}:{name}", "--size", "64", "64", "-o", str(tmp_path / "model.onnx")]
    done = CliRunner().invoke(main, [*arguments, "--scores", scores, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["contract"]["head"]["scores"] == scores
    done = CliRunner().invoke(main, [*arguments, "--scores", "entropy"])
    assert done.exit_code == 2
    assert "Invalid value for '--scores'" in done.stderr


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gap_network", "affine, exact, scores by softmax"),
        ("normed_head", "layernorm, exact per image, scores by softmax"),
        ("three_layers", "nonlinear, not exact, scores by softmax"),
    ],
)
def test_the_report_says_how_exact_maps_are(name: str, shown: str, tmp_path: Path) -> None:
    arguments = ["export", f"{NETWORKS}:{name}", "--size", "64", "64", "-o", str(tmp_path / "model.onnx")]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    assert shown in done.stdout
    assert ("rows against the logits' changes" in done.stdout) == (name == "three_layers")


CHANNELS, HIDDEN, CLASSES = 1024, 256, 21841


def many_classes(kind: HeadKind) -> onnx.ModelProto:
    """A patch embedding, average pooling, and a head of ImageNet-21k's size."""
    random = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32) / shape[-1] ** 0.5, name)

    nodes = [
        helper.make_node("Conv", ["image", "patch"], ["maps"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["pooled"]),
    ]
    width, constants = CHANNELS, [constant("patch", CHANNELS, 3, 16, 16), constant("b", CLASSES)]
    if kind is HeadKind.LAYERNORM:
        nodes.append(helper.make_node("LayerNormalization", ["pooled", "g"], ["input"]))
        constants.append(constant("g", CHANNELS))
    elif kind is HeadKind.NONLINEAR:
        nodes.append(helper.make_node("MatMul", ["pooled", "V"], ["hidden"]))
        nodes.append(helper.make_node("HardSwish", ["hidden"], ["input"]))
        constants.append(constant("V", CHANNELS, HIDDEN))
        width = HIDDEN
    else:
        nodes[-1].output[0] = "input"
    nodes.append(helper.make_node("Gemm", ["input", "W", "b"], ["out"], transB=1))
    graph = helper.make_graph(
        nodes,
        "many_classes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", CLASSES])],
        [*constants, constant("W", CLASSES, width)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's own peak")
@pytest.mark.parametrize("kind", [HeadKind.AFFINE, HeadKind.LAYERNORM, HeadKind.NONLINEAR])
def test_a_head_of_21841_classes_is_exported_in_bounded_memory(kind: HeadKind, tmp_path: Path) -> None:
    """In a process of its own, whose peak is its own: some fifteen times W, most of it copies of the model."""
    onnx.save(many_classes(kind), tmp_path / "source.onnx")
    code = (
        "import sys, gapcam_export\n"
        "report = gapcam_export.export(sys.argv[1], sys.argv[2], emit=('topk',))\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(report.contract.head.kind.value, peak.split()[1])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "source.onnx"), str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found, peak_kilobytes = done.stdout.split()
    assert found == kind.value
    assert int(peak_kilobytes) < 2e6
    # W is stored once, or beside its centred rows.
    copies = 2 if kind is HeadKind.LAYERNORM else 1
    sizes = [int(np.prod(tensor.dims)) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert sum(size >= CLASSES * HIDDEN for size in sizes) == copies
