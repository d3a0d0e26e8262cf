"""What the benchmarks' tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import a_contract

from gapcam import contract as names
from gapcam.contract import contract_to_json
from gapcam_bench.block import Block, BlockFacts, ColdCosts, ModelFacts, WarmUp
from gapcam_bench.cell import Cell
from gapcam_bench.result_file import LoadedResult, read_result
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts

CLASSES, CHANNELS, SIZE, MAP_SIZE = 5, 8, 32, 8


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A tiny model, for a test of its own."""
    return _write_tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for all tests that only read it."""
    return _write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


def _write_tiny_model(path: Path) -> Path:
    """An ONNX model that keeps the contract: one convolution with stride 4, ReLU, GAP, affine; random weights."""
    random = np.random.default_rng(0)
    constants = {
        "kernel": random.standard_normal((CHANNELS, 3, 4, 4)),
        names.CAM_WEIGHTS: random.standard_normal((CLASSES, CHANNELS)),
        names.CAM_BIAS: random.standard_normal(CLASSES),
    }
    outputs = {
        names.LOGITS: ["N", CLASSES],
        names.FEATURES: ["N", CHANNELS, MAP_SIZE, MAP_SIZE],
        names.CAM_WEIGHTS: [CLASSES, CHANNELS],
        names.CAM_BIAS: [CLASSES],
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [names.IMAGE, "kernel"], ["convolved"], strides=[4, 4]),
            helper.make_node("Relu", ["convolved"], [names.FEATURES]),
            helper.make_node("GlobalAveragePool", [names.FEATURES], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["vector"]),
            helper.make_node("Gemm", ["vector", names.CAM_WEIGHTS, names.CAM_BIAS], [names.LOGITS], transB=1),
        ],
        "tiny",
        [helper.make_tensor_value_info(names.IMAGE, TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    contract = a_contract((SIZE, SIZE), labels=())
    helper.set_model_props(model, {names.METADATA_KEY: contract_to_json(contract)})
    onnx.save(model, path)
    return path


STAGES_MS = {"decode": 1.0, "preprocess": 0.5, "inference": 5.0, "cam": 0.4, "overlay": 1.0, "boxes": 0.2}


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory, tiny_model_file: Path) -> LoadedResult:
    """What `gapcam bench` wrote of a tiny model: processes, files and all."""
    path = tmp_path_factory.mktemp("real") / "RESULT.json"
    arguments = "--emit plain,features,topk --rounds 2 --quick --seconds 0.1 --frame 160x120 --device cpu --threads 1"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gapcam.cli.main",
            "bench",
            str(tiny_model_file),
            *arguments.split(),
            "--json",
            str(path),
            "--html",
            str(path.with_suffix(".html")),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr
    return read_result(path)


@pytest.fixture(scope="session")
def make_block() -> Callable[..., Block]:
    """Makes a block of a cell with samples that scatter by some percent around `ms` milliseconds by stage.

    Other facts are fields of `BlockFacts` and `ScenarioFacts`.
    """

    def make(cell: Cell, round: int, *, count: int = 60, ms: dict[str, float] | None = None, **facts: Any) -> Block:
        random = np.random.default_rng([int(cell.key, 16), round])
        stages = STAGES_MS if ms is None else ms
        wall = {
            stage: (typical * 1e6 * random.lognormal(0, 0.03, count)).astype(np.int64)
            for stage, typical in stages.items()
        }
        wall["total"] = np.sum(list(wall.values()), axis=0) + random.integers(10_000, 90_000, count)
        at = np.concatenate([[0], np.cumsum(wall["total"])[:-1]]) if count else np.empty(0, np.int64)
        seconds = float(wall["total"].sum()) / 1e9
        scenario = {"generator": "gapcam", "frames_per_sample": cell.batch, "seconds": seconds} | {
            name: facts.pop(name) for name in ScenarioFacts.__struct_fields__ if name in facts
        }
        began = 1_700_000_000.0 + 100 * round + int(cell.key[:2], 16) / 10
        said = BlockFacts(
            **{
                "key": cell.key,
                "round": round,
                "began_at": began,
                "ended_at": began + seconds,
                "model": ModelFacts(
                    name=cell.model,
                    sha256="0" * 64,
                    precision="fp32",
                    precision_source="the graph",
                    input_size=(32, 32),
                    head="affine",
                ),
                "engine": "onnxruntime 1.0, CPUExecutionProvider",
                "providers": {"CPUExecutionProvider": 7},
                "cold": ColdCosts(
                    import_s=float(random.uniform(0.2, 0.3)),
                    load_s=float(random.uniform(0.1, 0.2)),
                    first_result_s=float(random.uniform(0.01, 0.02)),
                    host_peak_bytes=int(random.integers(1 << 27, 1 << 28)),
                ),
                "warm_up": WarmUp(seconds=0.5, samples=40, stable=True),
                "facts": ScenarioFacts(**scenario),
                **facts,
            }
        )
        device = {"inference": (wall["inference"] * 0.9).astype(np.int64)} if cell.device != "cpu" else {}
        before, after = random.integers(900_000, 1_100_000, (2, 20))
        return Block(
            facts=said,
            measured=Measured(said.facts, wall, device, at),
            yardstick=before,
            yardstick_after=after,
        )

    return make


@pytest.fixture
def recorded_tree(tmp_path: Path) -> Callable[[str], Path]:
    """Lays out a machine's files of sysfs, procfs and /etc as `sysfs/NAME.txt` lists them: a path and what it holds."""

    def lay_out(name: str) -> Path:
        root = tmp_path / name
        for line in (Path(__file__).parent / "sysfs" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            path, _, content = line.partition(" ")
            at = root / path
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text(content.replace("\\n", "\n"), encoding="utf-8")
        return root

    return lay_out
