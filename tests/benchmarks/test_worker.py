"""A block is measured in a process of its own, which says how far it is, and leaves a whole block or nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from small_models import a_contract, red_and_blue

from gapcam_bench.block import Request, ScenarioSettings
from gapcam_bench.block_file import read_block
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.subjects.pictures import pictures, pictures_sha256
from gapcam_bench.subjects.protocol import STAGES

SHORT = Limits(least_seconds=0.1, least_samples=3, most_seconds=1, warm_up_least_seconds=0.05, warm_up_most_seconds=0.2)


def a_request(
    file: Path, *, limits: Limits = SHORT, round: int = 0, reference: str | None = None, **cell: object
) -> Request:
    settings = {"model": str(file), "frame": (48, 64), "threads": 1, **cell}
    return Request(
        cell=Cell(**settings),  # type: ignore[arg-type]
        file=str(file),
        reference=reference,
        limits=limits,
        settings=ScenarioSettings(generator="own"),  # LoadGen makes a list of all queries of ten minutes before them
        round=round,
    )


def started(request: Request | bytes, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    asked = folder.parent / "request.json"
    asked.write_bytes(request if isinstance(request, bytes) else msgspec.json.encode(request))
    command = [sys.executable, "-m", "gapcam_bench.worker", str(asked), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def ran(request: Request | bytes, folder: Path) -> tuple[int, list[dict[str, object]], str]:
    process = started(request, folder)
    out, errors = process.communicate(timeout=120)
    return process.returncode, [json.loads(line) for line in out.splitlines()], errors.decode()


def test_a_block_has_what_a_request_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    request = a_request(tiny_model, batch=2, reference=str(tiny_model))
    before = time.time()
    code, lines, errors = ran(request, tmp_path / "block")
    assert code == 0, errors
    assert errors == ""
    phases = [line["phase"] for line in lines]
    assert phases[0] == "load"
    assert "check" in phases
    assert all(0 <= line["done"] <= 1 for line in lines)  # type: ignore[operator]
    assert sorted(path.name for path in (tmp_path / "block").iterdir()) == ["block.json", "block.npz"]
    block = read_block(tmp_path / "block")
    facts, measured = block.facts, block.measured
    assert (facts.key, facts.round) == (request.cell.key, 0)
    assert before < facts.began_at <= facts.ended_at < time.time()
    # By order, however long a busy machine pauses: queries, first call to last answer, what began before that call.
    queries, span = measured.wall["total"].sum() * 1e-9, facts.ended_at - facts.began_at
    assert queries - 1e-5 < span < measured.facts.seconds + 1e-5
    assert measured.span == (facts.began_at, facts.ended_at)
    assert facts.model.name == "tiny.onnx"
    assert (facts.model.precision, facts.model.input_size, facts.model.head) == ("fp32", (32, 32), "affine")
    assert facts.engine.startswith("onnxruntime")
    assert facts.providers is not None
    assert list(facts.providers) == ["CPUExecutionProvider"]
    cold = facts.cold
    assert min(cold.import_s, cold.load_s, cold.first_result_s) > 0
    assert cold.import_s > 0.01, "it had imported neither gapcam, OpenCV nor ONNX Runtime"
    assert cold.host_peak_bytes is not None
    assert 2**24 < cold.host_peak_bytes < 2**31
    assert cold.device_peak_bytes is None
    assert facts.parity is not None
    assert facts.fidelity is not None
    assert facts.parity.holds
    assert measured.facts.frames_per_sample == 2
    total = measured.wall["total"]
    assert len(total) >= 3
    found = set(measured.wall).intersection(STAGES)
    assert found == {"decode", "preprocess", "inference", "cam", "overlay", "boxes"}
    stages = np.sum([measured.wall[stage] for stage in found], axis=0)
    assert (stages <= total).all(), "stages do not overlap"
    for yardstick in (block.yardstick, block.yardstick_after):
        assert len(yardstick) >= 2
        assert (yardstick > 0).all()
    assert facts.pictures == pictures_sha256(pictures(None, (48, 64), 8))


def test_the_first_yardstick_is_before_and_the_second_after_the_subject(tiny_model: Path, tmp_path: Path) -> None:
    """A yardstick that says whether anything of the subject is there."""
    program = (
        "import os, sys\n"
        "import numpy as np\n"
        "from gapcam_bench import worker\n"
        "from gapcam_bench.statistics import yardstick\n"
        "subject = {'gapcam', 'cv2', 'onnxruntime', 'gapcam_bench.subjects.open_subject'}\n"
        "yardstick.measure_yardstick = lambda: np.full(3, 1 + len(subject & set(sys.modules)))\n"
        "os._exit(worker.main(sys.argv[1:]))\n"
    )
    asked = tmp_path / "request.json"
    asked.write_bytes(msgspec.json.encode(a_request(tiny_model, round=1)))
    (tmp_path / "block").mkdir()
    command = [sys.executable, "-c", program, str(asked), str(tmp_path / "block")]
    found = subprocess.run(command, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert found.returncode == 0, found.stderr.decode()
    block = read_block(tmp_path / "block")
    assert block.yardstick.tolist() == [1, 1, 1]
    assert block.yardstick_after.tolist() == [5, 5, 5]


def test_only_the_first_block_of_a_cell_is_checked(tiny_model: Path, tmp_path: Path) -> None:
    code, lines, errors = ran(a_request(tiny_model, round=1, emit="plain"), tmp_path / "block")
    assert code == 0, errors
    assert "check" not in [line["phase"] for line in lines]
    assert read_block(tmp_path / "block").facts.parity is None


def test_a_model_without_a_contract_is_measured_as_a_plain_classifier_and_that_is_said(tmp_path: Path) -> None:
    file = red_and_blue(tmp_path / "any.onnx", contract=a_contract((8, 8)), metadata={})
    code, _, errors = ran(a_request(file), tmp_path / "block")
    assert code == 0, errors
    block = read_block(tmp_path / "block")
    assert any("no contract" in note for note in block.facts.notes)
    assert block.facts.model.head is None
    assert "cam" not in block.measured.wall
    assert block.facts.parity is not None
    assert block.facts.parity.holds
    assert block.facts.parity.map_correlation is None


@pytest.mark.parametrize(
    ("request_of", "code", "said"),
    [
        (lambda folder: a_request(folder / "nothing.onnx"), 3, "nothing.onnx"),
        (lambda folder: a_request(red_and_blue(folder / "m.onnx"), emit="maps"), 3, "no output 'maps'"),
        (lambda folder: a_request(red_and_blue(folder / "m.onnx"), device="hal"), 2, "no device 'hal'"),
        (lambda folder: a_request(red_and_blue(folder / "m.onnx"), subject="caffe"), 2, "no peer 'caffe'"),
        (
            lambda folder: a_request(red_and_blue(folder / "m.onnx", bias=np.full(2, np.nan, np.float32))),
            4,
            "not right",
        ),
        (lambda _: b"{", 2, "request"),
        (lambda _: b'{"cell": {"threads": 1}}', 2, "request"),
    ],
)
def test_what_is_wrong_is_one_line_and_its_exit_code(tmp_path: Path, request_of, code: int, said: str) -> None:  # type: ignore[no-untyped-def]
    found, lines, errors = ran(request_of(tmp_path), tmp_path / "block")
    assert found == code
    assert lines[-1]["exit_code"] == code
    assert said in str(lines[-1]["error"])
    assert "\n" not in str(lines[-1]["error"])
    assert "Traceback" not in errors
    assert list((tmp_path / "block").iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_stopped_says_nothing_and_leaves_nothing(
    tiny_model: Path, tmp_path: Path, number: int, code: int
) -> None:
    endless = Limits(least_seconds=600, most_seconds=600, warm_up_least_seconds=0.1, warm_up_most_seconds=0.2)
    process = started(a_request(tiny_model, limits=endless), tmp_path / "block")
    assert process.stdout is not None
    while b"measur" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == b""
    assert all("phase" in json.loads(line) for line in out.splitlines())
    assert list((tmp_path / "block").iterdir()) == []


def test_a_process_that_is_killed_leaves_no_block(tiny_model: Path, tmp_path: Path) -> None:
    process = started(a_request(tiny_model, limits=Limits(least_seconds=600, most_seconds=600)), tmp_path / "block")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=30)
    assert list((tmp_path / "block").iterdir()) == []


def run_program(program: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """A worker that measures in another way, which the program says."""
    asked = folder / "request.json"
    asked.write_bytes(msgspec.json.encode(a_request(folder / "m.onnx")))
    command = [sys.executable, "-c", program, str(asked), str(folder)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


def test_what_libraries_print_does_not_get_among_the_lines(tmp_path: Path) -> None:
    """A program that prints by all ways to the standard output, while it measures."""
    program = (
        "import os, sys, ctypes\n"
        "from gapcam_bench import worker\n"
        "def measure(request, reports):\n"
        "    print('by print', flush=True)\n"
        "    os.write(1, b'by descriptor\\n')\n"
        "    ctypes.CDLL(None).puts(b'by C'); ctypes.CDLL(None).fflush(None)\n"
        "    reports.progress('load', 1)\n"
        "    raise ZeroDivisionError('planted')\n"
        "worker.measure_block = measure\n"
        "sys.exit(worker.main(sys.argv[1:]))\n"
    )
    found = run_program(program, tmp_path)
    assert found.returncode == 70
    assert [json.loads(line) for line in found.stdout.splitlines()] == [
        {"phase": "load", "done": 1.0},
        {"error": "ZeroDivisionError: planted", "exit_code": 70},
    ]
    for word in (b"by print", b"by descriptor", b"by C", b"Traceback"):
        assert word in found.stderr


def test_a_full_disk_is_no_bug(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from gapcam_bench import worker\n"
        "def measure(request, reports):\n"
        "    open('/dev/full', 'w').write('a' * 100_000)\n"
        "worker.measure_block = measure\n"
        "sys.exit(worker.main(sys.argv[1:]))\n"
    )
    found = run_program(program, tmp_path)
    said = f"cannot write {tmp_path}: No space left on device; make room, or choose another place"
    assert (found.returncode, json.loads(found.stdout)) == (5, {"error": said, "exit_code": 5})


def test_the_process_begins_without_what_it_will_time(tmp_path: Path) -> None:
    """And with the libraries' threads limited before they are imported."""
    program = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from gapcam_bench import worker\n"
        "assert 'numpy' not in sys.modules\n"
        "request = worker._read_request(Path(sys.argv[1]))\n"
        "assert os.environ['OPENBLAS_NUM_THREADS'] == '3'\n"
        "heavy = {'gapcam', 'cv2', 'onnxruntime', 'onnx', 'torch', 'skimage', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    asked = tmp_path / "request.json"
    asked.write_bytes(msgspec.json.encode(a_request(tmp_path / "m.onnx", threads=3)))
    found = subprocess.run(
        [sys.executable, "-c", program, str(asked)], capture_output=True, timeout=60, check=False, env=dict(os.environ)
    )
    assert found.returncode == 0, found.stderr.decode()
