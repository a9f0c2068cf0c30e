"""Config errors name the line, the key and the nearest known key; overrides win."""

import json
from pathlib import Path

import pytest
import yaml

from tanzim.core.config import load
from tanzim.core.errors import ConfigError
from tanzim.pipeline.config import Config


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tanzim.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train:\n  learnin_rate: 1\n", ["unknown key 'train.learnin_rate'", "'learning_rate'", "line 2"]),
        ("train:\n  epochs: -1\n", ["train.epochs", "greater than 0", "-1", "line 2"]),
        ("train:\n  method:\n    type: lora\n    rnk: 4\n", ["train.method.rnk", "'rank'", "line 4"]),
        ("train:\n  method: {type: ful}\n", ["train.method.type", "lora, rslora", "'ful'", "line 2"]),
        ("seed: 1\nseed: 2\n", ["'seed' stands twice", "line 1", "line 2"]),
        ("train: [1\n", ["not valid YAML", "line"]),
        ("- 1\n", ["expected keys"]),
        ("train:\n  tokens_per_pass: 4096\n", ["4096", "2048", "line 1"]),
        ("data:\n  split: {validation: 0.5, test: 0.5}\n", ["nothing is left", "line 2"]),
        ("train:\n  method: {alpha: .nan}\n", ["train.method.alpha", "nan"]),
        ("bogus: 1\nseed: x\n", ["2 faults", "line 1", "line 2"]),
        (
            "data:\n  steps:\n  - {type: lenght}\n",
            ["data.steps.0.type", "did you mean 'length'?", "line 3"],
        ),
        ("data:\n  steps:\n    - {type: length, min_chars: 9}\n", ["steps.0.min_chars", "'min_characters'"]),
        ("data:\n  steps:\n    - {typ: length}\n", ["data.steps.0", "line 3"]),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Config, write(tmp_path, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("name: سلام".encode("utf-16"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load(Config, path)


def test_overrides_win_and_say_where(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {learning_rate: 1e-3}\n")
    assert load(Config, path).train.learning_rate == 1e-3
    config = load(Config, path, ["train.learning_rate=5e-5", "train.method.rank=4", "data.path=[a, b]"])
    assert (config.train.learning_rate, config.train.method.rank, config.data.path) == (5e-5, 4, ["a", "b"])
    for bad in ("train.method.rank=0", "train.bogus=1", "seed"):
        with pytest.raises(ConfigError, match="command line"):
            load(Config, path, [bad])


def test_resolved_config_reads_back_the_same(tmp_path: Path) -> None:
    config = load(Config, None, ["data.path=x", "train.method.type=full", "evaluate.metrics=[rouge_l]"])
    text = yaml.safe_dump(json.loads(config.model_dump_json()), allow_unicode=True)
    assert load(Config, write(tmp_path, text)) == config


def test_every_key_is_documented() -> None:
    schema = Config.model_json_schema()
    for name, part in {"Config": schema, **schema["$defs"]}.items():
        for key, field in part["properties"].items():
            if "const" in field or "$ref" in field or key in ("adapter",):
                continue
            assert field.get("description"), f"{name}.{key}"
