"""Two results compared: simulated ones, whose truth is known, and two programs that really ran."""

from __future__ import annotations

import hashlib
import json
import math
from time import perf_counter_ns

import msgspec
import numpy as np
import pytest
from scipy.signal import lfilter

from gapcam.cli.main import main
from gapcam.environment import Environment
from gapcam.errors import DataError, ExitCode, UsageError
from gapcam_bench.block import ModelFacts, Parity, ScenarioSettings
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.machine import GpuFacts, JetsonFacts, Machine
from gapcam_bench.result import BLOCK_FACTS, BenchResult, Row, Scenario
from gapcam_bench.result_file import LoadedResult, write_result
from gapcam_bench.statistics.comparison import compare, matched_rows
from gapcam_bench.statistics.same_device import device_differences
from gapcam_bench.statistics.yardstick import measure_yardstick

MACHINE = Machine(
    environment=Environment(
        cpu="Some CPU", cores=4, system="Linux 6 x86_64", python="3.11.2", versions={"onnxruntime": "1.23.0"}
    ),
    memory_bytes=16 << 30,
)
PARITY = Parity(
    against="model.onnx", pictures=8, top1=1, logits_error=1e-6, map_correlation=1, holds=True, tolerance=1e-4
)
MODEL = ModelFacts(
    name="model.onnx",
    sha256=hashlib.sha256(b"a model").hexdigest(),
    precision="fp32",
    precision_source="initializers",
    input_size=(224, 224),
    head="affine",
)


def a_row(cell, rounds, scenario=None, **changes):
    row = Row(id=cell.key, cell=cell, status="valid", blocks=rounds, model=MODEL, parity=PARITY, scenario=scenario)
    return msgspec.structs.replace(row, **changes)


def loaded(rows, arrays, tmp_path=None, machine=MACHINE):
    result = BenchResult(
        created="2026-01-01T00:00:00Z",
        command="gapcam bench model.onnx",
        complete=True,
        rounds=max(row.blocks for row in rows),
        limits=Limits(),
        settings=ScenarioSettings(),
        machine=machine,
        rows=tuple(rows),
    )
    return LoadedResult(tmp_path, result, arrays)


def arrays_of(row, samples, yardstick, *, stage="total", facts=None):
    """Of [blocks, n] nanoseconds each."""
    blocks = len(samples)
    filled = {name: np.full(blocks, np.nan) for name in BLOCK_FACTS} | {
        "round": np.arange(blocks, dtype=np.float64),
        "seconds": samples.sum(axis=1) * 1e-9,
        "import_s": np.ones(blocks),
        "load_s": np.ones(blocks),
        "first_result_s": np.ones(blocks),
        "warm_up_s": np.ones(blocks),
        "warm_up_samples": np.ones(blocks),
        "warm_up_stable": np.ones(blocks),
    }
    whole = {
        "wall/total": samples.ravel(),
        f"wall/{stage}": samples.ravel(),
        "at": (np.cumsum(samples, axis=1) - samples).ravel(),
        "block": np.repeat(np.arange(blocks, dtype=np.int32), samples.shape[1]),
        "span": np.cumsum(np.ones((blocks, 2)), axis=None).reshape(blocks, 2),
        "yardstick": yardstick.ravel(),
        "yardstick_block": np.repeat(np.arange(blocks, dtype=np.int32), yardstick.shape[1]),
        **{f"blocks/{name}": values for name, values in (filled | (facts or {})).items()},
    }
    return {f"{row.id}/{name}": values for name, values in whole.items()}


