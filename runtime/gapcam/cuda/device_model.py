"""A loaded model on its device: what all results and frame graphs of a session share there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakSet

import numpy as np

from gapcam.contract import HeadKind
from gapcam.cuda.cam import Cam
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import FrameLayout
from gapcam.cuda.driver import Driver, Module
from gapcam.cuda.lending_pool import LendingPool
from gapcam.cuda.memory_pool import MemoryPool
from gapcam.cuda.overlay import HeatMap, Overlay
from gapcam.cuda.preprocess import Preprocessor
from gapcam.cuda.workbench import Workbench
from gapcam.geometry import Placement
from gapcam.loaded_model import LoadedModel
from gapcam.look import Look

if TYPE_CHECKING:
    from gapcam.cuda.post_process import CudaPostProcess

_BENCHES = 4
"""Threads that may draw at once. Drawing is bound by the device's memory: more would not be faster."""

_KEPT = 32
"""Kernels' tables, each for a layout of frames and a look: those that were used last."""

Made = TypeVar("Made")


class DeviceModel:
    """Several threads may use it, inside `driver.active()`.

    Args:
        model: what is known of it.
        driver: of the device that it runs on.
        kernels: compiled for that device.

    Attributes:
        memory: for what lives as long as a result.
        benches: where one thread at a time computes.
    """

    def __init__(self, model: LoadedModel, driver: Driver, kernels: Module) -> None:
        self.model, self.driver, self.kernels = model, driver, kernels
        self.memory = MemoryPool(driver)
        self.benches: LendingPool[None, Workbench] = LendingPool(lambda _: Workbench(self), Workbench.close, _BENCHES)
        self._weights: DeviceArray | None = None
        if model.weights is not None:
            (self._weights,) = device_constants(driver, model.weights)
        self._made: OrderedDict[Hashable, object] = OrderedDict()
        self._living: WeakSet[CudaPostProcess] = WeakSet()
        self._lock = Lock()

    def preprocessor(self, layout: FrameLayout) -> Preprocessor:
        """For frames of this layout."""
        preprocessing = self.model.contract.preprocessing
        dtype = np.uint8 if preprocessing.embedded else np.float32
        return self._cached(
            (Preprocessor, layout), lambda: Preprocessor(self.driver, self.kernels, preprocessing, layout, dtype)
        )

    def overlay(self, layout: FrameLayout, placement: Placement, look: Look) -> Overlay:
        """For frames of this layout."""
        return self._cached(
            (Overlay, layout, look),
            lambda: Overlay(
                self.driver,
                self.kernels,
                layout=layout,
                placement=placement,
                input_size=self.model.contract.preprocessing.size,
                map_size=self.model.map_size,
                colormap=look.colormap,
                alpha=look.alpha,
                alpha_by_heat=look.alpha_by_heat,
                normalization=look.normalization,
                limits=look.limits,
            ),
        )

    def heatmap(self, frame_size: tuple[int, int], placement: Placement, look: Look) -> HeatMap:
        """For frames of this size."""
        return self._cached(
            (HeatMap, frame_size, look.normalization, look.limits),
            lambda: HeatMap(
                self.driver,
                self.kernels,
                frame_size=frame_size,
                placement=placement,
                input_size=self.model.contract.preprocessing.size,
                map_size=self.model.map_size,
                normalization=look.normalization,
                limits=look.limits,
            ),
        )

    def cam(self, kind: HeadKind, *, images: int = 1, count: int) -> Cam:
        """A new one, for one stream; of the model's head, or of kind "class-maps" for its output `maps`."""
        return Cam(
            self.driver,
            self.kernels,
            kind=kind,
            map_size=self.model.map_size,
            input_size=self.model.contract.preprocessing.size,
            weights=None if kind is HeadKind.CLASS_MAPS else self._weights,
            scoring=self.model.contract.head.scores,
            images=images,
            count=count,
        )

    def add(self, post: CudaPostProcess) -> None:
        """Note a result that lives."""
        with self._lock:
            self._living.add(post)

    def close(self) -> None:
        """Bring to the host what living results need, and let the device's memory go. Nothing is inferred any more."""
        with self._lock:
            living = list(self._living)
        for post in living:
            post.detach()
        self.benches.close()
        with self._lock:
            self._made.clear()
        self._weights = None
        self.memory.close()

    def _cached(self, key: Hashable, make: Callable[[], Made]) -> Made:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                if len(self._made) > _KEPT:
                    self._made.popitem(last=False)  # freed when nobody holds it and the device is done with it
            self._made.move_to_end(key)
            return cast("Made", self._made[key])
