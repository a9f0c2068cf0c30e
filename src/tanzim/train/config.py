"""The ``train`` section of ``tanzim.yaml``."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from tanzim.adapters.config import LoraConfig, MethodConfig
from tanzim.core.config import Section
from tanzim.train.objectives.config import LanguageModelConfig, ObjectiveConfig
from tanzim.train.optimizer_config import AdamWConfig, OptimizerConfig, step_capacity, usual_rate

Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]


# These compute with gradients that stay until all of them are there.
_NEED_GRADIENTS = ("adalora", "lora_fa", "spiel", "dylora")

# These are other layers in every step or pass; or they reach into a cache.
_NOT_COMPILED = {
    "dylora": "draws a rank for every step",
    "routed": "divides every row among its tasks",
    "prefix": "puts its keys and values into a cache",
    "hft": "trains other weights in every round",
    "spiel": "looks at whole gradients in the middle of the backward pass",
}

# These send the tokens of documents through the model in the order of the row.
_ROW_BY_ROW = ("language_model", "distillation", "sequence_distillation")


class TrainConfig(Section):
    """How the weights are changed."""

    method: MethodConfig = LoraConfig()
    """What changes in the weights: LoRA unless another type is named."""
    objective: ObjectiveConfig = LanguageModelConfig()
    """What is learnt: the next token unless another type is named."""
    optimizer: OptimizerConfig = AdamWConfig()
    """How gradients become steps: AdamW unless another type is named."""
    epochs: float = Field(1.0, gt=0, lt=math.inf)
    """Passes over the training set; max_steps, if set, ends earlier."""
    max_steps: int | None = Field(None, ge=1)
    """Most optimiser steps."""
    tokens_per_step: int = Field(2048, ge=1)
    """Tokens (padding-free) whose gradients make one optimiser step."""
    tokens_per_pass: int = Field(2048, ge=1)
    """Tokens per forward pass (the micro-batch); lowered by itself when memory runs out."""
    packing: bool = True
    """Fill each pass with several documents, isolated from one another."""
    balanced_batches: bool = False
    """Draw the classes evenly in every step; rare documents come several times an epoch (classification)."""
    learning_rate: float = Field(default_factory=usual_rate, gt=0, le=1)
    """Peak step size; unset: the optimiser's usual one (2e-4 for AdamW, the field's start for LoRA)."""
    schedule: Literal["linear", "cosine", "wsd", "constant"] = "linear"
    """How the learning rate falls after the warm-up; wsd holds it and falls at the end (arXiv:2404.06395)."""
    decay_share: float = Field(0.2, gt=0, le=1)
    """Share of all steps in which the learning rate of wsd falls."""
    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear rise to the peak; unset: 3 % of all steps."""
    weight_decay: float = Field(0.0, ge=0, lt=1)
    """Weight decay, on matrices only."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this L2 norm."""
    neftune_alpha: float | None = Field(None, gt=0, lt=math.inf)
    """Uniform noise on the embeddings of this size / √(tokens · width) (arXiv:2310.05914); 5 is usual."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Evaluate and save a moving average of the weights with this decay, such as 0.99; unset: no average."""
    watch_steps: int = Field(10, ge=1)
    """Log gradient norms by layer, and the gradient noise, every so many steps."""
    eval_steps: int | None = Field(None, ge=1)
    """Evaluate every so many steps, besides at each epoch's end; unset: about ten times a run."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations without a better validation loss."""
    save_steps: int | None = Field(None, ge=1)
    """Checkpoint every so many steps; unset: with each evaluation."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the latest checkpoints stay, besides the best."""
    keep_epochs: int = Field(0, ge=0)
    """Of how many of the latest epochs the adapter stays as it was, in epochs/, besides the chosen one."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    offload_activations: bool = False
    """Keep what recomputed layers start from in main memory until the backward pass; CUDA only."""
    compile: bool = False
    """Let torch.compile make the layers' kernels: minutes at the start, then fewer passes over memory."""
    trackers: list[Tracker] = Field(default_factory=list)
    """Where metrics go besides metrics.jsonl."""

    @property
    def step_tokens(self) -> int:
        """Most tokens of a step, as the optimiser has it."""
        return step_capacity(self.optimizer, self.tokens_per_step)

    @model_validator(mode="after")
    def _pass_fits_step(self) -> TrainConfig:
        if self.optimizer.type not in ("gd", "sgd") and self.tokens_per_pass > self.tokens_per_step:
            raise ValueError(
                f"tokens_per_pass ({self.tokens_per_pass}) exceeds tokens_per_step ({self.tokens_per_step})"
            )
        return self

    @model_validator(mode="after")
    def _balance_has_classes(self) -> TrainConfig:
        if self.balanced_batches and self.objective.type != "classification":
            raise ValueError(
                "balanced_batches draws documents by their one label, which "
                f"objective.type={self.objective.type} does not give them"
            )
        return self

    @model_validator(mode="after")
    def _average_fits(self) -> TrainConfig:
        if self.ema_decay and self.method.type == "spiel":
            raise ValueError(
                "ema_decay averages each value over time, and method.type=spiel moves values to other "
                "places; take one of the two"
            )
        return self

    @model_validator(mode="after")
    def _offload_has_inputs(self) -> TrainConfig:
        if self.offload_activations and not self.gradient_checkpointing:
            raise ValueError(
                "offload_activations moves what recomputed layers start from, and gradient_checkpointing is "
                "false; set it to true as well"
            )
        if self.offload_activations and self.optimizer.type == "mezo":
            raise ValueError(
                "optimizer.type=mezo has no backward pass and keeps no activations; set "
                "offload_activations to false"
            )
        return self

    @model_validator(mode="after")
    def _compiles(self) -> TrainConfig:
        if self.compile and self.method.type in _NOT_COMPILED:
            raise ValueError(
                f"method.type={self.method.type} {_NOT_COMPILED[self.method.type]}, which cannot be compiled "
                "once for all; set compile to false"
            )
        if self.compile and self.optimizer.type == "mezo":
            raise ValueError(
                "compile makes kernels for passes with gradients, and optimizer.type=mezo has none; set "
                "compile to false"
            )
        if self.compile and self.objective.type not in _ROW_BY_ROW:
            raise ValueError(
                "compile takes the layers of models that predict the next token, and "
                f"objective.type={self.objective.type} may have others; set compile to false"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_fits(self) -> TrainConfig:
        optimizer, method = self.optimizer.type, self.method.type
        if optimizer in ("lomo", "mezo") and method in _NEED_GRADIENTS:
            raise ValueError(
                f"method.type={method} computes with all gradients, and optimizer.type={optimizer} "
                "never has them together; take another of the two"
            )
        if method == "routed" and self.objective.type not in _ROW_BY_ROW:
            raise ValueError(
                "method.type=routed needs documents packed in rows, which "
                f"objective.type={self.objective.type} does not have; train one run per task"
            )
        if optimizer in ("lomo", "mezo") and self.objective.type == "contrastive":
            raise ValueError(
                "objective.type=contrastive looks at the pairs of a step together, and "
                f"optimizer.type={optimizer} does not; take another optimiser"
            )
        if self.neftune_alpha is not None and method in ("prompt", "p_tuning"):
            raise ValueError(
                f"neftune_alpha disturbs the embeddings of a text, and method.type={method} puts learnt "
                "vectors among them; take one of the two"
            )
        if optimizer == "lomo" and (not self.packing or self.tokens_per_pass != self.tokens_per_step):
            raise ValueError(
                "optimizer.type=lomo changes each weight during the backward pass, so a step is one pass: "
                f"set tokens_per_pass ({self.tokens_per_pass}) to tokens_per_step ({self.tokens_per_step}), "
                "and packing to true"
            )
        return self