def a_run(
    random,
    *,
    rows=1,
    rounds=5,
    count=100,
    slower=1.0,
    drift=1.0,
    left=1.0,
    only=0,
    stage="total",
    cells=None,
    **changes,
):
    """A simulated run: rounds find the machine faster or slower, processes differ, samples are AR(1) with rare pauses.

    Args:
        slower: how many times longer row `only` takes than it did.
        drift: how many times longer everything takes, the yardstick, too.
        left: how many times longer the yardstick takes after a block than before.
    """
    machine = math.log(drift) + 0.01 * random.standard_normal((rounds, 1))
    made, arrays = [], {}
    for at in range(rows):
        cell = cells[at] if cells else Cell(model="model.onnx", batch=at + 1)
        row = a_row(cell, rounds, **changes)
        noise = 0.05 * lfilter([1], [1, -0.6], 0.8 * random.standard_normal((rounds, count + 50)), axis=1)[:, 50:]
        pauses = np.where(random.random(noise.shape) < 0.01, random.exponential(0.5, noise.shape), 0)
        levels = machine + 0.015 * random.standard_normal((rounds, 1)) + math.log(slower if at == only else 1)
        yardstick = machine + 0.005 * random.standard_normal((rounds, 1)) + 0.03 * random.standard_normal((rounds, 40))
        samples = (2e7 * np.exp(levels + noise + pauses)).astype(np.int64)
        made.append(row)
        arrays |= arrays_of(row, samples, (5e6 * np.exp(yardstick)).astype(np.int64), stage=stage)
        after = 5e6 * left * np.exp(yardstick + 0.005 * random.standard_normal((rounds, 1)))
        arrays[f"{row.id}/yardstick_after"] = after.astype(np.int64).ravel()
        arrays[f"{row.id}/yardstick_after_block"] = arrays[f"{row.id}/yardstick_block"]
    return loaded(made, arrays)


def verdicts(comparison):
    return [each.verdict for row in comparison.rows for each in row.differences]


@pytest.mark.parametrize(("rows", "rounds", "pairs"), [(1, 5, 250), (1, 3, 150), (6, 5, 60)])
def test_two_runs_of_the_same_thing_compare_as_equal(rows, rounds, pairs):
    random = np.random.default_rng([rows, rounds])
    different = 0
    for _ in range(pairs):
        found = compare(a_run(random, rows=rows, rounds=rounds), a_run(random, rows=rows, rounds=rounds))
        different += any(verdict != "no difference found" for verdict in verdicts(found))
    assert different / pairs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / pairs)


@pytest.mark.parametrize(
    ("rows", "slower", "verdict"), [(1, 1.1, "slower"), (3, 1.1, "slower"), (1, 1 / 1.1, "faster")]
)
def test_a_planted_tenth_is_found(rows, slower, verdict):
    random = np.random.default_rng(rows)
    found = past = 0
    for _ in range(100):
        comparison = compare(a_run(random, rows=rows), a_run(random, rows=rows, slower=slower, only=rows - 1))
        median = comparison.rows[-1].differences[0]
        found += median.verdict == verdict
        past += median.past_limit
        assert ("TOO SLOW" in comparison.verdict) == (comparison.past_limit > 0)
    assert found >= 95
    assert (past >= 94) if verdict == "slower" else (past == 0)


def test_a_machine_that_became_slower_makes_no_row_slower():
    random = np.random.default_rng(0)
    false, by_the_clock, said = 0, 0, 0
    for _ in range(200):
        (row,) = compare(a_run(random), a_run(random, drift=1.08)).rows
        median = row.differences[0]
        false += any(each.verdict != "no difference found" for each in row.differences)
        by_the_clock += median.ratio.p < 0.05
        said += median.why.startswith("the time changed, but no more than the machine")
    assert by_the_clock > 190  # what the clock alone would say
    assert said > 180
    assert false / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_a_slower_row_on_a_slower_machine_is_found_and_its_own_part_is_held_against_the_limit():
    random = np.random.default_rng(0)
    found = [
        compare(a_run(random, count=400), a_run(random, count=400, drift=1.08, slower=1.1), limit=1.15).rows[0]
        for _ in range(50)
    ]
    assert sum(row.differences[0].verdict == "slower" for row in found) >= 47
    assert all(row.differences[0].ratio.ratio > 1.12 for row in found)
    assert not any(row.differences[0].past_limit for row in found)  # 1.19 by the clock, 1.1 of it its own


def test_a_row_that_became_faster_on_a_slower_machine_is_not_called_faster_by_the_machine():
    random = np.random.default_rng(0)
    # By the clock nothing happened: the machine hid what the row gained, and nothing is claimed that no clock showed.
    found = [compare(a_run(random), a_run(random, drift=1.1, slower=1 / 1.1)) for _ in range(50)]
    assert sum(verdicts(each) != ["no difference found"] * 2 for each in found) <= 5


