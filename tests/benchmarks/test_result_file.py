"""A result and its samples are read as they were written, or refused in one line: never mixed, never a traceback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gapcam.environment import Environment
from gapcam.errors import DataError
from gapcam_bench import result_file
from gapcam_bench.block import Block, ScenarioSettings
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.machine import Machine
from gapcam_bench.result import BenchResult
from gapcam_bench.result_file import check_result_writable, read_result, samples_path, write_result
from gapcam_bench.row_arrays import telemetry_arrays
from gapcam_bench.rows import row_again, row_of
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series

Arrays = dict[str, NDArray[Any]]
CELL = Cell(model="model.onnx")


@pytest.fixture(scope="module")
def made(make_block: Callable[..., Block]) -> tuple[BenchResult, Arrays]:
    """A result of two rows with telemetry."""
    blocks = [make_block(CELL, round) for round in range(3)]
    time = np.arange(1_700_000_000.0, 1_700_000_400.0, 0.5)
    power = Channel(name="rapl/package-0", quantity="power", source="rapl")
    series = Series(time=time, values={power.name: np.full(len(time), 9.5)}, channels=(power,), lacking={})
    idle = ((1_700_000_390.0, 1_700_000_395.0),)
    row, arrays = row_of(CELL, blocks, rounds=3, limits=Limits(), series=series, idle=idle)
    skipped = msgspec.structs.replace(CELL, device="cuda")
    none, nothing = row_of(skipped, [], rounds=3, limits=Limits())
    assert nothing == {}
    result = BenchResult(
        created="2026-01-02T03:04:05Z",
        command="gapcam bench model.onnx",
        complete=False,
        rounds=3,
        limits=Limits(),
        settings=ScenarioSettings(),
        machine=Machine(environment=Environment(cpu="a CPU", cores=2, system="Linux", python="3.11", versions={})),
        channels=series.channels,
        rows=(row, none),
    )
    return result, arrays | telemetry_arrays(series, idle)


@pytest.fixture
def path(made: tuple[BenchResult, Arrays], tmp_path: Path) -> Path:
    """RESULT.json, written."""
    write_result(*made, tmp_path / "RESULT.json")
    return tmp_path / "RESULT.json"


def refused(path: Path) -> str:
    """What is said of a file that cannot be read: one line."""
    with pytest.raises(DataError) as caught:
        read_result(path)
    said = str(caught.value)
    assert "\n" not in said
    return said


def with_json(path: Path, **changed: Any) -> None:
    """Change fields of the JSON."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changed}), encoding="utf-8")


def with_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Replace the samples, with the hash that belongs to them."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    with_samples(path, packed.getvalue())


def with_samples(path: Path, content: bytes) -> None:
    samples_path(path).write_bytes(content)
    with_json(path, samples={"file": samples_path(path).name, "sha256": hashlib.sha256(content).hexdigest()})


def test_what_was_written_is_read(made: tuple[BenchResult, Arrays], path: Path) -> None:
    result, arrays = made
    loaded = read_result(path)
    assert msgspec.structs.replace(loaded.result, samples=None) == result
    assert sorted(loaded.arrays) == sorted(arrays)
    for name, values in arrays.items():
        assert loaded.arrays[name].dtype == values.dtype
        assert np.array_equal(loaded.arrays[name], values, equal_nan=values.dtype.kind == "f")
    assert loaded.needed_arrays() is loaded.arrays
    assert sorted(each.name for each in path.parent.iterdir()) == ["RESULT.json", "RESULT.npz"]


def test_the_samples_are_those_whose_hash_the_json_holds(path: Path) -> None:
    samples = json.loads(path.read_bytes())["samples"]
    assert samples["file"] == "RESULT.npz"
    assert samples["sha256"] == hashlib.sha256((path.parent / "RESULT.npz").read_bytes()).hexdigest()


def test_the_same_result_gives_the_same_bytes(made: tuple[BenchResult, Arrays], path: Path) -> None:
    before = [file.read_bytes() for file in (path, samples_path(path))]
    write_result(*made, path)
    assert [file.read_bytes() for file in (path, samples_path(path))] == before


@pytest.mark.parametrize(
    ("name", "samples"), [("RESULT.json", "RESULT.npz"), ("of.v2", "of.v2.npz"), ("a.b.json", "a.b.npz")]
)
def test_results_of_different_names_have_samples_of_different_names(name: str, samples: str) -> None:
    assert samples_path(Path("folder") / name) == Path("folder") / samples


def test_a_result_without_samples_is_read_and_says_so(made: tuple[BenchResult, Arrays], tmp_path: Path) -> None:
    write_result(made[0], {}, tmp_path / "RESULT.json")
    assert [each.name for each in tmp_path.iterdir()] == ["RESULT.json"]
    loaded = read_result(tmp_path / "RESULT.json")
    assert loaded.result == made[0]
    assert "written without raw samples" in str(loaded.lacks_samples)
    with pytest.raises(DataError, match="this needs the raw samples"):
        loaded.needed_arrays()


