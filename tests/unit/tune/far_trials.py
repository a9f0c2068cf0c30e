"""Trials that run in other processes, which find them by this file."""

from __future__ import annotations

import time

from tanzim.tune.search import Failed


def slow(params, report):
    for step in range(10, 100, 10):
        time.sleep(0.05)
        report(step, params["a.x"] + 1 / step)
    return params["a.x"]


def broken(params, report):
    if params["x"] == 1:
        raise Failed("too bad")
    if params["x"] == 3:
        raise ValueError("a defect")
    return 1.0
