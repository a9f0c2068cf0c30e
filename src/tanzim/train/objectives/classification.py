"""Labels by a new head: one for a whole text, or one for each word.

A causal model's rows are packed: its head looks at the last token of each text (what transformers' own
forward does, too, token by token the same) or at each labelled token. An encoder's texts are padded, those
of like length together. Which of these a model allows is tried at the start: the logits of a few short
texts are compared with those of the model's own forward pass of each text alone, and the fastest way that
agrees is taken.

Shapes: B rows, T tokens of a row, N things labelled, C classes, D hidden size.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tanzim.core.errors import ConfigError, ModelError, TrainError
from tanzim.train import losses
from tanzim.train.batches import Batch, Layout, Sampler, collate
from tanzim.train.objectives.base import TOLERANCE, evaluating, inner_model
from tanzim.train.objectives.config import ClassificationConfig, LossConfig, TokenClassificationConfig
from tanzim.train.tokens import Document

CHECK_DOCUMENTS = 3  # in the comparison at the start,
CHECK_TOKENS = 48  # and tokens of each
KEY = "train.objective"
# What a way raises that a model does not allow.
_IMPOSSIBLE = (ModelError, AttributeError, TypeError, NotImplementedError, ValueError)


class LabelObjective:
    """The loss of labels that a head gives to texts or to words.

    Args:
        model: a transformers model with a classification head, or a PEFT model around one.
        config: its ``train.objective`` section.
        autocast: precision of the products where it differs from the weights'; None for theirs.

    Raises:
        ConfigError: a weight or a cost names a label that the data has not.

    """

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
        self.inner = inner_model(model)
        self.device = next(model.parameters()).device
        self.layout: Layout = "single"
        names: Mapping[int, str] = self.inner.config.id2label
        self.labels = [names[number] for number in range(len(names))]
        self.class_weights_C = torch.ones(len(self.labels), device=self.device)
        self._loss = _loss(config.loss, self.labels, self.device)

    def loss_sum(self, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """Return scale × Σ weight × class weight × loss over what is labelled, a scalar."""
        logits_NC = self.logits(batch)
        labels_N = torch.from_numpy(labels_of(batch.documents)).to(self.device)
        weights = [document.weights[document.weights != 0] for document in batch.documents]
        weights_N = torch.from_numpy(np.concatenate(weights)).to(self.device)
        total, _ = self._loss(logits_NC, labels_N, weights_N * self.class_weights_C[labels_N])
        return total * scale

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits [N, C] of all that is labelled in the batch's documents, in order."""
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return self._packed(batch.to(self.device)) if self.layout == "packed" else self._padded(batch)

    @torch.no_grad()
    def choose(self, documents: Sequence[Document]) -> str:
        """Weigh the classes, and take the fastest way whose logits equal the model's own.

        Raises:
            TrainError: the model's own logits are not finite.
            ConfigError: all classes that occur have the weight 0.

        """
        said = self._weigh(documents)
        short = [_shortened(document) for document in documents[:CHECK_DOCUMENTS]]
        with evaluating(self.model):
            self.layout = "single"
            own_NC = torch.cat([self.logits(collate([document])) for document in short])
            if not bool(torch.isfinite(own_NC).all()):
                raise TrainError(
                    "the model's logits of the first documents are not finite, before any training",
                    where="; ".join(str(document.provenance) for document in short),
                    fix="check the base model, or use model.dtype=float32",
                )
            tried = []
            ways: tuple[Layout, ...] = ("packed", "padded", "single")
            for self.layout in ways:
                groups = [[document] for document in short] if self.layout == "single" else [short]
                try:
                    ours_NC = torch.cat([self.logits(collate(group)) for group in groups])
                except _IMPOSSIBLE as error:
                    tried.append(f"{self.layout}: {type(error).__name__}")
                    continue
                difference = float((ours_NC - own_NC).abs().max())
                if difference <= self._tolerance() * max(1.0, float(own_NC.abs().max())):
                    break
                tried.append(f"{self.layout}: differs by {difference:.1e}")
        why = f" ({'; '.join(tried)})" if tried else ""
        names = {"packed": "packed", "padded": "padded", "single": "one per pass"}
        return f"{said}, texts {names[self.layout]}{why}"

    def _packed(self, batch: Batch) -> Tensor:
        """Return the logits [N, C] of one row that holds all documents."""
        raise NotImplementedError

    def _padded(self, batch: Batch) -> Tensor:
        """Return the logits [N, C] of rows filled up to the longest."""
        raise NotImplementedError

    def _rows(self, documents: Sequence[Document]) -> Tensor:
        """Return the model's own logits of ``documents`` in padded rows."""
        longest = max(len(document.ids) for document in documents)
        pad = self.inner.config.get_text_config().pad_token_id or 0
        ids_BT = np.full((len(documents), longest), pad, np.int64)
        for row, document in enumerate(documents):
            ids_BT[row, : len(document.ids)] = document.ids
        inputs = {"input_ids": torch.from_numpy(ids_BT).to(self.device)}
        lengths = [len(document.ids) for document in documents]
        if min(lengths) < longest:
            seen_BT = np.arange(longest)[None] < np.array(lengths)[:, None]
            inputs["attention_mask"] = torch.from_numpy(seen_BT.astype(np.int64)).to(self.device)
        logits: Tensor = self.model(**inputs).logits
        return logits

    def _weigh(self, documents: Sequence[Document]) -> str:
        """Fix the weights of the classes by the training labels; say the loss."""
        wanted, kind = self.config.class_weights, f"{self.config.loss.type} over {len(self.labels)} labels"
        if wanted is None:
            return kind
        counts = np.zeros(len(self.labels), np.int64)
        for document in documents:
            counts += np.bincount(document.targets[0], minlength=len(self.labels))
        counts_C = torch.from_numpy(counts)
        if wanted == "balanced":
            weights_C = losses.balanced(counts_C)
        else:
            weights_C = torch.tensor([wanted.get(label, 1.0) for label in self.labels], dtype=torch.float64)
            _known(wanted, self.labels, f"{KEY}.class_weights")
            if not float((weights_C * counts_C).sum()):
                raise ConfigError("no class that occurs has a weight", where=f"{KEY}.class_weights")
        weights_C = losses.scaled(weights_C, counts_C)
        self.class_weights_C = weights_C.to(self.device, torch.float32)
        numbers: list[float] = weights_C.tolist()
        said = ", ".join(f"{label} {w:.3g}" for label, w in zip(self.labels, numbers, strict=True))
        return f"{kind} weighted {said}"

    def _tolerance(self) -> float:
        return TOLERANCE[self.autocast or next(self.model.parameters()).dtype]


