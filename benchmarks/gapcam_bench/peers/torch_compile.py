"""torch.compile, and how much of a network it really compiled: what it cannot compile runs eagerly, without a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from gapcam.errors import BackendError


class CompiledNetwork:
    """A network that is compiled at its first call.

    Args:
        network: to compile. Hooks that are there already are compiled with it, as far as they can be.
        backend: of torch.compile.

    Attributes:
        network: compiled; a call of it is an inference.
        graphs: how many there are so far.
        convolutions: in them.
    """

    def __init__(self, network: nn.Module, backend: str = "inductor") -> None:
        self._wanted = sum(isinstance(module, nn.Conv2d) for module in network.modules())
        self._compile: Callable[..., Any] = torch._dynamo.lookup_backend(backend)
        self.graphs = self.convolutions = 0
        self.network: Any = torch.compile(network, backend=self._counted)

    def check(self) -> str:
        """What was compiled, in a sentence, after the first inference.

        Raises:
            BackendError: some of the network was not.
        """
        if self.convolutions != self._wanted:
            raise BackendError(
                f"torch.compile compiled {self.convolutions} of {self._wanted} convolutions; the rest would run eagerly"
            )
        whole = "as one graph" if self.graphs == 1 else f"in {self.graphs} graphs, with eager code between them"
        return f"torch.compile compiled all {self._wanted} convolutions, {whole}."

    def _counted(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        self.graphs += 1
        self.convolutions += sum(_is_convolution(node) for node in graph.graph.nodes)
        return self._compile(graph, inputs)


def _is_convolution(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") in ("conv2d", "_conv_forward")
