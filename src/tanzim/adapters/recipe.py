"""How adapters are combined, as values that are checked before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from tanzim.core.errors import ConfigError
from tanzim.core.records import Json

Mode = Literal[
    "cat", "linear", "svd", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd"
]
MODES: tuple[Mode, ...] = (
    "cat",
    "svd",
    "linear",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How adapters are combined.

    Args:
        mode: one of `MODES`.
        weights: one per adapter; the larger favours its adapter.
        density: share of numbers that TIES and DARE keep.
        rank: rank of the result of the SVD modes; None takes the highest of the adapters.
        seed: DARE's draws are derived from it.

    Raises:
        ConfigError: a value cannot be used.

    """

    mode: Mode
    weights: tuple[float, ...]
    density: float = 0.5
    rank: int | None = None
    seed: int = 13

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"there is no way '{self.mode}' to combine", fix=f"one of {', '.join(MODES)}")
        if not self.weights or not all(map(math.isfinite, self.weights)) or not any(self.weights):
            raise ConfigError(f"the weights {list(self.weights)} must be finite numbers, not all zero")
        if not 0 < self.density <= 1:
            raise ConfigError(f"density must be above 0 and at most 1, not {self.density}")
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"the rank must be at least 1, not {self.rank}")

    def to_json(self) -> Json:
        """Return what decides the result, as plain JSON values."""
        value: Json = {"combined": self.mode, "weights": list(self.weights)}
        if self.mode.startswith(("ties", "dare")):
            value["density"] = self.density
        if self.mode.startswith("dare"):
            value["seed"] = self.seed
        return value if self.rank is None else value | {"rank": self.rank}


def make_recipes(
    modes: Sequence[Mode],
    weights: Sequence[Sequence[float]],
    *,
    density: float = 0.5,
    rank: int | None = None,
    seed: int = 13,
) -> list[Recipe]:
    """Return every mode with every set of weights.

    Args:
        modes: ways of combining (`tanzim.adapters.combine`).
        weights: sets of one weight per adapter.
        density: share of numbers that TIES and DARE keep.
        rank: rank of the results of the SVD modes; the others decide it themselves.
        seed: chooses what DARE drops.

    Raises:
        ConfigError: a value cannot be used.

    """
    return [
        Recipe(mode, tuple(map(float, given)), density, rank if mode.endswith("svd") else None, seed)
        for mode, given in product(modes, weights)
    ]
