"""`gapcam build`: what is there is kept or refused, several processes and interruptions leave whole files only."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from small_models import BIAS, WEIGHTS, a_contract, red_and_blue

import gapcam
from gapcam.cli.main import main
from gapcam.engine_file import BuildOptions, read_engine, write_engine
from gapcam.errors import ExitCode
from gapcam_export import build
from gapcam_export.engines import builder
from gapcam_export.engines.monitor import BuildProgress

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is for Linux on x86-64")

TARGETS = ("--targets", "86,89")
GAPCAM = (sys.executable, "-m", "gapcam.cli.main")

# The command, whose build comes to no end as long as there is a file, unless it is stopped.
HELD = """
import pathlib, runpy, sys, time
from gapcam_export.engines.monitor import BuildProgress

step, gate = BuildProgress.step, pathlib.Path(sys.argv.pop(1))

def held(build, name):
    while gate.exists() and not build.stopped:
        time.sleep(0.01)
    return step(build, name)

BuildProgress.step = held
runpy.run_module("gapcam.cli.main", run_name="__main__")
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "model.onnx")


def deep(model: onnx.ModelProto) -> None:
    """A build of about a second: 400 convolutions."""
    x = "image"
    for index in range(400):
        side = (1, 3, 5)[index % 3]
        weights = np.full((3, 3, side, side), 0.01, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, f"w{index}"))
        model.graph.node.append(helper.make_node("Conv", [x, f"w{index}"], [f"c{index}"], pads=[side // 2] * 4))
        model.graph.node.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        x = f"r{index}"
    model.graph.output.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 3, 32, 32]))


@pytest.fixture
def slow_model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "slow.onnx", contract=a_contract((32, 32)), change=deep)


def command(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["build", *map(str, arguments)])
    assert "Traceback" not in done.stderr, done.stderr
    return done.exit_code, done.stdout, done.stderr


