"""The GPU's benchmark on a driver that runs the kernels on the CPU: its structure, its checks, its arithmetic.

No figure of it says anything about a GPU, and none is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

# The host's driver and libcuda lie beside their own tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "runtime" / "cuda"))
sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

from host_device_backend import HostDeviceBackend
from host_driver import HostDriver
from host_libcuda import cuda_headers, host_environment, host_libcuda
from host_library import compiler, host_library

import gapcam
from gapcam.cuda.device_frame import FrameLayout
from gapcam.cuda.presence import presence
from gapcam.errors import BackendError
from gapcam.latency import Latency
from gapcam_bench import gpu_reference
from gapcam_bench.gpu import FULL, Extent, bench, lines_of, measure_inference, targets_of
from gapcam_bench.gpu_clock import DeviceClock
from gapcam_bench.gpu_environment import file_name
from gapcam_bench.gpu_figures import Check, Figures, GpuBench, figures_of
from gapcam_bench.gpu_kernels import CamShape

TINY = Extent(
    frames={"tiny": (30, 46)},
    shapes=(CamShape("a network", 24, (3, 4), 10), CamShape("another", 9, (7, 7), 6)),
    samples=2,
    rounds=1,
    seconds=1.0,
    hold_bytes=4096,
    sample_bytes=1,
    input_size=(20, 24),
)
LITTLE = replace(TINY, shapes=TINY.shapes[:1], counts=(1,))
FORMATS = ("bgr", "bgra", "nv12")


@pytest.fixture(scope="module")
def library(shared_folder: Path) -> Path:
    """As the tests of the kernels compile it."""
    if compiler() is None:
        pytest.skip("no C++ compiler: g++ compiles the kernels for the host")
    return host_library(shared_folder)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPCAM_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture(scope="module", params=[True, False], ids=["graphs", "no graphs"])
def driver(library: Path, request: pytest.FixtureRequest) -> HostDriver:
    return HostDriver(library, has_graphs=request.param)


@pytest.fixture(scope="module")
def found(driver: HostDriver) -> GpuBench:
    """One outcome for all tests that look at it."""
    return bench([driver], TINY, [], quick=True, say=lambda _: None)


def test_every_kernel_is_measured_and_right(driver: HostDriver, found: GpuBench) -> None:
    way = "graph" if driver.has_graphs else "stream"
    kernels = found.figures[1:]
    names = [one.name for one in kernels if one.how == way]
    assert names == [
        *(f"{what} {one} tiny" for one in FORMATS for what in ("copy", "overlay", "preprocess")),
        *(
            f"cam {shape.name} {dtype} top-{count}"
            for shape in TINY.shapes
            for dtype in ("float32", "float16")
            for count in (1, 5)
        ),
        "cam and overlay bgr tiny a network top-1",
    ]
    assert [one.name for one in kernels if one.how == "alone"] == names
    for one in kernels:
        assert one.checks, one.name
        for check in one.checks:
            assert check.holds, (one.name, check)
        assert len(one.samples_ns) == TINY.samples
        assert 0 < one.median_us <= one.p99_us
    assert found.gpu.name == "the CPU"


def test_bytes_are_those_of_frames_in_and_out(found: GpuBench) -> None:
    moved = {one.name: one.bytes_moved for one in found.figures}
    pixels = 30 * 46
    for one, each in zip(FORMATS, (3, 4, 1.5), strict=True):
        assert moved[f"overlay {one} tiny"] == 2 * each * pixels
        assert moved[f"preprocess {one} tiny"] == each * pixels + 4 * 3 * 20 * 24
    assert moved["cam a network float16 top-5"] == 2 * 24 * 12 + 2 * 10 + 4 * 5 * (24 + 12)


@pytest.mark.usefixtures("found")
def test_memory_is_given_back(driver: HostDriver) -> None:
    assert driver.allocated_bytes == 0


def test_an_inference_is_measured_with_and_without_maps_and_overlay(driver: HostDriver, tiny_model: Path) -> None:
    backend = HostDeviceBackend(tiny_model, driver)
    figures, ratio = measure_inference(backend, "a model", TINY)
    assert backend.closed
    how = "graph" if driver.has_graphs else "step by step"
    assert [one.name for one in figures] == [
        f"{step} ({how}), bgr tiny, a model"
        for step in (
            "inference",
            "inference, cam, overlay",
            "frame graph, on the device",
            "frame graph, from and to the host",
        )
    ]
    assert [check.what for check in figures[-1].checks] == [
        "classes that differ",
        "maps, of the greatest magnitude",
        "overlay, grey levels",
        *2 * ("frame graph's map, of the greatest magnitude", "overlay, grey levels"),
    ]
    assert all(check.holds for check in figures[-1].checks)
    assert ratio > 0


def test_every_way_to_run_a_model_that_is_lacking_is_named(library: Path, tiny_model: Path) -> None:
    if presence().devices:
        pytest.skip("there is a GPU here")
    found = bench([HostDriver(library)], LITTLE, [tiny_model], quick=True, say=lambda _: None)
    titles = ("CUDA", "TensorRT", "TensorRT-RTX")
    providers = [f"tiny.onnx by ONNX Runtime's {title} provider" for title in titles]
    engines = [f"tiny.onnx as an engine of {title}" for title in titles[1:]]
    assert list(found.lacking) == [*providers, *engines]
    assert all("NVIDIA" in found.lacking[name] for name in providers)


def test_a_case_without_enough_memory_is_lacking_and_the_rest_is_measured(library: Path) -> None:
    class Small(HostDriver):
        def allocate(self, nbytes: int, *more: object) -> object:
            if nbytes > 200_000 and not more:
                raise BackendError(f"the device has no {nbytes} bytes left")
            return super().allocate(nbytes, *more)

    extent = replace(LITTLE, frames={"tiny": (30, 46), "large": (300, 400)})
    found = bench([Small(library)], extent, [], quick=True, say=lambda _: None)
    assert "overlay bgra large, host" in found.lacking
    assert "cam a network float32 top-1" in {one.name for one in found.figures}


def test_a_wrong_overlay_is_noticed(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_reference, "COLORMAP", "viridis")  # the kernels still draw with another one
    found = bench([HostDriver(library)], LITTLE, [], quick=True, say=lambda _: None)
    wrong = {one.name for one in found.figures if not all(check.holds for check in one.checks)}
    assert wrong == {*(f"overlay {one} tiny" for one in FORMATS), "cam and overlay bgr tiny a network top-1"}
    assert any(line.startswith("WRONG: overlay bgr tiny") for line in lines_of(found))


def test_a_wrong_map_class_or_input_is_noticed() -> None:
    random = np.random.default_rng(0)
    features, logits = random.random((6, 3, 4), np.float32), random.random(9, np.float32)
    weights = random.random((9, 6), np.float32)
    best = np.argsort(-logits)[:2].astype(np.int32)
    right = np.einsum("kc,chw->khw", weights[best], features)
    given = {"features": features, "logits": logits, "weights": weights}
    assert all(check.holds for check in gpu_reference.check_maps(right, best, **given))
    assert not gpu_reference.check_maps(right, best[::-1], **given)[0].holds
    assert not gpu_reference.check_maps(right * 1.0001, best, **given)[1].holds
    frame = random.integers(0, 256, (40, 60, 3), np.uint8)
    how = gapcam.Preprocessing(size=(20, 24), resize="squash")
    ready, layout = gapcam.preprocess(frame, how), FrameLayout("bgr", 40, 60)
    assert all(check.holds for check in gpu_reference.check_preprocessed(ready, frame, layout, how))
    one_level = np.float32(1 / (255 * max(how.std)))
    ready[0, :2, :2] += one_level
    assert [check.holds for check in gpu_reference.check_preprocessed(ready, frame, layout, how)] == [True, False]
    ready[0, 0, 0] += one_level
    assert not gpu_reference.check_preprocessed(ready, frame, layout, how)[0].holds


def test_it_runs_through_cuda_core_on_a_libcuda_that_is_no_gpu(library: Path) -> None:
    if cuda_headers() is None:
        pytest.skip("no cuda.h: the wheel nvidia-cuda-runtime has it")
    code = """
