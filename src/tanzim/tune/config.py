"""The ``search`` section of ``tanzim.yaml``."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tanzim.core.config import Section


class Values(Section):
    """A key that takes one of these values."""

    values: list[Any] = Field(min_length=1)
    """The values; any YAML, whole subsections too."""

    @field_validator("values")
    @classmethod
    def _each_once(cls, values: list[Any]) -> list[Any]:
        try:
            texts = [json.dumps(value, sort_keys=True, allow_nan=False) for value in values]
        except (TypeError, ValueError) as error:
            raise ValueError("values are numbers, texts, true, false, null, lists or keys") from error
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice")
        return values

    @property
    def extremes(self) -> list[Any]:
        """All values: none of them lies between the others."""
        return self.values


class Range(Section):
    """A key that takes a number between two ends (both included)."""

    low: int | float
    """The lower end. Whole ends search whole numbers alone: write 0.0 for fractions."""
    high: int | float
    """The upper end."""
    log: bool = False
    """Draw evenly by size (0.001 to 0.01 as often as 0.01 to 0.1), as suits learning rates."""
    step: int | float | None = None
    """Only low, low + step, low + 2 · step…; a grid needs it, unless both ends are whole."""

    @model_validator(mode="after")
    def _a_range(self) -> Range:
        if not all(math.isfinite(value) for value in (self.low, self.high, self.step or 0)):
            raise ValueError("the ends and the step must be finite")
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude one another; list the values instead")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step ({self.step}) must be above 0 and at most high - low")
        return self

    @property
    def extremes(self) -> list[Any]:
        """The ends, between which all values lie."""
        return [self.low, self.high]

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are searched."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 0))


def _kind(value: Any) -> str:  # noqa: ANN401 - any YAML value
    listed = "values" in value if isinstance(value, dict) else isinstance(value, Values)
    return "values" if listed else "range"


Entry = Annotated[Annotated[Values, Tag("values")] | Annotated[Range, Tag("range")], Discriminator(_kind)]


class SearchConfig(Section):
    """Which settings are tried, how they are chosen, and when a trial is given up."""

    method: Literal["grid", "random", "bayesian", "halving"] = "bayesian"
    """grid: every combination; random: drawn evenly; bayesian: TPE, which learns from the trials before;
    halving: random, and only the best share of the trials goes on at each rung."""
    space: dict[str, Entry] = Field(default_factory=dict)
    """Config key → {values: […]}, {low, high, log: true} or {low, high, step}."""
    trials: int = Field(20, ge=1)
    """Most trials; a grid must fit into them. A finished search goes on where this is raised."""
    trial: dict[str, Any] = Field(default_factory=dict)
    """Config key → value for the trials alone, such as train.max_steps: 50; the winner goes without."""
    metric: str = "loss"
    """What trials are compared by, on the validation set: loss, or a metric that evaluate.metrics knows."""
    pruning: Literal["auto", "none", "median", "halving"] = "auto"
    """When a trial ends early; auto: none for a grid, halving for halving, else median."""
    startup: int = Field(6, ge=1)
    """Trials that bayesian draws at random, and that must be complete before median compares with them."""
    first: int = Field(10, ge=1)
    """Where pruning begins, and halving's first rung, in percent of a trial's steps."""
    reduction: int = Field(3, ge=2)
    """Halving: the rung after r is at r · reduction, and one of so many trials goes on from each."""
    engine: Literal["local", "ray"] = "local"
    """local: one trial after another in this process; ray: several at once through Ray Tune."""
    parallel: int = Field(1, ge=1)
    """Trials at once (ray)."""
    keep: Literal["all", "best"] = "all"
    """all keeps what every trial trained, for comparison; best removes the weights of the others."""
    finish: bool = False
    """Train the winner's config afterwards, without the values of search.trial."""

    @model_validator(mode="after")
    def _one_plan(self) -> SearchConfig:
        if self.method == "halving" and self.pruning not in ("auto", "halving"):
            raise ValueError("method halving prunes by halving; method random takes other pruning")
        if self.parallel > 1 and self.engine != "ray":
            raise ValueError(f"parallel={self.parallel} needs engine=ray")
        if twice := sorted(self.space.keys() & self.trial.keys()):
            raise ValueError(f"'{twice[0]}' stands both in space and in trial")
        return self
