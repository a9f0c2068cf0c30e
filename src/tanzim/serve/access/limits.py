"""How much a key may ask for in a minute: requests, and tokens.

A token bucket for each: it holds a minute's worth and fills evenly. Tokens are charged when they are known,
so the last answer may go over; what is over is waited for.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tanzim.serve.access.roles import Caller
from tanzim.serve.errors import ApiError

UPLOADS = 8  # that a project may send at the same time: what is on its way counts in no quota yet
REFUSALS = 60  # in a minute that an address gets in full
_ADDRESSES = 10_000  # most that are remembered


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
        self._uploading: Counter[str] = Counter()
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

    @contextmanager
    def uploading(self, project: str | None) -> Iterator[None]:
        """Count an upload of a project (None: it is none) for as long as the block runs.

        Raises:
            ApiError: the project sends too many already (429).

        """
        if project is None:
            yield
            return
        with self._lock:
            if self._uploading[project] >= UPLOADS:
                message = f"The project sends {UPLOADS} files or parts already. Try again in a second."
                raise ApiError(429, message, code="rate_limit_exceeded", retry_after=1)
            self._uploading[project] += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploading[project] -= 1
                if not self._uploading[project]:
                    del self._uploading[project]

    def _bucket(self, key: str, kind: str, rate: int) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault((key, kind), _Bucket(rate, now))
        bucket.refill(rate, now)
        return bucket


class Strangers:
    """Those whose key was refused, by address: who goes on trying is answered shortly, and not written down.

    A good key is never turned away for what others tried from its address. IPv6 counts by the network of 64
    bits, since one machine has as many addresses as it likes.

    Args:
        clock: seconds that only go forward.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def note(self, address: str) -> None:
        """Count a refusal.

        Raises:
            ApiError: there were too many in the last minute (429).

        """
        now, name = self._clock(), _network(address)
        bucket = self._buckets.setdefault(name, _Bucket(REFUSALS, now))
        self._buckets.move_to_end(name)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        bucket.refill(REFUSALS, now)
        if bucket.left < 1:
            wait = (1 - bucket.left) * 60 / REFUSALS
            message = "Too many requests without a good key. Try again later."
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=wait)
        bucket.left -= 1


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
