"""Knowledge distillation on trained tokens: a teacher's distribution beside the right next token.

Per token (1 − α) · cross-entropy + α · τ² · KL, where both softmaxes of the divergence are taken at
temperature τ, and τ² keeps its gradient's size when τ changes (Hinton et al. 2015, arXiv:1503.02531).
The divergence is forward, KL(teacher ‖ student), which covers all the teacher holds possible; or reverse,
KL(student ‖ teacher), which keeps to what the teacher holds likely (MiniLLM, Gu et al. 2023,
arXiv:2306.08543). As in `loss`, no logits are kept: each chunk becomes its gradient at once.

Legend: T tokens, R rows of a chunk, D hidden size of the student, E of the teacher, V vocabulary of the
student, U of the teacher, S the tokens both know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tanzim.models.kernels.loss import RowsLoss, cross_entropy

Divergence = Literal["forward", "reverse"]


def divergence(
    student_RV: Tensor, teacher_RU: Tensor, *, temperature: float, kind: Divergence
) -> tuple[Tensor, Tensor]:
    """Return τ² · KL of each row [R], and its gradient with respect to the student's logits [R, V].

    Vocabularies padded to different sizes are compared on the first min(V, U) tokens.

    Args:
        student_RV: the student's logits.
        teacher_RU: the teacher's logits.
        temperature: τ, above 0.
        kind: forward, KL(teacher ‖ student), or reverse, KL(student ‖ teacher).

    """
    shared = min(student_RV.shape[1], teacher_RU.shape[1])
    student_RS = (student_RV[:, :shared] / temperature).log_softmax(-1)
    teacher_RS = (teacher_RU[:, :shared].to(student_RV.dtype) / temperature).log_softmax(-1)
    if kind == "forward":
        share_RS = teacher_RS.exp()
        loss_R = (share_RS * (teacher_RS - student_RS)).sum(-1)
        grad_RS = student_RS.exp().sub_(share_RS)
    else:
        share_RS = student_RS.exp()
        ratio_RS = student_RS.sub_(teacher_RS)
        loss_R = (share_RS * ratio_RS).sum(-1)
        grad_RS = ratio_RS.sub_(loss_R[:, None]).mul_(share_RS)
    grad_RV = torch.zeros_like(student_RV)
    grad_RV[:, :shared] = grad_RS.mul_(temperature)
    return loss_R * temperature**2, grad_RV


def distillation(
    targets_T: Tensor,
    teacher_logits: Callable[[Tensor], Tensor],
    *,
    alpha: float,
    temperature: float,
    kind: Divergence,
) -> RowsLoss:
    """Return the loss of a chunk for `projected_loss`.

    Args:
        targets_T: the right next token of each position.
        teacher_logits: rows [R] → the teacher's logits [R, U].
        alpha: weight of the divergence; the cross-entropy's is 1 − alpha.
        temperature: τ.
        kind: which divergence.

    """

    def rows_loss(logits_RV: Tensor, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        loss_R, grad_RV = divergence(logits_RV, teacher_logits(rows_R), temperature=temperature, kind=kind)
        loss_R, grad_RV = alpha * loss_R, grad_RV.mul_(alpha)
        if alpha == 1:
            return loss_R, grad_RV
        hard_R, hard_RV = cross_entropy(logits_RV, targets_T[rows_R])
        return loss_R + (1 - alpha) * hard_R, grad_RV.add_(hard_RV, alpha=1 - alpha)

    return rows_loss
