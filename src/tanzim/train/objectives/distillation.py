"""Learn from a teacher's distribution over the next token, on documents both models read alike.

Per trained token (1 − α) · cross-entropy + α · τ² · KL at temperature τ (`models.kernels.distil`; Hinton et
al. 2015, arXiv:1503.02531). Prefer it where a larger model of the same family knows the task: a whole
distribution tells more per token than the one right token. The teacher is read only.

Shapes: T tokens, R tokens with a weight, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tanzim.core.errors import TrainError
from tanzim.models.kernels.distil import distillation
from tanzim.models.kernels.loss import RowsLoss, project, projected_loss
from tanzim.train.batches import Batch, Layout
from tanzim.train.objectives.config import DistillationConfig
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.tokens import Document


@dataclass(frozen=True, slots=True)
class Teacher:
    """A frozen model to learn from.

    Args:
        model: a transformers causal LM with the student's vocabulary, on its device.
        hash: SHA-256 of its weights.

    """

    model: nn.Module
    hash: str


class Distillation:
    """The weighted mean of cross-entropy and divergence from a teacher.

    Args:
        model: the student, a transformers causal LM, or a PEFT model around one.
        config: its ``train.objective`` section.
        teacher: the model to learn from.
        autocast: precision of the student's products where it differs from the weights'; None for theirs.

    """

    def __init__(
        self,
        model: nn.Module,
        config: DistillationConfig,
        *,
        teacher: Teacher,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.student = LanguageModel(model, autocast=autocast)
        self.teacher = LanguageModel(teacher.model.eval().requires_grad_(False))
        self.device = self.student.device
        self.autocast = autocast

    @property
    def layout(self) -> Layout:
        """Packed where both models keep packed documents apart."""
        return "packed" if self.student.layout == self.teacher.layout == "packed" else "single"

    def choose(self, documents: Sequence[Document]) -> str:
        """Settle how each model computes, and say it.

        Raises:
            TrainError: a model's own loss is not finite.

        """
        said = [f"student's {self.student.choose(documents)}", f"teacher's {self.teacher.choose(documents)}"]
        return "; ".join(said)

    def loss_sum(self, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """Return scale × Σ weight × loss over the batch's targets, a scalar.

        Raises:
            TrainError: the teacher's logits are not finite.

        """
        batch = batch.to(self.device)
        with torch.no_grad():
            teacher_logits = self._teacher_logits(batch)
        rows_loss = distillation(
            batch.targets_T,
            teacher_logits,
            alpha=self.config.alpha,
            temperature=self.config.temperature,
            kind=self.config.divergence,
        )
        weights_T = batch.weights_T * scale
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            if self.student.way.own_logits:
                return _on_own_logits(self.student.row_logits(batch), weights_T, rows_loss)
            weight_VD, bias_V, softcap = self.student.head()
            return projected_loss(
                self.student.hidden(batch), weight_VD, weights_T, rows_loss, bias_V=bias_V, softcap=softcap
            )

    def _teacher_logits(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """Read the batch; return the function from rows to the teacher's logits there."""
        if self.teacher.way.own_logits:
            logits_RV = self.teacher.row_logits(batch)
            _check_finite(logits_RV, batch)
            place_T = (batch.weights_T != 0).cumsum(0) - 1
            return lambda rows: logits_RV[place_T[rows]]
        hidden_TD, (weight_VD, bias_V, softcap) = self.teacher.hidden(batch), self.teacher.head()
        _check_finite(hidden_TD, batch)
        return lambda rows: project(hidden_TD[rows], weight_VD, bias_V, softcap)


def _on_own_logits(logits_RV: Tensor, weights_T: Tensor, rows_loss: RowsLoss) -> Tensor:
    """Return Σ weight · loss, differentiable through the model's own logits."""
    rows_R = weights_T.nonzero()[:, 0]
    share_R = weights_T[rows_R].to(logits_RV.dtype)
    loss_R, grad_RV = rows_loss(logits_RV.detach().clone(), rows_R)
    # A function of the logits with that value and that gradient.
    tangent = (logits_RV * grad_RV.mul_(share_R[:, None])).sum()
    return tangent - tangent.detach() + loss_R.dot(share_R)


def _check_finite(values: Tensor, batch: Batch) -> None:
    if not torch.isfinite(values.sum()):
        raise TrainError(
            "the teacher's logits are not finite",
            where="; ".join(str(document.provenance) for document in batch.documents[:8]),
            fix="check the teacher, or use model.dtype=float32",
        )
