"""On how many random examples a property is tried: few, and the same each time, unless TANZIM_FUZZ is set."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("TANZIM_FUZZ", "0"))


def examples(count: int = 100) -> settings:
    """Return Hypothesis' settings for a property.

    Without TANZIM_FUZZ the examples hang on the test alone, so that a suite which passed passes again; with
    TANZIM_FUZZ=50 there are fifty times as many, and others in each run. Neither fails for being slow.

    Args:
        count: examples without TANZIM_FUZZ.

    """
    return settings(
        max_examples=count * max(1, TIMES),
        derandomize=not TIMES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@contextmanager
def soon(seconds: float = 20) -> Iterator[None]:
    """Fail what takes more than so many seconds of the CPU's time, on a busy machine as on an idle one."""

    def stop(*_: object) -> None:
        raise AssertionError(f"this takes more than {seconds} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
