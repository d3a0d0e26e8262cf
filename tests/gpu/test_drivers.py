"""Both CUDA libraries keep the interface of gapcam.cuda.driver."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest
from cuda.bindings import driver as cu
from gpu_machine import cubin, need_device, need_pycuda
from numpy.typing import NDArray

from gapcam.cuda.driver import Driver, Memory, Module, Stream
from gapcam.cuda.open_driver import open_driver
from gapcam.cuda.presence import presence
from gapcam.cuda.thread_state import CaptureMode, is_primary_current
from gapcam.errors import BackendError

RANDOM = np.random.default_rng(5)


def bytes_of(n: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, n, dtype=np.uint8)


def on_device(driver: Driver, array: NDArray[np.generic], stream: Stream) -> Memory:
    memory = driver.allocate(max(array.nbytes, 1))
    driver.upload(np.ascontiguousarray(array), memory.pointer, stream)
    return memory


def read(driver: Driver, pointer: int, n: int, stream: Stream, dtype: type = np.uint8) -> NDArray[np.generic]:
    out = np.zeros(n, dtype)
    driver.download(pointer, out, stream)
    stream.synchronize()
    return out


def test_a_device_says_what_it_is(driver: Driver) -> None:
    assert driver.name.split()[0] in ("cuda.core", "PyCUDA")
    assert driver.name.split()[1][0].isdigit()
    assert driver.device == 0
    assert driver.device_name
    assert driver.architecture.startswith("sm_")
    assert int(driver.architecture[3:]) >= 75
    assert driver.driver_version >= (11, 0)
    assert driver.has_graphs == driver.name.startswith("cuda.core")


def test_bytes_come_back_as_they_went(driver: Driver) -> None:
    stream = driver.stream()
    for n in (1, 255, 256, 4097, 3 * 1920 * 1080):
        source = bytes_of(n)
        memory = on_device(driver, source, stream)
        assert memory.nbytes == n
        assert memory.pointer % 256 == 0
        assert np.array_equal(read(driver, memory.pointer, n, stream), source)
        memory.close()
        memory.close()


def test_an_array_that_is_not_pinned_may_be_changed_at_once(driver: Driver) -> None:
    stream = driver.stream()
    for n in (100, 1 << 20):
        source = bytes_of(n)
        expected = source.copy()
        memory = on_device(driver, source, stream)
        source[:] = 0
        assert np.array_equal(read(driver, memory.pointer, n, stream), expected)


def test_pinned_arrays_are_arrays_and_live_as_long_as_their_views(driver: Driver) -> None:
    stream = driver.stream()
    source = driver.pinned((3, 5, 7), np.float32)
    assert source.shape == (3, 5, 7)
    assert source.dtype == np.float32
    assert source.flags.c_contiguous
    assert source.flags.writeable
    source[:] = RANDOM.random(source.shape, np.float32)
    memory = driver.allocate(source.nbytes)
    driver.upload(source, memory.pointer, stream)
    out = driver.pinned((105,), np.float32)[:]
    gc.collect()
    driver.download(memory.pointer, out, stream)
    stream.synchronize()
    assert np.array_equal(out.reshape(source.shape), source)
    assert driver.pinned((0, 4), np.uint8).shape == (0, 4)


def test_a_pinned_array_is_read_when_the_stream_comes_to_it(driver: Driver, kernels: Module) -> None:
    """Copies of pinned memory do not wait: what lies in it at the end is what was downloaded, each time."""
    stream = driver.stream()
    value, out = driver.pinned((4,), np.int32), driver.pinned((4,), np.int32)
    memory = driver.allocate(16)
    for turn in range(3):
        value[:] = turn
        driver.upload(value, memory.pointer, stream)
        arguments = [np.uint64(memory.pointer), np.int32(10), np.int32(4)]
        driver.launch(kernels.function("add"), (1, 1, 1), (32, 1, 1), arguments, stream)
        driver.download(memory.pointer, out, stream)
        stream.synchronize()
        assert out.tolist() == [turn + 10] * 4


def test_rows_of_any_stride_go_to_rows_of_any_pitch_and_back(driver: Driver) -> None:
    stream = driver.stream()
    wide = bytes_of(9 * 130).reshape(9, 130)
    rows = wide[:, 7:107]
    first, second = driver.allocate(9 * 128), driver.allocate(9 * 256)
    driver.upload(np.zeros(9 * 256, np.uint8), second.pointer, stream)
    driver.upload_rows(rows, first.pointer, 128, stream)
    driver.copy_rows(first.pointer, 128, second.pointer + 8, 256, (9, 100), stream)
    wide_out = np.zeros((9, 123), np.uint8)
    driver.download_rows(second.pointer + 8, 256, wide_out[:, :100], stream)
    whole = read(driver, second.pointer, 9 * 256, stream).reshape(9, 256)
    assert np.array_equal(wide_out[:, :100], rows)
    assert not wide_out[:, 100:].any()
    assert np.array_equal(whole[:, 8:108], rows)
    assert not whole[:, :8].any()
    assert not whole[:, 108:].any()


def test_pinned_rows_are_copied_as_well(driver: Driver) -> None:
    stream = driver.stream()
    source = driver.pinned((6, 64), np.uint8)
    source[:] = bytes_of(source.size).reshape(source.shape)
    memory = driver.allocate(6 * 512)
    driver.upload_rows(source[:, :33], memory.pointer, 512, stream)
    out = driver.pinned((6, 40), np.uint8)
    driver.download_rows(memory.pointer, 512, out[:, :33], stream)
    stream.synchronize()
    assert np.array_equal(out[:, :33], source[:, :33])


def test_bytes_are_copied_on_the_device(driver: Driver) -> None:
    stream = driver.stream()
    source = bytes_of(1000)
    first, second = on_device(driver, source, stream), driver.allocate(1000)
    driver.copy(first.pointer + 100, second.pointer, 900, stream)
    assert np.array_equal(read(driver, second.pointer, 900, stream), source[100:])


def test_arrays_of_another_layout_are_refused(driver: Driver) -> None:
    stream, memory = driver.stream(), driver.allocate(100)
    with pytest.raises(ValueError, match="contiguous"):
        driver.upload(np.zeros((10, 10), np.uint8)[:, ::2], memory.pointer, stream)
    with pytest.raises(ValueError, match="contiguous"):
        driver.download(memory.pointer, np.zeros((10, 10), np.uint8)[:, ::2], stream)
    with pytest.raises(ValueError, match="rows of uint8"):
        driver.upload_rows(np.zeros((10, 10), np.uint8)[:, ::2], memory.pointer, 10, stream)
    with pytest.raises(ValueError, match="rows of uint8"):
        driver.download_rows(memory.pointer, 10, np.zeros((5, 5), np.float32), stream)


def test_a_kernel_gets_arguments_of_every_size(driver: Driver, kernels: Module) -> None:
    stream = driver.stream()
    source = RANDOM.random(1000, np.float32)
    first, second = on_device(driver, source, stream), driver.allocate(source.nbytes)
    arguments = [
        *(np.uint64(second.pointer), np.uint8(200), np.float64(0.5), np.int16(-7), np.uint64(first.pointer)),
        *(np.int32(1000), np.uint64(1 << 20), np.float32(3)),
    ]
    driver.launch(kernels.function("mixed"), (8, 1, 1), (128, 1, 1), arguments, stream)
    added = np.float32(200 + 0.5 - 7 + (1 << 20))
    assert np.allclose(read(driver, second.pointer, 1000, stream, np.float32), source * 3 + added, rtol=1e-6)


def test_a_grid_has_three_dimensions(driver: Driver, kernels: Module) -> None:
    stream = driver.stream()
    grid, block = (2, 3, 4), (5, 2, 3)
    memory = driver.allocate(4 * 24 * 30)
    driver.launch(kernels.function("place"), grid, block, [np.uint64(memory.pointer)], stream)
    expected = (np.arange(24)[:, None] * 1000 + np.arange(30)).ravel()
    assert np.array_equal(read(driver, memory.pointer, 720, stream, np.uint32), expected)


def test_a_block_has_dynamic_shared_memory(driver: Driver, kernels: Module) -> None:
    stream = driver.stream()
    source = np.arange(3 * 256, dtype=np.int32)
    memory = on_device(driver, source, stream)
    function = kernels.function("reverse")
    driver.launch(function, (3, 1, 1), (256, 1, 1), [np.uint64(memory.pointer)], stream, shared_bytes=1024)
    expected = source.reshape(3, 256)[:, ::-1].ravel()
    assert np.array_equal(read(driver, memory.pointer, 768, stream, np.int32), expected)


def test_wrong_arguments_and_sizes_are_refused_before_anything_runs(driver: Driver, kernels: Module) -> None:
    stream, memory = driver.stream(), driver.allocate(40)
    driver.upload(np.zeros(10, np.int32), memory.pointer, stream)
    function, pointer = kernels.function("fill"), np.uint64(memory.pointer)
    wrong: list[list[np.generic]] = [
        [],
        [pointer, np.int32(1)],
        [pointer, np.int32(1), np.int32(10), np.int32(0)],
        [pointer, np.float64(1), np.int32(10)],
    ]
    for arguments in wrong:
        with pytest.raises((BackendError, TypeError)):
            driver.launch(function, (1, 1, 1), (32, 1, 1), arguments, stream)
    right = [pointer, np.int32(1), np.int32(10)]
    with pytest.raises(BackendError, match="launch fill"):
        driver.launch(function, (1, 1, 1), (1025, 1, 1), right, stream)
    with pytest.raises(BackendError, match="launch fill"):
        driver.launch(function, (1, 1, 1), (32, 1, 1), right, stream, shared_bytes=1 << 20)
    assert not read(driver, memory.pointer, 10, stream, np.int32).any()


def test_a_kernel_that_is_not_there_is_a_key_error(kernels: Module) -> None:
    with pytest.raises(KeyError, match="no kernel nothing"):
        kernels.function("nothing")


def test_code_that_does_not_fit_is_refused_in_a_line(driver: Driver) -> None:
    other = "sm_75" if driver.architecture != "sm_75" else "sm_80"
    with pytest.raises(BackendError, match="another architecture than this device's") as caught:
        driver.load(cubin(other))
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendError, match="no compiled code"):
        driver.load(b"this is text, and no compiled code of anybody's" * 10)


def test_too_much_memory_is_refused_in_a_line(driver: Driver) -> None:
    with pytest.raises(BackendError, match="memory is full") as caught:
        driver.allocate(1 << 50)
    assert "\n" not in str(caught.value)
    assert driver.allocate(1).nbytes == 1


def test_a_stream_waits_for_an_event_of_another_one(driver: Driver, kernels: Module) -> None:
    first, second = driver.stream(), driver.stream()
    assert first.handle != second.handle
    assert first.handle not in (0, 1, 2)
    n = 1 << 20
    memory = driver.allocate(4 * n)
    fill, add = kernels.function("fill"), kernels.function("add")
    for turn in range(3):
        filled, added = driver.event(), driver.event()
        grid = (n // 256, 1, 1)
        driver.launch(fill, grid, (256, 1, 1), [np.uint64(memory.pointer), np.int32(turn), np.int32(n)], first)
        filled.record(first)
        second.wait(filled)
        driver.launch(add, grid, (256, 1, 1), [np.uint64(memory.pointer), np.int32(5), np.int32(n)], second)
        added.record(second)
        first.wait(added)
        assert (read(driver, memory.pointer, n, first, np.int32) == turn + 5).all()


def test_events_measure_time(driver: Driver, kernels: Module) -> None:
    stream, memory = driver.stream(), driver.allocate(4 << 20)
    start, end = driver.event(timing=True), driver.event(timing=True)
    with pytest.raises(BackendError, match="no time lies between these events"):
        end.milliseconds_since(start)
    start.record(stream)
    arguments = [np.uint64(memory.pointer), np.int32(1), np.int32(1 << 20)]
    driver.launch(kernels.function("fill"), (4096, 1, 1), (256, 1, 1), arguments, stream)
    end.record(stream)
    end.synchronize()
    assert 0 < end.milliseconds_since(start) < 60_000
    plain = driver.event()
    plain.record(stream)
    plain.synchronize()
    with pytest.raises(BackendError, match="no time lies between these events"):
        plain.milliseconds_since(start)


def test_somebody_elses_stream_is_waited_for(driver: Driver, kernels: Module) -> None:
    """Whether its number is a default stream's, one of this driver's, or one of another library's."""
    fill, add = kernels.function("fill"), kernels.function("add")
    n = 1 << 20
    memory = driver.allocate(4 * n)
    mine, ours = driver.stream(), driver.stream()
    error, foreign = cu.cuStreamCreate(int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    assert error == cu.CUresult.CUDA_SUCCESS
    for value, handle in enumerate([1, 2, ours.handle, int(foreign)]):
        (error,) = cu.cuMemsetD32Async(memory.pointer, value, n, handle)
        assert error == cu.CUresult.CUDA_SUCCESS
        driver.wait_for(handle, mine)
        arguments = [np.uint64(memory.pointer), np.int32(7), np.int32(n)]
        driver.launch(add, (n // 256, 1, 1), (256, 1, 1), arguments, mine)
        assert (read(driver, memory.pointer, n, mine, np.int32) == value + 7).all()
    cu.cuStreamDestroy(foreign)
    arguments = [np.uint64(memory.pointer), np.int32(1), np.int32(n)]
    driver.launch(fill, (n // 256, 1, 1), (256, 1, 1), arguments, driver.wrap_stream(mine.handle))
    assert (read(driver, memory.pointer, n, mine, np.int32) == 1).all()


def test_somebody_elses_stream_is_taken_or_refused(driver: Driver) -> None:
    error, foreign = cu.cuStreamCreate(int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    assert error == cu.CUresult.CUDA_SUCCESS
    if driver.name.startswith("PyCUDA"):
        with pytest.raises(BackendError, match="cannot take somebody else's stream"):
            driver.wrap_stream(int(foreign))
    else:
        wrapped = driver.wrap_stream(int(foreign))
        assert wrapped.handle == int(foreign)
        memory = driver.allocate(100)
        source = bytes_of(100)
        driver.upload(source, memory.pointer, wrapped)
        assert np.array_equal(read(driver, memory.pointer, 100, wrapped), source)
        del wrapped
    assert cu.cuStreamSynchronize(foreign)[0] == cu.CUresult.CUDA_SUCCESS  # it is still theirs, and alive
    cu.cuStreamDestroy(foreign)


def test_a_driver_leaves_the_threads_contexts_as_they_were(driver: Driver) -> None:
    def current() -> int:
        return int(cu.cuCtxGetCurrent()[1])

    inside = current()
    assert inside != 0
    with driver.active(), driver.active():
        assert current() == inside
    assert current() == inside

    found: list[int] = []

    def elsewhere() -> None:
        found.append(current())
        open_driver("pycuda" if driver.name.startswith("PyCUDA") else "cuda-core")
        found.append(current())
        with driver.active():
            found.append(current())
        found.append(current())

    in_thread(elsewhere)
    assert found == [0, 0, inside, 0]


def test_each_device_has_its_own_context(driver: Driver, compiled: dict[str, bytes]) -> None:
    if presence().devices < 2:
        pytest.skip("there is one CUDA device; this needs two")
    opened: list[Driver] = []
    # PyCUDA would take the context that is current here
    in_thread(lambda: opened.append(open_driver("pycuda" if driver.name.startswith("PyCUDA") else "cuda-core", 1)))
    (second,) = opened
    assert second.device == 1

    def work() -> None:
        with second.active():
            assert int(cu.cuCtxGetDevice()[1]) == 1
            stream = second.stream()
            source = bytes_of(1000)
            memory = on_device(second, source, stream)
            event = second.event(timing=True)
            event.record(stream)
            assert np.array_equal(read(second, memory.pointer, 1000, stream), source)
            function = second.load(compiled.setdefault(second.architecture, cubin(second.architecture))).function(
                "fill"
            )
            arguments = [np.uint64(memory.pointer), np.int32(9), np.int32(250)]
            second.launch(function, (1, 1, 1), (256, 1, 1), arguments, stream)
            assert (read(second, memory.pointer, 250, stream, np.int32) == 9).all()

    work()
    in_thread(work)
    assert int(cu.cuCtxGetDevice()[1]) == 0


def test_each_thread_works_on_its_own_stream(driver: Driver, kernels: Module) -> None:
    """Each with its own memory, at the same time; what one made, another one may free."""
    fill, add = kernels.function("fill"), kernels.function("add")
    left_over: list[object] = []
    results: dict[int, bool] = {}

    def work(number: int) -> None:
        with driver.active():
            stream = driver.stream()
            out = driver.pinned((5000,), np.int32)
            fits = True
            for turn in range(20):
                memory = driver.allocate(20_000)
                value = number * 1000 + turn
                arguments = [np.uint64(memory.pointer), np.int32(value), np.int32(5000)]
                driver.launch(fill, (20, 1, 1), (256, 1, 1), arguments, stream)
                driver.launch(add, (20, 1, 1), (256, 1, 1), arguments, stream)
                driver.download(memory.pointer, out, stream)
                event = driver.event()
                event.record(stream)
                event.synchronize()
                fits = fits and bool((out == 2 * value).all())
                left_over.append(memory)
            left_over.extend([stream, out, event])
            results[number] = fits

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)

    def let_go() -> None:  # on a thread where no context is current
        left_over.clear()
        gc.collect()

    in_thread(let_go)


def test_a_captured_graph_runs_again_on_new_input(cuda_core: Driver) -> None:
    driver = cuda_core
    kernels = driver.load(cubin(driver.architecture))
    stream = driver.stream()
    source, out = driver.pinned((100,), np.int32), driver.pinned((100,), np.int32)
    memory = driver.allocate(400)
    out[:] = -1
    with driver.capture(stream) as capture:
        driver.upload(source, memory.pointer, stream)
        arguments = [np.uint64(memory.pointer), np.int32(3), np.int32(100)]
        driver.launch(kernels.function("add"), (1, 1, 1), (128, 1, 1), arguments, stream)
        driver.download(memory.pointer, out, stream)
    stream.synchronize()
    assert (out == -1).all()  # it was captured, and did not run
    graph = capture.graph()
    other = driver.stream()
    for turn, where in enumerate([stream, other, stream]):
        source[:] = turn * 100 + np.arange(100)
        graph.launch(where)
        where.synchronize()
        assert np.array_equal(out, source + 3)
    graph.close()
    graph.close()


def test_what_others_queue_on_the_stream_is_captured(cuda_core: Driver) -> None:
    """As an inference engine does, which gets the stream's handle."""
    driver = cuda_core
    stream = driver.stream()
    memory, out = driver.allocate(4000), driver.pinned((1000,), np.int32)
    with driver.capture(stream) as capture:
        (error,) = cu.cuMemsetD32Async(memory.pointer, 42, 1000, stream.handle)
        assert error == cu.CUresult.CUDA_SUCCESS
        driver.download(memory.pointer, out, driver.wrap_stream(stream.handle))
    out[:] = 0
    graph = capture.graph()
    graph.launch(stream)
    stream.synchronize()
    assert (out == 42).all()
    graph.close()


def test_a_second_stream_may_take_part_in_a_capture(cuda_core: Driver) -> None:
    driver = cuda_core
    stream, second = driver.stream(), driver.stream()
    memory, out = driver.allocate(4000), driver.pinned((1000,), np.int32)
    fork, join = driver.event(), driver.event()
    with driver.capture(stream) as capture:
        fork.record(stream)
        second.wait(fork)
        assert cu.cuMemsetD32Async(memory.pointer, 7, 1000, second.handle)[0] == cu.CUresult.CUDA_SUCCESS
        join.record(second)
        stream.wait(join)
        driver.download(memory.pointer, out, stream)
    graph = capture.graph()
    graph.launch(stream)
    stream.synchronize()
    assert (out == 7).all()
    graph.close()


def test_what_cannot_be_captured_is_said_when_the_graph_is_asked_for(cuda_core: Driver) -> None:
    driver = cuda_core
    stream, second = driver.stream(), driver.stream()
    memory = driver.allocate(40)
    with driver.capture(stream) as capture, pytest.raises(BackendError):
        stream.synchronize()
    with pytest.raises(BackendError, match="a CUDA graph cannot hold"):
        capture.graph()
    fork = driver.event()
    with driver.capture(stream) as capture:
        fork.record(stream)
        second.wait(fork)
        assert cu.cuMemsetD32Async(memory.pointer, 7, 10, second.handle)[0] == cu.CUresult.CUDA_SUCCESS
    with pytest.raises(BackendError, match="a second stream"):
        capture.graph()
    source = bytes_of(10)
    driver.upload(source, memory.pointer, stream)  # the stream is as good as new
    assert np.array_equal(read(driver, memory.pointer, 10, stream), source)


def test_an_error_inside_of_a_capture_comes_out_of_it(cuda_core: Driver) -> None:
    driver = cuda_core
    stream, memory = driver.stream(), driver.allocate(10)
    with pytest.raises(BackendError, match="not pinned"), driver.capture(stream):
        driver.upload(np.zeros(10, np.uint8), memory.pointer, stream)
    with pytest.raises(BackendError, match="allocate them before"), driver.capture(stream):
        driver.allocate(10)
    with pytest.raises(BackendError, match="do so before"), driver.capture(stream):
        driver.pinned((10,), np.uint8)
    source = bytes_of(10)
    driver.upload(source, memory.pointer, stream)
    assert np.array_equal(read(driver, memory.pointer, 10, stream), source)


def test_what_is_let_go_during_a_capture_does_not_break_it(cuda_core: Driver) -> None:
    """The garbage collector comes when it likes, and CUDA frees no memory during a capture."""
    driver = cuda_core
    stream = driver.stream()
    memory, out = driver.allocate(400), driver.pinned((100,), np.int32)
    passing: list[object] = [driver.allocate(1000), driver.pinned((10,), np.float32), driver.stream(), driver.event()]
    with driver.capture(stream) as capture:
        cu.cuMemsetD32Async(memory.pointer, 5, 100, stream.handle)
        passing.clear()
        gc.collect()
        driver.download(memory.pointer, out, stream)
    graph = capture.graph()
    graph.launch(stream)
    stream.synchronize()
    assert (out == 5).all()
    graph.close()


def test_other_threads_go_on_during_a_capture(cuda_core: Driver) -> None:
    driver = cuda_core
    stream = driver.stream()
    memory, out = driver.allocate(400), driver.pinned((100,), np.int32)
    found: list[bool] = []

    def work() -> None:
        with driver.active():
            mine = driver.stream()
            source = bytes_of(1000)
            theirs = on_device(driver, source, mine)
            found.append(np.array_equal(read(driver, theirs.pointer, 1000, mine), source))

    with driver.capture(stream) as capture:
        cu.cuMemsetD32Async(memory.pointer, 5, 100, stream.handle)
        in_thread(work)
        driver.download(memory.pointer, out, stream)
    graph = capture.graph()
    graph.launch(stream)
    stream.synchronize()
    assert (out == 5).all()
    assert found == [True]
    graph.close()


def test_what_the_whole_process_is_told_to_mind_is_not_spoilt(driver: Driver, kernels: Module) -> None:
    """ONNX Runtime and torch.cuda.graph capture in CUDA's global mode, which other threads' allocations would break."""
    context = cu.cuCtxGetCurrent()[1]
    begun, go_on = threading.Event(), threading.Event()
    passing: list[object] = []
    ended: list[cu.CUresult] = []

    def capture() -> None:
        cu.cuCtxPushCurrent(context)
        stream = cu.cuStreamCreate(int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))[1]
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
        assert cu.cuStreamBeginCapture(stream, mode)[0] == cu.CUresult.CUDA_SUCCESS
        begun.set()
        assert go_on.wait(60)
        passing.clear()  # what the garbage collector may do at any time
        error, graph = cu.cuStreamEndCapture(stream)
        ended.append(error)
        if error == cu.CUresult.CUDA_SUCCESS:
            cu.cuGraphDestroy(graph)
        cu.cuStreamDestroy(stream)
        cu.cuCtxPopCurrent()

    passing.extend([driver.allocate(1000), driver.pinned((10,), np.float32)])
    thread = threading.Thread(target=capture)
    thread.start()
    try:
        assert begun.wait(60)
        stream = driver.stream()
        source, out = bytes_of(4000), driver.pinned((1000,), np.int32)
        memory = on_device(driver, source, stream)
        arguments = [np.uint64(memory.pointer), np.int32(1), np.int32(1000)]
        driver.launch(kernels.function("add"), (4, 1, 1), (256, 1, 1), arguments, stream)
        driver.download(memory.pointer, out, stream)
        stream.synchronize()
        assert np.array_equal(out, source.view(np.int32) + 1)
        del out
        in_thread(memory.close)  # where no context is current
    finally:
        go_on.set()
        thread.join()
    assert ended == [cu.CUresult.CUDA_SUCCESS]


def test_a_threads_capture_mode_is_again_what_it_was(driver: Driver) -> None:
    def mode() -> int:
        found = int(cu.cuThreadExchangeStreamCaptureMode(cu.CUstreamCaptureMode(0))[1])
        cu.cuThreadExchangeStreamCaptureMode(cu.CUstreamCaptureMode(found))
        return found

    found: list[int] = []

    def work() -> None:
        for before in CaptureMode:
            cu.cuThreadExchangeStreamCaptureMode(cu.CUstreamCaptureMode(before))
            with driver.active():
                found.append(mode())
                driver.allocate(10).close()
                found.append(mode())
            found.append(mode())

    in_thread(work)
    inside = [CaptureMode.THREAD_LOCAL] * 2
    assert found == [*inside, CaptureMode.GLOBAL, *inside, CaptureMode.THREAD_LOCAL, *inside, CaptureMode.RELAXED]


def test_a_context_is_known_as_the_primary_one(cuda_core: Driver) -> None:
    assert is_primary_current(cuda_core.device)
    assert not is_primary_current(presence().devices)
    error, own = cu.cuCtxCreate(None, 0, cuda_core.device)
    assert error == cu.CUresult.CUDA_SUCCESS
    assert not is_primary_current(cuda_core.device)
    cu.cuCtxDestroy(own)
    assert is_primary_current(cuda_core.device)
    found: list[bool] = []
    in_thread(lambda: found.append(is_primary_current(cuda_core.device)))
    assert found == [False]


def test_pycuda_has_no_graphs() -> None:
    need_device()
    need_pycuda()
    driver = open_driver("pycuda")
    with driver.active(), pytest.raises(BackendError, match="PyCUDA has no CUDA graphs"):
        driver.capture(driver.stream())


def in_thread(work: Callable[[], None]) -> None:
    """Run it on another thread; what it raises is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
