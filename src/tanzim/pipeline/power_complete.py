"""Answers of a language model by its name: a model of this machine, or an OpenAI-compatible endpoint.

Greedy in both cases, so that the same conversation has the same answer; an answer that was cut off at the
limit comes back empty, since half a text is no text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any
from urllib.parse import urldefrag, urlsplit

from tanzim.core.errors import ConfigError, ModelError
from tanzim.core.optional import need
from tanzim.core.powers import Complete
from tanzim.core.records import Message

KEY = "TANZIM_COMPLETE_KEY"
_LONGEST = 1024  # tokens of an answer, where no other limit is asked for
_AT_ONCE = 4  # questions under way at an endpoint
_TRIES = 4  # of a question that an endpoint is too busy for, or does not hear
_SECONDS = 600.0  # that an answer may take


@cache
def open_complete(name: str) -> Complete:
    """Return what answers conversations under a name: N conversations → N answers.

    Args:
        name: a model (alias, hub id, folder, GGUF file), a run folder, or the URL of an OpenAI-compatible
            endpoint with the model after "#", such as http://127.0.0.1:8000/v1#smollm2-135m-instruct.
            Where the endpoint has one model only, its name may be left out. The key, where one is needed,
            is in the environment variable TANZIM_COMPLETE_KEY.

    Raises:
        ConfigError: the URL cannot be used.
        ModelError: the model cannot be opened, or the endpoint does not answer.
        MissingExtra: the extra train is not installed.

    """
    return Endpoint(name) if "://" in name else _local(name)


def _local(name: str) -> Complete:
    need("transformers", "train")
    from tanzim.infer.request import Request
    from tanzim.pipeline.opened import open_models

    opened = open_models([name])

    def complete(conversations: Sequence[Sequence[Message]], *, longest: int | None = None) -> list[str]:
        most = longest or _LONGEST
        requests = [
            Request(opened.renderer.prompt(tuple(turns), ()), adapter=opened.adapter, max_new_tokens=most)
            for turns in conversations
        ]
        done = opened.engine.generate(requests)
        return [one.text if one.finish_reason == "stop" else "" for one in done]

    return complete


class Endpoint:
    """A model behind the OpenAI chat API. Nothing is asked but this URL; redirects are not followed.

    Args:
        url: of the API, usually ending in /v1; the model stands after "#".

    Raises:
        ConfigError: the URL is no http(s) address, or holds a password.
        ModelError: it does not answer, or has several models and none is named.

    """

    def __init__(self, url: str) -> None:
        address, model = urldefrag(url)
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "this is no address of an endpoint",
                where=f"{parts.scheme}://{parts.hostname or ''}",
                fix="write it as http://127.0.0.1:8000/v1#model",
            )
        if parts.username or parts.password:
            raise ConfigError(
                "a password does not belong into a URL",
                where=f"{parts.scheme}://…@{parts.hostname}",
                fix=f"put the key into the environment variable {KEY}",
            )
        self._httpx: Any = need("httpx", "train")
        key = os.environ.get(KEY)
        self._client = self._httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self._httpx.Timeout(_SECONDS, connect=10.0),
            transport=self._httpx.HTTPTransport(retries=2),
            trust_env=False,  # no proxy, no .netrc: the config names whom to speak to
        )
        self._url = address.rstrip("/")
        self._model = model or self._only_model()

    def __call__(
        self, conversations: Sequence[Sequence[Message]], *, longest: int | None = None
    ) -> list[str]:
        """Return the answers to conversations, in order."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(partial(self._answer, longest or _LONGEST), conversations))

    def _answer(self, longest: int, turns: Sequence[Message]) -> str:
        asked = {
            "model": self._model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            "temperature": 0,
            "max_tokens": longest,
        }
        value = self._ask("POST", "chat/completions", asked)
        try:
            choice = value["choices"][0]
            text, ended = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError) as error:
            raise self._fault("the endpoint's answer is none of the chat API") from error
        return text if isinstance(text, str) and ended == "stop" else ""

    def _only_model(self) -> str:
        value = self._ask("GET", "models", None)
        try:
            names = [str(one["id"]) for one in value["data"]]
        except (KeyError, TypeError) as error:
            raise self._fault("the endpoint's list of models is none of the chat API") from error
        if len(names) != 1:
            raise ModelError(
                f"the endpoint has {len(names)} models: {', '.join(names[:10])}",
                where=self._url,
                fix=f"name one after the URL: {self._url}#model",
            )
        return names[0]

    def _ask(self, method: str, path: str, body: Any) -> Any:  # noqa: ANN401 - JSON
        for tried in range(1, _TRIES + 1):
            try:
                response = self._client.request(method, f"{self._url}/{path}", json=body)
            except self._httpx.HTTPError as error:
                raise self._fault(
                    f"the endpoint does not answer ({type(error).__name__}: {error})"
                ) from error
            busy = response.status_code in (429, 503)
            if not busy or tried == _TRIES:
                break
            _wait(response.headers.get("retry-after"), tried)
        if response.status_code in (401, 403):
            raise ModelError(
                f"the endpoint refuses the key (HTTP {response.status_code})",
                where=self._url,
                fix=f"put a key that it takes into the environment variable {KEY}",
            )
        if response.status_code != 200:
            raise self._fault(f"the endpoint says HTTP {response.status_code}: {response.text[:300]}")
        try:
            return response.json()
        except ValueError as error:
            raise self._fault("the endpoint's answer is no JSON") from error

    def _fault(self, what: str) -> ModelError:
        return ModelError(what, where=self._url, fix="look whether it runs; what was answered is kept")


def _wait(said: str | None, tried: int) -> None:
    import time

    seconds = float(said) if said and said.isdigit() else 2.0**tried
    time.sleep(min(seconds, 30.0))
