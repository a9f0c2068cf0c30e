"""The hub reader, against a stand-in for the `datasets` package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tanzim.core.errors import ConfigError, DataError, MissingExtra
from tanzim.data.config import DataConfig
from tanzim.data.ingest.sources import find, open_source


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    calls: list[tuple[object, ...]] = []

    def load_dataset(
        name: str, subset: str | None, *, split: str, streaming: bool
    ) -> Iterator[dict[str, object]]:
        calls.append((name, subset, split, streaming))
        if name == "owner/gone":
            raise FileNotFoundError("Dataset 'owner/gone' doesn't exist on the Hub\nmore")
        return iter([{"text": "a"}, {"text": "b"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hf:owner/name", ("owner/name", None, "train", True)),
        ("hf:owner/na.me-2:test", ("owner/na.me-2", None, "test", True)),
        ("hf:owner/name/subset:validation", ("owner/name", "subset", "validation", True)),
        ("hf:squad", ("squad", None, "train", True)),
    ],
)
def test_rows_are_streamed(source: str, call: tuple[object, ...], asked: list[tuple[object, ...]]) -> None:
    rows = list(open_source(find(source).sources[0], DataConfig()).rows)
    assert [(r.source, r.row, r.value) for r in rows] == [
        (source, 1, {"text": "a"}),
        (source, 2, {"text": "b"}),
    ]  # type: ignore[union-attr]
    assert asked == [call]


def test_unknown_dataset_is_one_clear_error(asked: list[tuple[object, ...]]) -> None:
    with pytest.raises(
        DataError, match=r"cannot be read: Dataset 'owner/gone' doesn't exist on the Hub\n  where: hf:"
    ):
        list(open_source(find("hf:owner/gone").sources[0], DataConfig()).rows)


def test_malformed_id(asked: list[tuple[object, ...]]) -> None:
    with pytest.raises(ConfigError, match="not a dataset id"):
        list(open_source(find("hf:a b").sources[0], DataConfig()).rows)
    assert not asked


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r'pip install "tanzim\[hub\]"'):
        list(open_source(find("hf:owner/name").sources[0], DataConfig()).rows)
