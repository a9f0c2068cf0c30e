"""What stands behind the gateway and answers: our own engine, or a server of another that we watch over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tanzim.core.errors import TanzimError
from tanzim.infer.request import Delta, Request, Times


class Unavailable(TanzimError, RuntimeError):
    """Nobody answers just now; it is worth trying again."""


class Backend(Protocol):
    """One base model and its adapters, which any number of requests may ask at the same time."""

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - any transformers tokenizer
        """The model's tokenizer."""

    @property
    def context_length(self) -> int | None:
        """The most tokens, prompt and answer together; None for no bound."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that can be asked for."""

    @property
    def running(self) -> int:
        """Requests that wait or are being answered."""

    @property
    def alive(self) -> bool:
        """Whether it answers, or will again by itself."""

    @property
    def ready(self) -> bool:
        """Whether it answers just now."""

    def start(self) -> None:
        """Begin to answer."""

    def stop(self) -> None:
        """End; requests under way end with an error."""

    @property
    def now(self) -> dict[str, dict[str, float]]:
        """What can be counted at any moment, for the metrics: name → of what → number."""

    def stream(self, request: Request, times: Times | None = None) -> AsyncGenerator[Delta, None]:
        """Yield a request's answer piece by piece; closing the iterator cancels it.

        Args:
            request: what is asked.
            times: filled in as the request goes its way, as far as that is known here.

        Raises:
            TanzimError: the adapter is unknown, the prompt leaves no room in the context, or the
                computation failed.

        """

    async def check(self, request: Request) -> None:
        """Refuse a request that cannot be answered, before anything is computed.

        Raises:
            ConfigError: its grammar cannot be kept to.

        """

    async def embed(self, rows: Sequence[list[int]], adapter: str | None) -> list[list[float]]:
        """Return the vectors of texts.

        Args:
            rows: the texts' tokens, none empty.
            adapter: name of the adapter; None is the base model.

        Raises:
            ConfigError: this backend makes none.

        """

    async def add_adapter(self, name: str, folder: Path, *, again: bool = False) -> None:
        """Load an adapter beside the others.

        Args:
            name: what requests call it.
            folder: where it lies.
            again: take it for loaded if there is one of this name; else it need not be loaded before a
                request asks for it.

        Raises:
            NoRoomError: it must wait until others have ended.
            TanzimError: the name is taken, or the folder holds no adapter for this base.

        """

    async def remove_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ModelError: there is none of this name, or it is answering just now.

        """
