"""The TensorRT backend: refusals with the real TensorRT-RTX and its engines, and the rest with `host_tensorrt`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from host_driver import HostDriver
from host_tensorrt import HostTensorRT
from numpy.typing import NDArray
from small_models import BIAS, WEIGHTS, a_contract, red_and_blue

import gapcam
from gapcam.backends.device_protocol import DeviceBackend
from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.backends.tensorrt import TensorRTBackend
from gapcam.contract import METADATA_KEY, contract_to_json
from gapcam.cuda.presence import presence
from gapcam.engine_file import (
    BuildOptions,
    BuiltPrecision,
    EngineHeader,
    EngineTensor,
    ShapeRange,
    read_engine,
    write_engine,
)
from gapcam.engine_fit import this_platform
from gapcam.errors import BackendError, ModelError, UsageError

SIZE = (6, 8)
LARGEST = 5
WANTED = ("logits", "features")


def images(batch: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((batch, 3, *SIZE), np.float32)


# With the real library.


@pytest.fixture(scope="module")
def real_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorrt_rtx_bindings")
    from gapcam_export import build

    folder = tmp_path_factory.mktemp("engine")
    model = red_and_blue(folder / "model.onnx", contract=a_contract((16, 16)))
    build(model, folder / "model.engine", BuildOptions(targets=("86",)), runtime="tensorrt-rtx")
    return folder / "model.engine"


def test_a_gpu_that_an_engine_was_not_built_for_is_named_with_what_rebuilds_it(
    real_engine: Path, host: HostDriver
) -> None:
    with pytest.raises(BackendError, match="was built for sm_86, and this GPU is sm_75") as caught:
        TensorRTBackend(read_engine(real_engine), host)
    assert f"gapcam build MODEL.onnx -o {real_engine} --rebuild" in str(caught.value)


def test_another_version_of_the_library_is_refused_before_it_sees_the_plan(
    real_engine: Path, tmp_path: Path, host: HostDriver
) -> None:
    with read_engine(real_engine) as file:
        header = msgspec.structs.replace(file.header, runtime_version="1.2.3.4", targets=("sm_75",))
        write_engine(tmp_path / "old.engine", header, file.tensors, b"no plan at all")
    with pytest.raises(BackendError, match=r"was built with TensorRT-RTX 1\.2\.3\.4, and here is 1\."):
        TensorRTBackend(read_engine(tmp_path / "old.engine"), host)


@pytest.mark.skipif(bool(presence().devices), reason="there is a GPU here: the engine may load")
def test_the_library_s_own_refusal_is_one_readable_line(real_engine: Path, host: HostDriver) -> None:
    host.architecture = "sm_86"
    with pytest.raises(BackendError, match=r"TensorRT-RTX 1\S+ cannot load .*model.engine: .*driver version") as caught:
        TensorRTBackend(read_engine(real_engine), host)
    assert "\n" not in str(caught.value)
    assert "--rebuild" in str(caught.value)


@pytest.mark.skipif(bool(presence().devices), reason="there is a GPU here: the engine may load")
def test_a_plan_that_is_none_is_refused_by_the_library(real_engine: Path, tmp_path: Path, host: HostDriver) -> None:
    host.architecture = "sm_86"
    with read_engine(real_engine) as file:
        write_engine(tmp_path / "bad.engine", file.header, file.tensors, b"vtrt" + bytes(5000))
    with pytest.raises(BackendError, match=r"cannot load .*bad.engine: "):
        TensorRTBackend(read_engine(tmp_path / "bad.engine"), host)


# With one that runs here.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE))


@pytest.fixture
def engine(tmp_path: Path, model: Path) -> Path:
    """An engine file whose plan is the ONNX model without its constant outputs."""
    plan = onnx.load(model)
    computed = [output for output in plan.graph.output if output.name in WANTED]
    del plan.graph.output[:]
    plan.graph.output.extend(computed)
    header = EngineHeader(
        producer="gapcam tests",
        runtime="tensorrt",
        runtime_version="10.13.3.9",
        platform=this_platform(),
        targets=("sm_75",),
        device="the CPU",
        cuda_driver=(13, 0),
        model="m.onnx",
        model_sha256="ab" * 32,
        options=BuildOptions(batch=(1, 1, LARGEST)),
        profiles=({"image": ShapeRange(min=(1, 3, *SIZE), opt=(1, 3, *SIZE), max=(LARGEST, 3, *SIZE))},),
        inputs=(EngineTensor(name="image", shape=(None, 3, *SIZE), dtype="float32"),),
        outputs=(
            EngineTensor(name="logits", shape=(None, 2), dtype="float32"),
            EngineTensor(name="features", shape=(None, 2, *SIZE), dtype="float32"),
        ),
        precision=BuiltPrecision(asked="fp32", network={"fp32": 1}, engine={"fp32": 1}),
        metadata={METADATA_KEY: contract_to_json(a_contract(SIZE))},
    )
    path = tmp_path / "m.engine"
    write_engine(path, header, {"cam_weights": WEIGHTS, "cam_bias": BIAS}, plan.SerializeToString())
    return path


def with_profiles(engine: Path, batches: Sequence[tuple[int, int]]) -> Path:
    """The same engine with a profile for each range of batches."""
    made = engine.with_name("profiles.engine")
    with read_engine(engine) as file:
        profiles = tuple(
            {"image": ShapeRange(min=(least, 3, *SIZE), opt=(least, 3, *SIZE), max=(greatest, 3, *SIZE))}
            for least, greatest in batches
        )
        header = msgspec.structs.replace(file.header, profiles=profiles)
        write_engine(made, header, file.tensors, bytes(file.plan))
    return made


Opener = Callable[..., tuple[TensorRTBackend, HostTensorRT]]


@pytest.fixture
def opened(engine: Path, host: HostDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Opener]:
    """Opens the engine in a library of such properties, and closes it."""
    monkeypatch.setenv("GAPCAM_CACHE_DIR", str(tmp_path / "cache"))
    backends: list[TensorRTBackend] = []

    def open_it(
        path: Path = engine, *, batches: Sequence[tuple[int, int]] = ((1, LARGEST),), **properties: Any
    ) -> tuple[TensorRTBackend, HostTensorRT]:
        """`batches`: the least and the greatest of each profile."""
        if len(batches) > 1:
            path = with_profiles(path, batches)
        library = HostTensorRT(host, largest=tuple(most for _, most in batches), **properties)
        monkeypatch.setitem(sys.modules, "tensorrt", library)
        backends.append(TensorRTBackend(read_engine(path), host))
        return backends[-1], library

    yield open_it
    for backend in backends:
        backend.close()


def check_runs(backend: TensorRTBackend, reference: OnnxRuntimeBackend, *batches: int) -> None:
    for seed, batch in enumerate(batches):
        image = images(batch, seed)
        expected = reference.run(WANTED, image)
        for got, wanted in zip(backend.run(WANTED, image), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_it_says_what_it_is_and_what_the_header_says(opened: Opener) -> None:
    backend, _ = opened()
    assert isinstance(backend, DeviceBackend)
    assert backend.engine == "TensorRT 10.13.3.9, the CPU"
    assert str(backend.inputs["image"]) == "image [?,3,6,8] float32"
    assert list(map(str, backend.outputs.values())) == [
        "logits [?,2] float32", "features [?,2,6,8] float32", "cam_weights [2,2] float32", "cam_bias [2] float32",
    ]  # fmt: skip


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("capturable", [True, False])
@pytest.mark.parametrize("runtime_cache", [True, False])
def test_a_run_computes_the_model_shape_after_shape(
    model: Path, host: HostDriver, opened: Opener, *, graphs: bool, capturable: bool, runtime_cache: bool
) -> None:
    host.has_graphs = graphs
    backend, library = opened(capturable=capturable, runtime_cache=runtime_cache)
    check_runs(backend, OnnxRuntimeBackend(model, threads=1), 1, 3, 1, 5, 2, 4, 3, 1, 1)
    assert any(context.captured for context in library.contexts) == (graphs and capturable)


def test_with_work_that_runs_as_late_as_it_may_results_are_the_same(
    model: Path, host: HostDriver, opened: Opener
) -> None:
    host.deferred = True
    backend, _ = opened()
    check_runs(backend, OnnxRuntimeBackend(model, threads=1), 2, 2, 5, 1)


@pytest.mark.parametrize("deferred", [False, True])
def test_a_shape_of_another_profile_waits_for_the_change(
    model: Path, host: HostDriver, opened: Opener, *, deferred: bool
) -> None:
    host.deferred = deferred
    backend, library = opened(batches=((1, 2), (3, LARGEST)))
    check_runs(backend, OnnxRuntimeBackend(model, threads=1), 1, 3, 2, 5, 4)
    lane = backend.lane(WANTED, 4)
    with host.active():
        lane.enqueue()
        lane.stream.synchronize()
    lane.close()
    assert sum(context.captured for context in library.contexts) >= 4


def test_shapes_that_contradict_each_other_are_a_line_in_the_library_s_words(opened: Opener) -> None:
    backend, _ = opened(contradiction="IExecutionContext::inferShapes: Error Code 7:\n a condition is violated")
    for call in (lambda: backend.run(["logits"], images(1)), lambda: backend.lane(["logits"], 1)):
        with pytest.raises(
            BackendError, match=r"does not take an input of shape \(\d, 3, 6, 8\): .*violated"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_what_the_library_warns_of_when_it_loads_the_engine_is_kept(host: HostDriver, opened: Opener) -> None:
    warning = "Using an engine plan file across different models of devices is not recommended"
    backend, _ = opened(warning=warning)
    assert backend.warnings == (warning,)
    with gapcam.Session(backend, kernels=host.module()) as session:
        assert session.warnings == (warning,)
    assert opened()[0].warnings == ()


def test_another_model_of_the_same_architecture_is_refused(opened: Opener, host: HostDriver) -> None:
    host.device_name = "another CPU"
    with pytest.raises(BackendError, match="built for the CPU, and this GPU is another CPU") as caught:
        opened()
    for said in ("--rebuild", "--hardware-compatible same-compute-capability"):
        assert said in str(caught.value)


def test_each_shape_has_a_context_of_its_own_and_the_oldest_goes(opened: Opener) -> None:
    backend, library = opened()
    for batch in (1, 2, 1, 2):
        backend.run(["logits"], images(batch))
    assert len(library.contexts) == 3  # the largest, which sizes the buffers, and these two
    for batch in (3, 4, 2, 4):
        backend.run(["logits"], images(batch))
    assert len(library.contexts) == 5  # a fourth and a fifth, whose place the largest's was
    backend.run(["logits"], images(5))
    assert len(library.contexts) == 6


def test_buffers_are_allocated_once_for_the_largest_shape(host: HostDriver, opened: Opener) -> None:
    backend, _ = opened()
    backend.run(["logits"], images(1))
    after_one = host.allocated_bytes
    for batch in (2, 5, 3):
        backend.run(WANTED, images(batch))
    assert host.allocated_bytes == after_one


def test_constants_come_from_the_header_and_no_inference_runs_for_them(opened: Opener) -> None:
    backend, library = opened()
    weights, bias = backend.run(["cam_weights", "cam_bias"], images(1))
    np.testing.assert_array_equal(weights, WEIGHTS)
    np.testing.assert_array_equal(bias, BIAS)
    assert not library.contexts
    weights[:] = 0
    bias, logits, weights = backend.run(["cam_bias", "logits", "cam_weights"], images(2))
    np.testing.assert_array_equal(weights, WEIGHTS)
    assert logits.shape == (2, 2)


def test_results_stay_when_the_next_inference_comes(opened: Opener) -> None:
    backend, _ = opened()
    (first,) = backend.run(["features"], images(1, 1))
    backend.run(["features"], images(1, 2))
    np.testing.assert_array_equal(first, images(1, 1)[:, [0, 2]])


@pytest.mark.parametrize("batch", [0, LARGEST + 1])
def test_a_batch_outside_of_the_profile_says_what_is_inside(opened: Opener, batch: int) -> None:
    backend, _ = opened()
    message = f"inputs of 1 x 3 x 6 x 8 to 5 x 3 x 6 x 8, and got {batch} x 3 x 6 x 8; build it for more with --batch"
    with pytest.raises(BackendError, match=message):
        backend.run(WANTED, images(batch))
    with pytest.raises(BackendError, match=message):
        backend.lane(WANTED, batch)
    assert backend.run(["logits"], images(1))[0].shape == (1, 2)


def test_an_input_of_another_type_is_refused_and_the_backend_goes_on(opened: Opener) -> None:
    backend, _ = opened()
    with pytest.raises(BackendError, match="float64, and the engine takes float32"):
        backend.run(WANTED, images(1).astype(np.float64))
    backend.run(WANTED, images(1))


def test_a_lane_computes_in_its_own_memory_and_can_be_captured(host: HostDriver, opened: Opener) -> None:
    backend, _ = opened()
    lanes = [backend.lane(["features"], 2) for _ in range(2)]
    assert lanes[0].stream is not lanes[1].stream
    assert list(lanes[0].outputs) == ["features"]
    for seed, lane in enumerate(lanes):
        assert lane.capturable
        host.upload(images(2, seed), lane.image.pointer, lane.stream)
        lane.enqueue()
        lane.stream.synchronize()
        with host.capture(lane.stream) as captured:
            lane.enqueue()
        graph = captured.graph()
        host.upload(images(2, seed + 10), lane.image.pointer, lane.stream)
        graph.launch(lane.stream)
        out = np.empty((2, 2, *SIZE), np.float32)
        host.download(lane.outputs["features"].pointer, out, lane.stream)
        lane.stream.synchronize()
        np.testing.assert_array_equal(out, images(2, seed + 10)[:, [0, 2]])
        graph.close()
    for lane in lanes:
        lane.close()
        lane.close()
        with pytest.raises(UsageError):
            lane.enqueue()


def test_everything_is_given_back(host: HostDriver, opened: Opener) -> None:
    before = host.allocated_bytes
    backend, _ = opened()
    lane = backend.lane(WANTED, 1)
    backend.run(WANTED, images(3))
    assert host.allocated_bytes > before
    lane.close()
    backend.close()
    assert host.allocated_bytes == before
    for call in (lambda: backend.run(WANTED, images(1)), lambda: backend.run(["cam_bias"], images(1))):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UsageError):
        backend.lane(WANTED, 1)


def test_threads_run_at_once_and_one_closes_when_all_are_done(opened: Opener) -> None:
    backend, library = opened()

    def call(seed: int) -> bool:
        image = images(1 + seed % LARGEST, seed)
        return bool((backend.run(["features"], image)[0] == image[:, [0, 2]]).all())

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(call, seed) for seed in range(60)]
        assert all(job.result() for job in jobs)
    assert len(library.contexts) >= LARGEST


def test_a_plan_that_the_library_refuses_is_told_in_its_words(engine: Path, tmp_path: Path, opened: Opener) -> None:
    with read_engine(engine) as file:
        write_engine(tmp_path / "bad.engine", file.header, file.tensors, b"no plan")
    with pytest.raises(BackendError, match=r"cannot load .*bad.engine: deserializeCudaEngine: .*magic tag") as caught:
        opened(tmp_path / "bad.engine")
    assert "--rebuild" in str(caught.value)


def test_a_plan_with_other_tensors_than_its_header_s_is_refused(engine: Path, tmp_path: Path, opened: Opener) -> None:
    with read_engine(engine) as file:
        header = msgspec.structs.replace(
            file.header,
            outputs=(msgspec.structs.replace(file.header.outputs[0], dtype="float16"), file.header.outputs[1]),
        )
        write_engine(tmp_path / "other.engine", header, file.tensors, bytes(file.plan))
    with pytest.raises(ModelError, match=r"logits float32, and its header says .*logits float16"):
        opened(tmp_path / "other.engine")


def test_compiled_kernels_are_kept_from_one_process_to_the_next(opened: Opener, tmp_path: Path) -> None:
    backend, _ = opened(runtime_cache=True)
    backend.lane(["logits"], 1).close()
    (kept,) = (tmp_path / "cache").glob("tensorrt-rtx-*.kernels")  # before it is closed: a camera is switched off
    assert kept.read_bytes() == b"kernels of 1 contexts"
    backend.run(["logits"], images(1))
    backend.close()
    assert kept.read_bytes() == b"kernels of 3 contexts"
    _, library = opened(runtime_cache=True)
    assert library.compiled == b"kernels of 3 contexts"


def test_a_cache_folder_that_cannot_be_written_is_done_without(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GAPCAM_CACHE_DIR", str(tmp_path / "file"))
    backend, _ = opened(runtime_cache=True)
    backend.run(["logits"], images(1))
    backend.close()


def test_a_session_on_it_gives_the_results_of_the_onnx_model(model: Path, host: HostDriver, opened: Opener) -> None:
    backend, _ = opened()
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    with (
        gapcam.load(model, device="cpu", threads=1) as plain,
        gapcam.Session(backend, kernels=host.module()) as session,
    ):
        assert session.identity_error < 1e-4
        for name in ("red", "blue"):
            np.testing.assert_allclose(session(frame).map(name), plain(frame).map(name), atol=1e-5)
        results = session.batch([frame, frame[::-1].copy()])
        np.testing.assert_allclose(results[1].logits, plain(frame[::-1].copy()).logits, atol=1e-5)
