"""The next token: hidden states from the decoder, vocabulary projected for trained tokens only.

−Σ wₜ·log p(xₜ | x₍<ₜ₎), the loss of continued pre-training (all tokens count) and of instruction tuning
(the answer's tokens count; Ouyang et al. 2022, arXiv:2203.02155).

Which way a model allows is not guessed from its name: at the start the loss of a few short documents
is computed by each way and compared with the model's own forward pass of each document alone; the
fastest way that agrees is taken, and the choice is said.

Shapes: T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from tanzim.core.errors import TrainError
from tanzim.models.kernels.loss import MULTIPLE, trained_token_loss
from tanzim.train.batches import Batch, Layout, collate, filled
from tanzim.train.objectives.base import TOLERANCE, evaluating, inner_model
from tanzim.train.objectives.config import LanguageModelConfig
from tanzim.train.objectives.virtual import start_of
from tanzim.train.tokens import Document

CHECK_DOCUMENTS = 3  # in the comparison at the start,
CHECK_TOKENS = 48  # and tokens of each


@dataclass(frozen=True, slots=True)
class Way:
    """How the loss is computed: project trained tokens ourselves or by the model; pack or not."""

    own_logits: bool
    packed: bool

    def __str__(self) -> str:
        logits = "the model's own logits" if self.own_logits else "logits of trained tokens only"
        return f"{logits}, {'documents packed' if self.packed else 'one document per pass'}"


WAYS = (Way(False, True), Way(True, True), Way(False, False), Way(True, False))
# peft's own forward takes one document; learnt keys and values stand in a cache, which packing has not.
PROMPT_WAYS = (Way(False, True), Way(False, False), Way(True, False))
PREFIX_WAYS = (Way(False, False), Way(True, False))


class LanguageModel:
    """Weighted cross-entropy over the trained tokens of a batch.

    Args:
        model: a transformers causal LM, or a PEFT model around one.
        config: its ``train.objective`` section.
        autocast: precision of the products where it differs from the weights'; None for theirs.

    """

    def __init__(
        self,
        model: nn.Module,
        config: LanguageModelConfig | None = None,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.causal: Any = inner_model(model)
        self.autocast = autocast
        self.label_smoothing: float = getattr(config, "label_smoothing", 0.0)
        self.device = next(model.parameters()).device
        self._start = start_of(model)
        self.ways = WAYS if self._start is None else PREFIX_WAYS if self._start.keys else PROMPT_WAYS
        self.way = self.ways[0]
        self._scale, self._softcap = _logit_form(self.causal)

    @property
    def layout(self) -> Layout:
        """Packed where the model keeps packed documents apart."""
        return "packed" if self.way.packed else "single"

    def loss_sum(self, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """Return scale × Σ weight × cross-entropy over the batch's targets, a scalar."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return self._own_logits(batch, scale) if self.way.own_logits else self._project(batch, scale)

    def hidden(self, batch: Batch) -> Tensor:
        """Return the final hidden states [T, D], with the model's constant factor on its logits."""
        if self._start is None:
            hidden_1TD = self.causal.get_decoder()(**self._inputs(batch)).last_hidden_state
            hidden_TD: Tensor = hidden_1TD[0, : batch.tokens]
        else:
            inputs, rows_T = self._start.inputs(batch, self._inputs)
            hidden_TD = self.causal.get_decoder()(**inputs).last_hidden_state[0, rows_T]
        return hidden_TD if self._scale == 1.0 else hidden_TD * self._scale

    def head(self) -> tuple[Tensor, Tensor | None, float | None]:
        """Return the vocabulary matrix [V, D], its bias and the soft cap on its logits."""
        head = self.causal.get_output_embeddings()
        return head.weight, getattr(head, "bias", None), self._softcap

    def row_logits(self, batch: Batch) -> Tensor:
        """Return the model's own logits [R, V] of the tokens that have a weight, in at least float32."""
        rows = batch.weights_T.nonzero()[:, 0] + (self._start.outputs if self._start else 0)
        keeps = "logits_to_keep" in inspect.signature(self.causal.forward).parameters
        only = {"logits_to_keep": rows} if keeps else {}
        logits_RV: Tensor = self.model(**self._inputs(batch), **only).logits[0]
        if logits_RV.shape[0] != len(rows):
            logits_RV = logits_RV[rows]
        return logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))

    @property
    def _smoothing(self) -> float:
        """Label smoothing is the training's: an evaluation measures the plain loss."""
        return self.label_smoothing if self.model.training else 0.0

    def _project(self, batch: Batch, scale: float) -> Tensor:
        weight_VD, bias_V, softcap = self.head()
        return trained_token_loss(
            self.hidden(batch),
            weight_VD,
            batch.targets_T,
            batch.weights_T,
            scale=scale,
            bias_V=bias_V,
            softcap=softcap,
            smoothing=self._smoothing,
        )

    def _own_logits(self, batch: Batch, scale: float) -> Tensor:
        rows = batch.weights_T.nonzero()[:, 0]
        logits_RV = self.row_logits(batch)
        losses_R = functional.cross_entropy(
            logits_RV, batch.targets_T[rows], reduction="none", label_smoothing=self._smoothing
        )
        return (losses_R * batch.weights_T[rows].to(logits_RV.dtype)).sum() * scale

    def _inputs(self, batch: Batch) -> dict[str, Tensor | int | bool]:
        inputs: dict[str, Tensor | int | bool] = {"input_ids": batch.input_ids_1T, "use_cache": False}
        if self.way.packed:
            batch = filled(batch, MULTIPLE)
            inputs |= {
                "input_ids": batch.input_ids_1T,
                "position_ids": batch.position_ids_1T,
                "cu_seq_lens_q": batch.cu_seq_lens,
                "cu_seq_lens_k": batch.cu_seq_lens,
                "max_length_q": batch.max_length,
                "max_length_k": batch.max_length,
            }
        return inputs

    @torch.no_grad()
    def choose(self, documents: Sequence[Document]) -> str:
        """Take the fastest way whose loss equals the model's own on the first documents, and say which.

        Raises:
            TrainError: the model's own loss is not finite.

        """
        documents = [_shortened(document) for document in documents[:CHECK_DOCUMENTS]]
        with evaluating(self.model):
            self.way = Way(own_logits=True, packed=False)
            own = sum(float(self.loss_sum(collate([document]))) for document in documents)
            if not torch.isfinite(torch.tensor(own)):
                raise TrainError(
                    f"the model's loss on the first documents is {own}, before any training",
                    where="; ".join(str(document.provenance) for document in documents),
                    fix="check the base model, or use model.dtype=float32",
                )
            tried = []
            for way in self.ways:
                self.way = way
                groups = [documents] if self.way.packed else [[document] for document in documents]
                try:
                    ours = sum(float(self.loss_sum(collate(group))) for group in groups)
                except (AttributeError, TypeError, NotImplementedError) as error:
                    tried.append(f"{self.way}: {type(error).__name__}")
                    continue
                if abs(ours - own) <= self._tolerance() * abs(own):
                    break
                tried.append(f"{self.way}: {ours:.6f}")
        why = f" (its own forward gives {own:.6f}; {'; '.join(tried)})" if tried else ""
        return f"loss by {self.way}{why}"

    def _tolerance(self) -> float:
        return TOLERANCE[self.autocast or next(self.model.parameters()).dtype]


def _shortened(document: Document) -> Document:
    ids = document.ids[:CHECK_TOKENS]
    return Document(ids, np.ones(len(ids), np.float32), document.provenance)


def _logit_form(model: PreTrainedModel) -> tuple[float, float | None]:
    """Return what the model does to its logits after the projection: a factor, and a soft cap."""
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale *= float(getattr(config, "lm_head_multiplier", None) or 1.0)  # Falcon H1
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
    return scale, getattr(config, "final_logit_softcapping", None)  # Gemma
