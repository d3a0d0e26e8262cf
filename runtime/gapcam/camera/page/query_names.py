"""The names in a request's query: a misspelt one is refused, since the answer would be to another question."""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI
from fastapi.requests import HTTPConnection

from gapcam.errors import UsageError

_CACHE_BUSTERS = ("_", "t")
"""Dashboards, players and jQuery add a number under these names, so that a picture is fetched anew."""
_LONGEST_SHOWN = 80


async def known_names_only(request: HTTPConnection) -> None:
    """As a dependency: let a query pass whose names are all in /openapi.json, or there for caches.

    Where no name is asked for, any may be.

    Raises:
        UsageError: there is another one.
    """
    if not request.query_params:
        return
    operation = cast(FastAPI, request.app).openapi()["paths"].get(request.scope["path"], {}).get("get", {})
    known = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    for name in request.query_params:
        if known and name not in (*known, *_CACHE_BUSTERS):
            raise UsageError(f"there is no parameter {name[:_LONGEST_SHOWN]!r}; there are: {', '.join(known)}")
