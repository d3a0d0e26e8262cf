"""gapcam inside an app that runs PyCUDA in a context of its own."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_machine import cubin, need_device, need_pycuda

from gapcam.cuda.device_array import as_device_array
from gapcam.cuda.driver import Driver
from gapcam.cuda.open_driver import open_driver
from gapcam.cuda.presence import presence
from gapcam.errors import BackendError


def make_context() -> Any:
    """The app's context, current on this thread."""
    need_device()
    need_pycuda()
    from pycuda import driver as cuda

    cuda.init()
    return cuda.Device(0).make_context()


@pytest.fixture
def context() -> Iterator[Any]:
    """The app's context, current on this thread, as it is again when the test ends."""
    made = make_context()
    yield made
    made.pop()
    made.detach()


def add(driver: Driver, values: np.ndarray, added: int) -> np.ndarray:
    """values + added, on the device."""
    with driver.active():
        stream = driver.stream()
        memory = driver.allocate(values.nbytes)
        driver.upload(values, memory.pointer, stream)
        function = driver.load(cubin(driver.architecture)).function("add")
        arguments = [np.uint64(memory.pointer), np.int32(added), np.int32(values.size)]
        driver.launch(function, (1, 1, 1), (256, 1, 1), arguments, stream)
        out = np.empty_like(values)
        driver.download(memory.pointer, out, stream)
        stream.synchronize()
        return out


def test_the_apps_context_is_used_and_stays_current(context: Any) -> None:
    from pycuda import driver as cuda

    driver = open_driver("auto")
    assert driver.name.startswith("PyCUDA")
    assert cuda.Context.get_current() == context
    values = np.arange(100, dtype=np.int32)
    assert np.array_equal(add(driver, values, 7), values + 7)
    assert cuda.Context.get_current() == context
    with driver.active():
        assert cuda.Context.get_current() == context  # the app's, and not the primary one
    driver.close()


@pytest.mark.usefixtures("context")
def test_arrays_of_the_apps_are_read_in_place() -> None:
    from pycuda import gpuarray

    values = np.arange(24, dtype=np.int32).reshape(4, 6)
    theirs = gpuarray.to_gpu(values)
    driver = open_driver("auto")
    mine = as_device_array(theirs)
    assert (mine.shape, mine.dtype, mine.pointer) == ((4, 6), np.int32, int(theirs.gpudata))
    with driver.active():
        stream, out = driver.stream(), np.empty_like(values)
        if mine.stream is not None:
            driver.wait_for(mine.stream, stream)
        driver.download(mine.pointer, out, stream)
        stream.synchronize()
    assert np.array_equal(out, values)


def test_other_threads_of_the_app_use_it_too(context: Any) -> None:
    from pycuda import driver as cuda

    driver = open_driver("auto")
    values = np.arange(200, dtype=np.int32)
    found: dict[int, object] = {}

    def work(number: int) -> None:
        found[number] = np.array_equal(add(driver, values, number), values + number)
        found[number + 10] = cuda.Context.get_current()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {**dict.fromkeys(range(4), True), **dict.fromkeys(range(10, 14))}
    assert cuda.Context.get_current() == context


def test_what_outlives_the_apps_context_is_let_go_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    context = make_context()
    driver = open_driver("auto")
    with driver.active():
        held: list[object] = [driver.allocate(100), driver.pinned((10,), np.uint8), driver.stream(), driver.event()]
        held.append(driver.load(cubin(driver.architecture)))
    context.pop()
    context.detach()
    held.clear()
    gc.collect()
    assert capfd.readouterr().err == ""
    with pytest.raises(BackendError, match="make the app's context current"), driver.active():
        pass


def test_in_the_primary_context_it_is_cuda_core_which_has_graphs() -> None:
    """As after `import pycuda.autoprimaryctx`."""
    need_device()
    need_pycuda()
    from pycuda import driver as cuda

    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        driver = open_driver("auto")
        assert driver.name.startswith("cuda.core")
        values = np.arange(100, dtype=np.int32)
        assert np.array_equal(add(driver, values, 3), values + 3)
        assert cuda.Context.get_current() == context
        assert open_driver("pycuda").name.startswith("PyCUDA")
    finally:
        cuda.Context.pop()
        context.detach()


@pytest.mark.usefixtures("context")
def test_a_context_of_another_device_is_refused() -> None:
    if presence().devices < 2:
        pytest.skip("there is one CUDA device; this needs two")
    with pytest.raises(BackendError, match="not of device 1"):
        open_driver("auto", 1)


def test_without_a_context_it_is_the_primary_one() -> None:
    need_device()
    need_pycuda()
    from pycuda import driver as cuda

    cuda.init()
    assert cuda.Context.get_current() is None
    values = np.arange(100, dtype=np.int32)
    driver = open_driver("pycuda")
    assert np.array_equal(add(driver, values, 1), values + 1)
    assert cuda.Context.get_current() is None
    assert open_driver("auto").name.startswith("cuda.core")
