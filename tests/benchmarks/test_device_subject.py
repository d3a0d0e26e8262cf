"""A subject on a CUDA device, with the kernels compiled for the host: its stages, its answers, its picture."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime" / "cuda"))  # pytest's importlib mode finds no helpers

import numpy as np
import onnx
import pytest
from host_device_backend import HostDeviceBackend, HostLane
from host_driver import HostDriver, HostStream
from host_library import compiler
from host_library import host_library as compiled_library
from numpy.typing import NDArray
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.contract import HeadKind
from gapcam_bench.cell import WORK, Cell, Emit
from gapcam_bench.price import PRICED
from gapcam_bench.subjects.open_subject import subject_of
from gapcam_bench.subjects.pictures import pictures
from gapcam_bench.subjects.protocol import Subject
from gapcam_bench.sweep.graph_outputs import write_with_outputs

FRAME = (48, 64)


@pytest.fixture(scope="module")
def library(shared_folder: Path) -> Path:
    if compiler() is None:
        pytest.skip("no C++ compiler: g++ compiles the kernels for the host")
    return compiled_library(shared_folder)


SLOW_S = 0.03


class SlowPictures(HostDriver):
    """A device from which a picture comes slowly."""

    def download_rows(self, pointer: int, pitch: int, out: NDArray[Any], stream: HostStream) -> None:
        super().download_rows(pointer, pitch, out, stream)
        assert out.nbytes == 3 * FRAME[0] * FRAME[1], "nothing else has rows apart"
        stream.enqueue(lambda: time.sleep(SLOW_S))


def on_device(library: Path, file: Path, emit: Emit, *, driver: HostDriver | None = None, **changed: object) -> Subject:
    driver = driver or HostDriver(library)
    settings = {"model": str(file), "emit": emit, "device": "cuda", "frame": FRAME, **changed}
    with driver.active():
        backend, kernels = HostDeviceBackend(file, driver), driver.module()
    return subject_of(backend, Cell(**settings), str(file), kernels=kernels)  # type: ignore[arg-type]


class SlowInference(HostDeviceBackend):
    """A device whose network takes a known time, and which notes what it was asked for."""

    def __init__(self, path: Path, driver: HostDriver) -> None:
        super().__init__(path, driver)
        self.took: list[float] = []
        self.asked: list[tuple[str, ...]] = []

    def lane(self, outputs: Sequence[str], batch: int) -> HostLane:
        self.asked.append(tuple(outputs))
        self.lanes.append(SlowLane(self, outputs, batch))
        return self.lanes[-1]


class SlowLane(HostLane):
    def _infer(self) -> None:
        began = time.perf_counter()
        super()._infer()
        time.sleep(SLOW_S)
        self._backend.took.append(time.perf_counter() - began)  # type: ignore[attr-defined]


def emitting(model: Path, emit: Emit) -> Path:
    made = model.with_name(f"{emit}.onnx")
    return made if write_with_outputs(model, made, emit, HeadKind.AFFINE) else model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "model.onnx", contract=a_contract((12, 16)))


@pytest.mark.parametrize("emit", ["features", "maps", "topk", "plain"])
def test_answers_are_those_of_the_host(library: Path, model: Path, emit: Emit) -> None:
    subject = on_device(library, emitting(model, emit), emit)
    with gapcam.load(model, device="cpu") as session:
        for picture in pictures(None, FRAME, 3):
            expected, answer = session(picture.frame), subject.answer(picture)
            np.testing.assert_allclose(answer.logits, expected.logits, atol=0.01)
            if emit == "plain":
                assert answer.map is None
            else:
                assert answer.map is not None
                np.testing.assert_allclose(answer.map, expected.map(), atol=0.02)
    subject.close()


def test_the_device_uses_the_maps_of_the_graph(library: Path, model: Path) -> None:
    file = emitting(model, "maps")
    proto = onnx.load(file)
    last = next(node for node in proto.graph.node if "maps" in node.output)
    last.output[0] = "right"
    proto.graph.node.append(onnx.helper.make_node("Neg", ["right"], ["maps"]))
    onnx.save(proto, file)
    subject, picture = on_device(library, file, "maps"), pictures(None, FRAME, 1)[0]
    with gapcam.load(model, device="cpu") as session:
        expected = session(picture.frame).map()
    answer = subject.answer(picture)
    assert answer.map is not None
    np.testing.assert_allclose(answer.map, -expected, atol=0.02)
    subject.close()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("emit", ["features", "topk"])
def test_stages_have_the_devices_time_where_it_works_and_the_hosts_around_each_verb(
    library: Path, model: Path, emit: Emit, batch: int
) -> None:
    subject = on_device(library, emitting(model, emit), emit, batch=batch, work=WORK)
    times = subject.run(pictures(None, FRAME, batch))
    assert set(times.wall) == {"decode", "inference", "cam", "overlay", "device-to-host", "boxes"}
    assert set(times.device) == {"host-to-device", "preprocess", "inference", "cam", "overlay", "device-to-host"}
    assert all(nanoseconds > 0 for nanoseconds in times.wall.values())
    assert all(nanoseconds >= 0 for nanoseconds in times.device.values())
    assert times.device["inference"] <= times.wall["inference"]
    assert times.device["cam"] <= times.wall["cam"], "the device worked while the host waited"
    assert times.device["overlay"] + times.device["device-to-host"] <= times.wall["overlay"]
    subject.close()


@pytest.mark.parametrize("emit", ["features", "maps"])
def test_a_picture_that_is_drawn_is_no_part_of_the_maps_price(library: Path, model: Path, emit: Emit) -> None:
    """Its download is under overlay by the host's clock; the device's clock shows it by itself."""
    file, shown = emitting(model, emit), pictures(None, FRAME, 1)
    drawn, not_drawn = (
        on_device(library, file, emit, driver=SlowPictures(library), work=work) for work in (("overlay",), ())
    )
    of_drawn = [drawn.run(shown) for _ in range(5)]
    of_not_drawn = not_drawn.run(shown)
    slow = SLOW_S * 1e9
    for times in of_drawn:
        assert set(times.wall) & set(PRICED) == set(of_not_drawn.wall) & set(PRICED) == set(PRICED)
        assert set(times.wall) - set(of_not_drawn.wall) == {"overlay"}
        assert slow <= times.device["device-to-host"] <= times.wall["overlay"]
    for stage in PRICED:
        assert min(times.wall[stage] for times in of_drawn) < slow, "the others of a busy machine may be longer"
    for subject in (drawn, not_drawn):
        subject.close()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("emit", ["features", "maps", "topk", "plain"])
def test_inference_is_all_the_time_that_the_network_takes(library: Path, model: Path, emit: Emit, batch: int) -> None:
    driver, file = HostDriver(library), emitting(model, emit)
    with driver.active():
        backend, kernels = SlowInference(file, driver), driver.module()
    cell = Cell(model=str(file), emit=emit, device="cuda", frame=FRAME, batch=batch, work=())
    subject, shown = subject_of(backend, cell, str(file), kernels=kernels), pictures(None, FRAME, batch)
    unexplained = []
    for _ in range(5):
        backend.took.clear()
        began = time.perf_counter()
        times = subject.run(shown)
        total, (known,) = time.perf_counter() - began, backend.took
        wall, device = times.wall["inference"] * 1e-9, times.device["inference"] * 1e-9
        assert known - 1e-6 <= device <= wall <= total
        unexplained.append(total - sum(times.wall.values()) * 1e-9)
        assert unexplained[-1] > -1e-6
    assert min(unexplained) < 0.2 * SLOW_S, "the others of a busy machine may be longer"
    if emit == "plain":
        assert set(backend.asked) == {("logits",)}, "what nobody asks for is not bound, and not copied"
    subject.close()


def test_a_plain_classifier_goes_the_same_way_without_map(library: Path, model: Path) -> None:
    subject = on_device(library, emitting(model, "plain"), "plain")
    times = subject.run(pictures(None, FRAME, 2))
    assert set(times.wall) == {"decode", "inference"}
    assert set(times.device) == {"host-to-device", "preprocess", "inference"}
    assert any("one call" in note for note in subject.notes)  # type: ignore[attr-defined]
    subject.close()


def test_the_picture_that_is_timed_is_the_devices_overlay(library: Path, model: Path) -> None:
    subject, shown = on_device(library, model, "features", batch=2), pictures(None, FRAME, 2)
    subject.run(shown)
    driver = HostDriver(library)
    with driver.active():
        backend, kernels = HostDeviceBackend(model, driver), driver.module()
    with gapcam.Session(backend, kernels=kernels) as session:
        for picture, drawn in zip(shown, subject._drawn, strict=True):  # type: ignore[attr-defined]
            np.testing.assert_array_equal(drawn, session(picture.frame).overlay())
            assert np.abs(drawn.astype(int) - picture.frame).mean() > 10
    subject.close()


def test_a_frame_that_the_kernels_do_not_draw_is_drawn_by_numpy(library: Path, tmp_path: Path) -> None:
    """As `gapcam.DeviceResult` does. The frame is too small for this input: a tile of it would take too many levels."""
    file = red_and_blue(tmp_path / "model.onnx", contract=a_contract((160, 1500)))
    frame = (8, 64)
    subject = on_device(library, file, "features", frame=frame, work=("overlay",))
    times = subject.run(pictures(None, frame, 1))
    assert times.wall["overlay"] > 0
    assert "overlay" not in times.device
    picture = pictures(None, frame, 1)[0]
    with gapcam.load(file, device="cpu") as session:
        expected = session(picture.frame).overlay()
    difference = np.abs(subject._drawn[0].astype(int) - expected)  # type: ignore[attr-defined]
    assert difference.mean() < 1, "its map is the device's"
    subject.close()
