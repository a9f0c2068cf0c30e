"""Labels by a new head: one for a whole text, or one for each word.

Shapes: B rows, T tokens of the longest document, N things labelled, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tanzim.train.batches import Batch, Layout
from tanzim.train.objectives.base import inner_model
from tanzim.train.objectives.config import ClassificationConfig, TokenClassificationConfig
from tanzim.train.tokens import Document


class _Head:
    """What both kinds share: padded rows, logits of what is labelled, weighted cross-entropy.

    Args:
        model: a transformers model with a classification head, or a PEFT model around one.
        config: its ``train.objective`` section.
        autocast: precision of the products where it differs from the weights'; None for theirs.

    """

    layout: Layout = "padded"

    def __init__(
        self,
        model: nn.Module,
        config: ClassificationConfig | TokenClassificationConfig,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.autocast = autocast
        self.device = next(model.parameters()).device
        self.classes: int = inner_model(model).config.num_labels

    def choose(self, documents: Sequence[Document]) -> str:
        """Say how the loss is computed."""
        return f"loss by {self.classes} labels, documents padded"

    def loss_sum(self, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """Return scale × Σ weight × cross-entropy over what is labelled, a scalar."""
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            logits_NC = self.logits(batch.documents)
        wide = logits_NC.dtype if logits_NC.dtype == torch.float64 else torch.float32
        labels_N = torch.from_numpy(labels(batch.documents)).to(self.device)
        weights_N = torch.from_numpy(weights(batch.documents)).to(self.device, wide)
        losses_N = functional.cross_entropy(logits_NC.to(wide), labels_N, reduction="none")
        return (losses_N * weights_N).sum() * scale

    def logits(self, documents: Sequence[Document]) -> Tensor:
        """Return [N, C] over everything that is labelled in ``documents``, in order."""
        raise NotImplementedError

    def _padded(self, documents: Sequence[Document]) -> Tensor:
        longest = max(len(document.ids) for document in documents)
        ids_BT = torch.zeros(len(documents), longest, dtype=torch.int64)
        seen_BT = torch.zeros(len(documents), longest, dtype=torch.int64)
        ids_BT.fill_(inner_model(self.model).config.get_text_config().pad_token_id or 0)
        for row, document in enumerate(documents):
            ids_BT[row, : len(document.ids)] = torch.from_numpy(document.ids.astype(np.int64))
            seen_BT[row, : len(document.ids)] = 1
        logits: Tensor = self.model(
            input_ids=ids_BT.to(self.device), attention_mask=seen_BT.to(self.device)
        ).logits
        return logits


class Classification(_Head):
    """One label for a whole text: −log p(label | text), its head on the pooled text."""

    def logits(self, documents: Sequence[Document]) -> Tensor:
        """Return [N, C], a row for each document."""
        return self._padded(documents)


class TokenClassification(_Head):
    """One label for each word: Σ −log p(label | text, word), read at the word's first token."""

    def logits(self, documents: Sequence[Document]) -> Tensor:
        """Return [N, C], a row for each token that has a weight."""
        logits_BTC = self._padded(documents)
        rows = [torch.full((int((d.weights != 0).sum()),), row) for row, d in enumerate(documents)]
        places = [torch.from_numpy(np.flatnonzero(document.weights)) for document in documents]
        return logits_BTC[torch.cat(rows).to(self.device), torch.cat(places).to(self.device)]


def labels(documents: Sequence[Document]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the labels of everything that is labelled, int64 [N]."""
    return np.concatenate([document.targets[0] for document in documents]).astype(np.int64)


def weights(documents: Sequence[Document]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the weights of everything that is labelled, float32 [N]."""
    return np.concatenate([document.weights[document.weights != 0] for document in documents])
