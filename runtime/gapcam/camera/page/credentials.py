"""Who may see the page: whoever has the token, or a session that was given for it."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

SESSION_S = 12 * 3600.0
"""How long one stays signed in."""
_SESSIONS = 256
"""How many may be signed in; the oldest makes way."""


class Credentials:
    """The token, and the sessions of those who signed in with it. Used in the server's loop alone.

    What is compared are hashes, in a time that does not depend on them, and neither the token nor a session is kept.

    Args:
        token: None where everybody may see the page.
        clock: seconds that never go back.
    """

    def __init__(self, token: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = None if token is None else _hashed(token)
        self._clock = clock
        self._sessions: OrderedDict[bytes, float] = OrderedDict()

    @property
    def needed(self) -> bool:
        """Whether there is a token at all."""
        return self._token is not None

    def is_token(self, text: str) -> bool:
        """Whether this is the token."""
        return self._token is not None and hmac.compare_digest(_hashed(text), self._token)

    def sign_in(self) -> str:
        """A new session, for a cookie: 256 random bits."""
        session = secrets.token_urlsafe(32)
        self._forget_old()
        while len(self._sessions) >= _SESSIONS:
            self._sessions.popitem(last=False)
        self._sessions[_hashed(session)] = self._clock() + SESSION_S
        return session

    def is_session(self, session: str) -> bool:
        """Whether one signed in with it, and did not sign out."""
        until = self._sessions.get(_hashed(session))  # by its hash: how long that takes tells nothing
        return until is not None and self._clock() < until

    def sign_out(self, session: str) -> None:
        """End a session. What is watched with it ends, too."""
        self._sessions.pop(_hashed(session), None)

    def _forget_old(self) -> None:
        now = self._clock()
        for key in [key for key, until in self._sessions.items() if until <= now]:
            del self._sessions[key]


def _hashed(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()
