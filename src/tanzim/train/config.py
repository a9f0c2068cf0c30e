"""The ``train`` section of ``tanzim.yaml``."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from tanzim.adapters.config import LoraConfig, MethodConfig
from tanzim.core.config import Section
from tanzim.train.objectives.config import LanguageModelConfig, ObjectiveConfig

Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]


class AdamWConfig(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

    type: Literal["adamw"] = "adamw"
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-8, gt=0, lt=1)
    """Guard against division by zero."""


OptimizerConfig = AdamWConfig


class TrainConfig(Section):
    """How the weights are changed."""

    method: MethodConfig = LoraConfig()
    """What changes in the weights: LoRA unless another type is named."""
    objective: ObjectiveConfig = LanguageModelConfig()
    """What is learnt: the next token unless another type is named."""
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
    learning_rate: float = Field(2e-4, gt=0, le=1)
    """Peak step size (the guide's and the field's usual start for LoRA)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear rise to the peak; unset: 3 % of all steps."""
    weight_decay: float = Field(0.0, ge=0, lt=1)
    """Weight decay, on matrices only."""
    optimizer: OptimizerConfig = AdamWConfig()
    """How gradients become steps."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this L2 norm."""
    eval_steps: int | None = Field(None, ge=1)
    """Evaluate every so many steps, besides at each epoch's end; unset: about ten times a run."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations without a better validation loss."""
    save_steps: int | None = Field(None, ge=1)
    """Checkpoint every so many steps; unset: with each evaluation."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the latest checkpoints stay, besides the best."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    trackers: list[Tracker] = Field(default_factory=list)
    """Where metrics go besides metrics.jsonl."""

    @model_validator(mode="after")
    def _pass_fits_step(self) -> TrainConfig:
        if self.tokens_per_pass > self.tokens_per_step:
            raise ValueError(
                f"tokens_per_pass ({self.tokens_per_pass}) exceeds tokens_per_step ({self.tokens_per_step})"
            )
        return self
