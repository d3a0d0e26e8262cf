"""The published schema is the structs', says what each field is, and accepts what is written and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from gapcam.environment import Environment
from gapcam_bench.block import ScenarioSettings
from gapcam_bench.limits import Limits
from gapcam_bench.machine import Machine
from gapcam_bench.result import BenchResult
from gapcam_bench.schema import PATH, UNITS, result_schema, schema_as_json

EMPTY = BenchResult(
    created="2026-01-02T03:04:05Z",
    command="gapcam bench model.onnx",
    complete=True,
    rounds=5,
    limits=Limits(),
    settings=ScenarioSettings(),
    machine=Machine(environment=Environment(cpu="a CPU", cores=2, system="Linux", python="3.11", versions={})),
)


def the_json(result: BenchResult) -> dict[str, Any]:
    """What a file would hold."""
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(result))
    return decoded


@pytest.fixture(scope="module")
def published() -> Draft202012Validator:
    schema = json.loads(PATH.read_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_published_file_is_the_structs() -> None:
    assert PATH.read_bytes() == schema_as_json(), "write it anew: python -m gapcam_bench.schema"


def test_the_command_writes_it(tmp_path: Path) -> None:
    before = PATH.read_bytes()
    script = (
        "import gapcam_bench.schema as schema, pathlib, runpy;"
        f"schema.PATH = pathlib.Path({str(tmp_path / 'schema.json')!r});"
        "runpy.run_module('gapcam_bench.schema', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "schema.json").read_bytes() == before == PATH.read_bytes()


def test_every_field_says_what_it_is() -> None:
    silent = [
        f"{name}.{key}"
        for name, struct in result_schema()["$defs"].items()
        for key, field in struct["properties"].items()
        if not field.get("description")
    ]
    assert silent == []
    figures = result_schema()["$defs"]["Figures"]["properties"]
    assert figures["p50_ms"]["description"].endswith(UNITS["_ms"])
    assert not [name for name, struct in result_schema()["$defs"].items() if "Attributes:" in struct["description"]]


def test_no_address_of_a_host_is_in_it_but_the_dialects() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert text.count("://") == 1
    assert '"$id": "urn:gapcam:bench:result:1"' in text


def test_a_result_without_rows_is_accepted(published: Draft202012Validator) -> None:
    published.validate(the_json(EMPTY))


def test_a_result_of_the_first_writer_of_this_version_is_accepted(published: Draft202012Validator) -> None:
    published.validate(json.loads((Path(__file__).parent / "version_1" / "RESULT.json").read_bytes()))


@pytest.mark.parametrize(
    ("key", "value"),
    [("schema", "gapcam"), ("version", 2), ("created", 5), ("rounds", "five"), ("rows", [{}]), ("samples", {})],
)
def test_what_is_no_result_is_refused(published: Draft202012Validator, key: str, value: object) -> None:
    found = the_json(EMPTY)
    assert not published.is_valid({**found, key: value})


@pytest.mark.parametrize("key", ["schema", "version", "created", "limits", "machine"])
def test_what_must_be_there_must_be_there(published: Draft202012Validator, key: str) -> None:
    found = the_json(EMPTY)
    del found[key]
    assert not published.is_valid(found)


def test_fields_of_later_writers_are_allowed_and_ignored(published: Draft202012Validator) -> None:
    later = {**the_json(EMPTY), "weather": "fine", "machine": {**the_json(EMPTY)["machine"], "colour": "green"}}
    published.validate(later)
    assert msgspec.json.decode(json.dumps(later), type=BenchResult) == EMPTY