class Classification(LabelObjective):
    """One label for a whole text: the loss of the head's logits on the pooled text."""

    def _packed(self, batch: Batch) -> Tensor:
        """Pool as transformers' causal classifiers do: the last token that is no padding."""
        hidden_TD = self.inner.base_model(**packed_inputs(batch)).last_hidden_state[0]
        pad = self.inner.config.get_text_config().pad_token_id
        places, start = [], 0
        for document in batch.documents:
            real = np.flatnonzero(document.ids != (-1 if pad is None else pad))
            places.append(start + int(max(real, default=0)))
            start += len(document.ids)
        logits_NC: Tensor = self.inner.score(hidden_TD[torch.tensor(places, device=self.device)])
        return logits_NC

    def _padded(self, batch: Batch) -> Tensor:
        return self._rows(batch.documents)


class TokenClassification(LabelObjective):
    """One label for each word: the loss of the head's logits at the words' first tokens."""

    def _packed(self, batch: Batch) -> Tensor:
        logits_TC: Tensor = self.model(**packed_inputs(batch)).logits[0]
        labelled = np.concatenate([document.weights for document in batch.documents]) != 0
        return logits_TC[torch.from_numpy(np.flatnonzero(labelled)).to(self.device)]

    def _padded(self, batch: Batch) -> Tensor:
        logits_BTC = self._rows(batch.documents)
        places = [np.flatnonzero(document.weights) for document in batch.documents]
        rows_N = np.repeat(np.arange(len(places)), [len(some) for some in places])
        return logits_BTC[torch.from_numpy(rows_N), torch.from_numpy(np.concatenate(places))]


