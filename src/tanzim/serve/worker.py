"""Our own engine behind the gateway: one thread generates for everybody, and requests share its batches."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Rows
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tanzim.core.errors import TanzimError
from tanzim.infer.embed import embed, in_batches
from tanzim.infer.engine import Engine
from tanzim.infer.request import Delta, Request, Times
from tanzim.infer.sequence import Sequence

Event = Delta | TanzimError
Listener = Callable[[Event], None]
Done = TypeVar("Done")


class WorkerError(TanzimError, RuntimeError):
    """The generation thread could not finish a request."""


class Worker:
    """The `Backend` that owns our engine while it runs, and feeds its scheduler from a queue.

    Args:
        engine: the generator; nobody else may use it while the worker runs.
        max_batch: most requests computed together.
        adapter_mb: memory that loaded adapters may take (MB); None: as `Engine.bound_adapters` has it.
        speculate: as for `Engine.server`.

    """

    def __init__(
        self, engine: Engine, max_batch: int, adapter_mb: float | None = None, *, speculate: bool = False
    ) -> None:
        self._engine = engine
        self._max_batch, self._speculate = max_batch, speculate
        engine.bound_adapters(None if adapter_mb is None else int(adapter_mb * 1e6))
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._listeners: dict[Sequence, Listener] = {}
        self._scheduler = engine.server(max_batch, speculate=speculate)
        self._thread = threading.Thread(target=self._run, name="tanzim-generate", daemon=True)

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - any transformers tokenizer
        """The engine's tokenizer."""
        return self._engine.tokenizer

    @property
    def context_length(self) -> int | None:
        """The most tokens, prompt and answer together."""
        return self._engine.context_length

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that can be asked for."""
        return self._engine.adapters

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step; requests under way end with an error."""
        self._commands.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def running(self) -> int:
        """Requests that wait or are being answered."""
        return len(self._listeners)

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether the thread is running."""
        return self.alive

    @property
    def now(self) -> dict[str, dict[str, float]]:
        """What can be counted at any moment, for the metrics: name → of what → number."""
        counted = {
            "requests_running": {"answers": float(self.running)},
            "requests_waiting": {"answers": float(self._scheduler.waiting)},
            "adapters": {"known": float(len(self._engine.adapters)), "loaded": float(self._engine.resident)},
        }
        use = self._scheduler.cache_use
        return counted if use is None else counted | {"cache_tokens": {"held": use[0], "room": use[1]}}

    async def stream(self, request: Request, times: Times | None = None) -> AsyncGenerator[Delta, None]:
        """Yield a request's answer piece by piece; closing the iterator cancels it.

        Raises:
            ModelError: the adapter is unknown, or the prompt leaves no room in the context.
            WorkerError: the computation failed, or the server is shutting down.

        """
        sequence = self._engine.sequence(request)
        sequence.times = times or sequence.times
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def listen(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        if not self.alive:
            raise WorkerError("the generation thread has stopped", fix="restart the server")
        self._commands.put(lambda: self._add(sequence, listen))
        try:
            while True:
                event = await events.get()
                if isinstance(event, TanzimError):
                    raise event
                yield event
                if event.finish_reason is not None:
                    return
        finally:
            self._commands.put(lambda: self._drop(sequence))

    async def check(self, request: Request) -> None:
        """Refuse a request whose grammar cannot be kept to (see `Engine.check`); answers go on meanwhile."""
        if request.grammar is not None:
            await asyncio.to_thread(self._engine.check, request.grammar)

    async def embed(self, rows: Rows[list[int]], adapter: str | None) -> list[list[float]]:
        """Return the vectors of texts; between two batches of them the answers under way go on."""
        vectors: dict[int, list[float]] = {}
        for batch in in_batches(rows):
            some = [rows[index] for index in batch]
            found = await self.do(partial(embed, self._engine, some, adapter))
            vectors |= zip(batch, found.tolist(), strict=True)
        return [vectors[index] for index in range(len(rows))]

    async def add_adapter(self, name: str, folder: Path, *, again: bool = False) -> None:
        """Load an adapter beside the others (see `Engine.add_adapter` and `Engine.know_adapter`)."""
        if again:
            await asyncio.to_thread(self._engine.know_adapter, name, folder)
        else:
            await self.do(lambda: self._engine.add_adapter(name, folder))

    async def remove_adapter(self, name: str) -> None:
        """Forget an adapter (see `Engine.remove_adapter`)."""
        await self.do(lambda: self._engine.remove_adapter(name))

    async def do(self, work: Callable[[], Done]) -> Done:
        """Have the thread do something with the engine between two steps; return what came of it.

        Raises:
            Exception: whatever ``work`` raises.

        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Done] = loop.create_future()

        def now() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - it belongs to who asked for the work
                loop.call_soon_threadsafe(_fail_unless_gone, done, error)
            else:
                loop.call_soon_threadsafe(_finish_unless_gone, done, result)

        if not self.alive:
            raise WorkerError("the generation thread has stopped", fix="restart the server")
        self._commands.put(now)
        return await done

    def _add(self, sequence: Sequence, listener: Listener) -> None:
        try:
            self._scheduler.add(sequence)
        except TanzimError as error:
            listener(error)
        else:
            self._listeners[sequence] = listener

    def _drop(self, sequence: Sequence) -> None:
        if self._listeners.pop(sequence, None) is not None:
            self._scheduler.cancel(sequence)

    def _run(self) -> None:
        try:
            while self._obey():
                if self._scheduler.busy:
                    self._step()
        finally:
            while not self._commands.empty():
                command = self._commands.get()
                if command is not None:
                    command()
            self._fail("the server is shutting down")

    def _obey(self) -> bool:
        """Carry out the commands that wait (and wait for one if there is nothing else to do)."""
        while not self._scheduler.busy or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command()
        return True

    def _step(self) -> None:
        try:
            sequences = self._scheduler.step()
        except Exception as error:  # noqa: BLE001 - whatever it was, this thread is everybody's
            self._scheduler = self._engine.server(self._max_batch, speculate=self._speculate)
            self._fail(f"the computation failed: {type(error).__name__}: {error}")
            return
        for sequence in sequences:
            if sequence.error is not None:
                self._listeners.pop(sequence)(sequence.error)
                continue
            delta = sequence.take()
            if delta is not None:
                self._listeners[sequence](delta)
            if sequence.finish_reason is not None:
                del self._listeners[sequence]

    def _fail(self, message: str) -> None:
        for listener in self._listeners.values():
            listener(WorkerError(message))
        self._listeners.clear()


def _finish_unless_gone(done: asyncio.Future[Done], result: Done) -> None:
    if not done.cancelled():
        done.set_result(result)


def _fail_unless_gone(done: asyncio.Future[Done], error: Exception) -> None:
    if not done.cancelled():
        done.set_exception(error)
