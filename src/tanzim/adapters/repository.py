"""The adapter repository: one place that keeps every adapter with its base, data, scores and lineage.

It is a log. ``log/00000001.json`` and so on hold what happened: an adapter was added, promoted, rolled
back, deleted. Events are never changed, and number n + 1 is written by exactly one of any number of
processes (`Store.create`); the others read it and decide anew. An adapter's files are stored, under a
key nobody else uses, before the event that names them: who sees an adapter sees all of it.

``index.json`` and ``tasks.json`` are what the log comes to, so that little is read: `Repository.fetch`
reads ``tasks.json`` and asks whether a later event exists. They can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tanzim.adapters.folder import CONFIG, check_base, own_type, read_record
from tanzim.adapters.repository_state import Deleted, Entry, Facts, State, find, read_index, write_index
from tanzim.adapters.repository_store import Store, open_store
from tanzim.core.errors import ModelError, RunError
from tanzim.core.files import read_json, sha256
from tanzim.core.records import Json

_ATTEMPTS = 500
Decide = Callable[[State], Json]


class Repository:
    """The adapters kept at one path or URL. Any number of processes may use it at once.

    Args:
        url: a folder, or a URL such as ``s3://bucket/prefix``; made when something is first added.

    Raises:
        MissingExtra: the package for this protocol is not installed.
        RunError: the URL cannot be used.

    """

    def __init__(self, url: str | Path) -> None:
        self._store: Store = open_store(str(url))
        self.url = self._store.url

    def add(self, folder: Path, facts: Facts) -> Entry:
        """Keep a copy of an adapter as the next version of its name.

        The same files with the same facts are kept once: the version that has them is returned.

        Args:
            folder: PEFT layout with ``tanzim.json``, of any kind; hidden files in it are left out.
            facts: what is known about it.

        Raises:
            ModelError: this is no adapter folder, or a name cannot be used.
            WrongBaseError: it does not say which base weights it was made for.
            RunError: the repository cannot be written.

        """
        check_name(facts.name, "name")
        check_name(facts.task, "task")
        base, base_hash, kind = _describe(folder)
        files = _files(folder)
        content = hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()
        facts = Facts.from_json(json.loads(json.dumps(asdict(facts))))  # as it will be read back
        for entry in self.entries():
            if entry.content == content and entry.facts == facts:
                return entry
        id_, now = uuid.uuid4().hex, _now()
        self._store.put_folder(f"objects/{id_}", folder, files)

        def decide(state: State) -> Json:
            versions = [e.version for e in state.entries.values() if e.facts.name == facts.name]
            version = 1 + max(versions, default=0)
            entry = Entry(id_, version, facts, kind, base, base_hash, content, files, now)
            return {"event": "add", "entry": entry.to_json()}

        try:
            return Entry.from_json(self._commit(decide)["entry"])
        except RunError:
            self._store.remove_folder(f"objects/{id_}")
            raise

    def entries(self) -> list[Entry]:
        """Return every adapter that is not deleted, in the order they were added."""
        return self.state().alive()

    def search(
        self,
        text: str | None = None,
        *,
        task: str | None = None,
        base: str | None = None,
        tag: str | None = None,
    ) -> list[Entry]:
        """Return the adapters that match all of what is given.

        Args:
            text: words that must all occur in name, task, text, tags or base; case does not matter.
            task: the task, exactly.
            base: the beginning of the base weights' hash, or a part of the base's name.
            tag: a tag, exactly.

        """
        return [
            entry
            for entry in self.entries()
            if (task is None or entry.facts.task == task)
            and (tag is None or tag in entry.facts.tags)
            and (base is None or entry.base_hash.startswith(base) or base.casefold() in entry.base.casefold())
            and (text is None or _has_words(entry, text))
        ]

    def get(self, ref: str) -> Entry:
        """Return the adapter called ``name@version``, or the newest one of a name.

        Raises:
            RunError: there is none, or it was deleted.

        """
        return find(self.state(), ref)

    def folder(self, entry: Entry) -> Path:
        """Return a local folder with an adapter's files; from afar they are fetched and checked once.

        The folder belongs to the repository or to the cache: copy it before changing anything.

        Raises:
            RunError: files are missing or damaged.

        """
        return self._store.get_folder(f"objects/{entry.id}", entry.content, entry.files)

    def fetch(self, task: str) -> tuple[Entry, Path]:
        """Return the adapter promoted for ``task``, and a local folder with its files.

        Raises:
            RunError: nothing is promoted for this task.

        """
        state = self._read("tasks.json")
        history = state.tasks.get(task)
        if not history:
            known = ", ".join(name for name, refs in sorted(state.tasks.items()) if refs) or "none"
            raise RunError(
                f"no adapter is promoted for the task '{task}' (promoted: {known})",
                where=self.url,
                fix="tanzim adapters promote NAME",
            )
        entry = state.entries[history[-1]]
        return entry, self.folder(entry)

    def promote(self, ref: str, task: str | None = None) -> Entry:
        """Make an adapter the one that `fetch` returns for ``task`` (its own, unless another is named).

        Raises:
            RunError: there is no such adapter, or it is the promoted one already.

        """
        if task is not None:
            check_name(task, "task")

        def decide(state: State) -> Json:
            entry = find(state, ref)
            name = task or entry.facts.task
            if state.tasks.get(name, [])[-1:] == [entry.ref]:
                raise RunError(f"'{entry.ref}' is promoted for '{name}' already", where=self.url)
            return {"event": "promote", "task": name, "ref": entry.ref}

        return self.get(self._commit(decide)["ref"])

    def roll_back(self, task: str) -> Entry:
        """Promote again what was promoted for ``task`` before the present one.

        Raises:
            RunError: there is nothing to go back to.

        """

        def decide(state: State) -> Json:
            history = state.tasks.get(task, [])
            if len(history) < 2:
                present = f"only '{history[0]}' was ever promoted" if history else "nothing is promoted"
                raise RunError(f"the task '{task}' cannot be rolled back: {present}", where=self.url)
            return {"event": "roll back", "task": task, "ref": history[-2]}

        return self.get(self._commit(decide)["ref"])

    def delete(self, ref: str) -> Deleted:
        """Remove one version's files; that it existed, and what it was, stays in the log.

        Args:
            ref: ``name@version``; a name alone would delete whatever is newest by then.

        Raises:
            RunError: it is promoted, or there is no such version.

        """
        if "@" not in ref:
            raise RunError(f"which version of '{ref}'?", where=self.url, fix=f"name it: {self.get(ref).ref}")
        lost: list[Deleted] = []

        def decide(state: State) -> Json:
            entry = find(state, ref)
            promoted = [task for task, history in state.tasks.items() if history[-1:] == [ref]]
            if promoted:
                raise RunError(
                    f"'{ref}' is promoted for {', '.join(promoted)}",
                    where=self.url,
                    fix="promote another or roll back first",
                )
            history = tuple(task for task, refs in state.tasks.items() if ref in refs)
            children = tuple(
                other.ref
                for other in state.alive()
                if any(parent.get("adapter") == ref for parent in other.facts.parents)
            )
            lost.append(Deleted(entry, history, children))
            return {"event": "delete", "ref": ref}

        self._commit(decide)
        self._store.remove_folder(f"objects/{lost[-1].entry.id}")
        return lost[-1]

    def log(self) -> list[Json]:
        """Return every event since the beginning, in order."""
        events: list[Json] = []
        while (event := self._event(len(events) + 1)) is not None:
            events.append(event)
        return events

    def state(self) -> State:
        """Return what the log comes to now."""
        return self._read("index.json")

    def advance(self, state: State) -> State:
        """Return what the log comes to now, reading only what happened since ``state``.

        Args:
            state: what it came to before; it stays as it is, and is returned if nothing happened.

        """
        event = self._event(state.upto + 1)
        if event is None:
            return state
        later = State(
            state.upto, dict(state.entries), {task: list(refs) for task, refs in state.tasks.items()}
        )
        while event is not None:
            later.apply(event)
            event = self._event(later.upto + 1)
        return later

    def _read(self, key: str) -> State:
        """Read the index at ``key`` and whatever happened after it was written."""
        state = read_index(self._store.read(key))
        event = self._event(state.upto + 1)
        if event is not None and key == "tasks.json":
            return self._read("index.json")  # the later event may be about any adapter
        while event is not None:
            state.apply(event)
            event = self._event(state.upto + 1)
        return state

    def _event(self, number: int) -> Json | None:
        data = self._store.read(_log_key(number))
        if data is None:
            return None
        try:
            event: Json = json.loads(data)
        except ValueError as error:
            raise RunError(
                f"event {number} of the repository is damaged: {error}",
                where=f"{self.url}/{_log_key(number)}",
            ) from error
        return event

    def _commit(self, decide: Decide) -> Json:
        """Write the event that ``decide`` makes of the present state, as the next of the log.

        Where another process was quicker, its event is read and ``decide`` is asked again.
        """
        mark = uuid.uuid4().hex
        for _ in range(_ATTEMPTS):
            state = self.state()
            event = {**decide(state), "at": _now(), "mark": mark}
            number = state.upto + 1
            data = (json.dumps(event, ensure_ascii=False) + "\n").encode()
            # A write whose answer got lost on the way is found again by its mark.
            if self._store.create(_log_key(number), data) or (self._event(number) or {}).get("mark") == mark:
                self._write_indexes(state, event)
                return event
            time.sleep(random.uniform(0, 0.02))
        raise RunError(f"others wrote first {_ATTEMPTS} times in a row", where=self.url, fix="try again")

    def _write_indexes(self, state: State, event: Json | None) -> None:
        """Write what the log comes to after ``event``; and again, should others have gone on meanwhile."""
        while event is not None:
            state.apply(event)
            promoted = {history[-1] for history in state.tasks.values() if history}
            for key, refs in (("index.json", state.entries), ("tasks.json", promoted)):
                self._store.replace(key, write_index(state, refs))
            event = self._event(state.upto + 1)


def _describe(folder: Path) -> tuple[str, str, str]:
    """Return an adapter's base, the hash of its weights, and its kind."""
    if not folder.is_dir():
        raise ModelError("there is no such folder", where=str(folder))
    record = read_record(folder)
    base_hash = str(record.get("base_hash") or "")
    if not base_hash:
        raise ModelError("its tanzim.json names no base_hash", where=str(folder))
    check_base(folder, base_hash)
    try:
        config = read_json(folder / CONFIG)
    except ValueError as error:
        raise ModelError(f"its {CONFIG} is not JSON: {error}", where=str(folder)) from error
    kind = own_type(folder) or config.get("peft_type") or "unknown"
    return str(record.get("base") or ""), base_hash, str(kind)


def _files(folder: Path) -> dict[str, str]:
    """Return relative path → SHA-256 of every file that is not hidden."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = sha256(path)
    return found


def check_name(name: str, what: str) -> None:
    """Refuse a name that would be confused with something else.

    Args:
        name: of an adapter or a task.
        what: which of the two, for the message.

    Raises:
        ModelError: it is empty, or holds ``@``, ``/``, ``,`` or the like.

    """
    if (
        not name.strip(".")
        or not name.isprintable()
        or any(sign in name for sign in "@/\\,")
        or name != name.strip()
    ):
        raise ModelError(
            f"'{name}' cannot be the {what} of an adapter",
            fix="use letters, digits, - _ and ., without @ , /",
        )


def _has_words(entry: Entry, text: str) -> bool:
    facts = entry.facts
    everything = " ".join(
        [facts.name, facts.task, facts.text, *facts.tags, entry.base, entry.kind]
    ).casefold()
    return all(word in everything for word in text.casefold().split())


def _log_key(number: int) -> str:
    return f"log/{number:08d}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