def test_a_row_is_neither_slower_nor_faster_where_clock_and_yardsticks_say_the_opposite():
    random = np.random.default_rng(0)
    for _ in range(30):
        # Longer by the clock, and shorter in yardsticks: the machine became slower than the row did.
        (row,) = compare(a_run(random), a_run(random, drift=1.4, slower=1 / 1.2)).rows
        median = row.differences[0]
        assert median.ratio.ci_low > 1
        assert median.in_yardsticks.ci_high < 1
        assert median.verdict == "no difference found"
        assert median.p == 1


def test_what_a_program_leaves_behind_does_not_excuse_it():
    random = np.random.default_rng(0)
    noted = 0
    for _ in range(50):
        found = compare(a_run(random), a_run(random, slower=1.3, left=1.3))
        median = found.rows[0].differences[0]
        assert median.verdict == "slower"
        assert median.past_limit
        assert median.in_yardsticks.ratio == pytest.approx(1.3, rel=0.1)
        noted += any("leaves threads that work" in note for note in found.rows[0].notes)
        assert compare(a_run(random), a_run(random, drift=1.3)).rows[0].notes == ()
    assert noted == 50


def test_milliseconds_and_their_ratio_are_of_the_same():
    random = np.random.default_rng(0)
    old, new = a_run(random, rounds=5), a_run(random, rounds=5, slower=1.2)
    key = new.result.rows[0].id
    kept = (new.arrays[f"{key}/block"] > 0) | (np.arange(500) < 30)  # a block that has fewer samples
    fewer = {f"{key}/{name}": new.arrays[f"{key}/{name}"][kept] for name in ("wall/total", "block", "at")}
    for each in compare(old, loaded(new.result.rows, new.arrays | fewer)).rows[0].differences:
        assert each.new_ms / each.old_ms == pytest.approx(each.ratio.ratio)
    medians = np.median(old.arrays[f"{key}/wall/total"].reshape(5, 100), axis=1)
    median = compare(old, new).rows[0].differences[0]
    assert median.old_ms == pytest.approx(np.exp(np.log(medians).mean()) / 1e6, rel=2e-3)


def test_other_pictures_are_no_slowdown():
    random = np.random.default_rng(0)
    old, new = a_run(random, pictures="a" * 64), a_run(random, pictures="b" * 64, slower=2)
    found = compare(old, new)
    assert verdicts(found) == ["cannot tell"] * 2
    assert found.rows[0].differences[0].why.startswith("other pictures: aaaaaaaaaaaa and bbbbbbbbbbbb")
    assert found.outcome == "cannot tell"
    assert verdicts(compare(old, a_run(random, pictures="a" * 64, slower=2)))[0] == "slower"
    assert verdicts(compare(a_run(random), new))[0] == "slower", "an older result does not say which pictures it had"


@pytest.mark.parametrize(("old", "new"), [(2, 5), (5, 1)])
def test_with_too_few_processes_nothing_can_be_told(old, new):
    random = np.random.default_rng(0)
    found = compare(a_run(random, rounds=old), a_run(random, rounds=new, slower=2))
    assert verdicts(found) == ["cannot tell"] * 2
    assert found.rows[0].differences[0].ratio.ratio == pytest.approx(2, rel=0.1)
    assert f"{old} and {new} blocks; at least 3 are needed" in found.rows[0].differences[0].why
    assert found.past_limit == 0
    assert found.verdict.startswith("NOTHING CAN BE TOLD")
    assert found.outcome == "cannot tell"


def test_without_a_yardstick_the_clock_alone_decides():
    random = np.random.default_rng(0)
    old, new = a_run(random), a_run(random, slower=1.3)
    bare = {name: values for name, values in new.arrays.items() if "yardstick" not in name}
    found = compare(old, loaded(new.result.rows, bare))
    assert found.yardstick is None
    assert found.rows[0].differences[0].in_yardsticks is None
    assert found.rows[0].differences[0].verdict == "slower"


def test_the_machines_own_change_is_said():
    random = np.random.default_rng(0)
    found = compare(a_run(random, rows=4), a_run(random, rows=4, drift=1.08)).yardstick
    assert found.ratio == pytest.approx(1.08, rel=0.02)
    assert found.ci_low < 1.08 < found.ci_high


