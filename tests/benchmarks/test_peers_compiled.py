"""torch.compile under the peers' hooks: the same maps, and what was not compiled is not passed off as compiled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gapcam.errors import BackendError
from gapcam_bench.peers.grad_cam import GradCam
from gapcam_bench.peers.names import cpp_compiler
from gapcam_bench.peers.torch_cam import TorchCam
from gapcam_bench.peers.torch_compile import CompiledNetwork
from gapcam_bench.peers.torch_network import GapNetwork

needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="torch.compile needs a C++ compiler")


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small_network(middle: nn.Module | None = None) -> GapNetwork:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), middle or nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    return GapNetwork(features, nn.Linear(16, 5)).eval()


@pytest.fixture
def image() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


@needs_compiler
def test_torch_cams_hook_is_compiled_with_the_network_and_the_map_is_the_same(image: NDArray[np.float32]) -> None:
    eager, compiled = TorchCam(small_network()), TorchCam(small_network(), compiled=True)
    for _ in range(2):  # the second run is of what the first has compiled
        found = compiled.map(compiled.infer(image))
    np.testing.assert_allclose(found, eager.map(eager.infer(image)), atol=1e-5)
    assert compiled.notes == ("torch.compile compiled all 2 convolutions, as one graph.",)
    assert eager.notes == ()
    assert "torch.compile" in compiled.engine
    assert "eager" in eager.engine


@needs_compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at it while it traces
def test_grad_cams_map_is_the_same_when_compiled(image: NDArray[np.float32]) -> None:
    eager, compiled = GradCam(small_network()), GradCam(small_network(), compiled=True)
    for _ in range(2):
        found = compiled.map(compiled.infer(image))
    np.testing.assert_allclose(found, eager.map(eager.infer(image)), atol=1e-5)
    _, note = compiled.notes
    assert note.startswith("torch.compile compiled all 2 convolutions")


class Uncompiled(nn.Module):
    """A layer that torch.compile is forbidden to touch; what is around it in the same loop is not compiled, either."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 1)

    @torch._dynamo.disable
    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)


def test_a_network_that_is_compiled_in_part_is_refused(image: NDArray[np.float32]) -> None:
    """Dynamo alone, which finds the graphs; its backend "eager" needs no compiler."""
    compiled = CompiledNetwork(small_network(Uncompiled()), backend="eager")
    with torch.inference_mode():
        compiled.network(torch.from_numpy(image))
    with pytest.raises(BackendError, match=r"compiled [0-2] of 3 convolutions; the rest would run eagerly"):
        compiled.check()
