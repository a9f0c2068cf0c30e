"""What the adapter repository knows: its records, and what its log of events comes to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath

from tanzim.core.errors import RunError
from tanzim.core.records import Json

Scores = Mapping[str, Mapping[str, float]]
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about an adapter besides its files.

    Args:
        name: its name; versions of one name are counted from 1.
        task: what it is for; `Repository.fetch` finds the promoted one by this.
        text: anything worth saying, for people and for `Repository.search`.
        tags: words to search by.
        data: fingerprints of the data it was trained on: split → SHA-256.
        scores: task → metric → value, on held-out items.
        parents: where it came from: ``{"run": path}``, or ``{"adapter": "name@2", "weight": 0.5}`` for each
            adapter it was combined of.
        made: how it was made: the training method, or the way of combining, with its settings.

    """

    name: str
    task: str
    text: str = ""
    tags: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    parents: tuple[Json, ...] = ()
    made: Json = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Json) -> Facts:
        """Make the record from plain JSON values."""
        return cls(**{**value, **{key: tuple(value[key]) for key in ("tags", "parents")}})


@dataclass(frozen=True, slots=True)
class Entry:
    """One adapter in the repository.

    Args:
        id: names its files' folder; never used twice.
        version: number among those of its name.
        facts: what was said when it was added.
        kind: PEFT's name of what it is, such as LORA, or ours, such as spiel.
        base: id of the base model.
        base_hash: SHA-256 of the base's weights.
        content: SHA-256 over the names and bytes of all files.
        files: relative path → SHA-256.
        created: when it was added, ISO 8601, UTC.
        deleted: when it was deleted; its files are gone, the entry stays.

    """

    id: str
    version: int
    facts: Facts
    kind: str
    base: str
    base_hash: str
    content: str
    files: Mapping[str, str]
    created: str
    deleted: str | None = None

    @property
    def ref(self) -> str:
        """What it is called: ``name@version``."""
        return f"{self.facts.name}@{self.version}"

    def to_json(self) -> Json:
        """Return the record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> Entry:
        """Make the record from what `to_json` returned.

        Raises:
            RunError: it names files outside its own folder.

        """
        # Ids and names become paths, and a shared repository may be written by others.
        names = [PurePosixPath(name) for name in (value["id"], value["content"], *value["files"])]
        if any(name.is_absolute() or not name.parts or ".." in name.parts for name in names):
            raise RunError(f"an entry of this repository names files outside its folder: {value['id']!r}")
        return cls(**{**value, "facts": Facts.from_json(value["facts"])})


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion took away.

    Args:
        entry: the adapter; its entry stays in the log.
        history: tasks that can no longer be rolled back to it.
        children: adapters that were combined from it, which stay.

    """

    entry: Entry
    history: tuple[str, ...]
    children: tuple[str, ...]


@dataclass(slots=True)
class State:
    """What the log comes to after ``upto`` events: adapters by name@version, and promoted ones by task.

    ``tasks`` holds for each task the promoted adapters in order, the present one last.
    """

    upto: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)

    def apply(self, event: Json) -> None:
        """Take in the next event."""
        kind, ref, task = event["event"], event.get("ref", ""), event.get("task", "")
        if kind == "add":
            entry = Entry.from_json(event["entry"])
            self.entries[entry.ref] = entry
        elif kind == "promote":
            self.tasks.setdefault(task, []).append(ref)
        elif kind == "roll back":
            self.tasks[task].pop()
        elif kind == "delete":
            self.entries[ref] = replace(self.entries[ref], deleted=event["at"])
            self.tasks = {
                name: [one for one in history if one != ref] for name, history in self.tasks.items()
            }
        else:
            raise RunError(
                f"this repository holds an event of a kind this version does not know: '{kind}'",
                fix="install a newer Tanzim",
            )
        self.upto += 1

    def alive(self) -> list[Entry]:
        """Return the adapters that are not deleted, in the order they were added."""
        return [entry for entry in self.entries.values() if entry.deleted is None]


def find(state: State, ref: str) -> Entry:
    """Return the adapter called ``name@version``, or the newest one of a name.

    Raises:
        RunError: there is none, or it was deleted.

    """
    if "@" in ref:
        entry = state.entries.get(ref)
        if entry is not None and entry.deleted is None:
            return entry
        if entry is not None:
            raise RunError(f"'{ref}' was deleted at {entry.deleted}")
    else:
        versions = [entry for entry in state.alive() if entry.facts.name == ref]
        if versions:
            return max(versions, key=lambda entry: entry.version)
    known = ", ".join(sorted({entry.facts.name for entry in state.alive()})) or "none"
    raise RunError(
        f"there is no adapter '{ref}' in the repository (names: {known})", fix="tanzim adapters list"
    )


def write_index(state: State, refs: Iterable[str]) -> bytes:
    """Return an index of ``state`` with the adapters ``refs``, for `read_index`."""
    value = {
        "format": FORMAT,
        "upto": state.upto,
        "tasks": state.tasks,
        "entries": [state.entries[ref].to_json() for ref in refs],
    }
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def read_index(data: bytes | None) -> State:
    """Read an index; one that is missing, damaged or of another format is as good as an empty one."""
    if data is None:
        return State()
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            return State()
        entries = [Entry.from_json(entry) for entry in value["entries"]]
        return State(value["upto"], {entry.ref: entry for entry in entries}, value["tasks"])
    except (ValueError, KeyError, TypeError):
        return State()


def lineage(state: State, entry: Entry, seen: Sequence[str] = ()) -> list[str]:
    """Return where an adapter came from, a line per ancestor, indented by generation."""
    lines = []
    for parent in entry.facts.parents:
        indent = "  " * len(seen)
        if "adapter" not in parent:
            lines.append(f"{indent}run {parent.get('run')}")
            continue
        ref = parent["adapter"]
        above = state.entries.get(ref)
        gone = " (deleted)" if above is None or above.deleted else ""
        lines.append(f"{indent}{ref} × {parent.get('weight', 1)}{gone}")
        if above is not None and ref not in seen:
            lines += lineage(state, above, (*seen, ref))
    return lines
