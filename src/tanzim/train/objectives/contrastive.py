"""Embeddings by contrast: texts that belong together come near each other, all others apart (`info_nce`).

All pairs of an optimiser step are each other's negatives, through however many passes they go: every pass is
first computed without gradients, then again with them against the embeddings of the others (GradCache, Gao et
al. 2021, arXiv:2101.06983), so that smaller passes learn the same. Prefer it for search, clustering and
near-duplicates; more pairs in a step (``train.tokens_per_step``) mean harder negatives.

A document holds the tokens of the anchor, of its match and of any hard negatives one after another; its
targets are their lengths, and its first token carries the pair's weight.

Legend: B texts of a pass, T tokens of the longest, E numbers of an embedding, N pairs of a step, R of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tanzim.train.batches import Batch, Layout
from tanzim.train.objectives.base import inner_model
from tanzim.train.objectives.config import ContrastiveConfig
from tanzim.train.objectives.info_nce import Text, info_nce, negatives, pool
from tanzim.train.tokens import Document


class Contrastive:
    """InfoNCE over the pairs of a step.

    Args:
        model: a transformers model that gives hidden states, or a PEFT model around one.
        config: its ``train.objective`` section.
        autocast: precision of the products where it differs from the weights'; None for theirs.

    """

    layout: Layout = "padded"

    def __init__(
        self, model: nn.Module, config: ContrastiveConfig, *, autocast: torch.dtype | None = None
    ) -> None:
        self.model = model
        self.config = config
        self.autocast = autocast
        self.device = next(model.parameters()).device
        self._group: _Group | None = None

    def choose(self, documents: Sequence[Document]) -> str:
        """Say how the loss is computed."""
        both = "both ways" if self.config.symmetric else "from the anchor"
        return f"loss by contrast {both} within each step, {self.config.pooling} pooling, texts padded"

    @torch.no_grad()
    def prepare(self, passes: Sequence[Sequence[Document]]) -> None:
        """Look at all pairs that are each other's negatives, before their passes are computed."""
        documents = [document for part in passes for document in part]
        self._group = _Group(documents, [_draw() for _ in passes])
        start = 0
        for number, part in enumerate(passes):
            count = sum(len(document.targets[0]) for document in part)
            if len(passes) > 1:
                embedded_BE = self._embed([text for document in part for text in texts(document)], number)
                self._group.embedded[start : start + count] = embedded_BE.unbind()
            self._group.number[_name(part[0])] = number
            start += count

    def loss_sum(self, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """Return scale × Σ weight × loss over the pairs of the batch, a scalar.

        Its value is the loss of these pairs alone; its gradient is that of the whole step's loss with respect
        to these pairs' embeddings, so that the passes of a step add up to the step's gradient.
        """
        group = self._group
        if group is None or any(_name(document) not in group.place for document in batch.documents):
            self.prepare([batch.documents])
            group = self._group
        assert group is not None
        number = group.number[_name(batch.documents[0])]
        fresh_BE = self._embed([text for document in batch.documents for text in texts(document)], number)
        everything = list(group.embedded)
        first = group.place[_name(batch.documents[0])]
        texts_before = sum(group.counts[:first])
        everything[texts_before : texts_before + len(fresh_BE)] = fresh_BE.unbind()
        embedded_XE = torch.stack(everything)
        rows = list(range(first, first + len(batch.documents)))
        if not torch.is_grad_enabled() or len(rows) == len(group.counts):
            return self._loss(group, embedded_XE, rows) * scale
        whole = self._loss(group, embedded_XE, list(range(len(group.counts)))) * scale
        own = self._loss(group, embedded_XE.detach(), rows) * scale
        return whole - whole.detach() + own

    def _loss(self, group: _Group, embedded_XE: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the weighted sum of the losses of the pairs ``rows``."""
        first_N = torch.tensor(np.cumsum([0, *group.counts[:-1]]), device=self.device)
        hard = torch.ones(len(embedded_XE), dtype=torch.bool, device=self.device)
        hard[first_N] = hard[first_N + 1] = False
        anchor_NE, match_NE = embedded_XE[first_N], embedded_XE[first_N + 1]
        rows_R = torch.tensor(list(rows), device=self.device)
        weights_R = torch.tensor([group.weights[row] for row in rows], device=self.device)
        anchors, matches, further = group.sides
        loss_R = info_nce(
            anchor_NE[rows_R],
            torch.cat([match_NE, embedded_XE[hard]]),
            rows_R,
            negatives(anchors, matches, further, rows).to(self.device),
            temperature=self.config.temperature,
        )
        if self.config.symmetric:
            other = negatives(matches, anchors, (), rows).to(self.device)
            back_R = info_nce(match_NE[rows_R], anchor_NE, rows_R, other, temperature=self.config.temperature)
            loss_R = (loss_R + back_R) / 2
        return (loss_R * weights_R.to(loss_R.dtype)).sum()

    def embed(self, ids: Sequence[Text]) -> Tensor:
        """Return the embeddings [B, E] of texts given as tokens."""
        longest = max(map(len, ids))
        pad = inner_model(self.model).config.get_text_config().pad_token_id or 0
        ids_BT = torch.tensor([[*text, *[pad] * (longest - len(text))] for text in ids], device=self.device)
        seen_BT = torch.tensor(
            [[1] * len(text) + [0] * (longest - len(text)) for text in ids], device=self.device
        )
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            hidden_BTE = self.model(input_ids=ids_BT, attention_mask=seen_BT).last_hidden_state
        wide = torch.promote_types(hidden_BTE.dtype, torch.float32)
        pooled_BE = pool(hidden_BTE.to(wide), seen_BT, self.config.pooling)
        return functional.normalize(pooled_BE, dim=-1) if self.config.normalize else pooled_BE

    def _embed(self, ids: Sequence[Text], number: int) -> Tensor:
        """Do `embed` with the random numbers of pass ``number``, the same ones each time."""
        assert self._group is not None
        devices: list[Any] = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._group.seeds[number])
            return self.embed(ids)


class _Group:
    """The pairs of a step: their texts, and what is known of their embeddings.

    Args:
        documents: the pairs, pass by pass.
        seeds: of the random numbers of each pass.

    """

    def __init__(self, documents: Sequence[Document], seeds: Sequence[int]) -> None:
        self.seeds = seeds
        self.place = {_name(document): place for place, document in enumerate(documents)}
        self.number: dict[tuple[str, int], int] = {}
        self.counts = [len(document.targets[0]) for document in documents]
        self.weights = [document.weight for document in documents]
        self.embedded: list[Tensor] = [torch.empty(0)] * sum(self.counts)
        parts = [texts(document) for document in documents]
        self.sides = (
            [part[0] for part in parts],
            [part[1] for part in parts],
            [text for part in parts for text in part[2:]],
        )


def texts(document: Document) -> list[Text]:
    """Return the tokens of the anchor, of its match, and of each hard negative."""
    borders = np.cumsum(document.targets[0])[:-1]
    return [tuple(part.tolist()) for part in np.split(document.ids, borders)]


def _name(document: Document) -> tuple[str, int]:
    return document.provenance.source, document.provenance.row


def _draw() -> int:
    return int(torch.randint(1 << 62, ()))
