"""`python -m gapcam_bench.gpu`: what gapcam's kernels and a whole frame take on this machine's GPU.

Measures whatever the machine offers and names what it lacks. It needs cuda-core or PyCUDA, NVRTC, NumPy, OpenCV and
msgspec, no network, and for whole frames a model and an engine that runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
import numpy as np

import gapcam
from gapcam.atomic_file import write_atomically
from gapcam.backends.device_protocol import DeviceBackend
from gapcam.cuda.device_frame import FrameFormat, FrameLayout
from gapcam.cuda.driver import Driver
from gapcam.cuda.kernel_cache import load_kernels
from gapcam.cuda.open_driver import DriverName, open_driver
from gapcam.errors import BackendError, ExitCode, GapcamError
from gapcam_bench.gpu_clock import HOLD_BYTES, DeviceClock
from gapcam_bench.gpu_engines import Way, ways
from gapcam_bench.gpu_environment import Gpu, file_name, gpu_environment
from gapcam_bench.gpu_figures import Figures, GpuBench, Target, figures_of
from gapcam_bench.gpu_inference import BARE, EXPLAINED, ON_HOST, added_to_inference
from gapcam_bench.gpu_kernels import INPUT_SIZE, CamShape, Case, Workshop

DRIVERS: tuple[DriverName, ...] = ("cuda-core", "pycuda")
DEFAULT_MODEL = Path("out/demo/model.onnx")
RESULTS = Path("benchmarks/results")

RESNET50 = CamShape("ResNet-50", 2048, (7, 7))

COPY_SHARE, POST_PROCESS_US, ADDED = 0.8, 20.0, 1.05
"""The targets: the overlay's share of the copy's bandwidth; cam and overlay at 1080p; what they add to an inference."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured.

    Attributes:
        frames: (height, width) by name; the first one is that of the whole frame.
        shapes: of the maps.
        counts: k of top-k.
        samples: of each kernel.
        rounds: of the whole frame.
        seconds: of it at most.
        hold_bytes: of the yardstick's copy.
        sample_bytes: that one sample goes through.
        input_size: (H, W) of the kernels' network; a model has its own.
    """

    frames: dict[str, tuple[int, int]]
    shapes: tuple[CamShape, ...]
    counts: tuple[int, ...] = (1, 5)
    samples: int = 200
    rounds: int = 200
    seconds: float = 30.0
    hold_bytes: int = HOLD_BYTES
    sample_bytes: int = 2 * HOLD_BYTES
    input_size: tuple[int, int] = INPUT_SIZE


FULL = Extent(
    frames={"1080p": (1080, 1920), "4K": (2160, 3840)},
    shapes=(
        RESNET50,
        CamShape("EfficientNet-Lite0", 1280, (7, 7)),
        CamShape("ResNet-50 at 448", 2048, (14, 14)),
        CamShape("56 x 56", 512, (56, 56)),
    ),
)

Say = Callable[[str], None]


def measure_kernels(driver: Driver, extent: Extent, say: Say, lacking: dict[str, str]) -> tuple[list[Figures], float]:
    """All kernels through one driver, and the bandwidth of its device copy in GB/s."""
    clock = DeviceClock(driver, hold_bytes=extent.hold_bytes)
    try:
        copy, moved = clock.copy_latency(samples=extent.samples)
        yardstick = figures_of(
            f"copy of {extent.hold_bytes / 2**20:g} MiB", copy, driver=driver.name, how="stream", bytes_moved=moved
        )
        rate = yardstick.gb_per_s or 0.0
        workshop = Workshop(
            driver, load_kernels(driver), sample_bytes=extent.sample_bytes, input_size=extent.input_size
        )
        found = [yardstick]
        for name, make in _cases(workshop, extent):
            say(f"{driver.name}: {name}")
            try:
                with make as case:
                    found += _measured(case, clock, driver, extent, rate)
            except BackendError as error:  # too little memory for 4K, most likely: the rest can be measured
                lacking[f"{name}, {driver.name}"] = str(error)
        return found, rate
    finally:
        clock.close()


def _cases(workshop: Workshop, extent: Extent) -> Iterator[tuple[str, AbstractContextManager[Case]]]:
    formats: tuple[FrameFormat, ...] = ("bgr", "bgra", "nv12")
    layouts = {
        (name, one): FrameLayout(one, height, width)
        for name, (height, width) in extent.frames.items()
        for one in formats
    }
    shape = extent.shapes[0]
    for (name, one), layout in layouts.items():
        yield f"copy {one} {name}", workshop.copy(name, layout)
        yield f"overlay {one} {name}", workshop.overlay(name, layout, shape)
        yield f"preprocess {one} {name}", workshop.preprocess(name, layout)
    for wanted in extent.shapes:
        for dtype in (np.float32, np.float16):
            for count in extent.counts:
                yield f"cam {wanted.name} {np.dtype(dtype).name} top-{count}", workshop.cam(wanted, dtype, count)
    for (name, one), layout in layouts.items():
        if one == "bgr":
            yield f"cam and overlay {one} {name}", workshop.post_process(name, layout, shape)


def _measured(case: Case, clock: DeviceClock, driver: Driver, extent: Extent, rate: float) -> Iterator[Figures]:
    latency, graph = clock.latency(case.work, in_a_row=case.in_a_row, samples=extent.samples)
    alone, _ = clock.latency(case.work, in_a_row=1, samples=extent.samples, graph=False)
    checks = case.check()
    ways: tuple[tuple[Literal["graph", "stream", "alone"], int], ...]
    ways = (("graph" if graph else "stream", case.in_a_row), ("alone", 1))
    for (how, in_a_row), one in zip(ways, (latency, alone), strict=True):
        yield figures_of(
            case.name,
            one,
            driver=driver.name,
            how=how,
            in_a_row=in_a_row,
            bytes_moved=case.bytes_moved,
            copy_gb_per_s=rate,
            checks=checks,
        )


def measure_inference(backend: DeviceBackend, what: str, extent: Extent) -> tuple[list[Figures], float]:
    """A model's inference with and without maps and overlay, and the ratio of the two. The backend is closed.

    Args:
        backend: a loaded model.
        what: how figures call it.
        extent: how much.
    """
    (name, (height, width)) = next(iter(extent.frames.items()))
    with backend.driver.active():
        kernels = load_kernels(backend.driver)
        workshop = Workshop(backend.driver, kernels, sample_bytes=extent.sample_bytes)
        with gapcam.Session(backend, name=what, post="cuda", kernels=kernels) as session:
            measured, graphs, checks = added_to_inference(
                session,
                backend,
                workshop,
                FrameLayout("bgr", height, width),
                rounds=extent.rounds,
                seconds=extent.seconds,
            )
    how = "graph" if graphs else "step by step"
    figures = [
        figures_of(
            f"{step} ({how}), bgr {name}, {what}",
            latency,
            driver=backend.engine,
            how="wall",
            checks=checks if step == ON_HOST else [],
        )
        for step, latency in measured.items()
    ]
    return figures, measured[EXPLAINED].ratio_to(measured[BARE])


def targets_of(figures: Sequence[Figures], added: dict[str, float]) -> list[Target]:
    """What was hoped for, where it was measured."""
    found: list[Target] = []
    for one in figures:
        what = f"{one.name}, {one.driver}"
        if one.name.startswith("overlay bgr ") and one.how in ("graph", "stream") and one.of_copy is not None:
            found.append(_target(f"{what}: share of the device copy's bandwidth", one.of_copy, least=COPY_SHARE))
        if one.name == "cam and overlay bgr 1080p ResNet-50 top-1" and one.how == "alone":
            found.append(_target(f"{what}: microseconds", one.median_us, most=POST_PROCESS_US))
    for device, ratio in added.items():
        found.append(_target(f"cam and overlay with inference / inference, {device}", ratio, most=ADDED))
    return found


def _target(what: str, measured: float, *, least: float | None = None, most: float | None = None) -> Target:
    reached = measured >= least if least is not None else measured <= (most or 0.0)
    limit = f"at least {least:g}" if least is not None else f"at most {most:g}"
    return Target(what=what, measured=measured, limit=limit, verdict="PASS" if reached else "MISS")


def bench(drivers: Sequence[Driver], extent: Extent, models: Sequence[Path], *, quick: bool, say: Say) -> GpuBench:
    """Everything, on the device of these drivers.

    Args:
        drivers: at least one, all of one device.
        extent: how much.
        models: .onnx or engine files; none for the kernels alone.
        quick: as the result says.
        say: told what is measured next.
    """
    lacking: dict[str, str] = {}
    figures: list[Figures] = []
    rates: list[float] = []
    gpu: Gpu | None = None
    for driver in drivers:
        with driver.active():
            found, rate = measure_kernels(driver, extent, say, lacking)
            figures += found
            rates.append(rate)
            if gpu is None:
                gpu, ground = gpu_environment(driver)  # warm from measuring
    added: dict[str, float] = {}
    if not models:
        lacking["inference"] = "no model was given, and there is no out/demo/model.onnx; make demo writes it"
    with TemporaryDirectory() as folder:
        for model in models:
            for way in ways(model, Path(folder), say):
                say(way.name)
                try:
                    measured, ratio = _on(way, extent)
                except GapcamError as error:
                    lacking[way.name] = " ".join(str(error).split())
                except Exception as error:  # noqa: BLE001 - whatever an engine raises, what was measured is kept
                    lacking[way.name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
                else:
                    figures += measured
                    added[way.name] = ratio
    assert gpu is not None  # noqa: S101 - there is at least one driver
    return GpuBench(
        gpu=gpu,
        environment=ground,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        quick=quick,
        copy_gb_per_s=rates[0],
        figures=figures,
        targets=targets_of(figures, added),
        lacking=lacking,
    )


def _on(way: Way, extent: Extent) -> tuple[list[Figures], float]:
    from gapcam.devices import open_backend  # here, because it may need what is not installed

    path, device = way.open()
    backend = open_backend(path, device=device)
    if not isinstance(backend, DeviceBackend):
        backend.close()
        raise BackendError(f"{backend.engine} does not leave its outputs on the device")
    return measure_inference(backend, way.name, extent)


def lines_of(found: GpuBench) -> Iterator[str]:
    """The outcome for people."""
    gpu, ground = found.gpu, found.environment
    yield f"{gpu.name}, {gpu.architecture}, CUDA {gpu.cuda}; {ground.cpu}; {ground.system}"
    yield ", ".join(f"{name} {version}" for name, version in ground.versions.items())
    yield f"device copy: {found.copy_gb_per_s:.0f} GB/s, reading and writing counted"
    yield ""
    width = max(len(one.name) for one in found.figures)
    for one in found.figures:
        rate = "" if one.gb_per_s is None else f"{one.gb_per_s:8.0f} GB/s"
        share = "" if one.of_copy is None else f"  {one.of_copy:.0%} of the copy"
        wrong = "" if all(check.holds for check in one.checks) else "  WRONG RESULT"
        yield (
            f"{one.name:<{width}} {one.how:<6} {one.median_us:10.2f} us  p99 {one.p99_us:10.2f} us {rate}{share}  "
            f"{one.driver}{wrong}"
        )
    for one in found.figures:
        for check in one.checks:
            if not check.holds:
                yield f"WRONG: {one.name}: {check.what}: {check.found:g}, at most {check.allowed:g} was expected"
    if found.targets:
        yield ""
    for target in found.targets:
        yield f"{target.verdict}  {target.what}: {target.measured:.3g}, {target.limit}"
    for name, why in found.lacking.items():
        yield f"lacking  {name}: {why}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the result, print it; the exit code is 4 where a result is wrong, 6 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m gapcam_bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "models", nargs="*", type=Path, help=f"models for whole frames; default {DEFAULT_MODEL}, if it is there"
    )
    parser.add_argument("--driver", choices=DRIVERS, action="append", help="only this one; may be given again")
    parser.add_argument("--device", type=int, default=0, help="number of the GPU")
    parser.add_argument("--quick", action="store_true", help="a few samples, to see whether all runs")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"folder of the result; default {RESULTS}")
    given = parser.parse_args(arguments)
    drivers, absent = _drivers(given.driver or DRIVERS, given.device)
    if not drivers:
        print(f"nothing was measured: {'; '.join(dict.fromkeys(absent.values()))}", file=sys.stderr)  # noqa: T201
        return ExitCode.MISSING
    extent = replace(FULL, samples=20, rounds=10, seconds=5.0) if given.quick else FULL
    models = given.models or ([DEFAULT_MODEL] if DEFAULT_MODEL.exists() else [])
    try:
        found = bench(drivers, extent, models, quick=given.quick, say=_say)
    except GapcamError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return error.exit_code
    finally:
        for driver in drivers:
            driver.close()
    found = msgspec.structs.replace(found, lacking={**absent, **found.lacking})
    target = given.output / file_name(found.gpu.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    for line in lines_of(found):
        print(line)  # noqa: T201 - a command
    print(f"written: {target}")  # noqa: T201 - a command
    right = all(check.holds for one in found.figures for check in one.checks)
    return ExitCode.DONE if right else ExitCode.VERIFICATION


def _drivers(names: Sequence[DriverName], device: int) -> tuple[list[Driver], dict[str, str]]:
    """Those that open, and why the others do not."""
    found: list[Driver] = []
    absent: dict[str, str] = {}
    for name in names:
        try:
            found.append(open_driver(name, device))
        except GapcamError as error:  # noqa: PERF203 - two rounds
            absent[name] = " ".join(str(error).split())
    return found, absent


def _say(what: str) -> None:
    print(f"measuring {what}", file=sys.stderr, flush=True)  # noqa: T201 - a command's progress


if __name__ == "__main__":
    sys.exit(main())