def packed_inputs(batch: Batch) -> dict[str, Any]:
    """Return what a model of transformers takes for documents in one row, kept apart."""
    return {
        "input_ids": batch.input_ids_1T,
        "position_ids": batch.position_ids_1T,
        "cu_seq_lens_q": batch.cu_seq_lens,
        "cu_seq_lens_k": batch.cu_seq_lens,
        "max_length_q": batch.max_length,
        "max_length_k": batch.max_length,
    }


def labels_of(documents: Sequence[Document]) -> npt.NDArray[np.int64]:
    """Return the labels of everything that is labelled, int64 [N]."""
    return np.concatenate([document.targets[0] for document in documents]).astype(np.int64)


@torch.no_grad()
def predict(
    objective: LabelObjective, documents: Sequence[Document], tokens_per_pass: int
) -> list[npt.NDArray[np.float32]]:
    """Return the logits of every document, [1 or words, C] each.

    Args:
        objective: the model, after `choose`.
        documents: what is to be labelled.
        tokens_per_pass: tokens per forward pass.

    """
    lengths = np.array([len(document.ids) for document in documents], np.int64)
    layout = objective.layout
    sampler = Sampler(
        lengths, seed=0, tokens_per_step=1, packing=layout != "single", padded=layout == "padded"
    )
    found: dict[int, npt.NDArray[np.float32]] = {}
    with evaluating(objective.model):
        for part in sampler.passes(lengths, tokens_per_pass) if len(lengths) else ():
            some = [documents[index] for index in part]
            logits_NC = objective.logits(collate(some)).float().cpu().numpy()
            ends = np.cumsum([len(document.targets[0]) for document in some])
            found |= dict(zip(part, np.split(logits_NC, ends[:-1]), strict=True))
    return [found[index] for index in range(len(documents))]


def _shortened(document: Document) -> Document:
    """Cut a document for the comparison; at least its first token is labelled."""
    weights = document.weights[:CHECK_TOKENS].copy()
    weights[0] = 1.0
    labelled = int(np.count_nonzero(weights))
    targets = (np.zeros(labelled, np.int32),)
    return Document(document.ids[:CHECK_TOKENS], weights, document.provenance, targets)


def _loss(config: LossConfig, labels: Sequence[str], device: torch.device) -> Callable[..., losses.Sum]:
    """Return the loss that ``config`` names, with its numbers filled in."""
    if config.type == "focal":
        return partial(losses.focal, gamma=config.gamma)
    if config.type == "cost":
        costs_CC = torch.ones(len(labels), len(labels), device=device) - torch.eye(len(labels), device=device)
        _known(config.costs, labels, f"{KEY}.loss.costs")
        for true, row in config.costs.items():
            _known(row, labels, f"{KEY}.loss.costs.{true}")
            for said, cost in row.items():
                costs_CC[labels.index(true), labels.index(said)] = cost
        return partial(losses.expected_cost, costs_CC=costs_CC)
    return partial(losses.cross_entropy, smoothing=config.label_smoothing)


def _known(names: Mapping[str, Any], labels: Sequence[str], where: str) -> None:
    """Refuse a label that the data does not have."""
    for name in names:
        if name not in labels:
            near = difflib.get_close_matches(name, labels, n=3, cutoff=0.4) or list(labels)[:8]
            raise ConfigError(
                f"the data has no label '{name}'", where=where, fix=f"its labels: {', '.join(near)}"
            )