def test_a_camera_is_compared_by_the_age_of_its_frames():
    random = np.random.default_rng(0)
    cells = [Cell(model="model.onnx", scenario="camera")]
    scenario = Scenario(
        metric="p99 of the age", value=1, unit="ms", early_stopping=None, generator="gapcam", frames_per_sample=1,
        frames_a_second=15, rate=15,
    )  # fmt: skip
    old = a_run(random, cells=cells, stage="age", scenario=scenario)
    new = a_run(random, cells=cells, stage="age", scenario=scenario, slower=1.2)
    new.arrays[f"{cells[0].key}/wall/total"] = old.arrays[f"{cells[0].key}/wall/total"]
    (row,) = compare(old, new).rows
    assert [each.time for each in row.differences] == ["median of the age", "p99 of the age"]
    assert row.differences[0].verdict == "slower"
    faster = a_run(random, cells=cells, stage="age", scenario=msgspec.structs.replace(scenario, rate=30))
    (row,) = compare(old, faster).rows
    assert {each.verdict for each in row.differences} == {"cannot tell"}
    assert row.differences[0].why == "15 and 30 frames a second arrived"


@pytest.mark.parametrize("name", ["server", "offline"])
def test_a_rate_is_compared_as_the_time_of_one(name):
    cell = Cell(model="model.onnx", scenario=name, batch=4)
    scenario = Scenario(
        metric="rate", value=1, unit="1/s", early_stopping=None, generator="gapcam", frames_per_sample=4,
        frames_a_second=1, bound_ms=50.0,
    )  # fmt: skip
    random = np.random.default_rng(0)

    def run(factor):
        row = a_row(cell, 4, scenario)
        samples = (4e7 * factor * np.exp(0.01 * random.standard_normal((4, 50)))).astype(np.int64)
        rates = 100 / factor * np.exp(0.01 * random.standard_normal(4))
        facts = {"rate": rates} if name == "server" else {}
        yardstick = (5e6 * np.exp(0.001 * random.standard_normal((4, 10)))).astype(np.int64)
        return loaded([row], arrays_of(row, samples, yardstick, facts=facts))

    (row,) = compare(run(1), run(1.2)).rows
    (difference,) = row.differences
    assert difference.time == ("time between queries" if name == "server" else "time a frame")
    assert difference.old_ms == pytest.approx(10, rel=0.02)  # 4 frames in 40 ms; 100 queries a second
    assert difference.ratio.ratio == pytest.approx(1.2, rel=0.02)
    assert difference.verdict == "slower"
    assert difference.past_limit


def test_rows_are_matched_by_their_cell_and_models_by_their_name_where_the_folder_changed():
    random = np.random.default_rng(0)
    kept, moved, new = Cell(model="a.onnx"), Cell(model="old/b.onnx"), Cell(model="new/b.onnx")
    only_old, only_new = Cell(model="c.onnx"), Cell(model="a.onnx", batch=2)
    old = a_run(random, rows=3, cells=[kept, moved, only_old])
    after = a_run(random, rows=3, cells=[new, only_new, kept])
    found = compare(old, after)
    assert [(row.old, row.new) for row in found.rows] == [(moved.key, new.key), (kept.key, kept.key)]
    assert (found.only_old, found.only_new) == ((only_old.key,), (only_new.key,))
    two = a_run(random, rows=2, cells=[Cell(model="x/b.onnx"), Cell(model="y/b.onnx")])
    assert matched_rows(old.result, two.result) == []  # which of the two is it?
    with pytest.raises(DataError, match="no row is in both results"):
        compare(old, two)


