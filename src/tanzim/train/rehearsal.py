"""What a step holds in memory, found by making small steps: few layers, few words, random weights.

Every method, optimiser and objective keeps tensors of its own, so their bytes are not computed from a
formula but rehearsed: the real training loop runs on models of the same layer sizes, with one and two
layers (where only the last few are trained, with these and one more), two lengths of a pass and two
vocabularies, and `LiveMemory` counts. For n layers, T tokens in a pass, V words and R rows of logits made at
once the peak besides the weights is

  peak = a + b·n + c·T + d·n·T + e·V + f·R·V

and what does not depend on the pass (weights, trained weights, a checkpoint) is a + b·n + e·V. The peak
may be at the end of the forward pass, with logits on top, or elsewhere: each is scaled on its own, and
the larger counts.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tanzim.adapters.attach import attach
from tanzim.adapters.config import FullConfig, PromptConfig, QloraConfig, form
from tanzim.adapters.fast import accelerate
from tanzim.adapters.method import Method
from tanzim.core.records import Provenance, Rendered
from tanzim.core.run import RunFolder
from tanzim.models.load import Kind, blank_model
from tanzim.models.quantised import Quantised, quantise
from tanzim.train.config import TrainConfig
from tanzim.train.engine import train
from tanzim.train.live import LiveMemory
from tanzim.train.objectives.config import DistillationConfig
from tanzim.train.objectives.distillation import Teacher
from tanzim.train.tokens import Document, TokenStore, write_tokens

SHORT, LONG = 96, 192  # tokens of a pass
FEW, MANY = 256, 16384  # words
ROWS, LOGIT_BYTES = 256, 4  # most rows of logits alive together in `models.kernels.loss`, and their width


@dataclass(frozen=True, slots=True)
class _Seen:
    """One rehearsal.

    Args:
        peak: most bytes alive, besides those of all weights.
        kept: bytes alive when a backward pass began, likewise.
        stored: bytes of all weights.
        trained: weights trained.
        checkpoint: bytes of a checkpoint.
        output: bytes of what the run left.

    """

    peak: int
    kept: int
    stored: int
    trained: int
    checkpoint: int
    output: int


@dataclass(frozen=True, slots=True)
class Linear:
    """A number that grows with layers n and words V: fixed + layer · n + word · V."""

    fixed: float
    layer: float
    word: float

    def at(self, layers: int, words: int) -> int:
        """Return its value."""
        return round(self.fixed + self.layer * layers + self.word * words)


@dataclass(frozen=True, slots=True)
class Peak:
    """The bytes at one moment of a step, besides those of all weights.

    Args:
        held: at no tokens and no logits.
        token: for each token of a pass.
        layer_token: for each layer and token.
        row_word: of logits, for each row and word.
        most_rows: most rows of logits alive together.

    """

    held: Linear
    token: float
    layer_token: float
    row_word: float
    most_rows: float

    def logits(self, tokens: int, words: int, trained_share: float) -> int:
        """Return the bytes of logits in a pass of ``tokens`` tokens, a share of them trained."""
        return round(self.row_word * words * min(trained_share * tokens, self.most_rows))

    def rest(self, layers: int, tokens: int, words: int) -> int:
        """Return all other bytes."""
        return self.held.at(layers, words) + round((self.token + self.layer_token * layers) * tokens)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What was found, to be scaled to the size of the real run.

    Args:
        stored: bytes of all weights, frozen and trained.
        trained: weights that are trained.
        checkpoint: bytes of a checkpoint.
        output: bytes of the folder a run leaves.
        peaks: the moments that may be the peak.

    """

    stored: Linear
    trained: Linear
    checkpoint: Linear
    output: Linear
    peaks: tuple[Peak, ...]

    def peak(self, layers: int, tokens: int, words: int, trained_share: float) -> tuple[int, int]:
        """Return the bytes of logits, and all others besides the weights, at the larger peak."""
        both = [
            (peak.logits(tokens, words, trained_share), peak.rest(layers, tokens, words))
            for peak in self.peaks
        ]
        return max(both, key=sum)


def rehearse(
    model: Path,
    config: TrainConfig,
    documents: Sequence[Document],
    *,
    dtype: torch.dtype,
    device: torch.device,
    kind: Kind = "causal",
    labels: int = 0,
) -> Rehearsed:
    """Make small steps, and find how what they hold grows.

    Args:
        model: folder of the base model; its weights are not read.
        config: the ``train`` section.
        documents: some of the data, of which passes are made.
        dtype: precision of the base weights.
        device: where the run is to be.
        kind: what the model is to do.
        labels: classes of a classification head.

    """
    whole = form(config.method) == "model"
    autocast = None if dtype == torch.float32 else dtype

    def build(layers: int, words: int) -> tuple[Method, Teacher | None]:
        def blank() -> Any:  # noqa: ANN401 - a transformers model
            kept = torch.float32 if whole else dtype
            return blank_model(
                model, layers=layers, vocabulary=words, dtype=kept, device=device, kind=kind, labels=labels
            )

        base, settings = blank(), config.method
        if isinstance(settings, QloraConfig):
            quantise(base, Quantised(settings.quant_type, settings.double_quant), dtype=dtype)
        if isinstance(settings, PromptConfig):
            settings = settings.model_copy(update={"text": None})  # its words are not in a small vocabulary
        if isinstance(settings, FullConfig):
            names = [name for name, _ in base.named_parameters()]
            # Names of layers that a small model has not: as if they were trained.
            freeze = [part for part in settings.freeze if any(part in name for name in names)]
            settings = settings.model_copy(update={"freeze": freeze})
        method = attach(base, settings, seed=0, base_hash="", base_name="rehearsal")
        # Compiled layers are counted as the plain ones, which keep as much or more.
        if not whole and kind == "causal" and not config.compile:
            accelerate(method.model)
        taught = isinstance(config.objective, DistillationConfig)
        return method, Teacher(blank(), "") if taught else None

    def see(layers: int, tokens: int, words: int, all_trained: bool = True) -> _Seen:
        changed = _short_run(config, tokens)
        document = _one(documents, tokens, words, all_trained)
        return _see(lambda: build(layers, words), changed, document, autocast)

    short, long, least = SHORT, LONG, _least_layers(config)
    seen = _Grid(
        layers=least,
        one=see(least, short, FEW),
        two=see(least + 1, short, FEW),
        one_long=see(least, long, FEW),
        two_long=see(least + 1, long, FEW),
        wide=see(least, short, MANY),
        untrained=see(least, short, MANY, all_trained=False),
    )
    return Rehearsed(
        stored=seen.linear("stored"),
        trained=seen.linear("trained"),
        checkpoint=seen.linear("checkpoint"),
        output=seen.linear("output"),
        peaks=seen.peaks(short, long),
    )