def test_a_result_whose_samples_are_gone_is_read_and_says_so(made: tuple[BenchResult, Arrays], path: Path) -> None:
    samples_path(path).unlink()
    loaded = read_result(path)
    assert loaded.result.rows == made[0].rows
    assert dict(loaded.arrays) == {}
    with pytest.raises(DataError, match=r"RESULT\.npz.*is not there; this needs the raw samples"):
        loaded.needed_arrays()


def test_the_two_files_can_be_renamed_together(made: tuple[BenchResult, Arrays], path: Path) -> None:
    before = path.with_name("before.json")
    samples_path(path).replace(samples_path(before))
    path.replace(before)
    assert sorted(read_result(before).needed_arrays()) == sorted(made[1])
    write_result(made[0], {name: values[:1] for name, values in made[1].items()}, path)
    assert sorted(read_result(before).needed_arrays()) == sorted(made[1]), "RESULT.npz is another's now"


VERSION_1 = Path(__file__).parent / "version_1" / "RESULT.json"
"""Written when version 1 of the schema was new. It stays as it is: a field that comes later needs a default."""


def test_a_result_of_the_first_writer_of_this_version_is_still_read() -> None:
    loaded = read_result(VERSION_1)
    arrays = loaded.needed_arrays()
    assert [row.cell.scenario for row in loaded.result.rows[2:]] == [
        "offline",
        "single-stream",
        "camera",
        "server",
    ]
    assert loaded.result.rows[1].price is not None
    for row in loaded.result.rows:
        again = row_again(row, arrays, channels=loaded.result.channels)
        for stage, figures in row.wall.items():
            now = again.wall[stage]
            assert now.count == figures.count == 180
            assert (now.p50_ms, now.mean_ms) == pytest.approx((figures.p50_ms, figures.mean_ms), rel=1e-8)


class Killed(BaseException):
    """As SIGKILL does it: nothing that follows is done."""


@pytest.mark.parametrize("kept_steps", [0, 1, 2, 3])
def test_a_writer_killed_anywhere_leaves_one_result_whole(
    made: tuple[BenchResult, Arrays], path: Path, monkeypatch: pytest.MonkeyPatch, kept_steps: int
) -> None:
    old, arrays = made
    new = msgspec.structs.replace(old, created="2027-01-01T00:00:00Z")
    later = {name: values + 1 if name.endswith("/at") else values for name, values in arrays.items()}
    steps = 0
    replace = os.replace

    def counted(source: Any, target: Any, **more: Any) -> None:
        nonlocal steps
        if steps == kept_steps:
            raise Killed
        steps += 1
        replace(source, target, **more)

    # `Path.replace` is what makes each of the writer's steps: of the samples, of the JSON, and of the samples again.
    monkeypatch.setattr(Path, "replace", lambda self, target: counted(self, target))
    if kept_steps < 3:
        with pytest.raises(Killed):
            write_result(new, later, path)
    else:
        write_result(new, later, path)
    monkeypatch.undo()

    loaded = read_result(path)
    is_new = loaded.result.created == new.created
    assert is_new == (kept_steps >= 2)
    at = f"{CELL.key}/at"
    assert np.array_equal(loaded.needed_arrays()[at], (later if is_new else arrays)[at])

    third = msgspec.structs.replace(old, created="2028-01-01T00:00:00Z")
    write_result(third, arrays, path)
    assert read_result(path).result.created == third.created
    assert np.array_equal(read_result(path).needed_arrays()[at], arrays[at])
    assert sorted(each.name for each in path.parent.iterdir()) == ["RESULT.json", "RESULT.npz"]


