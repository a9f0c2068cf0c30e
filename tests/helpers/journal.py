"""Clients that write down what a server has confirmed, and hold it to that after kills.

A request ends in one of three ways: confirmed (an answer below 500), not confirmed (no answer, or 503 while
the database is away), or with a fault (any other answer). What was not confirmed may be so or not; what was
confirmed must be so, whatever was killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

Json = dict[str, Any]
AWAY = httpx.codes.SERVICE_UNAVAILABLE
PATIENCE = 120  # seconds that something not confirmed is tried again


@dataclass
class Journal:
    """What was confirmed.

    Args:
        files: id → (key, MD5), of those that stand.
        deleted: id → key.
        jobs: id → (key, status that it must end with).
        changes: how often (id of the key, method, path, status) was confirmed, of what changes something.
        unsure: ids of files that were asked to be deleted without an answer.
        counts: how requests ended, by kind.
        faults: answers that should not have been.

    """

    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)
    changes: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    unsure: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Client:
    """A person with a key, who notes what was confirmed.

    Args:
        url: of the server.
        key: of a trainer.
        journal: where to note it.
        seed: of what is done by chance.

    """

    def __init__(self, url: str, key: str, journal: Journal, seed: int) -> None:
        self.key, self.journal = key, journal
        self.draw = random.Random(seed)
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(60, connect=5)
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def once(self, method: str, path: str, **body: Any) -> httpx.Response | None:
        """Send a request; None if it was not confirmed."""
        try:
            answer = await self._http.request(method, path, **body)
        except httpx.TransportError:
            self.journal.counts["no answer"] += 1
            return None
        if answer.status_code == AWAY:
            self.journal.counts["503"] += 1
            if "retry-after" not in answer.headers:
                self.journal.faults.append(f"{method} {path}: 503 without Retry-After")
            return None
        self.journal.counts["confirmed"] += 1
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            self.journal.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        elif method != "GET" and not path.startswith(("/v1/chat", "/v1/completions")):
            self.journal.changes[self.key.split("-")[1], method, path, answer.status_code] += 1
        return answer

    async def until(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Send a request again until it is confirmed."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while (answer := await self.once(method, path, **body)) is None:
            assert asyncio.get_running_loop().time() < end, f"{method} {path} is never answered"
            await asyncio.sleep(0.2)
        return answer

    def expect(self, answer: httpx.Response, *statuses: int) -> bool:
        """Tell whether an answer is as it must be; note it if not."""
        if answer.status_code in statuses:
            return True
        asked = f"{answer.request.method} {answer.request.url.path}"
        self.journal.faults.append(f"{asked}: {answer.status_code}, not {statuses}: {answer.text[:300]}")
        return False

    async def upload(self, content: bytes) -> str | None:
        """Upload a file once; return its id if that was confirmed."""
        form = {"file": ("rows.jsonl", content)}
        answer = await self.once("POST", "/v1/files", files=form, data={"purpose": "fine-tune"})
        if answer is None or not self.expect(answer, 200):
            return None
        return self._stands(answer.json()["id"], content)

    async def upload_in_parts(self, content: bytes, parts: int) -> str | None:
        """Upload a file in parts, each tried until it is confirmed; those of before a kill must be there."""
        about = {"filename": "rows.jsonl", "purpose": "fine-tune", "mime_type": "text/plain"}
        begun = await self.until("POST", "/v1/uploads", json={**about, "bytes": len(content)})
        if not self.expect(begun, 200):
            return None
        place, size, ids = f"/v1/uploads/{begun.json()['id']}", -(-len(content) // parts), []
        for start in range(0, len(content), size):
            form = {"data": ("part", content[start : start + size])}
            answer = await self.once("POST", f"{place}/parts", files=form)
            if answer is None:  # perhaps it is there, perhaps not, and its id is not known: begin anew
                return None
            if not self.expect(answer, 200):
                return None
            ids.append(answer.json()["id"])
        done = {"part_ids": ids, "md5": hashlib.md5(content, usedforsecurity=False).hexdigest()}
        answer = await self.once("POST", f"{place}/complete", json=done)
        if answer is None:
            answer = await self.until("POST", f"{place}/complete", json=done)
            if answer.status_code == httpx.codes.BAD_REQUEST and "completed" in answer.text:
                return None  # the first had been heard
        if not self.expect(answer, 200):
            return None
        return self._stands(answer.json()["file"]["id"], content)

    def _stands(self, id_: str, content: bytes) -> str:
        self.journal.files[id_] = self.key, _md5(content)
        return id_

    async def read(self, id_: str) -> None:
        """Read a file that stands."""
        answer = await self.once("GET", f"/v1/files/{id_}/content")
        if answer is not None and self.expect(answer, 200) and id_ in self.journal.files:
            self._compare(id_, answer.content)

    def _compare(self, id_: str, content: bytes) -> None:
        if _md5(content) != self.journal.files[id_][1]:
            self.journal.faults.append(f"{id_}: other bytes than were uploaded")

    async def delete(self, id_: str) -> None:
        """Delete a file that stands."""
        self.journal.unsure.add(id_)
        del self.journal.files[id_]
        answer = await self.once("DELETE", f"/v1/files/{id_}")
        if answer is not None and self.expect(answer, 200):
            self.journal.unsure.discard(id_)
            self.journal.deleted[id_] = self.key

    async def something(self) -> None:
        """Do something with files, by chance."""
        own = [id_ for id_, (key, _) in self.journal.files.items() if key == self.key]
        chance = self.draw.random()
        content = self.draw.randbytes(self.draw.randrange(1, 200_000))
        if chance < 0.4 or not own:
            await self.upload(content)
        elif chance < 0.6:
            await self.upload_in_parts(content, self.draw.randrange(1, 5))
        elif chance < 0.8:
            await self.read(self.draw.choice(own))
        else:
            await self.delete(self.draw.choice(own))

    async def create(self, model: str, file: str, settings: Json, ends: str = "succeeded") -> str | None:
        """Ask for a job once; return its id if that was confirmed."""
        answer = await self.once(
            "POST", "/v1/fine_tuning/jobs", json={"model": model, "training_file": file, **settings}
        )
        if answer is None or not self.expect(answer, 200):
            return None
        id_: str = answer.json()["id"]
        self.journal.jobs[id_] = self.key, ends
        return id_

    async def cancel(self, id_: str) -> None:
        """Cancel a job; from the confirmation on it is, whatever it had come to."""
        answer = await self.until("POST", f"/v1/fine_tuning/jobs/{id_}/cancel")
        if answer.status_code == httpx.codes.OK:
            self.journal.jobs[id_] = self.key, "cancelled"
        else:
            self.expect(answer, 400)  # it had ended

    async def job(self, id_: str) -> Json:
        """Return a job as it is."""
        found: Json = (await self.until("GET", f"/v1/fine_tuning/jobs/{id_}")).json()
        return found

    async def told(self, id_: str) -> list[Json]:
        """Return a job's events, the oldest first."""
        events: list[Json] = []
        after: Json = {}
        while True:
            query = {"limit": 100, **after}
            page = (await self.until("GET", f"/v1/fine_tuning/jobs/{id_}/events", params=query)).json()
            events += page["data"]
            if not page["has_more"]:
                return events[::-1]
            after = {"after": page["last_id"]}

    async def say(self, model: str, text: str, tokens: int = 8) -> str | None:
        """Ask a model, greedily; None if there was no answer."""
        asked = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0}
        answer = await self.once("POST", "/v1/chat/completions", json={**asked, "max_tokens": tokens})
        if answer is None or not self.expect(answer, 200):
            return None
        said: str = answer.json()["choices"][0]["message"]["content"]
        return said


