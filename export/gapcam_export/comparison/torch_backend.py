"""A network in PyTorch as a backend: its own logits, features and rows, to compare an exported model with.

The network runs eagerly on the CPU, unchanged. An export of it says what to look for: the head's kind, W and b, and
what features and logits are for one photograph, by which they are found among the tensors of PyTorch's own run. What
else depends on the image follows from autograd, not from the formulas that the export writes into its graph:

    nonlinear:  row_c = d logit_c / d pooled,  bias_c = logit_c - row_c . pooled
    layernorm:  d logit_c / d pooled = scale W_c + s pooled + t 1, with two numbers s and t: what is at right angles to
                `pooled` and to the vector of ones is scale times that part of W_c
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

import gapcam
from gapcam import contract as names
from gapcam.backends.protocol import CLOSED, Array, TensorInfo
from gapcam.contract import Contract, HeadKind, Preprocessing, contract_to_json
from gapcam.errors import UsageError
from gapcam_export._export import export
from gapcam_export.comparison.torch_calls import FOUND_TOLERANCE, find_places
from gapcam_export.comparison.torch_tap import Tapped, TappedNetwork
from gapcam_export.errors import SourceError
from gapcam_export.photographs import PHOTOGRAPHS, photograph
from gapcam_export.sources import TorchSource, load_source


class TorchBackend:
    """Runs one image at a time; see `gapcam.backends.Backend`.

    Args:
        network: the network.
        contract: with its head's kind, and the preprocessing of its input.
        constants: `cam_weights` and `cam_bias`, where the head's kind has them.
        best: of kind "nonlinear", how many classes get rows.
        threads: that PyTorch may use for a run; None for its own choice.
    """

    def __init__(
        self,
        network: TappedNetwork,
        contract: Contract,
        constants: Mapping[str, Array],
        *,
        best: int = 0,
        threads: int | None = None,
    ) -> None:
        self._network: TappedNetwork | None = network
        self._kind, self._constants, self._best, self._threads = contract.head.kind, dict(constants), best, threads
        self.engine = f"torch {torch.__version__}, eager, on the CPU"
        self.metadata = {names.METADATA_KEY: contract_to_json(contract)}
        self.inputs = {names.IMAGE: TensorInfo(names.IMAGE, (1, 3, *contract.preprocessing.size), "float32")}
        shapes: dict[str, tuple[int, ...]] = {
            names.LOGITS: (1, network.classes),
            names.FEATURES: (1, *network.feature_shape),
            **{name: value.shape for name, value in constants.items()},
        }
        if self._kind is HeadKind.LAYERNORM:
            shapes[names.CAM_SCALE] = (1,)
        if self._kind is HeadKind.NONLINEAR:
            shapes |= {names.TOPK_WEIGHTS: (1, best, network.feature_shape[0]), names.TOPK_BIAS: (1, best)}
        self.outputs = {name: TensorInfo(name, shape, "float32") for name, shape in shapes.items()}
        if self._kind is HeadKind.NONLINEAR:
            self.outputs[names.TOPK_CLASSES] = TensorInfo(names.TOPK_CLASSES, (1, best), "int64")

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names for one image [1,3,H,W] float32.

        Raises:
            BackendError: PyTorch fails, or the network takes another course than when its features were found.
            VerificationError: the logits do not follow from the features' means.
            UsageError: it is closed.
        """
        network = self._network
        if network is None:
            raise UsageError(CLOSED)
        per_image = self._kind in (HeadKind.LAYERNORM, HeadKind.NONLINEAR)
        with pytorch_threads(self._threads):
            tapped = network.run(torch.tensor(image), with_gradients=per_image)
            computed = self._constants | {
                names.LOGITS: tapped.logits.detach().numpy()[None],
                names.FEATURES: tapped.features.numpy()[None],
            }
            if self._kind is HeadKind.LAYERNORM:
                scale = scale_of_rows(tapped, self._constants[names.CAM_WEIGHTS])
                computed[names.CAM_SCALE] = np.asarray([scale], np.float32)
            if self._kind is HeadKind.NONLINEAR:
                computed |= _tangents(tapped, self._best)
        return [np.ascontiguousarray(computed[name]) for name in outputs]

    def close(self) -> None:
        """Let go of the network."""
        self._network = None


def scale_of_rows(tapped: Tapped, weights: NDArray[np.floating[Any]]) -> float:
    """The factor of an image's rows, of a head with a layer normalisation after the pooling.

    Args:
        tapped: the image's run.
        weights: [K,C], the matrix W.
    """
    index = int(np.square(weights).sum(1).argmax())
    pooled, gradient = _pooled(tapped), tapped.row(index).numpy().astype(np.float64)
    basis, _ = np.linalg.qr(np.stack([pooled, np.ones_like(pooled)], axis=1))
    row = weights[index].astype(np.float64)
    row -= basis @ (basis.T @ row)
    return float(gradient @ row / (row @ row))


