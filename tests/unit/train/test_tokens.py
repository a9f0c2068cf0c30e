from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_train import documents

from helpers.properties import examples
from tanzim.core.errors import RunError
from tanzim.core.records import Provenance, Rendered
from tanzim.train import tokens
from tanzim.train.tokens import TokenStore, write_tokens


def test_store_returns_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ROWS_PER_BATCH", 7)
    rendered = documents(30, weighted=True)
    assert write_tokens(tmp_path / "t.arrow", rendered) == 30
    store = TokenStore(tmp_path / "t.arrow")
    assert len(store) == 30
    for document, made in zip(store, rendered, strict=True):
        assert tuple(document.ids.tolist()) == made.ids
        assert tuple(document.weights.tolist()) == made.weights
        assert document.provenance == made.provenance
    assert store[-1].provenance == rendered[-1].provenance
    assert [d.provenance.row for d in store[5:9]] == [6, 7, 8, 9]
    assert store.lengths.tolist() == [len(made.ids) for made in rendered]
    assert store.trained.tolist() == [sum(w != 0 for w in made.weights[1:]) for made in rendered]


def test_file_is_plain_arrow(tmp_path: Path) -> None:
    rendered = documents(3)
    write_tokens(tmp_path / "t.arrow", rendered)
    table = pa.ipc.open_file(str(tmp_path / "t.arrow")).read_all()
    assert table.column("ids").to_pylist() == [list(made.ids) for made in rendered]
    assert table.column("row").to_pylist() == [1, 2, 3]


@examples(40)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), max_size=5), max_size=12))
def test_trained_counts_equal_a_plain_count(
    tmp_path_factory: pytest.TempPathFactory, weights: list[list[float]]
) -> None:
    path = tmp_path_factory.mktemp("store") / "t.arrow"
    source = Provenance("x.jsonl", 1)
    write_tokens(path, (Rendered(tuple(range(len(w))), tuple(w), (), source) for w in weights))
    store = TokenStore(path)
    assert store.trained.tolist() == [int(sum(w[1:])) for w in weights]
    assert store.lengths.tolist() == [len(w) for w in weights]
    assert store.lengths.dtype == np.int64


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def broken():
        yield documents(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "t.arrow", broken())
    assert list(tmp_path.iterdir()) == []


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        TokenStore(tmp_path / "none.arrow")
    (tmp_path / "bad.arrow").write_bytes(b"nonsense, not Arrow at all")
    with pytest.raises(RunError, match="cannot be read"):
        TokenStore(tmp_path / "bad.arrow")
    other = pa.table({"x": [1]})
    with pa.ipc.new_file(str(tmp_path / "other.arrow"), other.schema) as writer:
        writer.write_table(other)
    with pytest.raises(RunError, match="holds no tokens"):
        TokenStore(tmp_path / "other.arrow")


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tokens(tmp_path / name, documents(5, seed=seed))
    a, b, c = (TokenStore(tmp_path / name).fingerprint for name in "abc")
    assert a == b != c
