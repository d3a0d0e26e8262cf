"""From a request to what it wants measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gapcam.backends.device_protocol import DeviceBackend
from gapcam.backends.protocol import Backend
from gapcam.contract import METADATA_KEY, contract_from_metadata
from gapcam.devices import open_backend
from gapcam.model_check import MAP_KINDS
from gapcam_bench.block import Request
from gapcam_bench.cell import GAPCAM, Cell
from gapcam_bench.subjects.assignment import RECORDING
from gapcam_bench.subjects.engine_options import session_options
from gapcam_bench.subjects.gapcam_subject import GapcamSubject
from gapcam_bench.subjects.plain_subject import PlainSubject
from gapcam_bench.subjects.protocol import Subject

if TYPE_CHECKING:
    from gapcam.cuda.driver import Module

NO_MAPS = "has a head without maps: measured as a plain classifier, without map, overlay and boxes"


def open_subject(request: Request) -> Subject:
    """Load what a cell measures.

    Raises:
        ModelError, ContractError, VerificationError: the model cannot be used so.
        BackendError: the device or engine is not available here, or failed.
        UsageError: there is no such subject or device.
        MissingExtraError: a package is not installed.
    """
    if request.cell.subject != GAPCAM:
        from gapcam_bench.peers.names import open_peer  # here, because each peer needs packages of its own

        return open_peer(request)
    return open_model(Path(request.file), request.cell)


def open_model(file: Path, cell: Cell, *, default_options: bool = False) -> Subject:
    """Load a file as gapcam does; one without a contract as a plain classifier.

    Args:
        file: ONNX, or an engine.
        cell: for device, threads, emit, batch and work.
        default_options: whether ONNX Runtime keeps its own, as the reference does.
    """
    options = session_options(file)
    if options is not None:
        options = {**RECORDING, **({} if default_options else options)}
    backend = open_backend(file, device=cell.device, threads=cell.threads, session_options=options)
    try:
        return subject_of(backend, cell, str(file))
    except BaseException:
        backend.close()
        raise


def subject_of(backend: Backend, cell: Cell, name: str, *, kernels: Module | None = None) -> Subject:
    """A subject of an opened model.

    Args:
        backend: closed with the subject.
        cell: for emit, batch and work.
        name: how messages call the model.
        kernels: gapcam's for a CUDA device, loaded already; by default they are compiled.
    """
    if METADATA_KEY not in backend.metadata:
        return PlainSubject(backend, None, cell, name)
    contract = contract_from_metadata(backend.metadata, name)
    if contract.head.kind not in MAP_KINDS:
        subject = PlainSubject(backend, contract, cell, name)
        subject.notes = (*subject.notes, NO_MAPS)
        return subject
    # On a device a plain classifier goes the way of the others, so that the difference is the map's price.
    if cell.emit == "plain" and not isinstance(backend, DeviceBackend):
        return PlainSubject(backend, contract, cell, name)
    return GapcamSubject(backend, contract, cell, name, kernels=kernels)