def test_what_a_reader_should_know_of_a_row_is_said():
    random = np.random.default_rng(0)
    old = a_run(random, engine="onnxruntime 1")
    changed = msgspec.structs.replace(MODEL, sha256="f" * 64, precision="int8")
    new = a_run(
        random, engine="onnxruntime 2", model=changed, parity=None, status="invalid", reasons=("too noisy: very",)
    )
    (row,) = compare(old, new).rows
    said = "; ".join(row.notes)
    for phrase in (
        "NEW is invalid: too noisy: very",
        "NEW was not checked against the reference backend",
        f"the model's file changed: {MODEL.sha256[:12]} and ffffffffffff",
        "the precision changed: fp32 and int8",
        "the engine changed: onnxruntime 1 and onnxruntime 2",
    ):
        assert phrase in said
    assert "OLD" not in said
    assert len(row.differences) == 2  # compared nonetheless
    wrong = a_run(random, parity=msgspec.structs.replace(PARITY, holds=False))
    assert "NEW does not answer as the reference backend does" in compare(old, wrong).rows[0].notes


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (
            {"environment": msgspec.structs.replace(MACHINE.environment, cpu="Other")},
            "the processor: Some CPU and Other",
        ),
        (
            {"environment": msgspec.structs.replace(MACHINE.environment, system="Linux 6 aarch64")},
            "the architecture: x86_64 and aarch64",
        ),
        ({"environment": msgspec.structs.replace(MACHINE.environment, cores=8)}, "the cores: 4 and 8"),
        ({"gpus": (GpuFacts(name="H100"),)}, "the GPUs: none and H100"),
        ({"jetson": JetsonFacts(model="Orin Nano", power_mode="15W")}, "the Jetson: none and Orin Nano"),
        ({"container": "docker"}, "the container: none and docker"),
        ({"memory_bytes": 8 << 30}, "the memory: 16.0 and 8.0 GiB"),
    ],
)
def test_different_devices_are_refused_by_what_differs_unless_told_to(other, named):
    random = np.random.default_rng(0)
    old, new = a_run(random), a_run(random)
    moved = loaded(new.result.rows, new.arrays, machine=msgspec.structs.replace(MACHINE, **other))
    with pytest.raises(UsageError, match="--allow-different-devices") as error:
        compare(old, moved)
    assert named in str(error.value)
    assert named in compare(old, moved, allow_different_devices=True).devices


def test_an_architecture_has_one_name_on_all_systems():
    names = ("Linux 6 x86_64", "Windows 11 AMD64"), ("Linux 6 aarch64", "Darwin 24 arm64")
    for systems in names:
        old, new = (
            msgspec.structs.replace(MACHINE, environment=msgspec.structs.replace(MACHINE.environment, system=system))
            for system in systems
        )
        assert device_differences(old, new) == ()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 0.0])
def test_a_gate_that_lets_all_through_is_refused(wrong):
    run = a_run(np.random.default_rng(0))
    for name in ("limit", "alpha"):
        with pytest.raises(UsageError, match=f"{name} is {wrong}"):
            compare(run, run, **{name: wrong})


def test_power_modes_of_a_jetson_are_two_devices():
    random = np.random.default_rng(0)
    old, new = (
        loaded(run.result.rows, run.arrays, machine=msgspec.structs.replace(MACHINE, jetson=jetson))
        for run, jetson in (
            (a_run(random), JetsonFacts(model="Orin Nano", power_mode="15W")),
            (a_run(random), JetsonFacts(model="Orin Nano", power_mode="MAXN")),
        )
    )
    with pytest.raises(UsageError, match="the power mode: 15W and MAXN"):
        compare(old, new)


def test_other_software_is_no_other_device_and_said():
    random = np.random.default_rng(0)
    versions = msgspec.structs.replace(MACHINE.environment, versions={"onnxruntime": "1.24.0", "numpy": "2"})
    new = a_run(random)
    moved = loaded(new.result.rows, new.arrays, machine=msgspec.structs.replace(MACHINE, environment=versions))
    found = compare(a_run(random), moved)
    assert found.devices == ()
    assert found.software == ("numpy: none and 2", "onnxruntime: 1.23.0 and 1.24.0")


