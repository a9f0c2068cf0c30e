"""Make the objective that the config names: a dictionary, no registry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tanzim.train.objectives.base import Objective
from tanzim.train.objectives.classification import Classification, TokenClassification
from tanzim.train.objectives.config import ObjectiveConfig
from tanzim.train.objectives.contrastive import Contrastive
from tanzim.train.objectives.distillation import Distillation, Teacher
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.objectives.seq2seq import Seq2Seq

Make = Callable[..., Objective]

OBJECTIVES: dict[str, Make] = {
    "language_model": LanguageModel,
    "classification": Classification,
    "token_classification": TokenClassification,
    "seq2seq": Seq2Seq,
    "contrastive": Contrastive,
    "distillation": Distillation,
    "sequence_distillation": LanguageModel,  # its documents hold the teacher's answers
}


def make_objective(
    model: nn.Module,
    config: ObjectiveConfig,
    *,
    autocast: torch.dtype | None = None,
    teacher: Teacher | None = None,
) -> Objective:
    """Make the objective of ``config`` for ``model``.

    Args:
        model: what is trained, as its method prepared it.
        config: the ``train.objective`` section.
        autocast: precision of the products where it differs from the weights'; None for theirs.
        teacher: the model to learn from, for the objectives that have one.

    """
    further = {} if teacher is None else {"teacher": teacher}
    return OBJECTIVES[config.type](model, config, autocast=autocast, **further)
