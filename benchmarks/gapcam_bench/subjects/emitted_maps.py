"""A model whose graph computes the maps, or no maps at all, made ready for gapcam's own paths of a frame.

`gapcam.Session` computes the map of a class from `features` and the rows of its head, and asks for no output that holds
maps, unless a class has no row. To measure what such an output costs, the path behind the session is given the maps in
the place of the features, with a class-maps head: one whose features are its maps. What it then does (which map, how it
is drawn, boxes) is what it always does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from gapcam import contract as names
from gapcam.backends.device_protocol import DeviceBackend
from gapcam.backends.protocol import Backend
from gapcam.classes import ClassNames
from gapcam.contract import Contract, HeadKind
from gapcam.errors import ModelError
from gapcam.frame_path import FramePath
from gapcam.host_path import HostPath
from gapcam.loaded_model import LoadedModel
from gapcam.preprocessing import preprocess
from gapcam_bench.cell import Emit
from gapcam_bench.subjects.renamed_outputs import RenamedDeviceOutputs, RenamedOutputs

if TYPE_CHECKING:
    from gapcam.cuda.driver import Module

_ASKED_FOR: dict[Emit, tuple[str, ...]] = {
    "plain": (names.LOGITS,),
    "maps": (names.LOGITS, names.FEATURES),
    "topk": (names.LOGITS, names.FEATURES, names.TOPK_CLASSES),
}
_MAPS_IN: dict[Emit, str] = {"maps": names.MAPS, "topk": names.TOPK_MAPS}


def path_of(
    backend: Backend, contract: Contract, emit: Emit, name: str, *, kernels: Module | None = None
) -> FramePath[Any]:
    """The path of a frame through a model that gives no more than `emit` says.

    Of "topk", class 0 of its results stands for the best class, whose map is the first.

    Args:
        backend: closed with the path. With "plain", one on a CUDA device.
        contract: of the model.
        emit: "plain", "maps" or "topk".
        name: how messages call the model.
        kernels: gapcam's, loaded already; by default they are compiled for the device.

    Raises:
        ModelError: an output is missing.
        BackendError: the engine failed.
    """
    if contract.head.kind is HeadKind.CLASS_MAPS and emit == "maps" and names.MAPS not in backend.outputs:
        given = names.FEATURES  # they are every class's map
    else:
        given = _MAPS_IN.get(emit, "")
    needed = [given or names.LOGITS, *(output for output in _ASKED_FOR[emit] if output != names.FEATURES)]
    missing = [output for output in needed if output not in backend.outputs]
    if missing:
        raise ModelError(
            f"{name} has no output {missing[0]!r}, only {', '.join(backend.outputs)}; --emit {emit} measures a file "
            f"that has it. Export one with: gapcam export SOURCE --emit {emit}"
        )
    renamed = {names.FEATURES: given} if given else {}
    if not isinstance(backend, DeviceBackend):
        view = RenamedOutputs(backend, renamed)
        return HostPath(_loaded(view, contract, emit, name), view)
    # Here, because the CPU needs none of it.
    from gapcam.cuda.device_path import DevicePath
    from gapcam.cuda.kernel_cache import load_kernels

    on_device = RenamedDeviceOutputs(backend, renamed)
    with backend.driver.active():
        return DevicePath(_loaded(on_device, contract, emit, name), on_device, kernels or load_kernels(backend.driver))


def _loaded(backend: Backend, contract: Contract, emit: Emit, name: str) -> LoadedModel:
    """What is known of the model after a run on noise, as `gapcam.loaded_model.model_from_backend` has it."""
    height, width = contract.preprocessing.size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    wanted = _ASKED_FOR[emit]
    arrays = dict(zip(wanted, backend.run(wanted, preprocess(noise, contract.preprocessing)[None]), strict=True))
    maps = arrays.get(names.FEATURES)
    count = arrays[names.LOGITS].shape[1] if emit != "topk" or maps is None else maps.shape[1]
    head = msgspec.structs.replace(contract.head, kind=HeadKind.CLASS_MAPS)
    labels = contract.labels if len(contract.labels) == count else ()
    return LoadedModel(
        name=name,
        contract=msgspec.structs.replace(contract, head=head, labels=labels),
        classes=ClassNames(labels, count),
        wanted=wanted,
        batched=backend.inputs[names.IMAGE].shape[0] is None,
        channels=count,
        map_size=(1, 1) if maps is None else (maps.shape[2], maps.shape[3]),
        dtypes={output: array.dtype for output, array in arrays.items()},
        weights=None,
        bias=None,
        identity_error=float("nan"),  # not checked here: the answers are compared with the reference's
        identity_tolerance=0.0,
    )
