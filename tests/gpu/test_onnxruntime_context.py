"""ONNX Runtime computes in the device's primary context: a driver in another one is refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from cuda.bindings import driver as cu
from gpu_machine import need_device, need_pycuda

from gapcam.backends.onnxruntime_gpu import check_context
from gapcam.cuda.open_driver import open_driver
from gapcam.errors import BackendError

REFUSED = r"device 0 is one that it made.*import pycuda\.autoprimaryctx.*gapcam build"


def test_the_primary_context_is_taken() -> None:
    need_device()
    driver = open_driver("cuda-core")
    check_context(driver)
    driver.close()


def test_a_context_that_the_app_made_is_refused_with_what_to_do() -> None:
    need_device()
    assert cu.cuInit(0)[0] == cu.CUresult.CUDA_SUCCESS
    error, context = cu.cuCtxCreate(None, 0, 0)
    assert error == cu.CUresult.CUDA_SUCCESS
    cu.cuCtxPopCurrent()

    @contextmanager
    def active() -> Iterator[None]:
        cu.cuCtxPushCurrent(context)
        try:
            yield
        finally:
            cu.cuCtxPopCurrent()

    made: Any = SimpleNamespace(device=0, active=active)
    with pytest.raises(BackendError, match=REFUSED):
        check_context(made)
    cu.cuCtxDestroy(context)


def test_pycudas_own_context_is_refused_and_its_primary_one_is_not() -> None:
    need_device()
    need_pycuda()
    from pycuda import driver as cuda

    cuda.init()
    context = cuda.Device(0).make_context()
    try:
        driver = open_driver("auto")
        assert driver.name.startswith("PyCUDA")
        with pytest.raises(BackendError, match=REFUSED):
            check_context(driver)
    finally:
        context.pop()
        context.detach()
    check_context(open_driver("pycuda"))
