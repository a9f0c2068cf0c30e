"""The clients of `serve_load.py`: what they ask of a server, and an account of how every request ended."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

Json = dict[str, Any]
SUBJECTS = ("a lighthouse", "two rivers", "the night train", "an old map", "a glass garden", "شبِ یلدا",
            "کتاب‌های کهنه", "the last winter")  # fmt: skip
ENDS = ("data: [DONE]", "event: response.completed", "event: response.incomplete")
ENDED = ("succeeded", "failed", "cancelled")  # of jobs
SETTLE = 8.0  # seconds after a kill in which an answer may still be missing
SHOWN = 300  # characters of an answer that should not have been
CHAT, FILES = "/v1/chat/completions", "/v1/files"


@dataclass
class Ledger:
    """How every request ended. Whatever is in none of the four is lost.

    Args:
        sent: requests, by kind.
        right: answered as they must be.
        refused: refused as they must be.
        hung_up: given up by their clients, on purpose.
        interrupted: without an answer while something had been killed.
        lost: all others: what came instead.
        first: the first answer to what must be answered the same each time.
        seconds: until each answer was complete.
        outages: when something was down, by the clock of `time.monotonic`.

    """

    sent: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    hung_up: Counter[str] = field(default_factory=Counter)
    interrupted: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    first: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    repeated: int = 0
    seconds: list[float] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)

    def same(self, key: tuple[Any, ...], answer: Any) -> bool:  # noqa: ANN401 - text or numbers
        """Tell whether an answer is the one that was given to the same question before."""
        if key not in self.first:
            self.first[key] = answer
            return True
        self.repeated += 1
        first = self.first[key]
        if isinstance(answer, str):
            return bool(answer == first)
        return all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(answer, first, strict=True))

    def in_outage(self, start: float, end: float) -> bool:
        """Tell whether something was down between two moments."""
        return any(start < back + SETTLE and end > down for down, back in self.outages)


class Wrong(Exception):
    """An answer that should not have been."""


class Team:
    """The people of one project.

    Args:
        url: of the server.
        keys: role → key.
        ledger: where every request is accounted for.
        models: names that answer greedily, the base first.
        seed: of what is done by chance.
        folder: an adapter that may be loaded by its path.

    """

    def __init__(
        self, url: str, keys: dict[str, str], ledger: Ledger, models: Sequence[str], seed: int, folder: str
    ) -> None:
        self.ledger, self.models, self.folder = ledger, list(models), folder
        self.draw = random.Random(seed)
        self.project = f"p{seed}"
        self.foreign: list[str] = []  # files of other projects
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        self.clients = {
            role: httpx.AsyncClient(
                base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300, limits=limits
            )
            for role, key in keys.items()
        }

    async def close(self) -> None:
        """Close all connections."""
        for client in self.clients.values():
            await client.aclose()

    async def send(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        role: str = "trainer",
        expect: int = 200,
        forgotten: bool = False,
        **body: Any,  # noqa: ANN401 - what httpx takes
    ) -> httpx.Response | None:
        """Send one request, and account for it; None if it was interrupted or lost.

        Args:
            kind: for the account.
            method: of HTTP.
            path: of the route.
            role: who asks.
            expect: the status that must come.
            forgotten: whether it is about something that a server forgets when it is killed.
            body: what httpx takes.

        """
        self.ledger.sent[kind] += 1
        start = time.monotonic()
        try:
            answer = await self.clients[role].request(method, path, **body)
        except httpx.TransportError as error:
            return self._gone(kind, start, f"{type(error).__name__} {error}")
        if answer.status_code != expect:
            status = 503 if forgotten else answer.status_code
            return self._gone(kind, start, f"{answer.status_code} {answer.text[:SHOWN]}", status)
        self.ledger.seconds.append(time.monotonic() - start)
        if expect < httpx.codes.BAD_REQUEST:
            self.ledger.right[kind] += 1
        else:
            self.ledger.refused[kind] += 1
        return answer

    def _gone(self, kind: str, start: float, why: str, status: int = 503) -> None:
        allowed = status == httpx.codes.SERVICE_UNAVAILABLE
        if allowed and self.ledger.in_outage(start, time.monotonic()):
            self.ledger.interrupted[kind] += 1
        else:
            self.ledger.lost.append(f"{kind}: {why}")

    def wrong(self, kind: str, why: str) -> None:
        """Move an answer that came, and was not right, to those that are lost."""
        self.ledger.right[kind] -= 1
        self.ledger.lost.append(f"{kind}: {why}")

    def question(self) -> tuple[str, int]:
        """Return something to ask, and how long the answer may be; half of them are asked again and again."""
        number = self.draw.randrange(3) if self.draw.random() < 0.5 else self.draw.randrange(10**6)
        subject = self.draw.choice(SUBJECTS)
        return f"Tell me the story of {subject}, part {number}.", (16, 24, 32)[number % 3]

    def chat_body(self, **more: Any) -> Json:  # noqa: ANN401 - any JSON
        """Return the body of a greedy chat request."""
        text, tokens = self.question()
        turns = [{"role": "user", "content": text}]
        model = self.draw.choice(self.models)
        return {"model": model, "messages": turns, "temperature": 0, "max_tokens": tokens, **more}

    def check_text(self, kind: str, body: Json, text: str) -> None:
        """Hold an answer against the first one to the same question, whole or streamed."""
        about = json.dumps(body.get("messages") or body.get("prompt") or body.get("input"))
        tokens = body.get("max_tokens") or body.get("max_output_tokens")
        model = body["model"]
        owner = self.project if model.startswith(("ft:", "own-")) else ""
        family = "chat" if kind.startswith(("chat", "response")) else "text"
        if not self.ledger.same((family, owner, model, about, tokens), text):
            self.wrong(kind, f"another answer than before from {model}: {text!r}")

    async def chat(self) -> None:
        """Ask, and take the whole answer."""
        body = self.chat_body()
        answer = await self.send("chat", "POST", CHAT, role="user", json=body)
        if answer is not None:
            self.check_text("chat", body, answer.json()["choices"][0]["message"]["content"])

    async def streamed(self, kind: str, path: str, body: Json, hang_up: int | None = None) -> None:
        """Ask, and take the answer as it comes; with ``hang_up`` close the connection after so many parts."""
        self.ledger.sent[kind] += 1
        start, parts, ended = time.monotonic(), [], False
        try:
            async with self.clients["user"].stream("POST", path, json=body | {"stream": True}) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise Wrong(f"{answer.status_code} {(await answer.aread())[:SHOWN]!r}")
                async for line in answer.aiter_lines():
                    if hang_up is not None and len(parts) >= hang_up:
                        self.ledger.hung_up[kind] += 1
                        return
                    ended |= line in ENDS
                    if line.startswith("data: {"):
                        parts.append(_piece(json.loads(line[6:])))
        except httpx.TransportError as error:
            self._gone(kind, start, f"{type(error).__name__} {error}")
        except Wrong as error:
            self._gone(kind, start, str(error), 503 if str(error).startswith("503") else 500)
        else:
            if not ended:
                self._gone(kind, start, f"the stream ended early, after {len(parts)} parts")
                return
            self.ledger.right[kind] += 1
            self.ledger.seconds.append(time.monotonic() - start)
            self.check_text(kind, body, "".join(parts))

    async def chat_stream(self) -> None:
        """Ask, and take the answer as it comes."""
        await self.streamed("chat, streamed", CHAT, self.chat_body())

    async def hang_up(self) -> None:
        """Close the connection after some parts of a long answer."""
        body = self.chat_body(max_tokens=64)
        await self.streamed("hung up", CHAT, body, hang_up=self.draw.randrange(4))

    async def hang_up_early(self) -> None:
        """Close the connection before the answer is there, if it takes long enough."""
        kind = "hung up early"
        waits = asyncio.ensure_future(self.send(kind, "POST", CHAT, role="user", json=self.chat_body()))
        await asyncio.wait((waits,), timeout=self.draw.uniform(0, 0.05))
        if waits.cancel():
            self.ledger.hung_up[kind] += 1
        await asyncio.gather(waits, return_exceptions=True)

    async def completion(self) -> None:
        """Have a text continued."""
        text, tokens = self.question()
        body = {
            "model": self.draw.choice(self.models),
            "prompt": text,
            "temperature": 0,
            "max_tokens": tokens,
        }
        if self.draw.random() < 0.4:
            await self.streamed("completion, streamed", "/v1/completions", body)
            return
        answer = await self.send("completion", "POST", "/v1/completions", role="user", json=body)
        if answer is not None:
            self.check_text("completion", body, answer.json()["choices"][0]["text"])

    async def response(self) -> None:
        """Ask by the route of responses."""
        text, tokens = self.question()
        turns = [{"role": "user", "content": text}]
        body = {"model": self.draw.choice(self.models), "input": turns, "temperature": 0, "store": False,
                "max_output_tokens": tokens}  # fmt: skip
        if self.draw.random() < 0.4:
            await self.streamed("response, streamed", "/v1/responses", body)
            return
        answer = await self.send("response", "POST", "/v1/responses", role="user", json=body)
        if answer is not None:
            said = [part["text"] for item in answer.json()["output"] for part in item["content"]]
            self.check_text("response", body, "".join(said))

    async def embedding(self) -> None:
        """Ask for vectors."""
        text, _ = self.question()
        body = {"model": self.models[0], "input": [text, "another text"]}
        answer = await self.send("embedding", "POST", "/v1/embeddings", role="user", json=body)
        if answer is not None:
            vector = answer.json()["data"][0]["embedding"]
            if not self.ledger.same(("embedding", text), vector):
                self.wrong("embedding", f"another vector than before for {text!r}")

    async def look(self) -> None:
        """Read lists and metrics."""
        for path in ("/v1/models", FILES, "/v1/fine_tuning/jobs", "/metrics", "/health"):
            await self.send("list", "GET", path, role="viewer")

    async def file(self) -> None:
        """Upload a file, whole or in parts, read it, and delete it."""
        content = self.draw.randbytes(self.draw.randrange(1_000, 200_000))
        in_parts = self.draw.random() < 0.3
        id_ = await (self._in_parts(content) if in_parts else self.upload(content))
        if id_ is None:
            return
        answer = await self.send("file content", "GET", f"{FILES}/{id_}/content")
        if answer is not None and answer.content != content:
            self.wrong("file content", "other bytes than were uploaded")
        if self.draw.random() < 0.5:
            self.foreign.append(id_)
            self.foreign[:-20] = []
        await self.send("file deletion", "DELETE", f"{FILES}/{id_}")

    async def upload(self, content: bytes) -> str | None:
        """Upload a file; return its id."""
        form = {"file": ("rows.jsonl", content)}
        answer = await self.send("file upload", "POST", FILES, files=form, data={"purpose": "fine-tune"})
        return None if answer is None else str(answer.json()["id"])

    async def _in_parts(self, content: bytes) -> str | None:
        about = {"filename": "f", "purpose": "fine-tune", "mime_type": "text/plain", "bytes": len(content)}
        begun = await self.send("upload", "POST", "/v1/uploads", json=about)
        if begun is None:
            return None
        place, half = f"/v1/uploads/{begun.json()['id']}", len(content) // 2
        made = await asyncio.gather(*(
            self.send("upload part", "POST", f"{place}/parts", files={"data": ("p", some)})
            for some in (content[:half], content[half:])
        ))  # fmt: skip
        ids = [one.json()["id"] for one in made if one is not None]
        if len(ids) < len(made):
            return None
        done = await self.send("upload end", "POST", f"{place}/complete", json={"part_ids": ids})
        return None if done is None else str(done.json()["file"]["id"])

    async def adapter(self) -> None:
        """Load an adapter by its path, ask it, and unload it."""
        name = f"own-{self.draw.randrange(10**9)}"
        asked = {"lora_name": name, "lora_path": self.folder}
        if await self.send("adapter loaded", "POST", "/v1/load_lora_adapter", role="admin", json=asked):
            body = self.chat_body(model=name, max_tokens=8)
            await self.send("adapter asked", "POST", CHAT, role="user", json=body, forgotten=True)
            gone, path = {"lora_name": name}, "/v1/unload_lora_adapter"
            await self.send("adapter unloaded", "POST", path, role="admin", json=gone, forgotten=True)

    async def error(self) -> None:
        """Ask for what must be refused."""
        good = self.chat_body()
        endless = {"model": good["model"], "prompt": "x " * 9999}
        elsewhere = {"lora_name": "a", "lora_path": "/etc"}
        empty = {"files": {"file": ("f", b"")}, "data": {"purpose": "fine-tune"}}
        asks: list[tuple[int, str, str, str, Json]] = [
            (404, "user", "POST", CHAT, {"json": good | {"model": "none"}}),
            (400, "user", "POST", CHAT, {"json": good | {"nonsense": 1}}),
            (400, "user", "POST", CHAT, {"json": good | {"max_tokens": -1}}),
            (400, "user", "POST", CHAT, {"content": b"{half"}),
            (400, "user", "POST", CHAT, {"json": good | {"messages": []}}),
            (400, "user", "POST", "/v1/completions", {"json": endless}),
            (403, "viewer", "POST", CHAT, {"json": good}),
            (403, "user", "POST", "/v1/load_lora_adapter", {"json": elsewhere}),
            (401, "nobody", "GET", "/v1/models", {}),
            (404, "trainer", "GET", f"{FILES}/file-none", {}),
            (400, "trainer", "POST", FILES, empty),
            (404, "trainer", "GET", "/v1/none", {}),
        ]  # fmt: skip
        asks += [(404, "trainer", "GET", f"{FILES}/{id_}/content", {}) for id_ in self.foreign[-1:]]
        status, role, method, path, body = self.draw.choice(asks)
        await self.send("error", method, path, role=role, expect=status, **body)

    def kinds(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        """Return what people do, with how often."""
        return [
            (self.chat, 30), (self.chat_stream, 26), (self.completion, 10), (self.response, 6),
            (self.embedding, 6), (self.look, 4), (self.file, 5), (self.hang_up, 4), (self.hang_up_early, 2),
            (self.adapter, 1), (self.error, 6),
        ]  # fmt: skip

    async def something(self) -> None:
        """Do something, by chance."""
        kinds, often = zip(*self.kinds(), strict=True)
        (chosen,) = self.draw.choices(kinds, often)
        await chosen()


def _piece(event: Json) -> str:
    """Return the text in one event of a stream, of whichever kind."""
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    choices = event.get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or choices[0].get("text") or "")


def moments(count: int, seconds: float, draw: random.Random) -> list[float]:
    """Return when requests come: a busy morning and a busy afternoon, with four bursts of a few seconds."""
    bursts = [0.1, 0.2, draw.uniform(0.35, 0.6), draw.uniform(0.65, 0.95)]

    def one() -> float:
        if draw.random() < 0.15:
            return min(0.999, draw.choice(bursts) + abs(draw.gauss(0, 0.005)))
        while True:
            at = draw.random()
            if draw.random() < 0.4 + 0.6 * math.sin(2 * math.pi * at) ** 2:
                return at

    return sorted(one() * seconds for _ in range(count))
