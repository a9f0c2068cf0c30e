"""What annotators' tools, connectors and a damaged disk hand over: values, or one clear error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.properties import examples, soon
from tanzim.core.errors import TanzimError
from tanzim.core.records import Example, Provenance
from tanzim.data.ingest import airbyte
from tanzim.data.ingest.airbyte_env import Connector, Program
from tanzim.data.ingest.config import AirbyteSource
from tanzim.data.ingest.fetch import Job
from tanzim.data.ingest.snapshot import read_snapshot
from tanzim.data.label.review import Annotation, read_annotations
from tanzim.data.store import ExampleStore, write_examples

HUGE = "HUGE"  # stands for a number that Python does not read
ORIGIN = {"source": "a.jsonl", "row": 3, "derived": ""}
CHOICE = {"type": "choices", "from_name": "label", "value": {"choices": ["خوب"]}}
TASKS: list[dict[str, Any]] = [
    {"task": ORIGIN, "text": "می‌روم", "annotator": "آوا", "options": ["خوب", "بد"], "label": "خوب"},
    {"data": {"text": "x", **ORIGIN}, "annotations": [{"completed_by": {"id": 1}, "result": [CHOICE]}]},
    {"annotation_id": 5, **ORIGIN, "label": "بد", "annotator": 2},
    {"fields": {"text": "x"}, "metadata": ORIGIN, "responses": {"label": [{"value": "بد", "user_id": "u"}]}},
    {
        "_server_id": "s",
        **ORIGIN,
        "label.responses": ["بد"],
        "label.responses.users": ["u"],
        "label.responses.status": ["submitted"],
    },
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["خوب", "submitted", "choices", "label", -1, 10**30, HUGE]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["source", "row", "id", "value", "choices", "name"]), inner, max_size=3
        )
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each part of a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@st.composite
def changed(draw: st.DrawFn, good: list[dict[str, Any]]) -> Any:
    """One of several good values, one to three of its parts gone or something else."""
    value = copy.deepcopy(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from([one for one in places(value) if one] or [()]))
        if not way:
            return draw(VALUES)
        inside = value
        for key in way[:-1]:
            inside = inside[key]
        if draw(st.booleans()):
            inside[way[-1]] = draw(VALUES)
        else:
            del inside[way[-1]]
    return value


@examples(100)
@given(rows=st.lists(changed(TASKS), min_size=1, max_size=3), lines=st.booleans())
@example(rows=[{**TASKS[0], "label": HUGE}], lines=True)
@soon()
def test_any_answers_of_annotators(rows: list[Any], lines: bool, tmp_path: Path) -> None:
    path = tmp_path / "آوا.jsonl"
    _write(path, rows, lines)
    with suppress(TanzimError):
        assert all(isinstance(one, Annotation) for one in read_annotations(path, labels=["خوب", "بد"]))


@examples(100)
@given(data=st.one_of(st.binary(max_size=60), st.text('[]{}":,\n 1task', max_size=60).map(str.encode)))
@example(data=b"[" * 3000)
@example(data=b"[" + b"9" * 5000 + b"]")
@soon()
def test_any_bytes_for_answers_of_annotators(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with suppress(TanzimError):
        read_annotations(path)


def test_good_answers_are_read(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", TASKS, lines=True)
    assert [one.label for one in read_annotations(tmp_path / "a.jsonl")] == ["خوب", "خوب", "بد", "بد", "بد"]


def _write(path: Path, rows: list[Any], lines: bool) -> None:
    texts = [_dumped(row) for row in rows]
    path.write_text("\n".join(texts) if lines else f"[{', '.join(texts)}]", encoding="utf-8")


def _dumped(value: Any) -> str:
    return json.dumps(value).replace(f'"{HUGE}"', "9" * 4400)


# --- Airbyte --------------------------------------------------------------------------------------------

STREAM = {
    "name": "notes",
    "json_schema": {},
    "supported_sync_modes": ["full_refresh", "incremental"],
    "source_defined_cursor": True,
    "default_cursor_field": ["at"],
    "source_defined_primary_key": [["id"]],
}
STATE = {"type": "STREAM", "stream": {"stream_descriptor": {"name": "notes"}, "stream_state": {"at": 1}}}
SAID: dict[str, list[dict[str, Any]]] = {
    "spec": [{"type": "SPEC", "spec": {"connectionSpecification": {"type": "object", "properties": {}}}}],
    "check": [{"type": "CONNECTION_STATUS", "connectionStatus": {"status": "SUCCEEDED"}}],
    "discover": [{"type": "CATALOG", "catalog": {"streams": [STREAM, {**STREAM, "name": "کتاب‌ها"}]}}],
    "read": [
        {
            "type": "RECORD",
            "record": {"stream": "notes", "data": {"id": 1, "t": "می‌روم"}, "emitted_at": 17e11},
        },
        {"type": "RECORD", "record": {"stream": "notes", "data": {"id": [2]}, "emitted_at": 1}},
        {"type": "STATE", "state": STATE},
        {"type": "LOG", "log": {"level": "INFO", "message": "x"}},
    ],
}


@contextmanager
def saying(said: dict[str, list[Any]]) -> Iterator[None]:
    """Stand in for the process of a connector, which is started nowhere: only what it would say is real."""

    def messages(self: Connector, verb: str, *_: str) -> Iterator[Any]:
        lines = iter([one if isinstance(one, bytes) else _dumped(one).encode() for one in said[verb]])
        stdout = SimpleNamespace(readline=lambda _: next(lines, b""))
        yield from self._listen(SimpleNamespace(stdout=stdout, wait=lambda: None), [])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(airbyte, "installed", lambda *_: Program(Path("none"), "source-x", "1"))
        patch.setattr(Connector, "messages", messages)
        yield


def _fetched(said: dict[str, list[Any]], folder: Path) -> list[Any]:
    """Return the rows of all streams."""
    source = AirbyteSource(type="airbyte", connector="source-x", config={"a": "b"})
    with saying(said):
        found = airbyte.fetch(source, Job(folder))
    return [row for one in found for row in read_snapshot(folder / one["file"], one["name"], 10**6)]


def test_good_messages_are_read(tmp_path: Path) -> None:
    assert [row.value for row in _fetched(SAID, tmp_path)] == [{"id": 1, "t": "می‌روم"}, {"id": [2]}]


@examples(40)
@given(drawn=st.data())
@soon()
def test_any_messages_of_a_connector(drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    verb = drawn.draw(st.sampled_from(sorted(SAID)))
    odd = drawn.draw(st.one_of(changed(SAID[verb]), st.binary(max_size=20)))
    at = drawn.draw(st.integers(0, len(SAID[verb])))
    before = SAID[verb][: at if verb == "read" else 0]
    folder = tmp_path_factory.mktemp("fetched")
    with suppress(TanzimError):
        _fetched({**SAID, verb: [*before, odd, *SAID[verb][at:]]}, folder)
    with suppress(TanzimError):  # and what it left behind is gone on from
        _fetched(SAID, folder)


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("read", b"[" * 3000),
        ("read", {"type": "RECORD", "record": {"stream": "notes", "data": {}, "emitted_at": 10**30}}),
        ("read", {"type": "STATE", "state": {"type": "STREAM", "stream": [1]}}),
        ("discover", {"type": "CATALOG", "catalog": {"streams": [{"name": 5}]}}),
        ("discover", {"type": "CATALOG", "catalog": {"streams": [{**STREAM, "supported_sync_modes": None}]}}),
        (
            "discover",
            {"type": "CATALOG", "catalog": {"streams": [{**STREAM, "source_defined_primary_key": 3}]}},
        ),
    ],
)
def test_messages_that_went_wrong(verb: str, message: Any, tmp_path: Path) -> None:
    said = {**SAID, verb: [message]} if verb == "discover" else {**SAID, verb: [*SAID[verb], message]}
    with suppress(TanzimError):
        _fetched(said, tmp_path)


# --- the store ------------------------------------------------------------------------------------------


@examples(50)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=9)), min_size=1, max_size=4
    ),
    end=st.one_of(st.none(), st.floats(0, 1)),
)
@soon()
def test_a_damaged_store(edits: list[tuple[float, bytes]], end: float | None, tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    rows = [Example("text", Provenance("a", n), text=f"سطر {n}") for n in range(1, 20)]
    if not (tmp_path / "good.arrow").is_file():
        write_examples(tmp_path / "good.arrow", rows)
    data = bytearray((tmp_path / "good.arrow").read_bytes())
    for share, new in edits:
        at = int(share * len(data))
        data[at : at + len(new)] = new
    path.write_bytes(data if end is None else data[: int(end * len(data))])
    with suppress(TanzimError):
        assert all(isinstance(one, Example) for one in ExampleStore(path))
