"""Any text for a config file or an override gives a config or a ConfigError, soon."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.properties import examples, soon
from tanzim.core.config import load
from tanzim.core.errors import ConfigError
from tanzim.pipeline.config import Config

SEED = """\
name: آزمون
data:
  path: [a.jsonl, b.csv]
  format: auto
  columns: {input: سؤال, output: جواب}
  steps:
    - {type: persian, digits: persian}
    - type: dedup_exact
model: {name: tiny}
train:
  epochs: 2
  learning_rate: 2e-4
"""
WORDS = """
data: path: steps: type: persian a.jsonl train: epochs: model: name: serve: null true 2e-4 -1 .inf .nan
&a *a << ? | > - -- --- ... { } [ ] , : ' " # % @ ` ! !!int !!float !!binary !!set !!timestamp
!!python/name:os 2020-13-45 0x 0b 1:99 1_ 0o9 9999999999999999999999 ۱۲ کتاب
""".split()  # noqa: SIM905
SPACES = ["\n", "\n  ", "\n    ", "\n- ", "\t", "\x00", "\u2028", "\ufeff", "\x85", ": ", ", "]
PARTS = st.sampled_from([*WORDS, *SPACES])
TEXTS = st.lists(PARTS, max_size=25).flatmap(
    lambda parts: st.sampled_from([" ", ""]).map(lambda s: s.join(parts))
)
EDITED = st.tuples(
    st.integers(0, len(SEED)), st.integers(0, 12), st.lists(PARTS, max_size=3).map(" ".join)
).map(lambda edit: SEED[: edit[0]] + edit[2] + SEED[edit[0] + edit[1] :])
KEYS = st.sampled_from(
    ["data.path", "train.epochs", "data.steps", "name", "data", "a.b", "", "data.columns.input"]
)


@examples(60)
@given(text=st.one_of(TEXTS, EDITED, st.text(max_size=60), st.binary(max_size=60)))
@example(text="data: &a [*a]")
@example(text="a: &a {b: *a}")
@example(text="[" * 2000)
@example(text="a: " + "{a: " * 2000)
@example(text="data: 2020-13-45")
@example(text="data: 2020-01-01 25:61:61")
@example(text="a: !!int x")
@example(text="a: !!float x")
@example(text="a: !!bool x")
@example(text="a: !!timestamp x")
@example(text="a: 0b")
@example(text="1: 2")
@example(text="null: 2")
@example(text="data: {1: 2}")
@example(text="data: {path: {? [a]: b}}")
@example(text="a: " + "9" * 5000)
@soon()
def test_any_text_for_a_config(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "tanzim.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with suppress(ConfigError):
        assert isinstance(load(Config, path), Config)


@examples(60)
@given(KEYS, st.one_of(TEXTS, st.text(max_size=30)))
@example("train.epochs", "[" * 2000)
@example("train.epochs", "2020-13-45")
@example("train.epochs", "&a [*a]")
@example("data", "{1: 2}")
@soon()
def test_any_override(key: str, value: str) -> None:
    with suppress(ConfigError):
        assert isinstance(load(Config, None, [f"{key}={value}"]), Config)


def test_a_text_that_grows_when_it_is_read(tmp_path: Path) -> None:
    """Nine lines that stand for a thousand million values: refused, and not waited for."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path = tmp_path / "tanzim.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError):
        load(Config, path)
    with pytest.raises(ConfigError):
        load(Config, None, ["data={" + ", ".join(lines) + "}"])
