"""Whether a value is what a JSON schema says, as far as OpenAPI documents of FastAPI go."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "minItems",
    "prefixItems",
    "properties",
    "required",
    "title",
    "type",
}


def check_schema(value: Any, schema: dict[str, Any], document: dict[str, Any], where: str = "answer") -> None:
    """Fail where the value does not fit, or the schema holds what this does not know."""
    if "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return check_schema(value, target, document, where)
    assert schema.keys() <= _KNOWN, f"{where}: {schema.keys() - _KNOWN}"
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            with suppress(AssertionError):
                return check_schema(value, one, document, where)
        raise AssertionError(f"{where}: {value!r} is none of {schema['anyOf']}")
    if "enum" in schema:
        assert value in schema["enum"], where
    if "const" in schema:
        assert value == schema["const"], where
    if "type" in schema:
        kinds = _TYPES[schema["type"]]
        assert isinstance(value, kinds), f"{where}: {value!r}"
        assert bool in kinds or not isinstance(value, bool), f"{where}: {value!r}"  # Python's are integers, too
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            assert name in value, f"{where} has no {name}"
        rest = schema.get("additionalProperties", True)
        for name, held in value.items():
            own = schema.get("properties", {}).get(name, rest)
            assert own is not False, f"{where} has {name}"
            if isinstance(own, dict):
                check_schema(held, own, document, f"{where}.{name}")
    if isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), where
        for index, held in enumerate(value):
            first = schema.get("prefixItems", [])
            own = first[index] if index < len(first) else schema.get("items", {})
            check_schema(held, own, document, f"{where}[{index}]")
    return None
