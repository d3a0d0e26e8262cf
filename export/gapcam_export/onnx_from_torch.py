"""Writes a PyTorch network as ONNX with PyTorch's current exporter."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
import torch.onnx.errors
from numpy.typing import NDArray
from torch import nn

from gapcam.contract import IMAGE, LOGITS
from gapcam_export.errors import ExporterError, SourceError
from gapcam_export.graph import opset_of
from gapcam_export.network_input import check_network_input
from gapcam_export.tap import strip_exporter_notes


def onnx_from_torch(
    model: nn.Module, size: tuple[int, int], *, opset: int | None, static_batch: bool
) -> onnx.ModelProto:
    """Export a network as an ONNX model with input `image` [N,3,H,W] float32 and output `logits` [N,K].

    Args:
        model: in evaluation mode.
        size: (H, W) in pixels.
        opset: version of ONNX's operator set; None for the exporter's own choice.
        static_batch: fix N at 1 rather than leave it symbolic.

    Raises:
        SourceError: the network takes something else, does not run on it, or gives something else than [N,K].
        ExporterError: PyTorch's exporter cannot write it.
    """
    check_network_input(model)
    # With an example of one, torch.export would take the batch for a constant.
    image = torch.zeros(1 if static_batch else 2, 3, *size)
    _try_forward(model, image)
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                (image,),
                dynamo=True,
                input_names=[IMAGE],
                output_names=[LOGITS],
                dynamic_shapes=None if static_batch else ({0: "batch"},),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
            advice = ["another --opset"] if opset else []
            advice += [] if static_batch else ["--static-batch"]
            raise ExporterError(
                f"PyTorch's ONNX exporter could not write the network{f' in opset {opset}' if opset else ''}: "
                f"{_root_cause(error)} (--debug shows all). Try {' or '.join([*advice, 'a newer PyTorch'])}."
            ) from error
    assert program is not None  # noqa: S101  # so it is with dynamo=True
    exported = program.model_proto
    written = opset_of(exported)
    if opset is not None and written != opset:
        raise ExporterError(f"PyTorch's ONNX exporter wrote opset {written}; {opset} was asked for and cannot be had.")
    strip_exporter_notes(exported)
    return exported


def torch_forward(model: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's own answers [N,K] to images [N,3,H,W]."""
    with torch.no_grad():
        answers: NDArray[np.float32] = model(torch.from_numpy(images)).numpy()
        return answers


def sha256_of_weights(model: nn.Module) -> str:
    """A hash of all parameters and buffers, their names, dtypes and shapes included."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _try_forward(model: nn.Module, image: torch.Tensor) -> None:
    shape = list(image.shape)
    try:
        with torch.no_grad():
            output = model(image)
    except Exception as error:  # somebody else's code may raise anything
        raise SourceError(
            f"the network fails on an input {shape} with {type(error).__name__}: {str(error).strip()} "
            "If it wants another size, give it with --size H W."
        ) from error
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[0] != shape[0]:
        got = list(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise SourceError(
            f"the network gives {got} for an input {shape}; expected logits [{shape[0]}, K]. "
            "Wrap it in a module whose forward returns the logits alone."
        )


def _root_cause(error: BaseException) -> str:
    """What went wrong first, in a line and without a terminal's colours."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    return f"{type(error).__name__}: {next((line for line in lines if line), 'no reason given')}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, logs, graphs and deprecations from the user, who can do nothing about them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
