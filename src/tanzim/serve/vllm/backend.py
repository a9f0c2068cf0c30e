"""The `Backend` that has vLLM compute: prompts go as tokens, and tokens come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tanzim.core.errors import ConfigError, ModelError, TanzimError
from tanzim.core.records import Progress, no_progress
from tanzim.infer.grammar import Grammars
from tanzim.infer.request import Delta, Request, Times
from tanzim.infer.residents import GoneError
from tanzim.infer.sequence import Sequence as Answer
from tanzim.serve.backend import Unavailable
from tanzim.serve.vllm.lora import check_adapter
from tanzim.serve.vllm.watch import BASE, Watch
from tanzim.serve.vllm.wire import completion, tokens


@dataclass(slots=True)
class _Adapter:
    """An adapter, and what vLLM knows of it.

    Args:
        folder: where it lies.
        label: what vLLM calls it: one that no other had before, for what vLLM keeps of prompts is told apart
            by it.
        life: of vLLM in which it was loaded; 0 for none.
        loading: while it is loaded.

    """

    folder: Path
    label: str
    life: int = 0
    loading: asyncio.Task[None] | None = None


class VllmBackend:
    """Answers through one vLLM.

    Args:
        watch: keeps it running.
        tokenizer: the base's.
        stop_ids: tokens that end an answer.
        base_hash: of the base's weights, which adapters are checked against.
        max_rank: the largest rank that vLLM was started for.

    """

    def __init__(
        self,
        watch: Watch,
        tokenizer: Any,  # noqa: ANN401 - any transformers tokenizer
        *,
        stop_ids: Sequence[int],
        base_hash: str,
        max_rank: int,
    ) -> None:
        self._watch = watch
        self._tokenizer = tokenizer
        self._stop_ids = tuple(stop_ids)
        self._base_hash, self._max_rank = base_hash, max_rank
        self._grammars = Grammars(tokenizer, len(tokenizer), self._stop_ids)
        self._adapters: dict[str, _Adapter] = {}
        self._made = 0
        self._asked: Counter[str | None] = Counter()  # by adapter, requests under way

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - any transformers tokenizer
        """The base's tokenizer."""
        return self._tokenizer

    @property
    def context_length(self) -> int | None:
        """The most tokens, prompt and answer together, as vLLM says it."""
        return self._watch.context_length

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that can be asked for."""
        return tuple(self._adapters)

    @property
    def running(self) -> int:
        """Requests that wait or are being answered."""
        return self._asked.total()

    @property
    def alive(self) -> bool:
        """Whether vLLM answers, or is being started again."""
        return self._watch.failure is None

    @property
    def ready(self) -> bool:
        """Whether vLLM answers just now."""
        return self._watch.ready

    @property
    def log(self) -> Path:
        """Where vLLM says what it does."""
        return self._watch.log

    @property
    def now(self) -> dict[str, dict[str, float]]:
        """What can be counted at any moment, for the metrics: name → of what → number."""
        loaded = sum(adapter.life == self._watch.lives for adapter in self._adapters.values())
        return {
            "requests_running": {"answers": float(self.running)},
            "adapters": {"known": float(len(self._adapters)), "loaded": float(loaded)},
            "engine_starts": {"vllm": float(self._watch.lives)},
        }

    def launch(self, adapters: Mapping[str, Path], *, progress: Progress = no_progress) -> None:
        """Start vLLM, wait until it is ready, and load adapters.

        Args:
            adapters: name → folder.
            progress: told the seconds that it takes.

        Raises:
            ConfigError: it cannot be started, or does not serve an adapter.
            ModelError: it did not start, or an adapter is for another base.

        """
        for folder in adapters.values():
            self._check(folder)
        self._watch.launch(progress=progress)
        for name, folder in adapters.items():
            self._adapters[name] = self._new(folder)
            self._load(self._adapters[name])

    def start(self) -> None:
        """Watch over vLLM from now on."""
        self._watch.start()

    def stop(self) -> None:
        """End vLLM; requests under way end with an error."""
        self._watch.stop()

    async def stream(self, request: Request, times: Times | None = None) -> AsyncGenerator[Delta, None]:
        """Yield a request's answer piece by piece; closing the iterator cancels it.

        A request that comes while vLLM is being started again waits for it. One that vLLM had taken when it
        died fails: it might be what killed it.

        Raises:
            ModelError: the adapter is unknown, or the prompt leaves no room.
            ConfigError: vLLM refuses the request, or the adapter.
            Unavailable: vLLM died, or is not there.

        """
        answer = self._answer(request)
        answer.times = times or answer.times
        self._asked[request.adapter] += 1
        try:
            await self._watch.wait()
            adapter = None if request.adapter is None else self._adapters[request.adapter]
            if adapter is not None:
                await self._bring(adapter)
            answer.begin()
            model = BASE if adapter is None else adapter.label
            body = completion(request, model, answer.limit, self._ends(request))
            async with aclosing(self._watch.wire.chunks(body)) as chunks:
                async for choice in chunks:
                    for token, logprob in tokens(choice, request.logprobs):
                        answer.append(token, logprob)
                        if answer.finish_reason is not None:
                            break
                    delta = answer.take()
                    if delta is not None:
                        yield delta
                    if answer.finish_reason is not None:
                        return
            raise Unavailable("vLLM ended the answer before its end")
        finally:
            self._asked[request.adapter] -= 1
            self._asked += Counter()  # forgets those of whom there are none

    async def check(self, request: Request) -> None:
        """Refuse a request that cannot be answered, before vLLM hears of it.

        Raises:
            ConfigError: its grammar cannot be kept to.
            ModelError: its adapter is unknown, or its prompt leaves no room.

        """
        self._answer(request)
        if request.grammar is not None and request.grammar.type == "lark":
            raise ConfigError(
                "this server answers through vLLM, which is not asked for calls that must be made",
                where="serve.engine.type",
                fix="tool_choice: auto",
            )
        if request.grammar is not None:
            await asyncio.to_thread(self._grammars.matcher, request.grammar)

    async def embed(self, rows: Sequence[list[int]], adapter: str | None) -> list[list[float]]:
        """Refuse: a vLLM that generates gives no hidden states.

        Raises:
            ConfigError: always.

        """
        raise ConfigError(
            "this server answers through vLLM, which makes no embeddings beside answers",
            where="serve.engine.type",
            fix="serve.engine.type: tanzim makes them",
        )

    async def add_adapter(self, name: str, folder: Path, *, again: bool = False) -> None:
        """Load an adapter beside the others.

        Raises:
            ModelError: the name is taken, or the folder holds no adapter for this base.
            ConfigError: it holds one that vLLM does not serve.
            Unavailable: vLLM is not there.

        """
        if name in self._adapters and not again:
            raise ModelError(f"an adapter '{name}' is already loaded", fix="choose another name")
        await asyncio.to_thread(self._check, folder)
        adapter = self._adapters.setdefault(name, self._new(folder))
        try:
            await self._bring(adapter)
        except TanzimError:
            if not adapter.life and self._adapters.get(name) is adapter:
                del self._adapters[name]
            raise

    async def remove_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ModelError: there is none of this name, or it is answering just now.

        """
        if name not in self._adapters:
            raise ModelError(f"there is no adapter '{name}'")
        if self._asked[name]:
            raise ModelError(f"the adapter '{name}' is answering just now", fix="try again when it has ended")
        adapter = self._adapters.pop(name)
        if adapter.life == self._watch.lives and self._watch.ready:
            with suppress(Unavailable):  # what has died knows of no adapters
                await asyncio.to_thread(
                    self._watch.wire.post, "/v1/unload_lora_adapter", {"lora_name": adapter.label}
                )

    def _answer(self, request: Request) -> Answer:
        """Return a request's state, as `Engine.sequence` does.

        Raises:
            ModelError: the adapter is unknown, or the prompt leaves no room in the context.

        """
        if request.adapter is not None and request.adapter not in self._adapters:
            raise ModelError(f"there is no adapter '{request.adapter}'")
        limit, length, context = request.max_new_tokens, len(request.prompt_ids), self.context_length
        if context is not None:
            if length >= context:
                raise ModelError(
                    f"the prompt has {length} tokens; the model's context holds {context}",
                    fix="shorten the prompt",
                )
            limit = min(limit, context - length)
        return Answer(request, self._tokenizer, self._ends(request), limit)

    def _ends(self, request: Request) -> tuple[int, ...]:
        """Return the tokens that end an answer; vLLM's grammars know the tokenizer's own end alone."""
        if request.grammar is None:
            return self._stop_ids
        return tuple(dict.fromkeys([*self._stop_ids, int(self._tokenizer.eos_token_id)]))

    def _new(self, folder: Path) -> _Adapter:
        self._made += 1
        return _Adapter(folder.resolve(), f"adapter-{self._made}")

    def _check(self, folder: Path) -> None:
        if not folder.is_dir():
            raise GoneError(f"there is no folder {folder}")
        check_adapter(folder, base_hash=self._base_hash, max_rank=self._max_rank)

    async def _bring(self, adapter: _Adapter) -> None:
        """Have vLLM know an adapter, if it does not: it was started again, say.

        Raises:
            TanzimError: it cannot be loaded, or vLLM is not there.

        """
        await self._watch.wait()
        if adapter.life == self._watch.lives:
            return
        if adapter.loading is None or adapter.loading.done():
            adapter.loading = asyncio.create_task(asyncio.to_thread(self._load, adapter))
            adapter.loading.add_done_callback(_look_at)  # whoever waited for it may have gone
        await asyncio.shield(adapter.loading)

    def _load(self, adapter: _Adapter) -> None:
        life = self._watch.lives
        self._check(adapter.folder)
        body = {"lora_name": adapter.label, "lora_path": str(adapter.folder)}
        self._watch.wire.post("/v1/load_lora_adapter", body)
        adapter.life = life


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