def test_rows_that_were_not_measured_are_listed_and_single_samples_tell_nothing(tmp_path, capsys):
    random = np.random.default_rng(0)
    big, never = Cell(model="big.onnx"), Cell(model="never.onnx")
    skipped = Row(id=never.key, cell=never, status="skipped", reasons=("too new",))
    failed = Row(id=big.key, cell=big, status="failed", reasons=("it does not fit",))
    old = a_run(random, rounds=1, count=1, rows=2, cells=[Cell(model="model.onnx"), big])
    new = a_run(random, rounds=1, count=1)
    paths = [
        saved(loaded((*run.result.rows, *more), run.arrays), tmp_path / f"{name}.json")
        for name, run, more in (("old", old, [skipped]), ("new", new, [failed, skipped]))
    ]
    assert run_command(paths) == ExitCode.VERIFICATION
    said = " ".join(capsys.readouterr().out.split())
    assert "Only in OLD: big.onnx" in said
    assert "1 row is FAILED in NEW, and OLD has measured it." in said
    assert "(failed in NEW: it does not fit)" in said
    assert "Only in NEW" not in said
    assert "1 and 1 blocks; at least 3 are needed" in said
    assert "NOTHING CAN BE TOLD of the 2 comparisons" in said
    assert run_command([*paths, "--json"]) == ExitCode.VERIFICATION
    assert json.loads(capsys.readouterr().out)["rows"][0]["differences"][0]["ratio"]["ci_high"] is None


def a_server(random, rates, *, bound=40.0, drift=1.0):
    """A run whose blocks keep these rates, 0 for none."""
    cell = Cell(model="model.onnx", scenario="server")
    scenario = Scenario(
        metric="queries a second", value=1, unit="1/s", early_stopping=None, generator="gapcam", frames_per_sample=1,
        frames_a_second=1, bound_ms=40.0,
    )  # fmt: skip
    row = a_row(cell, len(rates), scenario)
    samples = random.integers(10**6, 10**7, (len(rates), 50))
    yardstick = (5e6 * drift * np.exp(0.01 * random.standard_normal((len(rates), 40)))).astype(np.int64)
    arrays = arrays_of(row, samples, yardstick, stage="latency", facts={"rate": np.array(rates, float)})
    run = loaded([row], arrays)
    settings = ScenarioSettings(bound_ms=bound)
    return LoadedResult(None, msgspec.structs.replace(run.result, settings=settings), arrays)


KEPT = [50, 51, 49, 50, 50.5]


@pytest.mark.parametrize(
    ("old", "new", "verdict", "outcome"),
    [
        (KEPT, [0] * 5, "slower", "failed"),
        (KEPT[:3], [0] * 3, "slower", "failed"),
        (KEPT, [0, 0, 0, 0, 50], "slower", "failed"),
        (KEPT, [0, 0, 50, 50.2, 49.7], "cannot tell", "cannot tell"),
        (KEPT, [math.nan, 51, 50, 50.2, 49.7], "cannot tell", "cannot tell"),
        ([0] * 5, KEPT, "faster", "passed"),
        ([0] * 5, [0] * 5, "cannot tell", "cannot tell"),
    ],
)
def test_a_server_that_keeps_its_bound_at_no_rate_is_no_missing_value(old, new, verdict, outcome):
    random = np.random.default_rng(0)
    found = compare(a_server(random, old), a_server(random, new))
    ((difference,),) = (row.differences for row in found.rows)
    assert (difference.verdict, found.outcome) == (verdict, outcome)
    assert difference.past_limit == (outcome == "failed")
    assert ("no rate kept the bound" in difference.why) == any(difference.lost)
    if verdict == "slower":
        assert "TOO SLOW: 1 past the limit of 1.05, at worst with rates lost" in found.verdict
    assert math.isinf(difference.new_ms) == (not np.nansum(new))


def test_rates_lost_on_a_slower_machine_or_with_another_bound_tell_nothing():
    random = np.random.default_rng(0)
    old = a_server(random, KEPT)
    slower = compare(old, a_server(random, [0] * 5, drift=1.3))
    assert verdicts(slower) == ["cannot tell"]
    assert "the machine is slower, too" in slower.rows[0].differences[0].why
    for new in (a_server(random, [30, 31, 29, 30, 30], bound=20.0), a_server(random, [30, 31, 29, 30, 30], bound=None)):
        found = compare(old, new)
        assert verdicts(found) == ["cannot tell"]
        assert "another bound was asked for: 40 ms and " in found.rows[0].differences[0].why


