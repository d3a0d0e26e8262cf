"""Heads of several labels, of one class, and of very many."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import gapcam
import gapcam_export
from gapcam.cli.main import main
from gapcam.contract import HeadKind, Preprocessing
from gapcam.errors import VerificationError
from gapcam_export.photographs import default_photographs
from gapcam_export.section import onnx_session
from gapcam_export.verify import verify

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


@pytest.mark.parametrize("name", ["one_class", "one_class_sigmoid"])
def test_one_class_may_be_at_its_decision_boundary(name: str, tmp_path: Path) -> None:
    report = gapcam_export.export(f"networks:{name}", tmp_path / "model.onnx", size=(64, 64))
    image = gapcam.preprocess(default_photographs()[0], report.contract.preprocessing)
    model = getattr(networks, name)()
    with torch.no_grad():
        features = model.features(torch.from_numpy(image)[None]).mean((2, 3))
        model.head.bias -= model.head(features)[0]
        assert abs(float(model.head(features))) < 1e-6
    torch.save(model.state_dict(), tmp_path / "boundary.pt")
    report = gapcam_export.export(
        f"networks:{name}", tmp_path / "model.onnx", size=(64, 64), checkpoint=tmp_path / "boundary.pt"
    )
    assert report.contract.verification.source_error < 1e-5
    assert report.contract.verification.identity_error < 1e-5
    gapcam.load(tmp_path / "model.onnx").close()


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


class Ending(networks.GapNetwork):
    """Twelve classes, and something after them."""

    def __init__(self, ending: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.ending = nn.Linear(12, 12), ending

    def forward(self, image: Tensor) -> Tensor:
        return self.ending(super().forward(image))


def write_ending(ending: Callable[[Tensor], Tensor], path: Path) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = networks.randomize(Ending(ending))
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32))
    names = {"input_names": ["image"], "output_names": ["end"], "opset_version": 17}
    torch.onnx.export(model, (image,), path, dynamo=False, dynamic_axes={"image": {0: "n"}, "end": {0: "n"}}, **names)
    return model


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx")
@pytest.mark.parametrize(
    ("ending", "said"),
    [
        pytest.param(lambda x: x.reshape(-1, 4, 3).softmax(2).flatten(1), "over axis 2 of [3, 4, 3]", id="groups"),
        pytest.param(lambda x: x.reshape(-1, 4, 3).softmax(2), "over axis 2 of [3, 4, 3]", id="groups as they are"),
        pytest.param(lambda x: x.reshape(-1, 2, 6).log_softmax(1), "over axis 1 of [3, 2, 6]", id="across groups"),
        pytest.param(lambda x: x.softmax(0), "over axis 0 of [3, 12]", id="across the batch"),
        pytest.param(lambda x: x.sigmoid().softmax(1), "stand Gemm, Sigmoid: neither", id="softmax of sigmoid"),
        pytest.param(lambda x: x.softmax(1).sigmoid(), "stand Gemm, Softmax: neither", id="sigmoid of softmax"),
        pytest.param(lambda x: 1 - x.sigmoid(), "Sub: neither", id="one minus sigmoid"),
    ],
)
def test_scores_that_the_runtime_would_not_give_are_refused(
    ending: Callable[[Tensor], Tensor], said: str, tmp_path: Path
) -> None:
    write_ending(ending, tmp_path / "source.onnx")
    with pytest.raises(gapcam_export.HeadError) as error:
        gapcam_export.export(str(tmp_path / "source.onnx"), tmp_path / "model.onnx")
    assert said in str(error.value)


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx")
@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(lambda x: x.softmax(1).log(), id="log of softmax"),
        pytest.param(lambda x: x.log_softmax(-1), id="log-softmax"),
        pytest.param(lambda x: x.reshape(-1, 1, 12).softmax(2).flatten(1), id="an axis more"),
        pytest.param(lambda x: (x / 0.1).softmax(1), id="temperature"),
    ],
)
def test_scores_that_the_runtime_gives_are_those_of_the_source(
    ending: Callable[[Tensor], Tensor], tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    model = write_ending(ending, tmp_path / "source.onnx")
    report = gapcam_export.export(str(tmp_path / "source.onnx"), tmp_path / "model.onnx")
    assert report.contract.head.kind is HeadKind.AFFINE
    with gapcam.load(tmp_path / "model.onnx") as session, torch.no_grad():
        end = model(torch.from_numpy(gapcam.preprocess(cat, report.contract.preprocessing))[None])[0]
        expected = end.exp() if end.max() <= 0 else end
        np.testing.assert_allclose(session(cat).scores, expected.numpy(), atol=1e-5)


def test_logits_whose_scores_are_not_the_networks_own_are_noticed(tmp_path: Path) -> None:
    """Tapped wrongly by hand: the logits are twice what goes into the Sigmoid."""
    gapcam_export.export("networks:with_sigmoid", tmp_path / "model.onnx", size=(64, 64))
    model = onnx.load(tmp_path / "model.onnx")

    class Source:
        name, tolerance = "onnxruntime", 1e-4

        def __call__(self, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            session = onnx.reference.ReferenceEvaluator(model)
            return {"output": session.run(["output"], {"image": image[None]})[0][0]}

    photographs, preprocessing = default_photographs()[:1], Preprocessing(size=(64, 64))
    verify(model, onnx_session(model), preprocessing, preprocessing, photographs, Source())
    sigmoid = next(node for node in model.graph.node if "output" in node.output)
    logits, sigmoid.input[0] = sigmoid.input[0], "half"
    half = numpy_helper.from_array(np.float32(0.5), "one_half")
    model.graph.initializer.append(half)
    model.graph.node.insert(
        list(model.graph.node).index(sigmoid), helper.make_node("Mul", [logits, "one_half"], ["half"])
    )
    with pytest.raises(VerificationError, match="'output' is not the sigmoid of the logits that were found"):
        verify(model, onnx_session(model), preprocessing, preprocessing, photographs, Source())


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