import json, sys
from pathlib import Path
import msgspec
sys.path.insert(0, sys.argv[1])
from test_gpu import LITTLE
from gapcam.cuda.open_driver import open_driver
from gapcam_bench.gpu import bench
driver = open_driver("cuda-core")
found = bench([driver], LITTLE, [], quick=True, say=lambda _: None)
driver.close()
print(msgspec.json.encode(found).decode())
"""
    tests = Path(__file__).parent
    environment = host_environment(host_libcuda(library.parent), [library])
    environment["PYTHONPATH"] = str(tests.parent / "runtime")
    command = [sys.executable, "-c", code, str(tests)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    found = msgspec.json.decode(ran.stdout, type=GpuBench)
    assert found.figures[0].driver.startswith("cuda.core")
    assert "not a GPU" in found.gpu.name
    assert {one.how for one in found.figures} == {"graph", "stream", "alone"}
    for one in found.figures[1:]:
        assert one.checks, one.name
        assert all(check.holds for check in one.checks), one


def test_the_clock_divides_by_the_runs_in_a_row_and_waits_behind_its_copies(library: Path) -> None:
    driver = HostDriver(library, has_graphs=False)
    with driver.active():
        clock = DeviceClock(driver, hold_bytes=256)
        numbers: list[int] = []
        latency, graph = clock.latency(lambda _, number: numbers.append(number), in_a_row=3, samples=4)
        clock.close()
    assert not graph
    assert latency.count == 4
    assert numbers[:3] == [0, 1, 2]
    assert len(numbers) == 3 * (2 + 2 + 4)  # once for what is done once, once for the host's time, two unmeasured


def test_a_graph_is_captured_once_and_launched_for_each_sample(library: Path) -> None:
    driver = HostDriver(library)
    with driver.active():
        clock = DeviceClock(driver, hold_bytes=256)
        numbers: list[int] = []
        _, graph = clock.latency(lambda _, number: numbers.append(number), in_a_row=2, samples=5)
        clock.close()
    assert graph
    assert numbers == [0, 1, 0, 1]


def test_figures_of_samples() -> None:
    found = figures_of(
        "x", Latency([1000, 2000, 4000]), driver="d", how="graph", in_a_row=2, bytes_moved=4000, copy_gb_per_s=4.0
    )
    assert (found.samples_ns, found.median_us, found.p99_us) == ([1000, 2000, 4000], 2.0, 4.0)
    assert found.gb_per_s == pytest.approx(2.0)
    assert found.of_copy == pytest.approx(0.5)


def test_targets_are_passed_at_their_limit_and_missed_beyond() -> None:
    def figures(name: str, how: str, us: float, share: float | None) -> Figures:
        return msgspec.convert(
            {
                "name": name, "driver": "d", "how": how, "in_a_row": 1, "samples_ns": [1], "median_us": us,
                "p99_us": us, "bytes_moved": None, "gb_per_s": None, "of_copy": share, "checks": [],
            },
            Figures,
        )  # fmt: skip

    post = "cam and overlay bgr 1080p ResNet-50 top-1"
    found = targets_of(
        [
            figures("overlay bgr 1080p", "graph", 1, 0.8),
            figures("overlay bgr 4K", "stream", 1, 0.79),
            figures("overlay bgr 4K", "alone", 1, 0.1),
            figures("overlay nv12 4K", "graph", 1, 0.1),
            figures(post, "alone", 20, None),
            figures(post, "graph", 99, None),
        ],
        {"cuda": 1.05, "tensorrt": 1.06},
    )
    assert [(one.measured, one.verdict) for one in found] == [
        (0.8, "PASS"),
        (0.79, "MISS"),
        (20, "PASS"),
        (1.05, "PASS"),
        (1.06, "MISS"),
    ]


def test_a_level_on_a_tie_may_differ_and_is_counted_and_others_may_not() -> None:
    check = Check(what="x", found=1.0, allowed=1.0, counted=3, counted_allowed=3)
    assert check.holds
    assert not msgspec.structs.replace(check, counted=4).holds
    assert not msgspec.structs.replace(check, found=1.5).holds
    assert not msgspec.structs.replace(check, found=float("nan")).holds


@pytest.mark.parametrize(
    ("name", "file"),
    [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3.json"), ("Orin", "orin.json"), ("???", "gpu.json")],
)
def test_the_results_file_is_named_after_the_gpu(name: str, file: str) -> None:
    assert file_name(name) == file


def test_the_result_is_json_that_reads_back(found: GpuBench) -> None:
    text = msgspec.json.encode(found)
    assert msgspec.json.decode(text, type=GpuBench) == found
    assert list(json.loads(text)) == [
        "gpu", "environment", "date", "quick", "copy_gb_per_s", "figures", "targets", "lacking",
    ]  # fmt: skip


def test_the_targets_cases_are_among_those_that_are_measured_in_full() -> None:
    assert FULL.shapes[0].name == "ResNet-50"
    assert (FULL.shapes[0].channels, FULL.shapes[0].map_size) == (2048, (7, 7))
    assert FULL.frames == {"1080p": (1080, 1920), "4K": (2160, 3840)}
    assert np.prod(FULL.frames["4K"]) == 4 * np.prod(FULL.frames["1080p"])


def test_without_a_gpu_the_command_says_so_in_a_line_and_writes_nothing(tmp_path: Path) -> None:
    if presence().devices:
        pytest.skip("there is a GPU here")
    command = [sys.executable, "-m", "gapcam_bench.gpu", "--output", str(tmp_path / "results")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 6
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("nothing was measured: no CUDA device")
    assert list(tmp_path.iterdir()) == []


def test_it_needs_no_package_that_a_device_has_not() -> None:
    absent = ("click", "rich", "torch", "onnx", "skimage", "onnxruntime", "cuda", "pycuda")
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
        "from gapcam_bench.gpu import main\nsys.exit(main(['--quick']))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "nothing was measured" in ran.stderr or ran.returncode in (0, 4), ran.stderr
    assert "Traceback" not in ran.stderr
