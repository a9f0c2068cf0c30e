"""vLLM's HTTP interface, as far as it is used here (vLLM 0.32, ``vllm/entrypoints/``).

It listens on a socket in a folder that nobody else may enter: its key guards no more than ``/v1``, and a port
of the loopback could be asked by every user of the machine.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx

from tanzim.core.errors import ConfigError
from tanzim.core.records import Json
from tanzim.infer.request import Request, TokenLogprob
from tanzim.serve.backend import Unavailable

_HOST = "http://vllm"
_SECONDS = 10.0  # for what is answered at once
_LOADING = 600.0  # for an adapter
_PLACEHOLDER = "token_id:"
_MOST_ERROR = 500  # characters of vLLM's own words


class Wire:
    """Asks vLLM.

    Args:
        path: of the socket on which it listens.
        key: which it wants to see.

    """

    def __init__(self, path: Path, key: str) -> None:
        self._socket = str(path)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._ssl = httpx.create_ssl_context(verify=False)  # made once: it takes longer than the rest

    def listened_to(self) -> bool:
        """Whether somebody listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_SECONDS)
            try:
                probe.connect(self._socket)
            except OSError:
                return False
        return True

    def ask(self, path: str, body: Json | None = None) -> httpx.Response:
        """Return its answer to GET, or to POST with a body.

        Raises:
            Unavailable: nobody answers.

        """
        if not self.listened_to():  # httpx leaves a socket open that finds nobody
            raise Unavailable("vLLM does not answer just now")
        transport = httpx.HTTPTransport(uds=self._socket, verify=self._ssl)
        seconds = _SECONDS if body is None else _LOADING
        try:
            with httpx.Client(transport=transport, headers=self._headers, timeout=seconds) as client:
                method = "GET" if body is None else "POST"
                return client.request(method, f"{_HOST}{path}", json=body)
        except httpx.HTTPError as error:
            raise Unavailable("vLLM does not answer just now") from error

    def healthy(self) -> bool:
        """Whether vLLM answers, and its engine lives."""
        try:
            return self.ask("/health").is_success
        except Unavailable:
            return False

    def post(self, path: str, body: Json) -> None:
        """Have it do something.

        Raises:
            ConfigError: it refuses.
            Unavailable: nobody answers, or its engine has died.

        """
        answer = self.ask(path, body)
        if answer.is_error:  # 500, too, is said of what it cannot load
            raise _refusal(httpx.codes.BAD_REQUEST if self.healthy() else answer.status_code, answer.text)

    async def chunks(self, body: Json) -> AsyncGenerator[Json, None]:
        """Yield the choice of each chunk of a streamed completion; closing the iterator ends the request.

        Raises:
            ConfigError: it refuses.
            Unavailable: nobody answers, or it died on the way.

        """
        transport = httpx.AsyncHTTPTransport(uds=self._socket, verify=self._ssl)
        timeout = httpx.Timeout(None, connect=_SECONDS)
        client = httpx.AsyncClient(transport=transport, headers=self._headers, timeout=timeout)
        try:
            async with client, client.stream("POST", f"{_HOST}/v1/completions", json=body) as answer:
                if answer.is_error:
                    raise _refusal(answer.status_code, (await answer.aread()).decode(errors="replace"))
                async for line in answer.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise _refusal(chunk["error"]["code"], line.removeprefix("data: "))
                    for choice in chunk["choices"]:
                        yield choice
        except httpx.HTTPError as error:
            raise Unavailable("vLLM ended before it had answered") from error


def completion(request: Request, model: str, limit: int, stop_ids: tuple[int, ...]) -> Json:
    """Return the body of ``POST /v1/completions``.

    Stop strings are not sent: they are looked for here, as for our own engine, and end the request.

    Args:
        request: what was asked.
        model: what vLLM calls the base, or the adapter.
        limit: most tokens to generate.
        stop_ids: tokens that end the answer, and none besides.

    """
    greedy = request.temperature == 0 or request.top_p == 0  # vLLM takes no top_p of 0
    body: Json = {
        "model": model,
        "prompt": request.prompt_ids,
        "stream": True,
        "max_tokens": limit,
        "temperature": 0.0 if greedy else request.temperature,
        "top_p": 1.0 if greedy else request.top_p,
        "seed": None if request.seed is None else request.seed % (1 << 63),
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,
        "return_token_ids": True,
    }
    if request.realm:
        body["cache_salt"] = request.realm
    if request.logprobs is not None:
        body |= {"logprobs": request.logprobs, "return_tokens_as_token_ids": True}
    if request.grammar is not None and request.grammar.type != "lark":
        body["structured_outputs"] = {
            "json_schema": {"json": request.grammar.text},
            "json_object": {"json_object": True},
            "regex": {"regex": request.grammar.text},
        }[request.grammar.type]
    return body


def tokens(choice: Json, top: int | None) -> list[tuple[int, TokenLogprob | None]]:
    """Return the tokens of a chunk, each with its log-probability where asked for.

    Args:
        choice: of a streamed completion with ``return_token_ids``.
        top: how many alternatives to report; None reports nothing.

    """
    ids: list[int] = choice["token_ids"] or []
    if top is None:
        return [(token, None) for token in ids]
    told: dict[str, list[Any]] = choice["logprobs"]
    found: list[tuple[int, TokenLogprob | None]] = []
    for token, logprob, others in zip(ids, told["token_logprobs"], told["top_logprobs"], strict=True):
        # The chosen token is among them, also where it is none of the likeliest.
        pairs = sorted(
            ((int(name.removeprefix(_PLACEHOLDER)), value) for name, value in others.items()),
            key=lambda pair: -pair[1],
        )
        found.append((token, TokenLogprob(token, logprob, tuple(pairs[:top]))))
    return found


def _refusal(status: int, text: str) -> ConfigError | Unavailable:
    """Return what an error of vLLM's means here."""
    try:
        error = json.loads(text)["error"]
        said = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        said = text
    said = said[:_MOST_ERROR]
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Unavailable(f"vLLM failed: {said}")
    return ConfigError(f"vLLM refuses this: {said}")
