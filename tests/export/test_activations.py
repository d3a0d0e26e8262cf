"""The activations of nonlinear heads: recognised by their values, with the derivatives that autograd gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # as everybody calls it

from gapcam_export.activations import GRID, recognize
from gapcam_export.graph_writer import GraphWriter

Function = Callable[[Tensor], Tensor]

SLOPES = torch.tensor([0.25, 0.1, -0.3])
KNOWN: dict[str, Function] = {
    "ReLU": F.relu,
    "leaky ReLU of slope 0.01": F.leaky_relu,
    "leaky ReLU of slope -1": torch.abs,
    "PReLU": lambda x: F.prelu(x, SLOPES.to(x.dtype)),
    "clip(1 x + 0, 0, 6)": F.relu6,
    "clip(1 x + 0, -1, 1)": F.hardtanh,
    "clip(0.166667 x + 0.5, 0, 1)": F.hardsigmoid,
    "clip(0.2 x + 0.5, 0, 1)": lambda x: torch.clip(0.2 * x + 0.5, 0, 1),
    "hard swish": F.hardswish,
    "SiLU": F.silu,
    "swish(1.702)": lambda x: x * torch.sigmoid(1.702 * x),
    "GELU": F.gelu,
    "GELU by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "ELU(1, 1)": F.elu,
    "ELU(1, 0.5)": lambda x: F.elu(x, alpha=0.5),
    "ELU(1.0507, 1.7581)": F.selu,
    "softplus": F.softplus,
    "Mish": F.mish,
}


def values_on_grid(function: Function, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return function(torch.from_numpy(GRID).to(dtype)[:, None].repeat(1, 3)).numpy()


@pytest.mark.parametrize("name", KNOWN)
def test_an_activation_is_recognized_and_has_the_derivative_that_autograd_gives(name: str) -> None:
    function = KNOWN[name]
    found = recognize(values_on_grid(function))
    assert found is not None
    assert found.name == name

    # Beside the bends, where a derivative is a matter of convention.
    x = np.random.default_rng(0).uniform(-9, 9, (400, 3)).astype(np.float32)
    x[:3] = [[-100, 100, 50], [-25, 25, 1e-3], [-1e3, 1e3, -1e-3]]
    given = torch.from_numpy(x).double().requires_grad_()
    expected = function(given)
    np.testing.assert_allclose(found.value(x.astype(np.float64)), expected.detach().numpy(), rtol=3e-5, atol=3e-5)
    (slope,) = torch.autograd.grad(expected.sum(), given)

    fed = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([], "derivative", [fed], [])
    name = found.write_derivative(GraphWriter(graph, 10), "x")
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": x})
    np.testing.assert_allclose(got, np.broadcast_to(slope.numpy(), got.shape), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x**2, id="square"),
        pytest.param(torch.sin, id="sine"),
        pytest.param(lambda x: torch.where(x > 0, x, 0.1 * x) + 0.01 * torch.sin(x), id="almost a leaky ReLU"),
        pytest.param(lambda x: F.silu(x) * torch.tensor([1.0, 1.0, 1.001]), id="another function in one channel"),
        pytest.param(lambda x: torch.log(x), id="NaN"),
        pytest.param(lambda x: torch.sign(x), id="a step"),
        pytest.param(lambda x: torch.zeros_like(x), id="zero"),
        pytest.param(nn.Threshold(1.0, 0.5), id="threshold"),
        pytest.param(lambda x: F.hardshrink(x), id="hard shrink"),
    ],
)
def test_what_is_no_known_activation_is_not_taken_for_one(function: Function) -> None:
    assert recognize(values_on_grid(function)) is None
