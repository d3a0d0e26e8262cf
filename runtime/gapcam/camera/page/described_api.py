"""What /openapi.json says beside what FastAPI finds by itself: how one gets in."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI

from gapcam.camera.page.page_state import PageState

OPEN_TO_ALL: dict[str, Any] = {"security": []}
"""As `openapi_extra`: of what needs no token."""


class DescribedApi(FastAPI):
    """An application whose `state.page` is a `PageState`.

    Where the server has a token, it or a session's cookie is needed; where it has none, neither is, and a client that
    sends one is served, too.
    """

    def openapi(self) -> dict[str, Any]:
        """The document."""
        page = cast(PageState, self.state.page)
        document = super().openapi()
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": page.cookie, "description": "given by POST /login"},
        }
        either: list[dict[str, list[str]]] = [{"token": []}, {"session": []}]
        document["security"] = either if page.credentials.needed else [{}, *either]
        return document
