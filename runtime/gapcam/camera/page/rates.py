"""How often something may happen: a bucket of tokens that fills at a steady rate."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable


class TokenBucket:
    """Lets `burst` through at once, and `rate` a second in the long run.

    Args:
        rate: tokens a second.
        burst: how many it holds.
        clock: seconds that never go back.
    """

    __slots__ = ("_at", "_clock", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._level, self._at = burst, clock()

    def take(self, tokens: float = 1) -> bool:
        """Take tokens, where there are enough."""
        self._fill()
        if self._level < tokens:
            return False
        self._level -= tokens
        return True

    def wait_s(self, tokens: float = 1) -> float:
        """Seconds until there are enough."""
        self._fill()
        return max(0.0, (tokens - self._level) / self.rate)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now


class AddressRates:
    """A bucket for each address: those seen last are kept.

    An IPv6 network of 64 bits counts as one address: whoever has one has them all.
    """

    def __init__(
        self, rate: float, burst: float, *, kept: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._kept, self._clock = rate, burst, kept, clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, address: str) -> TokenBucket:
        """The bucket of an address."""
        key = network_of(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, self._clock)
            if len(self._buckets) > self._kept:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket


def network_of(address: str) -> str:
    """What counts as one address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip), 64), strict=False))
    return str(ip)
