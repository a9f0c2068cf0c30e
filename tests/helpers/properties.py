"""On how many random examples a property is tried: few, and the same each time, unless TANZIM_FUZZ is set."""

from __future__ import annotations

import os

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