async def check_files(client: Client) -> None:
    """Hold the server to what it confirmed of the files of this client."""
    journal = client.journal
    listed = {one["id"] for one in (await client.until("GET", "/v1/files")).json()["data"]}
    for id_ in [id_ for id_, (key, _) in journal.files.items() if key == client.key]:
        if id_ not in listed:
            journal.faults.append(f"{id_} was confirmed and is not listed")
        answer = await client.until("GET", f"/v1/files/{id_}/content")
        if client.expect(answer, 200):
            client._compare(id_, answer.content)
    for id_ in [id_ for id_, key in journal.deleted.items() if key == client.key]:
        if id_ in listed:
            journal.faults.append(f"{id_} was deleted and is listed")
        client.expect(await client.until("GET", f"/v1/files/{id_}/content"), 404)


def losses(events: list[Json]) -> list[tuple[int, float]]:
    """Return the steps that were told, in their order, with the losses."""
    steps = [event["data"] for event in events if event["type"] == "metrics"]
    return [(one["step"], one["train_loss"]) for one in steps if "train_loss" in one]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def rows(count: int, seed: int) -> bytes:
    """Return conversations with a learnable answer, as JSON Lines."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        asked = f"{draw.randrange(10**6)}: Which colour has {FRUIT[number % len(FRUIT)]}?"
        answer = "red" if number % len(FRUIT) < len(FRUIT) // 2 else "زرد"
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        made.append(json.dumps({"messages": turns}, ensure_ascii=False))
    return ("\n".join(made) + "\n").encode()


FRUIT = ("apple", "pear", "plum", "سیب", "گلابی", "می‌خوش")
