"""How much a key may ask for in a minute: requests, and tokens.

A token bucket for each: it holds a minute's worth and fills evenly. Tokens are charged when they are known,
so the last answer may go over; what is over is waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tanzim.serve.access.roles import Caller
from tanzim.serve.errors import ApiError


@dataclass
class _Bucket:
    """What is left of a minute's worth, and when that was so."""

    left: float
    at: float

    def refill(self, per_minute: int, now: float) -> None:
        self.left = min(per_minute, self.left + (now - self.at) * per_minute / 60)
        self.at = now


class Limits:
    """The buckets of all keys, in this process.

    Args:
        clock: seconds that only go forward.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._lock = threading.Lock()

    def admit(self, caller: Caller) -> None:
        """Take one request off a caller's allowance.

        Raises:
            ApiError: it is used up (429); ``retry_after`` says for how long.

        """
        with self._lock:
            for kind, rate, least in (
                ("tokens", caller.tokens_per_minute, 0.0),
                ("requests", caller.requests_per_minute, 1.0),
            ):
                if caller.key is None or rate is None:
                    continue
                bucket = self._bucket(caller.key, kind, rate)
                if bucket.left < least or bucket.left <= 0:
                    wait = (max(least, 1.0) - bucket.left) * 60 / rate
                    raise ApiError(
                        429,
                        f"Rate limit reached: {rate} {kind} per minute. Try again in {wait:.1f} s.",
                        code="rate_limit_exceeded",
                        retry_after=wait,
                    )
                if kind == "requests":
                    bucket.left -= 1

    def charge(self, caller: Caller, tokens: int) -> None:
        """Take tokens off a caller's allowance."""
        if caller.key is None or caller.tokens_per_minute is None:
            return
        with self._lock:
            self._bucket(caller.key, "tokens", caller.tokens_per_minute).left -= tokens

    def _bucket(self, key: str, kind: str, rate: int) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault((key, kind), _Bucket(rate, now))
        bucket.refill(rate, now)
        return bucket
