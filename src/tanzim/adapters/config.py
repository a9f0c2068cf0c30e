"""The ``train.method`` key: what changes in the weights. Each type's file has its formula and its paper."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from tanzim.core.config import Section

Form = Literal["adapter", "model"]
Targets = str | list[str]


class _OnLayers(Section):
    """What methods share that change chosen linear layers."""

    target_modules: Targets = "all-linear"
    """Which linear layers are changed: all-linear, or names (suffixes) such as [q_proj, v_proj]."""


class _LowRank(_OnLayers):
    """What the LoRA family shares."""

    rank: int = Field(16, ge=1)
    """Rank r of B·A."""
    alpha: float = Field(32.0, gt=0, lt=math.inf)
    """Scale: the product is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; 0 allows the one-product form, which is faster."""


class LoraConfig(_LowRank):
    """Low-rank adaptation, W + (alpha / rank) · B·A (Hu et al. 2021, arXiv:2106.09685)."""

    type: Literal["lora"] = "lora"


class RoutedConfig(_LowRank):
    """One LoRA adapter per task, all trained in the same passes (S-LoRA's product, arXiv:2311.03285)."""

    type: Literal["routed"] = "routed"
    tasks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")], str] = Field(min_length=2)
    """Name of each task and where its documents come from: a data file, a folder, or a pattern."""


class RsLoraConfig(_LowRank):
    """LoRA scaled by alpha / √rank, so that high ranks still learn (Kalajdzievski 2023, arXiv:2312.03732)."""

    type: Literal["rslora"] = "rslora"


class DoraConfig(_LowRank):
    """Magnitude and direction apart: m · (W + s·B·A) / ‖W + s·B·A‖ (Liu et al. 2024, arXiv:2402.09353)."""

    type: Literal["dora"] = "dora"


class QloraConfig(_LowRank):
    """LoRA on a base kept in 4 bits (Dettmers et al. 2023, arXiv:2305.14314)."""

    type: Literal["qlora"] = "qlora"
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit data type of the frozen weights; nf4 suits normally distributed ones."""
    double_quant: bool = True
    """Quantise the quantisation constants too: 0.37 bits per parameter less."""


class AdaLoraConfig(_LowRank):
    """LoRA as P·Λ·Q, whose singular values compete for a budget (Zhang et al. 2023, arXiv:2303.10512)."""

    type: Literal["adalora"] = "adalora"
    rank: int = Field(8, ge=1)
    """Average rank per layer at the end."""
    initial_rank: int = Field(12, ge=1)
    """Rank of every layer at the start."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of all steps before the budget begins to shrink."""
    final_share: float = Field(0.3, ge=0, lt=1)
    """Share of all steps at the end that train the final budget."""
    orthogonality: float = Field(0.5, ge=0)
    """Weight of the penalty that keeps P and Q orthogonal."""

    @model_validator(mode="after")
    def _budget_shrinks(self) -> AdaLoraConfig:
        if self.initial_rank <= self.rank:
            raise ValueError(f"initial_rank ({self.initial_rank}) does not exceed rank ({self.rank})")
        if self.warmup_share + self.final_share >= 1:
            raise ValueError("warmup_share and final_share leave no steps for the budget to shrink in")
        return self


class LoraFaConfig(_LowRank):
    """LoRA with A frozen and B's gradient projected (Zhang et al. 2023, arXiv:2308.03303)."""

    type: Literal["lora_fa"] = "lora_fa"


class DyLoraConfig(_LowRank):
    """LoRA that works at every rank up to ``rank`` (Valipour et al. 2022, arXiv:2210.07558)."""

    type: Literal["dylora"] = "dylora"
    min_rank: int = Field(1, ge=1)
    """Lowest rank that is sampled in training."""
    saved_rank: int | None = Field(None, ge=1)
    """Rank the saved adapter is cut to; unset: ``rank``."""

    @model_validator(mode="after")
    def _ranks_in_order(self) -> DyLoraConfig:
        if not self.min_rank <= (self.saved_rank or self.rank) <= self.rank:
            raise ValueError(
                f"min_rank ({self.min_rank}), saved_rank ({self.saved_rank}) and rank ({self.rank}) "
                "must not fall"
            )
        return self


class VeraConfig(_OnLayers):
    """Shared frozen random matrices, trained scaling vectors (Kopiczko et al. 2023, arXiv:2310.11454)."""

    type: Literal["vera"] = "vera"
    rank: int = Field(256, ge=1)
    """Rank of the shared matrices."""
    initial_scale: float = Field(0.1, gt=0, lt=math.inf)
    """First value of the vector between the matrices."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""


class Ia3Config(Section):
    """Learnt factors on keys, values and feed-forward activations (Liu et al. 2022, arXiv:2205.05638)."""

    type: Literal["ia3"] = "ia3"
    target_modules: list[str] | None = None
    """Layers that are multiplied; unset: keys, values and second feed-forward matrix, where known."""
    feedforward_modules: list[str] | None = None
    """Those of them whose inputs, not outputs, are multiplied; unset: the feed-forward matrix."""


class BottleneckConfig(Section):
    """Down, non-linearity and up after attention and feed-forward (Houlsby et al. 2019, arXiv:1902.00751)."""

    type: Literal["bottleneck"] = "bottleneck"
    size: int = Field(64, ge=1)
    """Width of the bottleneck."""
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    """The non-linearity between down and up."""


class PrefixConfig(Section):
    """Learnt keys and values before every layer's own (Li and Liang 2021, arXiv:2101.00190)."""

    type: Literal["prefix"] = "prefix"
    tokens: int = Field(20, ge=1)
    """How many virtual tokens stand before the text."""


class PromptConfig(Section):
    """Learnt input vectors before the text (Lester et al. 2021, arXiv:2104.08691)."""

    type: Literal["prompt"] = "prompt"
    tokens: int = Field(20, ge=1)
    """How many virtual tokens stand before the text."""
    text: str | None = None
    """Words whose embeddings the vectors start from; unset: random tokens of the vocabulary."""


class PTuningConfig(Section):
    """Learnt input vectors made by a small network (Liu et al. 2021, arXiv:2103.10385)."""

    type: Literal["p_tuning"] = "p_tuning"
    tokens: int = Field(20, ge=1)
    """How many virtual tokens stand before the text."""
    encoder_hidden: int = Field(128, ge=1)
    """Width of the network that makes them."""


class BitFitConfig(Section):
    """Only biases are trained; where there are none, norms' scales (Zaken et al. 2021, arXiv:2106.10199)."""

    type: Literal["bitfit"] = "bitfit"


class HftConfig(Section):
    """Half fine-tuning: half of each block category is trained (Hui et al. 2024, arXiv:2404.18466)."""

    type: Literal["hft"] = "hft"
    form: Literal["rounds", "reset"] = "rounds"
    """rounds: a fresh half is trained in each round; reset: all is trained, then half is reset."""
    round_steps: int | None = Field(None, ge=1)
    """Optimiser steps of a round; unset: an epoch."""


class SpielConfig(_OnLayers):
    """Sparse differences whose places are dropped and grown (Ansell et al. 2024, arXiv:2401.16405)."""

    type: Literal["spiel"] = "spiel"
    density: float = Field(0.01, gt=0, le=1)
    """Share of each matrix's entries that may differ from the base."""
    regrow_steps: int = Field(20, ge=1)
    """Optimiser steps between two replacements of places."""
    growth_steps: int = Field(5, ge=1)
    """Over how many steps before a replacement gradients are summed."""
    regrow_share: float = Field(0.2, ge=0, lt=1)
    """Share of the places that is replaced each time; it falls linearly to none at the last step."""

    @model_validator(mode="after")
    def _sums_between(self) -> SpielConfig:
        if self.growth_steps > self.regrow_steps:
            raise ValueError(
                f"growth_steps ({self.growth_steps}) is more than regrow_steps ({self.regrow_steps})"
            )
        return self


class FullConfig(Section):
    """Every weight is trained, or those of chosen layers."""

    type: Literal["full"] = "full"
    last_layers: int | None = Field(None, ge=1)
    """Train the last so many layers, the last norm and the output projection only; unset: everything."""
    freeze: list[str] = Field(default_factory=list)
    """Parameters that stay as they are: parts of their names, such as embed_tokens or layers.0."""


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``lora`` where no type is given, so that ``train.method.rank=8`` works on its own."""
    return value.get("type", "lora") if isinstance(value, dict) else getattr(value, "type", None)


MethodConfig = Annotated[
    Annotated[LoraConfig, Tag("lora")]
    | Annotated[RsLoraConfig, Tag("rslora")]
    | Annotated[RoutedConfig, Tag("routed")]
    | Annotated[DoraConfig, Tag("dora")]
    | Annotated[QloraConfig, Tag("qlora")]
    | Annotated[AdaLoraConfig, Tag("adalora")]
    | Annotated[LoraFaConfig, Tag("lora_fa")]
    | Annotated[DyLoraConfig, Tag("dylora")]
    | Annotated[VeraConfig, Tag("vera")]
    | Annotated[Ia3Config, Tag("ia3")]
    | Annotated[BottleneckConfig, Tag("bottleneck")]
    | Annotated[PrefixConfig, Tag("prefix")]
    | Annotated[PromptConfig, Tag("prompt")]
    | Annotated[PTuningConfig, Tag("p_tuning")]
    | Annotated[BitFitConfig, Tag("bitfit")]
    | Annotated[HftConfig, Tag("hft")]
    | Annotated[SpielConfig, Tag("spiel")]
    | Annotated[FullConfig, Tag("full")],
    Discriminator(_type),
]


def form(config: MethodConfig) -> Form:
    """Tell what a method leaves behind: an adapter beside the base, or a whole model."""
    return "model" if config.type in ("full", "hft") else "adapter"