def _tangents(tapped: Tapped, best: int) -> dict[str, Array]:
    """Rows and biases of an image's best classes, of a nonlinear head."""
    logits = tapped.logits.detach().numpy()
    classes = np.argsort(-logits, kind="stable")[:best]
    rows = np.stack([tapped.row(int(index)).numpy() for index in classes])
    bias = logits[classes] - rows.astype(np.float64) @ _pooled(tapped)
    return {
        names.TOPK_CLASSES: classes.astype(np.int64)[None],
        names.TOPK_WEIGHTS: rows[None],
        names.TOPK_BIAS: bias.astype(np.float32)[None],
    }


def _pooled(tapped: Tapped) -> NDArray[np.float64]:
    return np.asarray(tapped.features.numpy().astype(np.float64).mean(axis=(1, 2)))


@contextmanager
def pytorch_threads(count: int | None) -> Iterator[None]:
    """How many threads PyTorch may use for one operator; None leaves that to it."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def torch_session(
    spec: str,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    like: Contract | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> gapcam.Session:
    """A session that answers what PyTorch answers, one image at a time.

    Args:
        spec: a network in PyTorch, as `gapcam_export.export` takes it.
        checkpoint: weights to load into the network.
        pretrained: let the model library load its own weights, over the network.
        like: of the model that it is compared with: the network gets frames in its size and preprocessing, and scores
            are made as there. None for what SOURCE itself has on record.
        threads: that PyTorch may use for a run; None for its own choice, every physical core.
        progress: is called with each step's name before it begins.

    Raises:
        SourceError: SOURCE cannot be found, built or run, or what the export found is not in PyTorch's own run.
        VerificationError: the numbers do not agree.
        UsageError: SOURCE is no network in PyTorch, has random weights, or takes no image of that size.
        GapcamError: what else `gapcam_export.export` raises.
    """
    progress(f"building {spec}")
    loaded = load_source(spec, checkpoint=checkpoint, pretrained=pretrained)
    if not isinstance(loaded, TorchSource):
        raise UsageError(f"{spec} is no network in PyTorch, and was to be run in PyTorch. Load it as it is.")
    if loaded.preprocessing is not None and loaded.size is None and not loaded.checkpoint:
        raise UsageError(
            f"{spec} has random weights, which answer like no other model's; give trained ones with --checkpoint FILE, "
            "or with --pretrained."
        )
    progress(f"exporting {spec}, to know its head")
    size = None if like is None else like.preprocessing.size
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        report = export(spec, path, checkpoint=checkpoint, pretrained=pretrained, size=size, static_batch=True)
        contract = report.contract if like is None else _made_like(report.contract, like)
        image = gapcam.preprocess(photograph(PHOTOGRAPHS[0]), contract.preprocessing)[None]
        with gapcam.load(path, device="cpu", threads=threads) as exported:
            expected = exported.infer(image)
            constants = {names.CAM_WEIGHTS: exported.weights, names.CAM_BIAS: exported.bias}
    progress(f"finding the features in {spec}")
    wanted = {name: torch.tensor(expected[name]) for name in (names.FEATURES, names.LOGITS)}
    with pytorch_threads(threads):
        places = find_places(loaded.model, torch.tensor(image), wanted)
    for name in wanted:
        if name not in places:
            raise SourceError(
                f"{spec}: no tensor in PyTorch's own run is what its export has as {name} to {FOUND_TOLERANCE:.0e}; "
                "expected one. Does the network draw random numbers, or its factory give other weights each time?"
            )
    _, channels, height, width = expected[names.FEATURES].shape
    classes = expected[names.LOGITS].shape[1]
    network = TappedNetwork(
        loaded.model, places[names.FEATURES], (channels, height, width), places[names.LOGITS], classes
    )
    backend = TorchBackend(
        network,
        contract,
        {name: value for name, value in constants.items() if value is not None},
        best=expected[names.TOPK_CLASSES].shape[1] if names.TOPK_CLASSES in expected else 0,
        threads=threads,
    )
    return gapcam.Session(backend, name=spec)


def _made_like(contract: Contract, like: Contract) -> Contract:
    """A contract with the preprocessing of another, outside of the graph, and with what makes scores there."""
    seen = msgspec.structs.replace(like.preprocessing, embedded=False)
    if like.preprocessing.embedded and _is_unknown(like.preprocessing):
        seen = msgspec.structs.replace(seen, mean=contract.preprocessing.mean, std=contract.preprocessing.std)
    head = msgspec.structs.replace(contract.head, scores=like.head.scores)
    return msgspec.structs.replace(contract, preprocessing=seen, head=head)


def _is_unknown(preprocessing: Preprocessing) -> bool:
    """Whether mean and std stand for a normalisation that a graph had in it before it was exported."""
    return preprocessing.mean == (0.0, 0.0, 0.0) and preprocessing.std == (1.0, 1.0, 1.0)
