"""What a client can set of a job's training: nothing that reaches a file, a command or another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tanzim.core.errors import ConfigError
from tanzim.pipeline.config import Config
from tanzim.pipeline.workshop import CONFIG, Workshop
from tanzim.serve.jobs.work import Order
from tanzim.train.config import TrainConfig

# Every place of ``train`` where any text may stand, judged. A new one fails the test until it is.
HARMLESS = {
    "method.target_modules": "compared with the names of the model's own parts, in the job's process",
    "method.feedforward_modules": "likewise",
    "method.freeze": "likewise",
    "method.text": "becomes tokens",
    "objective.class_weights": "compared with labels of the data",
    "objective.loss.costs": "likewise",
}
REACHING: dict[str, list[dict[str, Any]]] = {
    "trackers": [{"trackers": ["wandb"]}, {"trackers": ["tensorboard"]}],
    "method.tasks": [
        {"method.type": "routed", "method.tasks": {"a": "/etc/passwd", "b": "../files/*"}},
        {"method": {"type": "routed", "tasks": {"a": "https://example.com/a", "b": "s3://bucket/b"}}},
    ],
    "objective.teacher": [
        {"objective.type": "distillation", "objective.teacher": "/srv/models/secret"},
        {"objective": {"type": "sequence_distillation", "teacher": "https://example.com/model"}},
    ],
    "objective.teacher_revision": [
        {"objective": {"type": "distillation", "teacher": "x", "teacher_revision": "../../x"}},
    ],
}


def texts(schema: Any, defs: dict[str, Any], keys: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the dotted keys where a schema takes any text, or anything at all."""
    while "$ref" in schema:
        schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from texts(branch, defs, keys)
    for name, inner in schema.get("properties", {}).items():
        yield from texts(inner, defs, (*keys, name))
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from texts(inner, defs, keys)
    if schema.get("patternProperties") or isinstance(schema.get("additionalProperties"), dict):
        yield ".".join(keys)  # its keys are texts
    closed = any(word in schema for word in ("$ref", "anyOf", "oneOf", "allOf", "enum", "const", "type"))
    if not closed or (schema.get("type") == "string" and not {"enum", "const"} & set(schema)):
        yield ".".join(keys)


def test_every_text_of_the_section_is_judged() -> None:
    schema = TrainConfig.model_json_schema()
    found = set(texts(schema, schema["$defs"]))
    assert found == set(HARMLESS) | set(REACHING) - {"trackers"}
    trackers = schema["properties"]["trackers"]  # closed, but each sends what it sees to somewhere
    assert "enum" in str(trackers) or "const" in str(trackers) or "$ref" in str(trackers)


def order(settings: dict[str, Any]) -> Order:
    return Order("job", "tiny", 1, {}, settings)


@pytest.mark.parametrize(
    ("key", "settings"), [(k, one) for k, several in REACHING.items() for one in several]
)
def test_what_reaches_out_is_refused(key: str, settings: dict[str, Any], tmp_path: Path) -> None:
    workshop = Workshop(Config())
    for act in (workshop.check, lambda wrong: workshop.furnish(wrong, tmp_path)):
        with pytest.raises(ConfigError) as caught:
            act(order(settings))
        assert str(caught.value.where).startswith("tanzim.train")
    assert list(tmp_path.iterdir()) == []


def test_keys_lead_nowhere_else(tmp_path: Path) -> None:
    for key in ("", ".", "..model.name", "__class__", "train.trackers", "method..type", "../data", "a\nb: c"):
        with pytest.raises(ConfigError):
            Workshop(Config()).check(order({key: "x"}))
    said = "${HOME} !!python/object:os.system\n- &a [*a]\ndata: {path: /etc/passwd}"
    Workshop(Config()).furnish(order({"method": {"type": "prompt", "text": said}}), tmp_path)
    written = yaml.safe_load((tmp_path / CONFIG).read_text(encoding="utf-8"))
    assert written["train"]["method"]["text"] == said
    assert written["data"]["path"] == str(tmp_path / "training.jsonl")


def test_what_the_servers_owner_set_stays() -> None:
    own = Config.model_validate(
        {"train": {"objective": {"type": "distillation", "teacher": "ours"}, "trackers": []}}
    )
    Workshop(own).check(order({"learning_rate": 1e-4}))
    with pytest.raises(ConfigError, match="teacher"):
        Workshop(own).check(order({"objective.teacher": "theirs"}))
