"""The one generator: chat, evaluation and serving all answer through it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Rows
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tanzim.adapters.folder import CONFIG, check_base, own_type
from tanzim.core.errors import ModelError
from tanzim.core.files import read_json
from tanzim.core.records import Progress, no_progress
from tanzim.infer.answers import score_answers
from tanzim.infer.forward import Forward
from tanzim.infer.grammar import Grammars
from tanzim.infer.memory import free_memory
from tanzim.infer.refusals import TooLongError
from tanzim.infer.request import AnswerScore, Completion, Delta, Grammar, Request
from tanzim.infer.residents import NoRoomError, Residents, WordlessError
from tanzim.infer.scheduler import Scheduler
from tanzim.infer.sequence import Sequence
from tanzim.infer.weights import Weights

if TYPE_CHECKING:
    from tanzim.infer.lean import LeanModel
    from tanzim.infer.paged_scheduler import PagedScheduler

SHARE_FOR_ADAPTERS = 0.25  # of the free memory; the cache of keys and values takes as much
__all__ = ["AnswerScore", "Completion", "Delta", "Engine", "Grammar", "Request"]


class Engine:
    """Generates text with one base model and any number of its adapters, side by side.

    An engine is used by one thread at a time. Between calls the model is as it was.

    Args:
        model: a transformers causal language model, in evaluation mode or not; may be wrapped by PEFT.
        tokenizer: its tokenizer.
        stop_ids: tokens that end an answer.
        base_hash: hash of the base's weights, which adapters are checked against.

    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Rows[int],
        base_hash: str,
    ) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = tuple(stop_ids)
        self.base_hash = base_hash
        self._weights = Weights(model)
        self._forward = Forward(self._weights.bare)
        head = self._weights.bare.get_output_embeddings()  # type: ignore[no-untyped-call]
        rows = len(tokenizer) if head is None else head.out_features
        self._grammars = Grammars(tokenizer, rows, stop_ids)
        self._residents = Residents(self._load, self._weights.drop, self._fit, self._weights.adapters)
        self._lean: tuple[tuple[int, int], LeanModel | None] | None = None
        model.eval()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded, or were and can be again."""
        kept = self._weights.adapters
        return kept + tuple(name for name in self._residents.names if name not in kept)

    @property
    def resident(self) -> int:
        """How many adapters lie in memory."""
        return len(self._weights.adapters)

    @property
    def context_length(self) -> int | None:
        """The most tokens, prompt and answer together, that the model was made for."""
        return self._forward.context_length

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter (PEFT layout, or our own) beside the others.

        Raises:
            ModelError: the name is taken, or the folder holds no adapter for this base.

        """
        if name in self.adapters:
            raise ModelError(f"an adapter '{name}' is already loaded", fix="choose another name")
        self._residents.add(name, folder)

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ModelError: there is none of this name, or it is answering just now.

        """
        self._residents.remove(name)

    def know_adapter(self, name: str, folder: Path) -> None:
        """Let an adapter be loaded when a request first names it. May be called from any thread.

        Args:
            name: what requests call it; one that is known is left as it is.
            folder: as for `add_adapter`. An adapter that was let go is loaded from it again.

        Raises:
            GoneError: there is no such folder.
            TooLargeError: it is larger than the bound of memory.
            WordlessError: it labels texts.
            ModelError: it holds no adapter for this base.

        """
        if not self._residents.knows(name):
            if folder.is_dir():
                self._check(folder)
            self._residents.know(name, folder)

    def _check(self, folder: Path) -> None:
        check_base(folder, self.base_hash)
        if str(read_json(folder / CONFIG).get("task_type")) in ("SEQ_CLS", "TOKEN_CLS"):
            raise WordlessError("this adapter labels texts and writes none", where=str(folder))

    def bound_adapters(self, memory: int | None) -> None:
        """Let the longest unused adapters go where all together take more than this.

        Args:
            memory: bytes that loaded adapters may take; None takes a quarter of what is free now where the
                model lies. Where all of them are in use, requests for others wait.

        Raises:
            TooLargeError: an adapter that is loaded takes more by itself.

        """
        free = free_memory(self._forward.device)
        self._residents.bound(int(free * SHARE_FOR_ADAPTERS) if memory is None else memory)

    @torch.inference_mode(False)  # what is made during generation must serve gradients elsewhere, too
    def _load(self, name: str, folder: Path) -> None:
        from tanzim.adapters.lifted import lift_adapter
        from tanzim.adapters.store import read_own
        from tanzim.infer.lowrank import check_integers, read_plain

        check_integers(self._weights.bare, folder)
        self._check(folder)
        if own_type(folder) is not None:
            self._weights.add_own(name, read_own(folder, base_hash=self.base_hash))
            return
        with self._weights.using(None):
            adapter = read_plain(self._weights.bare, folder, base_hash=self.base_hash) or lift_adapter(
                self._weights.bare, folder, base_hash=self.base_hash
            )
        self._weights.add_own(name, adapter)

    @contextmanager
    def lend(self, adapter: str | None) -> Iterator[nn.Module]:
        """Lend the model itself, computing with ``adapter`` (None: as the base), for losses and logits.

        Under prefix, prompt and p-tuning it is the PEFT model around it.

        Raises:
            ModelError: no such adapter is loaded.

        """
        self._bring(adapter)
        with self._weights.using(adapter):
            yield self._weights.module(adapter)

    def scheduler(self, max_batch: int, *, join_at: int = 1, mix: bool = True) -> Scheduler:
        """Return a scheduler to feed with `sequence` and step by hand."""
        return Scheduler(
            self._forward, self._weights, self._residents, max_batch=max_batch, join_at=join_at, mix=mix
        )

    def server(
        self, max_batch: int, *, cache_tokens: int | None = None, speculate: bool = False
    ) -> Scheduler | PagedScheduler:
        """Return the scheduler for many requests that come and go: the lean one where the model fits it.

        It keeps a copy of the weights in the layout that is fastest. The base's weights must not be
        changed while it is used.

        Args:
            max_batch: most requests computed together.
            cache_tokens: tokens that the KV cache holds; None takes a share of the free memory.
            speculate: draft tokens where it pays (the lean scheduler only); first some passes are timed.

        """
        from tanzim.infer.paged_scheduler import PagedScheduler
        from tanzim.infer.speculation import measure

        self._residents.let_all_go()  # whoever held them served before
        plain = self.scheduler(max_batch)
        lean = self._lean_model()
        if lean is None:
            return plain
        return PagedScheduler(
            lean,
            self._weights,
            self._residents,
            plain,
            max_batch=max_batch,
            context=self.context_length,
            cache_tokens=cache_tokens,
            cost=measure(lean, self._weights) if speculate else None,
        )

    def _lean_model(self) -> LeanModel | None:
        """Return the lean forward pass, made anew if the base's weights have changed; None if none fits."""
        from tanzim.infer.lean import LeanModel, differs, unfit

        with self._weights.using(None):
            state = self._weights.state
            if self._lean is None or self._lean[0] != state:
                model = self._weights.bare
                made = None if unfit(model) else LeanModel(model, self._weights.mix)
                self._lean = state, None if made is None or differs(made, model) else made
        return self._lean[1]

    def sequence(self, request: Request) -> Sequence:
        """Return a request's state for a scheduler.

        Raises:
            ModelError: the adapter is unknown.
            TooLongError: the prompt leaves no room in the context.
            ConfigError: the grammar is wrong.
            MissingExtra: there is a grammar, and llguidance is not installed.

        """
        if request.adapter is not None and not self._residents.knows(request.adapter):
            known = ", ".join(self.adapters) or "none"
            raise ModelError(f"there is no adapter '{request.adapter}' (loaded: {known})")
        limit = self._limit(request)
        matcher = None if request.grammar is None else self._grammars.matcher(request.grammar)
        return Sequence(request, self.tokenizer, self.stop_ids, limit, matcher)

    def _limit(self, request: Request) -> int:
        """Return the most tokens of an answer, as far as is known what the adapter puts before the prompt."""
        length, start = len(request.prompt_ids), self._weights.start(request.adapter)
        learnt = 0 if start is None else start.get_seq_length()
        if self.context_length is None:
            return request.max_new_tokens
        if length + learnt >= self.context_length:
            added = f" and the adapter adds {learnt}" if learnt else ""
            raise TooLongError(
                f"the prompt has {length} tokens{added}; the model's context holds {self.context_length}",
                fix="shorten the prompt",
            )
        return min(request.max_new_tokens, self.context_length - length - learnt)

    def _fit(self, sequence: Sequence) -> None:
        """Leave room for what a sequence's adapter, loaded by now, puts before the prompt."""
        sequence.limit = self._limit(sequence.request)

    def check(self, grammar: Grammar) -> None:
        """Refuse a grammar that answers cannot be held to; for any thread.

        Raises:
            ConfigError: why.
            MissingExtra: llguidance is not installed.

        """
        self._grammars.matcher(grammar)

    def generate(
        self, requests: Rows[Request], *, max_batch: int = 16, progress: Progress = no_progress
    ) -> list[Completion]:
        """Answer every request; the order of the answers is that of the requests.

        Args:
            requests: prompts of any lengths, for any adapters.
            max_batch: most requests computed together.
            progress: told after each finished answer.

        Raises:
            ModelError: an adapter is unknown, or a prompt leaves no room in the context.

        """
        sequences = [self.sequence(request) for request in requests]
        # One adapter alone is merged into the weights; several share a batch.
        mix = len({request.adapter for request in requests}) > 1
        scheduler = self.scheduler(max_batch, join_at=max(1, max_batch // 4), mix=mix)
        for sequence in sorted(sequences, key=_batch_order):
            scheduler.add(sequence)
        done = 0
        while scheduler.busy:
            stepped = scheduler.step()
            failed = next((s.error for s in stepped if s.error is not None), None)
            if failed is not None:
                for sequence in sequences:
                    scheduler.cancel(sequence)
                raise failed
            finished = sum(s.finish_reason is not None for s in stepped)
            done += finished
            if finished:
                progress(done, len(sequences), "answers")
        return [sequence.completion() for sequence in sequences]

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer one request piece by piece; closing the iterator ends the computation.

        Raises:
            ModelError: the adapter is unknown, or the prompt leaves no room in the context.

        """
        sequence = self.sequence(request)
        scheduler = self.scheduler(1, mix=False)
        scheduler.add(sequence)
        try:
            while scheduler.busy:
                scheduler.step()
                if sequence.error is not None:
                    raise sequence.error
                delta = sequence.take()
                if delta is not None:
                    yield delta
        finally:
            scheduler.cancel(sequence)

    def score_answers(
        self,
        items: Rows[tuple[list[int], list[list[int]]]],
        adapter: str | None = None,
        *,
        max_batch: int = 16,
        progress: Progress = no_progress,
    ) -> list[list[AnswerScore]]:
        """Return how likely each candidate answer is after its prompt.

        Args:
            items: prompts, each with its candidate answers; all as token ids, none empty.
            adapter: name of the adapter; None is the base model.
            max_batch: most rows computed together.
            progress: told after each batch of items.

        """
        self._bring(adapter)
        return score_answers(
            self._forward, self._weights, items, adapter, max_batch=max_batch, progress=progress
        )

    def _bring(self, adapter: str | None) -> None:
        if adapter is not None and self._residents.knows(adapter) and not self._residents.bring(adapter):
            raise NoRoomError(f"there is no room for the adapter '{adapter}' while others answer")

    def logprobs(self, prompt_ids: list[int], answer_ids: list[int], adapter: str | None) -> list[float]:
        """Return the natural log-probability of each answer token after the prompt."""
        return list(self.score_answers([(prompt_ids, [answer_ids])], adapter)[0][0].logprobs)


def _batch_order(sequence: Sequence) -> tuple[str, int]:
    """Sort by adapter, then longest first: like lengths together, and memory's peak at the start."""
    return sequence.request.adapter or "", -len(sequence.request.prompt_ids)
