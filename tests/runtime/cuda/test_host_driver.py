"""The device that is none finds what a GPU would not tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from host_driver import HostDriver
from host_library import compiler
from host_library import host_library as compiled_library

from gapcam.errors import BackendError

SOURCE = """
extern "C" __global__ void __launch_bounds__(256) sums(const float *in, float *out, int n) {
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += in[i];
    __shared__ float of_thread[256];
    of_thread[threadIdx.x] = sum;
    __syncthreads();
    for (int k = blockDim.x / 2; k > 0; k /= 2) {
        if (static_cast<int>(threadIdx.x) < k) of_thread[threadIdx.x] += of_thread[threadIdx.x + k];
        __syncthreads();
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, lanes);
    if (threadIdx.x == 0) {
        out[2 * blockIdx.x] = of_thread[0];
        out[2 * blockIdx.x + 1] = sum;  // of the first warp
    }
}
extern "C" __global__ void put(float *out, int index, float value) { out[index] = value; }
extern "C" __global__ void read_word(const unsigned char *in, unsigned *out) { *out = *(const unsigned *)(in + 1); }
extern "C" __global__ void some_wait(int first) {
    if (static_cast<int>(threadIdx.x) >= first) __syncthreads();
}
extern "C" __global__ void two_barriers() {
    if (threadIdx.x % 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
extern "C" __global__ void half_a_warp(float *out) {
    if (threadIdx.x < 16) out[0] = __shfl_sync(0xFFFFFFFFu, 1.0f, 3);
}
template <int kCount>
__device__ float *array() {
    __shared__ float values[kCount];
    return values;
}
extern "C" __global__ void stale(float *out, int index) {
    out[blockIdx.x] = array<3>()[index];
    array<3>()[index] = 1;
}
extern "C" __global__ void into_shared(float *out, int index) {
    __shared__ float values[3];
    values[index] = 1;
    out[0] = values[index];
}
extern "C" __global__ void order(int *out) { *out = blockIdx.x * blockDim.x + threadIdx.x; }
extern "C" __global__ void to_half(const float *in, unsigned short *out, float *back) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = host_half_from_float(in[i]);
    back[i] = host_float_from_half(out[i]);
}
extern "C" __global__ void votes(unsigned *out) {
    out[threadIdx.x] = __ballot_sync(0xFFFFFFFFu, threadIdx.x % 3 == 0);
}
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("samples")
    (folder / "samples.cu").write_text(SOURCE)
    return compiled_library(folder, folder / "samples.cu")


class Device:
    """A driver, a stream, and short words for what these tests do."""

    def __init__(self, driver: HostDriver) -> None:
        self.driver, self.stream = driver, driver.stream()

    def upload(self, array: np.ndarray) -> object:
        memory = self.driver.allocate(array.nbytes)
        self.driver.upload(array, memory.pointer, self.stream)
        return memory

    def read(self, memory: object, dtype: object, count: int) -> np.ndarray:
        out = np.empty(count, dtype)
        self.driver.download(memory.pointer, out, self.stream)
        self.stream.synchronize()
        return out

    def run(self, name: str, blocks: int, threads: int, *arguments: object) -> None:
        pointers = [np.uint64(a.pointer) if hasattr(a, "pointer") else a for a in arguments]
        function = self.driver.module().function(name)
        self.driver.launch(function, (blocks, 1, 1), (threads, 1, 1), pointers, self.stream)


@pytest.fixture
def device(library: Path) -> object:
    driver = HostDriver(library)
    with driver.active():
        yield Device(driver)


@pytest.mark.parametrize("threads", [32, 64, 256])
def test_barriers_and_shuffles_work(device: Device, threads: int) -> None:
    values = np.arange(1000, dtype=np.float32)
    out = device.driver.allocate(4 * 6)
    device.run("sums", 3, threads, device.upload(values), out, np.int32(1000))
    got = device.read(out, np.float32, 6).reshape(3, 2)
    first_warp = sum(values[lane::threads].sum() for lane in range(32))
    assert (got[:, 0] == values.sum()).all()
    assert (got[:, 1] == first_warp).all()


def test_a_ballot_has_each_lanes_vote(device: Device) -> None:
    out = device.driver.allocate(4 * 32)
    device.run("votes", 1, 32, out)
    assert (device.read(out, np.uint32, 32) == sum(1 << lane for lane in range(0, 32, 3))).all()


def test_half_precision_is_ieees(device: Device) -> None:
    rng = np.random.default_rng(0)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        between = np.nextafter(every, rng.choice(np.array([-np.inf, np.inf], np.float32), every.size))
        values = np.concatenate(
            [every, between, (every + np.roll(every, 1)) / 2, [65519, 65520, 65536, 1e-8, 2**-25, 3e-8]]
        )
        values = np.resize(values, 3 * (1 << 16) + 256).astype(np.float32)
        expected = values.astype(np.float16)
    halves, back = device.driver.allocate(2 * values.size), device.driver.allocate(4 * values.size)
    device.run("to_half", values.size // 256, 256, device.upload(values), halves, back)
    got = device.read(halves, np.float16, values.size)
    number = ~np.isnan(values)
    np.testing.assert_array_equal(got[number].view(np.uint16), expected[number].view(np.uint16))
    assert np.isnan(got[~number]).all()
    np.testing.assert_array_equal(device.read(back, np.float32, values.size), got.astype(np.float32))


def test_a_barrier_that_some_threads_never_reach_is_an_error(device: Device) -> None:
    device.run("some_wait", 1, 64, np.int32(0))
    with pytest.raises(BackendError, match=r"some_wait: .* the barrier of line \d+ was reached by 31 of 64 threads"):
        device.run("some_wait", 1, 64, np.int32(33))
    device.run("some_wait", 1, 64, np.int32(0))


def test_threads_at_different_barriers_are_an_error(device: Device) -> None:
    with pytest.raises(BackendError, match="another one at that of line"):
        device.run("two_barriers", 1, 64)


def test_a_shuffle_that_lanes_of_the_mask_miss_is_an_error(device: Device) -> None:
    with pytest.raises(BackendError, match="only the lanes 0000ffff came"):
        device.run("half_a_warp", 1, 32, device.driver.allocate(4))


@pytest.mark.parametrize("alignment", [4, 256])
def test_a_write_past_the_end_is_found(library: Path, alignment: int) -> None:
    driver = HostDriver(library, alignment=alignment)
    with driver.active():
        device, memory = Device(driver), driver.allocate(256)
        for index in (64, 1 << 17, -1024):
            with pytest.raises(BackendError, match=r"put: thread \(0, 0, 0\) .* not allocated, in samples.cu:\d+"):
                device.run("put", 1, 1, memory, np.int32(index), np.float32(1))
        device.run("put", 1, 1, memory, np.int32(63), np.float32(7))
        assert device.read(memory, np.float32, 64)[63] == 7


@pytest.mark.parametrize("index", [-1, 3])
def test_a_write_too_near_to_fault_is_found_when_the_memory_is_freed(device: Device, index: int) -> None:
    memory = device.driver.allocate(10)
    device.run("put", 1, 1, memory, np.int32(index), np.float32(1))
    with pytest.raises(AssertionError, match="right before or past"):
        memory.close()


def test_memory_that_was_freed_faults(device: Device) -> None:
    memory = device.driver.allocate(4)
    memory.close()
    memory.close()
    with pytest.raises(BackendError, match="not allocated"):
        device.run("put", 1, 1, memory, np.int32(0), np.float32(1))
    with pytest.raises(BackendError, match="not within allocated memory"):
        device.read(memory, np.float32, 1)


def test_a_misaligned_access_is_found(device: Device) -> None:
    with pytest.raises(BackendError, match=r"misaligned .* in samples.cu:\d+"):
        device.run("read_word", 1, 1, device.upload(np.zeros(8, np.uint8)), device.driver.allocate(4))


def test_fresh_memory_and_a_blocks_shared_memory_are_nan(device: Device) -> None:
    assert np.isnan(device.read(device.driver.allocate(40), np.float32, 10)).all()
    out = device.driver.allocate(12)
    device.run("stale", 3, 1, out, np.int32(2))
    assert np.isnan(device.read(out, np.float32, 3)).all()


def test_an_index_past_a_shared_array_is_found(device: Device) -> None:
    with pytest.raises(BackendError, match="an index past an array"):
        device.run("into_shared", 1, 1, device.driver.allocate(4), np.int32(3))


def test_blocks_and_threads_may_run_backwards(device: Device) -> None:
    out = device.driver.allocate(4)
    device.run("order", 3, 4, out)
    assert device.read(out, np.int32, 1)[0] == 11
    device.driver.run_backwards(True)
    try:
        device.run("order", 3, 4, out)
    finally:
        device.driver.run_backwards(False)
    assert device.read(out, np.int32, 1)[0] == 0


def test_arguments_are_checked_against_the_parameters(device: Device) -> None:
    with pytest.raises(AssertionError, match=r"put takes \(uint64, int32, float32\); got \(uint64, int64, float32\)"):
        device.run("put", 1, 1, device.driver.allocate(4), np.int64(0), np.float32(1))


def test_a_captured_graph_runs_when_it_is_launched_and_as_often(device: Device) -> None:
    driver, stream = device.driver, device.stream
    source, memory = driver.pinned((2,), np.float32), driver.allocate(8)
    source[:] = 1, 2
    with driver.capture(stream) as capture:
        driver.upload(source, memory.pointer, stream)
        device.run("put", 1, 1, memory, np.int32(0), np.float32(9))
        with pytest.raises(BackendError, match="not pinned"):
            driver.upload(np.zeros(2, np.float32), memory.pointer, stream)
        with pytest.raises(BackendError, match="captured"):
            stream.synchronize()
    graph = capture.graph()
    assert np.isnan(device.read(memory, np.float32, 2)).all()
    for second in (5, 6):
        source[1] = second
        graph.launch(stream)
        np.testing.assert_array_equal(device.read(memory, np.float32, 2), [9, second])
    graph.close()


def test_without_graphs_a_capture_is_refused(library: Path) -> None:
    driver = HostDriver(library, has_graphs=False)
    with driver.active(), pytest.raises(BackendError, match="no graphs"), driver.capture(driver.stream()):
        pass


def test_nothing_works_outside_of_active(library: Path) -> None:
    with pytest.raises(AssertionError, match="active"):
        HostDriver(library).allocate(4)


def test_deferred_work_runs_when_it_is_waited_for_and_in_the_order_of_events(library: Path) -> None:
    driver = HostDriver(library, deferred=True)
    with driver.active():
        first, second = driver.stream(), driver.stream()
        memory, out, event = driver.allocate(8), driver.pinned((2,), np.float32), driver.event()
        plain, pinned = np.ones(2, np.float32), driver.pinned((2,), np.float32)
        pinned[:] = 2
        driver.upload(plain, memory.pointer, first)
        plain[:] = 5  # it was copied
        driver.upload(pinned[:1], memory.pointer, first)
        pinned[:] = 3  # it was not
        event.record(first)
        second.wait(event)
        driver.download(memory.pointer, out, second)
        assert np.isnan(out).all()
        second.synchronize()
        np.testing.assert_array_equal(out, [3, 1])


def test_rows_are_copied_between_pitches(device: Device) -> None:
    driver, stream = device.driver, device.stream
    rows = np.arange(60, dtype=np.uint8).reshape(5, 12)[:, 2:9]
    memory, other, out = driver.allocate(5 * 16), driver.allocate(4 * 8 + 7), np.zeros((5, 9), np.uint8)
    driver.upload_rows(rows, memory.pointer, 16, stream)
    driver.copy_rows(memory.pointer, 16, other.pointer, 8, (5, 7), stream)
    driver.download_rows(other.pointer, 8, out[:, 1:8], stream)
    stream.synchronize()
    np.testing.assert_array_equal(out[:, 1:8], rows)
    assert not out[:, [0, 8]].any()
    with pytest.raises(BackendError, match="not within allocated"):
        driver.copy_rows(memory.pointer, 16, other.pointer, 9, (5, 7), stream)


def test_what_a_test_leaves_allocated_can_be_seen(device: Device) -> None:
    memory = device.driver.allocate(100)
    assert device.driver.allocated_bytes == 100
    del memory
    assert device.driver.allocated_bytes == 0