def started(*arguments: object, **settings: object) -> subprocess.Popen[str]:
    line = [*GAPCAM, "build", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """As long as it is there, no build of `held` is done."""
    path = tmp_path / "gate"
    path.touch()
    return path


def held(gate: Path, *arguments: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", HELD, str(gate), "build", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(text):
            return
    raise AssertionError(f"the process ended without {text!r}")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_report_says_what_was_built_as_a_table_and_as_json(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    code, out, err = command(model, "-o", path, *TARGETS, "--batch", "1:2:4", "--json")
    assert code == ExitCode.DONE, err
    report = json.loads(out)
    assert report["built"] is True
    assert report["size_bytes"] == path.stat().st_size
    with read_engine(path) as engine:
        assert report["header"] == json.loads(msgspec.json.encode(engine.header))
        np.testing.assert_array_equal(engine.tensors["cam_weights"], WEIGHTS)
        np.testing.assert_array_equal(engine.tensors["cam_bias"], BIAS)
    assert report["header"]["profiles"] == [
        {"image": {"min": [1, 3, 2, 2], "opt": [2, 3, 2, 2], "max": [4, 3, 2, 2]}},
    ]
    assert "building the engine ..." in err.splitlines()
    code, out, err = command(model, "-o", tmp_path / "b.engine", *TARGETS)
    assert code == ExitCode.DONE
    for text in ("sm_86, sm_89", "1 in fp32", "not read back: there is no GPU here", "features [N,2,2,2] float32"):
        assert text in out
    assert left_in(tmp_path) == ["b.engine", "model.engine", "model.onnx"]


def test_what_is_up_to_date_is_not_built_again(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    assert command(model, "-o", path, *TARGETS)[0] == ExitCode.DONE
    before = path.stat()
    code, out, err = command(model, "-o", path, *TARGETS, "--json")
    assert code == ExitCode.DONE
    assert json.loads(out)["built"] is False
    assert json.loads(out)["notes"] == ["it is up to date; nothing was built"]
    assert "building" not in err
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert command(model, "-o", path, *TARGETS, "--rebuild")[0] == ExitCode.DONE
    assert path.stat().st_ino != before.st_ino


def test_another_engine_is_refused_with_what_differs_and_rebuilt_when_asked_for(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    build(model, path, BuildOptions(targets=("86", "89"), level=2))
    content = path.read_bytes()
    code, _, err = command(model, "-o", path, "--targets", "89", "--batch", 4, "--no-tf32")
    assert code == ExitCode.MODEL
    for part in (
        "it was built with --batch 1:1:1, now it is 1:4:4",
        "it was built with --level 2, now it is not set",
        "it was built with --no-tf32 set, now it is not set",
        "it was built with --targets 86,89, now it is 89",
        "Build it again with --rebuild, or give another name with -o",
    ):
        assert part in err
    assert path.read_bytes() == content
    assert command(model, "-o", path, "--targets", "89", "--rebuild")[0] == ExitCode.DONE
    with read_engine(path) as engine:
        assert engine.header.targets == ("sm_89",)


def test_an_engine_of_another_model_or_another_tensorrt_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    build(model, path, BuildOptions(targets=("86", "89")))
    with read_engine(path) as engine:
        older = msgspec.structs.replace(engine.header, runtime_version="1.2.0.54")
        write_engine(path, older, engine.tensors, bytes(engine.plan))
    red_and_blue(model, bias=BIAS + 1)
    code, _, err = command(model, "-o", path, *TARGETS)
    assert code == ExitCode.MODEL
    assert "it was built from another model, or from model.onnx before it was changed" in err
    assert "it was built with TensorRT-RTX 1.2.0.54, and here is" in err


def test_damage_and_other_files_are_refused_and_replaced_when_asked_for(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    build(model, path, BuildOptions(targets=("86", "89")))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, _, err = command(model, "-o", path, *TARGETS)
    assert code == ExitCode.MODEL
    assert "its checksum is wrong" in err
    path.write_bytes(b"my diary")
    code, _, err = command(model, "-o", path, *TARGETS)
    assert code == ExitCode.MODEL
    assert "is there and is no engine file of gapcam; give another name with -o, or replace it with --rebuild" in err
    assert path.read_bytes() == b"my diary"
    assert command(model, "-o", path, *TARGETS, "--rebuild")[0] == ExitCode.DONE
    read_engine(path).close()


def test_the_model_is_not_written_over(model: Path) -> None:
    content = model.read_bytes()
    for name in (model, model.with_name("other.onnx")):
        assert command(model, "-o", name, *TARGETS, "--rebuild")[0] in (ExitCode.DATA, ExitCode.USAGE)
    assert model.read_bytes() == content


def test_the_files_of_its_weights_are_not_written_over_either(model: Path, tmp_path: Path) -> None:
    kept_apart = tmp_path / "large.onnx"
    onnx.save(onnx.load(model), kept_apart, save_as_external_data=True, location="large.onnx.data", size_threshold=0)
    weights = tmp_path / "large.onnx.data"
    content = weights.read_bytes()
    (tmp_path / "link").symlink_to(weights)
    for name in (weights, tmp_path / "link"):
        code, _, err = command(kept_apart, "-o", name, *TARGETS, "--rebuild")
        assert code == ExitCode.DATA
        assert f"would be written over {weights.resolve()}, which would be lost" in err
    assert weights.read_bytes() == content
    assert command(kept_apart, "-o", tmp_path / "model.engine", *TARGETS)[0] == ExitCode.DONE


def test_what_is_printed_of_names_does_not_command_the_terminal(tmp_path: Path) -> None:
    model = red_and_blue(tmp_path / "m\x1b[31m.onnx")
    code, out, err = command(model, "-o", tmp_path / "[b]\x1b[2J.engine", *TARGETS)
    assert code == ExitCode.DONE, err
    assert "\x1b" not in out + err
    assert r"m\x1b[31m.onnx, sha256" in out


def chosen_runtime(model: Path, folder: Path, tensorrt: str) -> tuple[int, str, str]:
    """What `gapcam build` without --runtime does where this stands for TensorRT's Python module."""
    (folder / "tensorrt.py").write_text(tensorrt, encoding="utf-8")
    ran = subprocess.run(
        [*GAPCAM, "build", model, "-o", folder / "a.engine", "--json"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("tensorrt", "reason"),
    [
        ("__version__ = '8.6.1'", "TensorRT 8.6.1 is installed; gapcam needs 10 or later"),
        ("raise ImportError('libnvinfer.so.10: no such file')", "cannot be loaded: libnvinfer.so.10: no such file"),
        ("raise RuntimeError('no driver')", "cannot be loaded: no driver"),
    ],
)
def test_a_tensorrt_that_does_not_work_is_not_replaced_by_the_other_without_a_word(
    model: Path, tmp_path: Path, tensorrt: str, reason: str
) -> None:
    code, out, err = chosen_runtime(model, tmp_path, tensorrt)
    assert (code, out) == (ExitCode.MISSING, "")
    assert reason in err
    assert err.endswith("Or build with TensorRT-RTX, which is here, too: --runtime tensorrt-rtx\n")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "a.engine").exists()


def test_without_tensorrt_the_other_builds(model: Path, tmp_path: Path) -> None:
    code, out, err = chosen_runtime(model, tmp_path, "raise ModuleNotFoundError('no', name=__name__)")
    assert code == ExitCode.DONE, err
    assert json.loads(out)["header"]["runtime"] == "tensorrt-rtx"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--batch", "many"), "--batch is 'many'; expected a number, or MIN:OPT:MAX such as 1:4:8"),
        (("--size", "64"), "--size is '64'; expected HxW"),
        (("--size", "64x64:32x32"), "--size is '64x64:32x32'"),
        (("--targets", "ada"), "--targets is 'ada'; expected compute capabilities"),
        (("--targets", ""), "--targets is ''"),
        (("--level", "9"), "'--level'"),
        (("--workspace", "9" * 30), "--workspace is 999999999999999999999999999999; expected 1 to 16777216 MiB"),
    ],
)
def test_options_that_are_not_understood_are_a_line(
    model: Path, tmp_path: Path, given: tuple[str, str], said: str
) -> None:
    code, _, err = command(model, "-o", tmp_path / "a.engine", *given)
    assert code == ExitCode.USAGE
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_targets_may_be_written_as_people_write_them(model: Path, tmp_path: Path) -> None:
    assert command(model, "-o", tmp_path / "a.engine", "--targets", "sm_89, 8.6")[0] == ExitCode.DONE
    with read_engine(tmp_path / "a.engine") as engine:
        assert engine.header.options.targets == ("86", "89")


def test_a_place_that_cannot_be_written_is_noticed_before_the_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = command(model, "-o", tmp_path / "file" / "a.engine", *TARGETS)
    assert code == ExitCode.DATA
    assert err.startswith("error: ")
    assert "building" not in err


def test_a_full_disk_leaves_the_old_engine(slow_model: Path, model: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    path = tmp_path / "out" / "model.engine"
    build(model, path, BuildOptions(targets=("86",)))
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(gapcam.DataError, match=r"cannot write .*model\.engine: File too large"):
            build(slow_model, path, BuildOptions(targets=("86",)), rebuild=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
    assert left_in(path.parent) == ["model.engine"]


@pytest.mark.parametrize("options", [(), ("--rebuild",)])
def test_two_processes_build_one_engine_once(
    slow_model: Path, tmp_path: Path, gate: Path, options: tuple[str, ...]
) -> None:
    path = tmp_path / "out" / "model.engine"
    first = held(gate, slow_model, "-o", path, *TARGETS, "--json", *options)
    wait_for(first, "building the engine")
    second = started(slow_model, "-o", path, *TARGETS, "--json", *options)
    wait_for(second, f"another process builds {path}; waiting for it ...")
    gate.unlink()
    reports = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], reports
    built = [json.loads(out)["built"] for out, _ in reports]
    assert built == [True, False]
    assert json.loads(reports[1][0])["notes"] == ["it was built by another process meanwhile"]
    read_engine(path).close()
    assert left_in(path.parent) == ["model.engine"]


@pytest.mark.parametrize("options", [(), ("--rebuild",)])
def test_who_waited_for_a_process_that_died_builds(
    slow_model: Path, tmp_path: Path, gate: Path, options: tuple[str, ...]
) -> None:
    path = tmp_path / "out" / "model.engine"
    if options:
        build(slow_model, path, BuildOptions(targets=("86", "89")))
        before = path.stat()
    first = held(gate, slow_model, "-o", path, *TARGETS, *options)
    wait_for(first, "building the engine")
    second = started(slow_model, "-o", path, *TARGETS, "--json", *options)
    wait_for(second, f"another process builds {path}; waiting for it ...")
    first.kill()
    first.communicate(timeout=60)
    out, err = second.communicate(timeout=60)
    assert second.returncode == ExitCode.DONE, err
    assert json.loads(out)["built"] is True
    if options:
        assert path.stat().st_ino != before.st_ino
    read_engine(path).close()
    assert left_in(path.parent) == ["model.engine"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_ends_soon_and_leaves_nothing(
    slow_model: Path, tmp_path: Path, gate: Path, ending: signal.Signals
) -> None:
    path = tmp_path / "out" / "model.engine"
    process = held(gate, slow_model, "-o", path, *TARGETS)
    wait_for(process, "building the engine")
    process.send_signal(ending)
    _, err = process.communicate(timeout=60)  # it would not be done by itself
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert left_in(path.parent) == []


def test_ctrl_c_while_the_builds_thread_begins_stops_it_too(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool(ThreadPoolExecutor):
        def submit(self, *work: Any) -> Any:
            super().submit(*work)
            raise KeyboardInterrupt

    def step(build: BuildProgress, _: str) -> bool:
        told.append(build._stopped.wait(20))
        return False

    told: list[bool] = []
    monkeypatch.setattr(builder, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(BuildProgress, "step", step)
    with pytest.raises(KeyboardInterrupt):
        build(model, tmp_path / "model.engine", BuildOptions(targets=("86",)))
    assert told
    assert all(told)
    assert left_in(tmp_path) == ["model.onnx"]


def test_a_killed_build_leaves_no_engine_and_the_next_one_is_not_kept_waiting(
    slow_model: Path, tmp_path: Path, gate: Path
) -> None:
    path = tmp_path / "out" / "model.engine"
    process = held(gate, slow_model, "-o", path, *TARGETS)
    wait_for(process, "building the engine")
    process.kill()
    process.communicate(timeout=60)
    assert not path.exists()
    report = build(slow_model, path, BuildOptions(targets=("86", "89")))
    assert report.built
    read_engine(path).close()
    assert left_in(path.parent) == ["model.engine"]


def test_the_progress_of_a_build_rises_and_names_tensorrts_phases(slow_model: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(step: str, done: int = 0, total: int = 0, /) -> None:
        seen.append((step, done, total))

    build(slow_model, tmp_path / "a.engine", BuildOptions(targets=("86",)), progress=progress)
    steps = [(done, total) for step, done, total in seen if step.startswith("building the engine: ")]
    assert len(steps) > 10
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert all(0 <= done <= total == 100 for done, total in steps)
    assert steps[-1][0] >= 50
    assert len({step for step, _, _ in seen}) > 5
    assert [step for step, _, _ in seen][-1] == f"writing {tmp_path / 'a.engine'}"


def test_what_goes_wrong_in_a_callers_progress_ends_the_build(slow_model: Path, tmp_path: Path) -> None:
    """It must not unwind through TensorRT, which would end the process."""

    def progress(step: str, done: int = 0, total: int = 0, /) -> None:
        del step, done
        if total:
            raise BrokenPipeError("nobody listens")

    with pytest.raises(BrokenPipeError, match="nobody listens"):
        build(slow_model, tmp_path / "a.engine", BuildOptions(targets=("86",)), progress=progress)
    assert left_in(tmp_path) == ["slow.onnx"]


def test_percents_follow_from_phases_within_steps_of_phases() -> None:
    said: list[tuple[str, int, int]] = []
    build = BuildProgress(lambda step, done=0, total=0, /: said.append((step, done, total)))
    build.start("whole", None, 4)
    assert build.step("whole")
    build.start("part", "whole", 2)
    build.step("part")
    assert build.fraction == 3 / 8
    build.finish("part")
    assert build.fraction == 1 / 4
    build.start("other", "whole", 10)
    assert [done for _, done, _ in said] == [0, 25, 25, 37, 37]  # it does not go back
    build.stop()
    assert not build.step("other")


def test_nothing_of_torch_or_onnx_runtime_is_needed(model: Path, tmp_path: Path) -> None:
    """A Jetson has neither; what it lacks is set to None, so that its import fails."""
    absent = [
        "torch",
        "torchvision",
        "timm",
        "onnxruntime",
        "onnxscript",
        "onnx_ir",
        "skimage",
        "safetensors",
        "jinja2",
    ]
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from gapcam.cli.main import main\n"
        f"main(['build', {str(model)!r}, '-o', {str(tmp_path / 'a.engine')!r}, '--targets', '86,89'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    read_engine(tmp_path / "a.engine").close()


@pytest.mark.parametrize("package", ["onnx", "filelock"])
def test_what_is_absent_is_named_with_the_extra_that_brings_it(model: Path, tmp_path: Path, package: str) -> None:
    (tmp_path / f"{package}.py").write_text("raise ModuleNotFoundError('no', name=__name__)", encoding="utf-8")
    ran = subprocess.run(
        [*GAPCAM, "build", model, "-o", tmp_path / "a.engine", *TARGETS],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ran.returncode == ExitCode.MISSING
    assert ran.stderr.strip() == (
        f"error: {package} is not installed, and this needs it. Install it with: pip install 'gapcam[tensorrt]'"
    )


DRIVER = """
#include <stdlib.h>
int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    const char *text = "Orin";
    for (int i = 0; i < length && (name[i] = text[i]); i++) {}
    return device;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? atoi(getenv("MINOR")) : -1;
    return device;
}
"""


@pytest.fixture
def with_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds a driver library which is compiled here, and knows one GPU."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    build_it = ["cc", "-shared", "-x", "c", "-", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(build_it, input=DRIVER.encode(), check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "MINOR": "7"}


def test_the_gpu_is_what_the_driver_library_says(with_driver: dict[str, str]) -> None:
    script = "from gapcam_export.engines.gpu import first_gpu\nprint(first_gpu())"
    ran = subprocess.run([sys.executable, "-c", script], env=with_driver, check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "Gpu(name='Orin', architecture='sm_87', cuda_driver=(12, 6))"


@pytest.mark.parametrize(
    ("minor", "targets", "why"),
    [
        ("7", ("--targets", "86,89"), "the engine is not for the GPU that is here (Orin, sm_87)"),
        ("7", (), "the engine is not for the GPU that is here (Orin, sm_87)"),
        ("6", (), "the engine does not open on Orin: "),  # such a driver will not do
    ],
)
def test_an_engine_that_does_not_open_here_is_built_and_says_that_it_was_not_read_back(
    model: Path, tmp_path: Path, with_driver: dict[str, str], minor: str, targets: tuple[str, ...], why: str
) -> None:
    with_driver["MINOR"] = minor
    line = [*GAPCAM, "build", model, "-o", tmp_path / "a.engine", "--runtime", "tensorrt-rtx", "--json", *targets]
    ran = subprocess.run(line, env=with_driver, check=False, capture_output=True, text=True)
    assert ran.returncode == ExitCode.DONE, ran.stderr
    header = json.loads(ran.stdout)["header"]
    assert header["precision"]["engine"] == {}
    assert header["precision"]["not_read"].startswith(why)
    assert header["device"] == ""  # it is not for this one
