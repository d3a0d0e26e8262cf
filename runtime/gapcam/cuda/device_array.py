"""An array in device memory, and whatever else may stand for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """An array in device memory. It converts to others' without a copy: `__cuda_array_interface__`.

    Attributes:
        pointer: the device address of the first element.
        shape: as NumPy's.
        dtype: NumPy's.
        strides: in bytes, or None for C order.
        owner: what must live as long as this does.
        stream: on which it is being written, for `Driver.wait_for`; None if there is nothing to wait for.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...] | None = None
    owner: object = None
    stream: int | None = None

    @property
    def nbytes(self) -> int:
        """The size of its elements, without what lies between rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
