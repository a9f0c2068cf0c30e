"""A search is checked before anything runs: every key and every end of every range."""

from __future__ import annotations

from pathlib import Path

import pytest

from tanzim.core.config import with_values
from tanzim.core.errors import ConfigError
from tanzim.pipeline.config import Config
from tanzim.pipeline.workspace import load_config


def load(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "tanzim.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("train.learning_rat: {low: 1e-4, high: 1e-3}", "'train.learning_rat'; did you mean 'learning_rate'"),
        ("trian.learning_rate: {low: 1e-4, high: 1e-3}", "unknown key 'trian'; did you mean 'train'"),
        ("train.learning_rate: {low: 1e-4, high: 2.0}", "less than or equal to 1 (found 2.0)"),
        ("train.learning_rate: {low: 0.0, high: 0.1}", "greater than 0 (found 0.0)"),
        ("train.epochs: {values: [1, many]}", "valid number"),
        ("train.schedule: {values: [linear, lineal]}", "found 'lineal'"),
        ("name: {values: [a, b]}", "only keys of seed, data, model, train"),
        ("serve.port: {low: 1, high: 3}", "only keys of seed, data, model, train"),
        ("train: {values: [{}]}", "whole section"),
        ("train.tokens_per_step: {values: [256, 512]}", "tokens_per_pass (2048) exceeds"),
        ("train.learning_rate: {low: 1e-4, hig: 1e-3}", "hig"),
        ("train.learning_rate: 1e-4", "Range"),
    ],
)
def test_the_wrong_key_or_value_is_named_with_its_line(tmp_path, space, said):
    with pytest.raises(ConfigError) as caught:
        load(
            tmp_path, f"seed: 1\nsearch:\n  trials: 9\n  space:\n    seed: {{low: 1, high: 9}}\n    {space}\n"
        )
    assert said in str(caught.value)
    assert "tanzim.yaml, line 6" in str(caught.value)


def test_a_value_that_fits_with_others_that_are_searched_is_let_through(tmp_path):
    space = "train.tokens_per_step: {values: [256, 4096]}, train.tokens_per_pass: {values: [128, 1024]}"
    config = load(tmp_path, "seed: 1\n", f"search.space={{{space}}}")
    assert list(config.search.space) == ["train.tokens_per_step", "train.tokens_per_pass"]


def test_settings_of_trials_and_the_metric_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'max_steps'"):
        load(tmp_path, "search:\n  trial: {train.max_step: 3}\n")
    with pytest.raises(ConfigError, match="'accurac' is not one of loss, exact_match"):
        load(tmp_path, "search:\n  metric: accurac\n  space:\n    seed: {low: 1, high: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "seed: 1\n", "search.space={train.learning_rat: {values: [1e-3]}}")
    assert caught.value.where == "command line"


def test_values_at_dotted_keys_are_what_a_file_would_give(tmp_path):
    config = load(tmp_path, "train:\n  epochs: 2\ndata:\n  path: x.jsonl\n")
    changed = with_values(config, {"train.learning_rate": 1e-3, "data.split.test": 0.2}, where="here")
    text = "train:\n  epochs: 2\n  learning_rate: 1e-3\ndata:\n  path: x.jsonl\n  split:\n    test: 0.2\n"
    assert changed == load(tmp_path, text)
    assert config.train.learning_rate == 2e-4
    with pytest.raises(ConfigError, match="holds a value, not keys"):
        with_values(config, {"data.path.name": 1}, where="here")