def test_a_writer_killed_twice_leaves_the_first_ones_result_whole(
    made: tuple[BenchResult, Arrays], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, arrays = made
    new = msgspec.structs.replace(old, created="2027-01-01T00:00:00Z")
    later = {name: values + 1 if name.endswith("/at") else values for name, values in arrays.items()}
    write_result(new, later, path)  # and as if killed before the last step
    samples_path(path).replace(path.parent / "RESULT.npz.new")

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(result_file, "write_atomically", killed)
    with pytest.raises(Killed):
        write_result(old, arrays, path)
    monkeypatch.undo()
    at = f"{CELL.key}/at"
    assert read_result(path).result.created == new.created
    assert np.array_equal(read_result(path).needed_arrays()[at], later[at])


def test_samples_of_another_run_are_refused(made: tuple[BenchResult, Arrays], path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "RESULT.json"
    write_result(made[0], {name: values[:1] for name, values in made[1].items()}, other)
    samples_path(path).write_bytes(samples_path(other).read_bytes())
    said = refused(path)
    assert "RESULT.npz holds other samples than those that RESULT.json was computed from" in said
    assert "Put the two files of one run side by side" in said


@pytest.mark.parametrize("name", ["../RESULT.npz", "/etc/passwd", "a/b.npz", "..", ".", "", "a\\b", "C:x", "a\0b"])
def test_samples_cannot_lie_in_another_folder(path: Path, name: str) -> None:
    with_json(path, samples={"file": name, "sha256": "0" * 64})
    assert "expected a file's name without a folder" in refused(path)


@pytest.mark.parametrize("version", [0, 2, 10**30, "1", None, 1.5, True, [1]])
def test_another_version_is_refused(path: Path, version: object) -> None:
    with_json(path, version=version)
    said = refused(path)
    assert "of version" in said
    assert "this gapcam reads version 1" in said
    assert "Measure again, or read it with the gapcam that wrote it" in said


@pytest.mark.parametrize("schema", [None, "gapcam", {}, "x" * 1000])
def test_other_json_is_refused(path: Path, schema: object) -> None:
    with_json(path, schema=schema)
    said = refused(path)
    assert "is no result of gapcam bench" in said
    assert len(said) < 400


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no result of gapcam bench"),
        (b"{", "is no result of gapcam bench"),
        (b"[]", "is no result of gapcam bench"),
        (b"\xff\xfe", "is no result of gapcam bench"),
        (b"[" * 100_000, "is no result of gapcam bench"),
        (b'{"schema":"gapcam-bench","version":1}', "is damaged"),
        (b'{"schema":"gapcam-bench","version":1,"rows":' + b"[" * 100_000, "is no result of gapcam bench"),
    ],
)
def test_what_is_no_result_is_refused(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    assert said in refused(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "There is no" in refused(tmp_path / "RESULT.json")
    assert "is a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    assert "is no regular file" in refused(tmp_path / "pipe.json")


def test_two_rows_of_one_id_are_refused(path: Path) -> None:
    rows = json.loads(path.read_bytes())["rows"]
    with_json(path, rows=[rows[0], rows[0]])
    assert "two of its rows have the same id" in refused(path)


def test_pickles_are_not_loaded(made: tuple[BenchResult, Arrays], path: Path, tmp_path: Path) -> None:
    marker = tmp_path / "touched"

    class Touches:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    with_arrays(path, {**made[1], "more": np.array([Touches()], object)})
    assert "is damaged: Object arrays cannot be loaded when allow_pickle=False" in refused(path)
    assert not marker.exists()


def test_samples_that_unpack_to_too_much_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_file, "MOST_SAMPLES_BYTES", 1000)
    assert "would unpack to" in refused(path)


def test_an_array_that_claims_to_be_huge_is_refused(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (1 << 60,)})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{CELL.key}/wall/total.npy", header.getvalue())
    with_samples(path, packed.getvalue())
    assert "is damaged" in refused(path)


