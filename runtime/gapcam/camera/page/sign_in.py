"""Signing in with the token, for a cookie; signing out."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from gapcam.camera.page.answers import Problem
from gapcam.camera.page.credentials import SESSION_S
from gapcam.camera.page.described_api import OPEN_TO_ALL
from gapcam.camera.page.gate import session_of
from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.static_files import static_answer

_FORM = {
    **OPEN_TO_ALL,
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["token"],
                    "properties": {"token": {"type": "string", "format": "password"}},
                }
            }
        },
    },
}


def add_sign_in(api: FastAPI, state: PageState) -> None:
    """GET and POST /login, POST /logout."""
    credentials = state.credentials

    @api.get("/login", include_in_schema=False)
    async def form(request: Request) -> Response:
        if not credentials.needed or credentials.is_session(session_of(request.scope, state.cookie)):
            return RedirectResponse("./", 303)
        answer = static_answer("login.html", request)
        if answer is None:
            raise HTTPException(404, "there is no such page")
        return answer

    @api.post(
        "/login",
        status_code=303,
        response_class=Response,
        openapi_extra=_FORM,
        responses={413: {"model": Problem, "description": "The form is too long"}},
    )
    async def sign_in(request: Request) -> Response:
        """Sign in with the token, for a cookie that opens the page."""
        answer = RedirectResponse("./", 303)
        if not credentials.needed:
            return answer
        token = _token((await request.body()).decode("utf-8", "replace"))
        if not credentials.is_token(token):
            if wait := state.guesses.wait_s(request.client.host if request.client else ""):
                return _refused(request, 429, "too many attempts; wait a while", {"retry-after": str(wait)})
            return _refused(request, 401, "this is not the token", {})
        answer.set_cookie(
            state.cookie,
            credentials.sign_in(),
            max_age=int(SESSION_S),
            path="/",
            secure=_is_secure(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    @api.post("/logout", status_code=303, response_class=Response)
    async def sign_out(request: Request) -> Response:
        """Sign out: the cookie opens nothing more, and what is watched with it ends."""
        credentials.sign_out(session_of(request.scope, state.cookie))
        state.frames.wake()  # those who watch with it find out
        answer = RedirectResponse("login" if credentials.needed else "./", 303)
        answer.delete_cookie(
            state.cookie,
            path="/",
            secure=_is_secure(request),
            httponly=True,
            samesite="strict",
        )
        return answer


def _is_secure(request: Request) -> bool:
    """Whether the browser speaks TLS: with this server, or with a proxy before it, whose origin the gate let pass."""
    return request.scope["scheme"] == "https" or request.headers.get("origin", "").lower().startswith("https://")


def _token(form: str) -> str:
    try:
        values = parse_qs(form, max_num_fields=8).get("token", [])
    except ValueError:
        return ""
    return values[0] if len(values) == 1 else ""


def _refused(request: Request, status: int, why: str, headers: dict[str, str]) -> Response:
    """JSON for programs and scripts; for a form sent by a browser the form again, with a line that says why."""
    if "text/html" in request.headers.get("accept", ""):
        page = static_answer("login.html", request, status)
        if page is not None:
            said = bytes(page.body).replace(b'role="alert"></p>', f'role="alert">{why.capitalize()}.</p>'.encode())
            return Response(said, status, {**headers, "cache-control": "no-store"}, media_type="text/html")
    return JSONResponse({"error": why}, status, headers)
