"""The search space: config keys with the values they may take, listed, counted and drawn from."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tanzim.core.errors import ConfigError
from tanzim.core.records import Json
from tanzim.tune.config import Range, Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def identity(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return a text that is equal for equal values alone (Python holds 1 equal to true)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


class Space:
    """What is searched.

    Args:
        entries: key → its values or its range.

    """

    def __init__(self, entries: Mapping[str, Values | Range]) -> None:
        self.entries = dict(entries)

    @property
    def size(self) -> int | None:
        """How many combinations there are; None where a key is continuous."""
        sizes = [_count(entry) for entry in self.entries.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def grid(self) -> Iterator[Json]:
        """Yield every combination, the last key changing fastest.

        Raises:
            ConfigError: a key is continuous.

        """
        for key, entry in self.entries.items():
            if _count(entry) is None:
                raise ConfigError(
                    "a grid needs single values, and this range is continuous",
                    where=f"search.space, {key}",
                    fix="give it a step, or list its values",
                )
        columns = [list(_listed(entry)) for entry in self.entries.values()]
        for values in itertools.product(*columns):
            yield dict(zip(self.entries, values, strict=True))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the space as Optuna takes it: listed values by their index, steps by their number."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        made: dict[str, BaseDistribution] = {}
        for key, entry in self.entries.items():
            if isinstance(entry, Values):
                made[key] = CategoricalDistribution(range(len(entry.values)))
            elif entry.log and entry.whole:
                made[key] = IntDistribution(int(entry.low), int(entry.high), log=True)
            elif entry.log:
                made[key] = FloatDistribution(entry.low, entry.high, log=True)
            elif (count := _count(entry)) is not None:
                made[key] = IntDistribution(0, count - 1)
            else:
                made[key] = FloatDistribution(entry.low, entry.high)
        return made

    def decode(self, drawn: Mapping[str, Any]) -> Json:
        """Turn what Optuna drew into values of the keys."""
        params = {}
        for key, entry in self.entries.items():
            if isinstance(entry, Values):
                params[key] = entry.values[drawn[key]]
            elif entry.log or _count(entry) is None:
                params[key] = int(drawn[key]) if entry.whole else _legible(entry, drawn[key])
            else:
                params[key] = _at(entry, drawn[key])
        return params

    def encode(self, params: Json) -> dict[str, Any]:
        """Turn values of the keys into what Optuna would have drawn (the inverse of `decode`)."""
        drawn = {}
        for key, entry in self.entries.items():
            if isinstance(entry, Values):
                drawn[key] = [identity(value) for value in entry.values].index(identity(params[key]))
            elif entry.log or _count(entry) is None:
                drawn[key] = params[key]
            else:
                drawn[key] = round((params[key] - entry.low) / _step(entry))
        return drawn


def _step(entry: Range) -> int | float:
    return 1 if entry.step is None else entry.step


def _count(entry: Values | Range) -> int | None:
    if isinstance(entry, Values):
        return len(entry.values)
    if entry.step is None and not entry.whole:
        return None
    return math.floor((entry.high - entry.low) / _step(entry) + 1e-9) + 1


def _at(entry: Range, index: int) -> int | float:
    """Return the ``index``-th value of a range in steps, without the noise of binary fractions."""
    value = entry.low + index * _step(entry)
    return value if entry.whole else float(f"{value:.12g}")


def _legible(entry: Range, value: float) -> float:
    """Return ``value`` with no more digits than matter: four significant ones, or of the range's width."""
    if entry.log:
        rounded = float(f"{value:.4g}")
    else:
        rounded = round(value, 4 - math.floor(math.log10(entry.high - entry.low)))
    return min(max(rounded, entry.low), entry.high)


def _listed(entry: Values | Range) -> Iterator[Any]:
    if isinstance(entry, Values):
        yield from entry.values
    else:
        for index in range(_count(entry) or 0):
            yield _at(entry, index)
