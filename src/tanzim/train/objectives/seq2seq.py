"""The target of an encoder-decoder model, token by token, from its source.

−Σ log p(yₜ | y₍<ₜ₎, x), the loss of T5 (Raffel et al. 2020, arXiv:1910.10683) and BART: the encoder reads the
source x at once, the decoder begins with the model's own start token and is given the target shifted right.
Prefer it for translation, summaries and rewriting with models of that shape.

A document holds the tokens of the source and then those of the target; the target begins with the first
token that has a weight.

Shapes: B documents, S tokens of the longest source, N of the longest target, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tanzim.core.errors import TrainError
from tanzim.train.batches import Batch, Layout
from tanzim.train.objectives.base import inner_model
from tanzim.train.objectives.config import Seq2SeqConfig
from tanzim.train.tokens import Document


class Seq2Seq:
    """Weighted cross-entropy over the tokens of the targets.

    Args:
        model: a transformers encoder-decoder model, or a PEFT model around one.
        config: its ``train.objective`` section, which has no keys.
        autocast: precision of the products where it differs from the weights'; None for theirs.

    """

    layout: Layout = "padded"

    def __init__(
        self, model: nn.Module, config: Seq2SeqConfig | None = None, *, autocast: torch.dtype | None = None
    ) -> None:
        self.model = model
        self.inner: Any = inner_model(model)
        self.autocast = autocast
        self.device = next(model.parameters()).device

    def choose(self, documents: Sequence[Document]) -> str:
        """Check that every document fits the model's positions, and say how the loss is computed.

        Raises:
            TrainError: a source or target is longer than the model's positions reach.

        """
        most = getattr(self.inner.config, "max_position_embeddings", None)
        for document in documents:
            longest = max(map(len, halves(document)))
            if most is not None and longest > most:
                raise TrainError(
                    f"a text of {longest} tokens does not fit the model's {most} positions",
                    where=str(document.provenance),
                    fix=f"model.max_length={most} with model.overlong=truncate (or drop)",
                )
        return "loss by the decoder's logits of the target, documents padded"

    def loss_sum(self, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """Return scale × Σ weight × cross-entropy over the targets' tokens, a scalar."""
        pairs = [halves(document) for document in batch.documents]
        pad = int(self.inner.config.pad_token_id or 0)
        source_BS, seen_BS = _padded([source for source, _ in pairs], pad)
        target_BN, given_BN = _padded([target for _, target in pairs], pad)
        target_BN, weights_BN = target_BN.to(self.device), self._weights(batch.documents, given_BN)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            logits_BNV = self.model(
                input_ids=source_BS.to(self.device),
                attention_mask=seen_BS.to(self.device),
                decoder_input_ids=self.inner.prepare_decoder_input_ids_from_labels(labels=target_BN),
                use_cache=False,
            ).logits
        wide = torch.promote_types(logits_BNV.dtype, torch.float32)
        losses_BN = functional.cross_entropy(logits_BNV.transpose(1, 2).to(wide), target_BN, reduction="none")
        return (losses_BN * weights_BN.to(wide)).sum() * scale

    def _weights(self, documents: Sequence[Document], given_BN: Tensor) -> Tensor:
        weights_BN = torch.zeros(given_BN.shape)
        for row, document in enumerate(documents):
            own = document.weights[border(document) :]
            weights_BN[row, : len(own)] = torch.tensor(own)
        return weights_BN.to(self.device)


def border(document: Document) -> int:
    """Return where the target begins: at the first token with a weight, after at least one of the source."""
    return max(1, int(np.flatnonzero(document.weights)[0]))


def halves(document: Document) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the tokens of the source and of the target."""
    at = border(document)
    return document.ids[:at], document.ids[at:]


def _padded(rows: Sequence[np.ndarray[Any, Any]], pad: int) -> tuple[Tensor, Tensor]:
    """Return rows filled up at their ends, int64, and 1 where there is a token."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
    seen = torch.zeros(len(rows), longest, dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row.astype(np.int64))
        seen[place, : len(row)] = 1
    return ids, seen
