"""The published JSON schema of RESULT.json: `result-1.json` in this folder, made from the structs.

`python -m gapcam_bench.schema` writes it anew. Its descriptions are the structs' own docstrings, each field's with the
unit that its name ends in.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec

from gapcam_bench.result import VERSION, BenchResult

PATH = Path(__file__).with_name(f"result-{VERSION}.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"

UNITS = {
    "_ms": "Milliseconds.",
    "_s": "Seconds.",
    "_seconds": "Seconds.",
    "_bytes": "Bytes.",
    "_mhz": "Megahertz.",
    "_w": "Watts.",
    "_at": "Seconds since the epoch.",
}
"""By the ending of a field's name, also where "_ci" or the like comes before it."""

_ATTRIBUTE = re.compile(r"^    (\w+): ((?:.+)(?:\n {8,}.+)*)", re.MULTILINE)


def result_schema() -> dict[str, Any]:
    """The schema, JSON Schema 2020-12. What may be absent has a default; unknown fields are allowed, and ignored."""
    (top,), structs = msgspec.json.schema_components([BenchResult], ref_template="#/$defs/{name}")
    for struct in structs.values():
        _describe(struct)
    # They have defaults, so that nobody writes another; but a result without them is none.
    structs["BenchResult"]["required"] = ["schema", "version", *structs["BenchResult"]["required"]]
    return {
        "$schema": DIALECT,
        "$id": f"urn:gapcam:bench:result:{VERSION}",
        "title": "Result of gapcam bench",
        **top,
        "$defs": dict(sorted(structs.items())),
    }


def schema_as_json() -> bytes:
    """What the published file holds."""
    return msgspec.json.format(msgspec.json.encode(result_schema()), indent=2) + b"\n"


def _describe(struct: dict[str, Any]) -> None:
    """Move the attributes' descriptions from the struct's docstring to its properties."""
    text = inspect.cleandoc(struct.get("description", ""))
    about, _, attributes = text.partition("\n\nAttributes:\n")
    if about:
        struct["description"] = _one_line(about)
    for name, described in _ATTRIBUTE.findall(attributes):
        unit = next((f" {unit}" for ending, unit in UNITS.items() if name.endswith(ending)), "")
        properties = struct["properties"]
        properties[name] = {"description": _one_line(described) + unit, **properties[name]}


def _one_line(text: str) -> str:
    """In JSON's terms, without line breaks."""
    return re.sub(r"\bNone\b", "null", " ".join(text.split()))