def test_of_two_servers_that_lose_rates_alike_few_are_called_different():
    random, different = np.random.default_rng(0), 0
    for _ in range(300):
        old, new = (a_server(random, 50 * (random.random(5) < 0.5)) for _ in range(2))
        different += verdicts(compare(old, new))[0] in ("slower", "faster")
    assert different / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_the_table_of_a_server_without_a_rate(tmp_path, capsys):
    random = np.random.default_rng(0)
    paths = [saved(a_server(random, rates), tmp_path / f"{at}.json") for at, rates in enumerate((KEPT, [0] * 5))]
    assert run_command(paths) == ExitCode.VERIFICATION
    said = " ".join(capsys.readouterr().out.split())
    assert "19.96 none -" in said
    assert "TOO SLOW" in said
    assert run_command([paths[1], paths[0]]) == ExitCode.DONE


def test_a_row_that_fails_or_is_wrong_now_fails_the_comparison(tmp_path, capsys):
    random = np.random.default_rng(0)
    old, right = a_run(random, rows=2), a_run(random, rows=2)
    rows = right.result.rows
    crashed = Row(id=rows[1].id, cell=rows[1].cell, status="failed", reasons=("it crashed",))
    halfway = msgspec.structs.replace(rows[1], status="failed", reasons=("it crashed in round 3",))
    wrong = msgspec.structs.replace(rows[1], parity=msgspec.structs.replace(PARITY, holds=False))
    for bad, phrase in (
        (crashed, "1 row is FAILED in NEW"),
        (halfway, "1 row is FAILED in NEW"),
        (wrong, "1 row is WRONG"),
    ):
        new = loaded((rows[0], bad), right.arrays)
        found = compare(old, new)
        assert found.outcome == "failed"
        assert phrase in found.verdict
        assert found.past_limit == 0
        assert compare(new, old).outcome == "passed"
        assert compare(new, new).outcome == "passed", "it was so before"
    paths = [
        saved(run, tmp_path / f"{at}.json") for at, run in enumerate((old, loaded((rows[0], wrong), right.arrays)))
    ]
    assert run_command(paths) == ExitCode.VERIFICATION
    assert "1 row is WRONG in NEW" in " ".join(capsys.readouterr().out.split())


def test_a_result_in_which_all_rows_failed_is_compared(tmp_path):
    random = np.random.default_rng(0)
    old = a_run(random)
    row = old.result.rows[0]
    failed = Row(id=row.id, cell=row.cell, status="failed", reasons=("it crashed",))
    paths = saved(old, tmp_path / "old.json"), saved(loaded([failed], {}), tmp_path / "new.json")
    assert run_command(paths) == ExitCode.VERIFICATION


def test_rows_that_only_one_result_has_are_in_the_verdict():
    random = np.random.default_rng(0)
    found = compare(a_run(random, rows=3), a_run(random, rows=1))
    assert found.verdict.endswith("2 rows are only in OLD.")
    assert found.outcome == "passed"


def test_two_rounds_do_not_pass(tmp_path, capsys):
    random = np.random.default_rng(0)
    paths = [saved(a_run(random, rounds=2), tmp_path / f"{at}.json") for at in range(2)]
    assert run_command(paths) == ExitCode.PARTIAL
    assert "NOTHING CAN BE TOLD" in capsys.readouterr().out


def test_the_rates_of_two_rounds_have_no_interval(tmp_path, capsys):
    random = np.random.default_rng(0)
    runs = [a_server(random, rates) for rates in ([30, 60], [29, 58])]
    (row,) = compare(*runs).rows
    ((verdict, ratio),) = [(each.verdict, each.ratio) for each in row.differences]
    assert (verdict, ratio.ci, ratio.p, ratio.between_processes) == ("cannot tell", (0, math.inf), 1, False)
    assert ratio.ratio == pytest.approx(30 / 29)
    paths = [saved(run, tmp_path / f"{at}.json") for at, run in enumerate(runs)]
    assert run_command(paths) == ExitCode.PARTIAL
    assert "1.034 (any)" in capsys.readouterr().out
    assert run_command([*paths, "--json"]) == ExitCode.PARTIAL
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert [each["ratio"]["ci_high"] for each in row["differences"]] == [None]


def saved(run, path):
    write_result(run.result, run.arrays, path)
    return str(path)


def run_command(arguments):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "compare", *arguments])
    return ended.value.code


