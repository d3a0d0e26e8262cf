"""How often somebody who does not know the token learns that it was the wrong one."""

from __future__ import annotations

import logging
import math

from gapcam.camera.log_pace import LogPace
from gapcam.camera.page.rates import AddressRates

_log = logging.getLogger("gapcam.camera")


class Guesses(AddressRates):
    """Of an address: five at once, then one in twelve seconds. The log says now and then that somebody guesses."""

    def __init__(self) -> None:
        super().__init__(1 / 12, 5)
        self._pace = LogPace()

    def wait_s(self, address: str) -> int:
        """A wrong token came. 0 where its sender may learn that; else for how many whole seconds nothing is said."""
        more = self._pace.due()
        if more is not None:
            _log.warning("page: somebody gave a wrong token%s", more)
        bucket = self.of(address)
        return 0 if bucket.take() else math.ceil(bucket.wait_s())
