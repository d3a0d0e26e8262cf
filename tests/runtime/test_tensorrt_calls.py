"""Whatever gapcam calls of TensorRT exists: the backend's source is compared with TensorRT-RTX's real Python bindings.

Nothing of an engine can run without a GPU. A name that is misspelt or a missing argument would be found only there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gapcam.backends import tensorrt as backend
from gapcam.backends import tensorrt_lanes as lanes

CLASSES = {
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "config": "IRuntimeConfig",
    "cache": "IRuntimeCache",
    "context": "IExecutionContext",
}
"""What the backend calls its variables, and attributes with an underscore in front, and of which class they are."""

ONLY_IN_SOME = {"create_runtime_config", "create_runtime_cache", "is_stream_capturable"}
"""What TensorRT 10.3 does not have: strings of its bindings and of 11.4's were looked through for every other name."""
BEHIND_THOSE = {
    "set_runtime_cache", "deserialize", "serialize", "dynamic_shapes_kernel_specialization_strategy",
    "DynamicShapesKernelSpecializationStrategy",
}  # fmt: skip
"""What exists where one of those does."""


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    pytest.importorskip("tensorrt_rtx_bindings")
    from gapcam.tensorrt_module import import_tensorrt

    return import_tensorrt("tensorrt-rtx")


def tree() -> ast.Module:
    """Both of the backend's files in one."""
    parts = []
    for module in (backend, lanes):
        assert module.__file__
        parts += ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
    return ast.Module(parts, [])


def variable(node: ast.expr) -> str:
    """ "context" of `context`, `self._context` and `backend._context`."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=name) if name.startswith("_"):
            return name.removeprefix("_")
    return ""


def used() -> Iterator[tuple[str, str, ast.Attribute]]:
    """(class or "" for the module, attribute, where) of everything that the backend takes from TensorRT."""
    for node in ast.walk(tree()):
        if isinstance(node, ast.Attribute):
            name = variable(node.value)
            if name in CLASSES:
                yield CLASSES[name], node.attr, node
            elif name == "trt":
                yield "", node.attr, node


def test_the_backend_s_calls_are_found_at_all() -> None:
    found = {(owner, name) for owner, name, _ in used()}
    assert {
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "num_io_tensors"),
        ("ICudaEngine", "create_execution_context"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_tensor_address"),
        ("IRuntimeConfig", "set_runtime_cache"),
        ("IRuntimeCache", "serialize"),
        ("", "Runtime"),
    } <= found
    assert len(found) > 20


def test_every_name_exists(trt: ModuleType) -> None:
    missing = [
        f"{owner or 'the module'} has no {name}, line {node.lineno}"
        for owner, name, node in used()
        if not hasattr(getattr(trt, owner) if owner else trt, name)
    ]
    assert not missing


def test_every_member_of_an_enumeration_exists(trt: ModuleType) -> None:
    members = [
        (node.value.attr, node.attr)
        for node in ast.walk(tree())
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and variable(node.value.value) == "trt"
    ]
    assert members
    assert all(member in getattr(trt, enumeration).__members__ for enumeration, member in members)


def signatures(owner: type, name: str) -> list[tuple[int, int]]:
    """(least, greatest) number of arguments beside self of each overload, from the binding's docstring."""
    text = getattr(owner, name).__doc__ or ""
    found = re.findall(rf"(?:^|\d\. ){re.escape(name)}\(self: [^,)]+(.*?)\) -> ", text, flags=re.MULTILINE)
    return [(arguments.count(": ") - arguments.count(" = "), arguments.count(": ")) for arguments in found]


def test_every_call_has_as_many_arguments_as_the_binding_takes(trt: ModuleType) -> None:
    checked, wrong = 0, []
    for node in ast.walk(tree()):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = CLASSES.get(variable(node.func.value))
        if owner is None:
            continue
        overloads = signatures(getattr(trt, owner), node.func.attr)
        count = len(node.args) + len(node.keywords)
        checked += 1
        if not any(least <= count <= greatest for least, greatest in overloads):
            wrong.append(f"{owner}.{node.func.attr} is given {count}, and takes {overloads}, line {node.lineno}")
    assert not wrong
    assert checked >= 14


def test_what_only_some_versions_have_is_asked_for_first() -> None:
    asked = {
        node.args[1].value
        for node in ast.walk(tree())
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "hasattr"
        and isinstance(node.args[1], ast.Constant)
    }
    assert asked == ONLY_IN_SOME
    assert {name for _, name, _ in used()} >= BEHIND_THOSE
