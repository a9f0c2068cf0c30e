"""Half fine-tuning: half of every layer's blocks learns, the other half keeps what it knew.

θ = {ϑ, ψ}: ϑ ← ϑ − η·∇L(θ), ψ ← ψ (Hui et al. 2024, arXiv:2404.18466). As there, the halves are whole
matrices of a category: of the attention's matrices in each layer half (two of four); of the feed-forward
ones half, where their number is odd one more in a random half of the layers than in the others (two of
three here, one there); of the norms likewise. Biases go with their matrix. Embeddings and the output
projection are always trained, as is whatever else stands outside the layers.

``rounds`` freezes a fresh half in each round (an epoch, in the paper): it gets no gradient, no update,
no weight decay, and no optimiser moments, which start anew when it is thawed. ``reset`` trains
everything, and at the end puts a half back to the pre-trained values bit for bit. Prefer it to full
fine-tuning where the base's other abilities must survive; `reset` also where a finished full
fine-tuning forgot too much.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tanzim.adapters.blocks import blocks
from tanzim.adapters.config import HftConfig
from tanzim.adapters.method import Method, refuse_shards
from tanzim.adapters.store import save_model
from tanzim.core.errors import ModelError
from tanzim.core.records import Json
from tanzim.core.seeds import derive

# Of every layer: for each category, the parts of it; a part is the names of its parameters.
Categories = list[tuple[dict[str, tuple[str, ...]], ...]]


def attach(model: Any, config: HftConfig, *, seed: int, base_hash: str, base_name: str) -> Method:  # noqa: ANN401
    """Let the weights of ``model`` be trained by halves.

    Args:
        model: a transformers model.
        config: which form, and how long a round is.
        seed: the run's seed; the halves of a round are drawn from it.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: the model's layers could not be told apart.

    """
    model.requires_grad_(True)
    kind = HalfRounds if config.form == "rounds" else HalfReset
    return kind(model, config, seed=seed, base_hash=base_hash, base_name=base_name)


class _Halves(Method):
    """What both forms share: the parts of the layers, and halves of them by seed."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a transformers model
        config: HftConfig,
        *,
        seed: int,
        base_hash: str,
        base_name: str,
    ) -> None:
        super().__init__(model, base_hash=base_hash, base_name=base_name)
        self.config = config
        self.seed = seed
        self.categories = categories(model, self.parameters)

    def half(self, *names: str | int) -> set[str]:
        """Return the parameters of the half drawn from the seed under ``names``."""
        parts = halves(self.categories, derive(self.seed, "hft", *names))
        return {name for part in parts for name in self._parts[part]}

    @property
    def _parts(self) -> dict[str, tuple[str, ...]]:
        return {path: names for layer in self.categories for kind in layer for path, names in kind.items()}

    def facts(self) -> Json:
        """Return what the saved model's ``tanzim.json`` says of the method."""
        return {**self.config.model_dump(mode="json"), "seed": self.seed}

    def save(self, folder: Path) -> None:
        """Write the whole model, and which halves it was trained by."""
        model: Any = self.model
        save_model(model, folder, base_hash=self.base_hash, base_name=self.base_name, method=self.facts())


