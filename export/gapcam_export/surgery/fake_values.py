"""What each node of a network computes, as tensors that have a shape and no content."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from gapcam.errors import UsageError


class FakeValues:
    """Computes nodes of one network, on an image [N,3,H,W] with N a symbol.

    Args:
        module: of ATen operators.
        image: its input's node.
        size: (H, W) in pixels.

    Raises:
        UsageError: the network was traced for another size.
    """

    def __init__(self, module: fx.GraphModule, image: fx.Node, size: tuple[int, int]) -> None:
        self._module, self._image = module, _fake_image(image, size)

    def of(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """A node's value, given those of the nodes that it reads.

        Raises:
            UsageError: it is no operator of ATen, or of another library of operators.
            RuntimeError, ValueError, TypeError: the operator cannot take them.
        """
        if node.op == "placeholder":
            return self._image
        if node.op == "get_attr":
            return self._attribute(node)
        if node.op != "call_function" or not callable(node.target):
            raise UsageError(f"{node.op} {node.target} is no ATen operator; trace the network with torch.export first.")
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
        with enable_python_dispatcher(), self._image.fake_mode, _silent_fake_tensors():
            return node.target(*args, **kwargs)

    def _attribute(self, node: fx.Node) -> Any:
        content: Any = self._module
        for name in str(node.target).split("."):
            content = getattr(content, name)
        known = node.meta.get("val")
        if isinstance(known, FakeTensor) and known.fake_mode is self._image.fake_mode:
            return known
        if isinstance(content, torch.Tensor):
            return self._image.fake_mode.from_tensor(content, static_shapes=True)
        return content


def _fake_image(node: fx.Node, size: tuple[int, int]) -> FakeTensor:
    """The image as a tensor without content; the one that the network was traced with, if that is on record."""
    known = node.meta.get("val")
    if isinstance(known, FakeTensor):
        if tuple(known.shape[1:]) != (3, *size):
            raise UsageError(f"the network was traced for [N,{','.join(map(str, known.shape[1:]))}], not for {size}.")
        return known
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    batch: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * 3])
    return mode.from_tensor(torch.empty(2, 3, *size), symbolic_context=batch)


@contextmanager
def _silent_fake_tensors() -> Iterator[None]:
    """Without torch's own report of a shape that does not fit, which is ours to tell."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was
