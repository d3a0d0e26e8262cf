"""A server's side of the lines between it and its test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


def settings() -> dict[str, Any]:
    """The first line: what the server is to be."""
    return json.loads(sys.stdin.readline())


def answer(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def serve_commands(commands: Mapping[str, Callable[..., Mapping[str, Any] | None]]) -> None:
    """Do what each line says, {"do": NAME, ...}, and answer, until the lines end."""
    for line in sys.stdin:
        what = json.loads(line)
        try:
            answer(**(commands[what.pop("do")](**what) or {}))
        except (KeyError, TypeError, ValueError) as error:
            answer(error=repr(error))