def test_the_command_prints_a_table_and_fails_past_the_limit(tmp_path, capsys):
    random = np.random.default_rng(0)
    old = saved(a_run(random, rows=2), tmp_path / "old.json")
    new = saved(a_run(random, rows=2, slower=1.2), tmp_path / "new.json")
    assert run_command([old, new]) == ExitCode.VERIFICATION
    text = capsys.readouterr().out
    cells = [line.split() for line in text.splitlines()]
    assert [line[-2:] for line in cells if line[:2] == ["1", "median"]] == [["TOO", "SLOW"]]
    assert [line[-2:] for line in cells if line[:2] == ["2", "median"]] == [["no", "difference"]]
    assert "TOO SLOW: " in " ".join(text.split()[-20:])
    assert run_command([old, new, "--limit", "1.5"]) == ExitCode.DONE
    assert "none is past the limit of 1.5" in " ".join(capsys.readouterr().out.split())
    assert run_command([new, old]) == ExitCode.DONE
    assert "faster" in capsys.readouterr().out


def test_the_commands_json_holds_the_comparison(tmp_path, capsys):
    random = np.random.default_rng(0)
    old, new = a_run(random), a_run(random, slower=1.2)
    paths = saved(old, tmp_path / "old.json"), saved(new, tmp_path / "new.json")
    assert run_command([*paths, "--json"]) == ExitCode.VERIFICATION
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(msgspec.json.encode(compare(old, new)))
    assert found["rows"][0]["differences"][0]["verdict"] == "slower"


def test_the_command_says_in_a_line_what_it_cannot_compare(tmp_path, capsys):
    random = np.random.default_rng(0)
    old, run = saved(a_run(random), tmp_path / "old.json"), a_run(random)
    moved = loaded(run.result.rows, run.arrays, machine=msgspec.structs.replace(MACHINE, container="docker"))
    new = saved(moved, tmp_path / "new.json")
    assert run_command([old, new]) == ExitCode.USAGE
    assert "the container: none and docker" in capsys.readouterr().err
    assert run_command([old, new, "--allow-different-devices"]) == ExitCode.DONE
    assert "Different devices! the container: none and docker" in capsys.readouterr().out
    other = tmp_path / "other.json"
    other.write_text((tmp_path / "new.json").read_text().replace('"version": 1', '"version": 99', 1))
    assert run_command([old, str(other)]) == ExitCode.DATA
    assert "99" in capsys.readouterr().err
    (tmp_path / "new.npz").unlink()
    assert run_command([old, new, "--allow-different-devices"]) == ExitCode.DATA
    assert run_command([old, old, "--limit", "0.5"]) == ExitCode.USAGE


def test_programs_that_really_ran_are_told_apart_only_where_one_is_slower():
    """In turn, so that what disturbs the machine disturbs all; each block is made of rounds from all over the time.

    The slower one spins for a tenth of what its own work just took, so that it takes 1.1 times as long on a busy
    machine, too. The probability of a false difference is 0.1 %, and so is that of this test failing for no reason.
    """
    random = np.random.default_rng(0)
    matrix = random.standard_normal((120, 120))

    def work():
        began = perf_counter_ns()
        for _ in range(16):
            np.tanh(matrix).sum(axis=0)
        return perf_counter_ns() - began

    def slower_work():
        began = perf_counter_ns()
        took = work()
        until = perf_counter_ns() + took // 10
        while perf_counter_ns() < until:
            pass
        return perf_counter_ns() - began

    subjects = {"before": work, "again": work, "slower": slower_work}
    samples = {name: [] for name in subjects}
    pieces = []
    for turn in range(1200):
        for name in random.permutation(list(subjects)):
            samples[name].append(subjects[name]())
        if turn % 40 == 0:
            pieces.extend(random.permutation(measure_yardstick(24)))
    row, yardstick = a_row(Cell(model="model.onnx"), 8), np.reshape(pieces, (90, 8)).T.copy()
    results = {
        name: loaded([row], arrays_of(row, np.reshape(values, (150, 8)).T.copy(), yardstick))
        for name, values in samples.items()
    }
    same = compare(results["before"], results["again"], alpha=0.001)
    found = compare(results["before"], results["slower"], alpha=0.001).rows[0].differences[0]
    assert verdicts(same) == ["no difference found"] * 2
    assert found.verdict == "slower"
    assert found.ratio.ratio == pytest.approx(1.1, abs=0.04)