class HalfRounds(_Halves):
    """A fresh half is frozen in every round."""

    def __init__(self, model: Any, config: HftConfig, **identity: Any) -> None:  # noqa: ANN401
        super().__init__(model, config, **identity)
        self._begun = 0  # rounds
        self._frozen_for: int | None = None  # the round whose half is frozen now
        self._steps = config.round_steps
        self._optimizer: Optimizer | None = None
        self._say: Callable[[int, str], None] = lambda step, message: None

    def begin(self, *, optimizer: Optimizer, steps_in_epoch: int, say: Callable[[int, str], None]) -> None:
        """Take an epoch for a round where the config names no length."""
        refuse_shards(self.parameters.values(), "half fine-tuning in rounds")
        self._optimizer, self._say = optimizer, say
        self._steps = self.config.round_steps or steps_in_epoch

    def before_step(self, step: int, total: int) -> None:
        """Freeze the other half where a round begins."""
        assert self._steps is not None, "begin comes first"
        number = step // self._steps
        if number == self._frozen_for:
            return
        self._begun, self._frozen_for = number + 1, number
        frozen = self.half("round", number)
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name not in frozen)
            if name in frozen and self._optimizer is not None:
                self._optimizer.state.pop(parameter, None)
        if step % self._steps == 0:
            self._say(step + 1, f"half fine-tuning, round {number + 1}: {self._summary(frozen)}")

    def state(self) -> dict[str, Tensor]:
        """Return how many rounds were begun."""
        return {"rounds": torch.tensor(self._begun)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Know how many rounds were begun; the step that comes draws its half again."""
        self._begun, self._frozen_for = int(state["rounds"]), None

    def facts(self) -> Json:
        """Add what each round froze."""
        return {
            **super().facts(),
            "frozen": [sorted(self.half("round", number)) for number in range(self._begun)],
        }

    def _summary(self, frozen: set[str]) -> str:
        count = sum(self.parameters[name].numel() for name in frozen)
        share = count / sum(parameter.numel() for parameter in self.parameters.values())
        paths = [path for path, names in self._parts.items() if not frozen.intersection(names)]
        return f"{share:.1%} of the weights are frozen; trained in the layers: {_by_kind(paths)}"


class HalfReset(_Halves):
    """All is trained, and half is put back at the end."""

    def __init__(self, model: Any, config: HftConfig, **identity: Any) -> None:  # noqa: ANN401
        super().__init__(model, config, **identity)
        chosen = sorted(self.half("reset"))
        self._before = {name: self.parameters[name].detach().clone() for name in chosen}

    @torch.no_grad()
    def finish(self) -> str:
        """Put the drawn half back to its pre-trained values."""
        for name, value in self._before.items():
            self.parameters[name].copy_(value)
        paths = [path for path, names in self._parts.items() if self._before.keys() & set(names)]
        return f"half fine-tuning: reset to the pre-trained values: {_by_kind(paths)}"

    def facts(self) -> Json:
        """Add what is reset."""
        return {**super().facts(), "reset": sorted(self._before)}


def categories(model: Any, names: Iterable[str]) -> Categories:  # noqa: ANN401 - a transformers model
    """Sort the parameters inside the layers into attention, feed-forward and norms.

    Args:
        model: a transformers model.
        names: its parameters.

    Raises:
        ModelError: the model's layers could not be told apart, or have no matrices.

    """
    known = list(names)

    def parts(modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
        return {path: tuple(n for n in known if n.rpartition(".")[0] == path) for path in modules}

    found: Categories = [
        (parts(block.attention), parts(block.feed_forward), parts(block.norms)) for block in blocks(model)
    ]
    if not any(kind for layer in found for kind in layer[:2]):
        raise ModelError(
            "no linear layers were found inside the model's layers",
            where="train.method.type",
            fix="use train.method.type full",
        )
    return found


def halves(found: Categories, seed: int) -> list[str]:
    """Draw half of each category's parts in every layer.

    Where a layer has an odd number of them, half of the layers (drawn, too) give one more than the others.

    Args:
        found: the parts of every layer by category.
        seed: decides everything.

    Returns:
        The paths of the parts drawn.

    """
    draw = random.Random(seed)
    drawn: list[str] = []
    for kind in zip(*found, strict=True):
        odd = [index for index, parts in enumerate(kind) if len(parts) % 2]
        more = set(draw.sample(odd, len(odd) // 2 + (len(odd) % 2 and draw.randrange(2))))
        for index, parts in enumerate(kind):
            drawn += sorted(draw.sample(sorted(parts), len(parts) // 2 + (index in more)))
    return drawn


def _by_kind(paths: Sequence[str]) -> str:
    """Say paths in short: each kind of part with its layers, such as self_attn.q_proj 0, 2-5."""
    kinds: dict[str, list[int]] = {}
    for path in paths:
        pieces = path.split(".")
        place = next(index for index, piece in enumerate(pieces) if piece.isdigit())
        kinds.setdefault(".".join(pieces[place + 1 :]), []).append(int(pieces[place]))
    return "; ".join(f"{kind} {_ranges(sorted(numbers))}" for kind, numbers in kinds.items())


def _ranges(numbers: Sequence[int]) -> str:
    """Write 0, 1, 2, 5 as 0-2, 5."""
    breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(numbers)) if b != a + 1), len(numbers)]
    runs = [numbers[start:end] for start, end in pairwise(breaks)]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
