"""AdaLoRA: layers compete for rank; the singular values that matter least are set to zero.

W' = W + (alpha / r₀) · P·Λ·Q (Zhang et al. 2023, arXiv:2303.10512). Every triplet of a column of P, a
value of Λ and a row of Q has an importance, from smoothed |weight · gradient| and its uncertainty. The
budget falls from the initial to the final average rank by a cubic schedule, and each step keeps the
triplets with the highest importance over all layers. λ · mean(‖PᵀP − I‖ + ‖QQᵀ − I‖) is added to the
loss. Prefer it where the number of parameters is given and it is unknown which layers need them.
peft's modules and its rank allocator compute it; its schedule is set from the run's length here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tanzim.adapters.config import AdaLoraConfig
from tanzim.adapters.heads import task_settings
from tanzim.adapters.lora import targets, transposed, whole, wrap_seeded
from tanzim.adapters.method import Method
from tanzim.core.errors import TrainError

FEWEST_STEPS = 2  # one to learn the importances, one to choose by them
SENSITIVITY, UNCERTAINTY, KEPT = "sensitivity", "uncertainty", "kept"


class AdaLora(Method):
    """LoRA with a shared rank budget.

    Args:
        model: what `attach` made.
        config: the method's settings.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    """

    def __init__(self, model: Any, config: AdaLoraConfig, *, base_hash: str, base_name: str) -> None:  # noqa: ANN401
        super().__init__(model, base_hash=base_hash, base_name=base_name)
        self._config = config
        self._tuner: Any = model.base_model
        self._settings: Any = model.peft_config["default"]
        self._named: dict[str, Tensor] = dict(self._tuner.model.named_parameters())
        self._trained = [
            name for name, value in self._named.items() if "lora_" in name and value.requires_grad
        ]
        self._values = [name for name in self._trained if "lora_E" in name]

    def before_step(self, step: int, total: int) -> None:
        """Set the budget's schedule from the run's length.

        Raises:
            TrainError: the run is too short for a budget to shrink in.

        """
        if total < FEWEST_STEPS:
            raise TrainError(
                f"adalora needs at least {FEWEST_STEPS} optimiser steps to divide its budget, not {total}",
                where="train.method.type",
                fix="raise train.epochs or train.max_steps, or lower train.tokens_per_step",
            )
        final = max(1, round(self._config.final_share * total))
        warmup = min(round(self._config.warmup_share * total), total - final - 1)
        self._settings.total_step, self._settings.tfinal, self._settings.tinit = total, final, warmup

    def penalty(self) -> Tensor | None:
        """Return the orthogonality penalty on P and Q."""
        distances = []
        for name in self._trained:
            if "lora_E" not in name:
                p = self._named[name]
                gram_RR = p @ p.T if "lora_A" in name else p.T @ p
                distances.append(torch.linalg.norm(gram_RR - torch.eye(len(gram_RR), device=p.device)))
        return self._config.orthogonality * torch.stack(distances).mean()

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Update the importances and set the values beyond the budget to zero."""
        for name in self._trained:
            value = self._named[name]
            if value.grad is None:  # no token came by, such as in an expert
                value.grad = torch.zeros_like(value)
            # A step that float16 skipped leaves infinities.
            value.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self._tuner.update_and_allocate(step)

    def state(self) -> dict[str, Tensor]:
        """Return the importances, and which values are kept."""
        allocator, pattern = self._tuner.rankallocator, self._settings.rank_pattern or {}
        state = {}
        for name in self._trained:
            for kind, known in ((SENSITIVITY, allocator.exp_avg_ipt), (UNCERTAINTY, allocator.exp_avg_unc)):
                value = known.get(name)
                state[f"{name}.{kind}"] = torch.zeros_like(self._named[name]) if value is None else value
        for name in self._values:
            ranks = self._named[name].shape[0]
            state[f"{name}.{KEPT}"] = torch.tensor(pattern.get(name, [True] * ranks))
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        allocator = self._tuner.rankallocator
        for name in self._trained:
            device = self._named[name].device
            allocator.ipt[name] = torch.zeros_like(self._named[name])
            allocator.exp_avg_ipt[name] = state[f"{name}.{SENSITIVITY}"].to(device)
            allocator.exp_avg_unc[name] = state[f"{name}.{UNCERTAINTY}"].to(device)
        self._settings.rank_pattern = {name: state[f"{name}.{KEPT}"].tolist() for name in self._values}

    def finish(self) -> str:
        """Say how the budget was divided."""
        pattern = self._settings.rank_pattern or {}
        ranks = [sum(kept) for kept in pattern.values()] or [self._config.initial_rank]
        return (
            f"adalora divided its budget: ranks {min(ranks)} to {max(ranks)}, "
            f"{sum(ranks) / len(ranks):.1f} on average"
        )

    def save(self, folder: Path) -> None:
        """Write the adapter, cut to the kept values."""
        pattern = self._settings.rank_pattern
        try:
            super().save(folder)
        finally:
            self._settings.rank_pattern = pattern  # saving leaves it under other names


def attach(
    model: PreTrainedModel, config: AdaLoraConfig, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Add an AdaLoRA adapter to ``model``.

    Args:
        model: the base model; its modules are replaced in place.
        config: ranks, schedule and penalty.
        seed: the run's seed; P and Q are drawn from it, Λ is zero.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: a named layer does not exist, or cannot be adapted.

    """
    settings = peft.AdaLoraConfig(
        **task_settings(model),
        init_r=config.initial_rank,
        target_r=config.rank,
        lora_alpha=whole(config.alpha),  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=targets(model, config.target_modules),
        fan_in_fan_out=transposed(model),
        orth_reg_weight=config.orthogonality,
        total_step=FEWEST_STEPS,  # until the first step, which knows
        tfinal=1,
    )
    adapted = wrap_seeded(model, settings, seed)
    return AdaLora(adapted, config, base_hash=base_hash, base_name=base_name)