def _least_layers(config: TrainConfig) -> int:
    """Return how many layers the smallest model must have: those that are trained, if not all are.

    Models with one layer more than that then tell what a frozen layer costs.
    """
    method = config.method
    return (method.last_layers or 1) if isinstance(method, FullConfig) else 1


@dataclass(frozen=True, slots=True)
class _Grid:
    """Six rehearsals: layers (and one more), length and vocabulary; and one with a single trained token."""

    layers: int
    one: _Seen
    two: _Seen
    one_long: _Seen
    two_long: _Seen
    wide: _Seen
    untrained: _Seen

    def linear(self, name: str) -> Linear:
        one, two, wide = (float(getattr(seen, name)) for seen in (self.one, self.two, self.wide))
        word = (wide - one) / (MANY - FEW)
        return Linear(one - self.layers * (two - one) - word * FEW, two - one, word)

    def peaks(self, short: int, long: int) -> tuple[Peak, ...]:
        """Return the peak as it was seen, and the end of the forward pass with its logits."""
        saved = self.wide.kept - self.untrained.kept
        if saved > short * MANY:  # logits of every trained token are kept for the backward pass
            row_word = (self.wide.peak - self.untrained.peak) / (short * MANY)
            return (self._peak("peak", short, long, row_word, math.inf),)
        if not self.one.kept:  # no backward pass
            return (self._peak("peak", short, long, LOGIT_BYTES, ROWS),)
        return (
            self._peak("peak", short, long, 0.0, ROWS),
            self._peak("kept", short, long, LOGIT_BYTES, ROWS),
        )

    def _peak(self, name: str, short: int, long: int, row_word: float, rows: float) -> Peak:
        one, two, one_long, two_long, quiet = (
            float(getattr(seen, name))
            for seen in (self.one, self.two, self.one_long, self.two_long, self.untrained)
        )
        layer_token = max(0.0, (two_long - one_long - two + one) / (long - short))
        token = (one_long - one) / (long - short) - self.layers * layer_token
        layer = two - one - layer_token * short
        word = (quiet - one) / (MANY - FEW)
        at_no_layers = one - self.layers * (layer + layer_token * short)
        held = Linear(at_no_layers - word * FEW - token * short, layer, word)
        return Peak(held, token, layer_token, row_word, rows)


def _short_run(config: TrainConfig, tokens: int) -> TrainConfig:
    """Return ``config`` for two steps of one pass of ``tokens`` tokens."""
    changes = {
        "max_steps": 2,
        "epochs": 2.0,
        "tokens_per_step": tokens,
        "tokens_per_pass": tokens,
        "learning_rate": 1e-7,
        "warmup_steps": 0,
        "trackers": [],
    }
    return config.model_copy(update=changes)


def _one(documents: Sequence[Document], tokens: int, words: int, all_trained: bool) -> Rendered:
    """Make one document of ``tokens`` tokens out of what the documents hold."""
    ids = islice(cycle(int(i) % words for d in documents for i in d.ids), tokens)
    weights = [1.0 if all_trained else 0.0] * (tokens - 1) + [1.0]
    targets = documents[0].targets
    if all(d.targets and len(d.targets[0]) == np.count_nonzero(d.weights) for d in documents):  # labels
        if all(len(d.targets[0]) == 1 for d in documents):  # of whole texts
            weights = [1.0] + [0.0] * (tokens - 1)
        targets = (np.resize(targets[0], np.count_nonzero(weights)),)
    kept = tuple(tuple(int(i) % words for i in target) for target in targets)
    return Rendered(tuple(ids), tuple(weights), (), Provenance("rehearsal", 1), kept)


def _see(
    build: Callable[[], tuple[Method, Teacher | None]],
    config: TrainConfig,
    document: Rendered,
    autocast: torch.dtype | None,
) -> _Seen:
    with tempfile.TemporaryDirectory(prefix="tanzim-plan-") as name, torch.random.fork_rng():
        path, run = Path(name) / "train.arrow", RunFolder(Path(name) / "run")
        write_tokens(path, [document])
        method, teacher = build()
        tensors = (*method.model.parameters(), *method.model.buffers())
        stored = sum({value.data_ptr(): value.nbytes for value in tensors}.values())
        with LiveMemory(next(method.model.parameters()).device) as live:
            result = train(
                method, TokenStore(path), None, config, run, seed=0, autocast=autocast, teacher=teacher
            )
        output = sum(file.stat().st_size for file in result.output.rglob("*") if file.is_file())
        trained = sum(parameter.numel() for parameter in method.parameters.values())
        return _Seen(live.peak, live.kept, stored, trained, result.checkpoint_bytes, output)