ROW = CELL.key
DAMAGES: dict[str, tuple[str, Callable[[NDArray[Any]], Any], str]] = {
    "another dtype": (f"{ROW}/wall/total", lambda a: a.astype(np.float64), "is float64"),
    "too few samples": (f"{ROW}/wall/cam", lambda a: a[:-1], "is int64 [179], expected int64 [180]"),
    "two dimensions": (f"{ROW}/at", lambda a: a[None], "is int64 [1, 180]"),
    "a scalar": (f"{ROW}/block", lambda _: np.int32(0), "is int32 []"),
    "a negative duration": (f"{ROW}/wall/decode", lambda a: -a, "out of range"),
    "a total of nothing": (f"{ROW}/wall/total", lambda a: a * 0, "out of range"),
    "a huge duration": (f"{ROW}/wall/total", lambda a: a + (1 << 62), "out of range"),
    "another block": (f"{ROW}/block", lambda a: a + 1, "other blocks"),
    "a yardstick of another block": (f"{ROW}/yardstick_block", lambda a: a + 9, "other blocks"),
    "a fact too few": (f"{ROW}/blocks/load_s", lambda a: a[1:], "expected float64 [3]"),
    "a fact that is none": (f"{ROW}/blocks/seconds", lambda a: a * np.nan, "holds what is no time"),
    "a span too few": (f"{ROW}/span", lambda a: a[1:], "expected float64 [3, 2]"),
    "a time that is none": ("telemetry/time", lambda a: a * np.nan, "does not rise"),
    "time backwards": ("telemetry/time", lambda a: a[::-1], "does not rise"),
    "an endless reading": ("telemetry/value/rapl/package-0", lambda a: a * np.inf, "holds readings out of range"),
    "a reading beyond reason": ("telemetry/value/rapl/package-0", lambda a: a + 1e308, "holds readings out of range"),
    "a reading too few": ("telemetry/value/rapl/package-0", lambda a: a[1:], "is float64 [799]"),
    "an idle edge": ("telemetry/idle", lambda a: a[:, :1], "expected float64 [0, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_arrays_that_do_not_fit_are_refused(made: tuple[BenchResult, Arrays], path: Path, damage: str) -> None:
    name, change, words = DAMAGES[damage]
    with_arrays(path, {**made[1], name: change(made[1][name])})
    said = refused(path)
    assert words in said
    assert "RESULT.npz is damaged" in said


def test_readings_that_failed_are_read(made: tuple[BenchResult, Arrays], path: Path) -> None:
    name = "telemetry/value/rapl/package-0"
    with_arrays(path, {**made[1], name: made[1][name] * np.nan})
    assert np.all(np.isnan(read_result(path).arrays[name]))


@pytest.mark.parametrize(
    ("stage", "figure", "value"),
    [
        ("total", "p50_ms", 1.0),
        ("total", "p50_ms", 1e308),
        ("inference", "max_ms", 4.0),
        ("unexplained", "p50_ms", -3.0),
        ("cam", "count", 181),
        ("cam", "count", 10**400),
    ],
)
def test_a_figure_that_the_samples_contradict_is_refused(path: Path, stage: str, figure: str, value: float) -> None:
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    rows[0]["wall"][stage][figure] = value
    with_json(path, rows=rows)
    said = refused(path)
    assert f"the {figure} of '{stage}' of row {ROW} is {value!r:.20}; its samples say" in said
    assert "RESULT.json is damaged" in said


def test_a_figure_is_not_contradicted_by_how_it_is_rounded(made: tuple[BenchResult, Arrays], path: Path) -> None:
    """Nine digits; the tenth is another."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    rows[0]["wall"]["total"]["p50_ms"] *= 1 + 3e-9
    with_json(path, rows=rows)
    assert read_result(path).arrays.keys() == made[1].keys()


def test_every_array_that_is_written_is_needed_or_said_to_be_optional(
    made: tuple[BenchResult, Arrays], path: Path
) -> None:
    optional = {"telemetry/idle", f"{ROW}/yardstick_after"}
    for name in made[1]:
        with_arrays(path, {other: values for other, values in made[1].items() if other != name})
        if name in optional:
            read_result(path)
        else:
            assert "it has no" in refused(path) or "expected" in refused(path)


def test_a_result_without_the_yardstick_after_is_read(made: tuple[BenchResult, Arrays], path: Path) -> None:
    with_arrays(path, {name: values for name, values in made[1].items() if "yardstick_after" not in name})
    read_result(path)


def test_a_result_that_would_be_written_over_something_else_is_noticed_before(tmp_path: Path, path: Path) -> None:
    check_result_writable(path)
    check_result_writable(tmp_path / "new.json")
    (tmp_path / "mine.npz").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"mine\.npz is there without mine\.json"):
        check_result_writable(tmp_path / "mine.json")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        check_result_writable(tmp_path / "folder.json")


no_health_check = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # each example writes what it changes anew


def read_or_refused(path: Path) -> None:
    try:
        read_result(path)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any other error fails the test


@no_health_check
@given(data=st.data())
def test_damaged_bytes_never_give_a_traceback(
    made: tuple[BenchResult, Arrays], path: Path, data: st.DataObject
) -> None:
    write_result(*made, path)
    target = data.draw(st.sampled_from([path, samples_path(path)]))
    content = bytearray(target.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    if target == path:
        path.write_bytes(content)
    else:
        with_samples(path, bytes(content))  # with the right hash: what does the archive's reader say?
    read_or_refused(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@no_health_check
@given(data=st.data())
def test_no_value_in_the_json_gives_a_traceback(
    made: tuple[BenchResult, Arrays], path: Path, data: st.DataObject
) -> None:
    write_result(*made, path)
    whole = json.loads(path.read_bytes())
    inside: Any = whole
    while True:
        key = data.draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        if not isinstance(inside[key], (dict, list)) or not inside[key] or data.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = data.draw(json_values)
    path.write_text(json.dumps(whole), encoding="utf-8")
    read_or_refused(path)


@no_health_check
@given(data=st.data())
def test_no_array_gives_a_traceback(made: tuple[BenchResult, Arrays], path: Path, data: st.DataObject) -> None:
    write_result(*made, path)
    name = data.draw(st.sampled_from(sorted(made[1])))
    dtype = data.draw(st.sampled_from(["<i8", "<i4", "<f8", "<U3", "?", "<c16", "<M8[s]", "V5", "<u8"]))
    shape = data.draw(st.sampled_from([(), (0,), (1,), (180,), (3,), (3, 2), (0, 5), (800,)]))
    with_arrays(path, {**made[1], name: np.zeros(shape, dtype)})
    read_or_refused(path)
