"""A tiny model learns from another one through the pipeline: from its distributions, and from its answers."""

import json
from pathlib import Path

import pytest
from tiny_projects import FRUIT, write_tiny_model

from tanzim.core.errors import DataError, ModelError
from tanzim.core.run import RunFolder, read_lines
from tanzim.data.store import ExampleStore
from tanzim.pipeline.config import Config
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.workspace import load_config

TRAIN = [
    "train.tokens_per_step=512",
    "train.tokens_per_pass=512",
    "train.learning_rate=5e-3",
    "train.epochs=20",
    "train.max_steps=40",
    "data.split.test=0",
    "data.split.validation=0.05",
    "model.device=cpu",
]


def config(root: Path, data: Path, model: Path, name: str, *more: str) -> Config:
    places = [f"runs_dir={root / 'runs'}", f"name={name}", f"data.path={data}", f"model.name={model}"]
    return load_config(None, [*places, *TRAIN, *more])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of a vocabulary of its own that answers every question about a fruit with blue."""
    root = tmp_path_factory.mktemp("teacher")
    base = write_tiny_model(root / "base", vocabulary=300, seed=4)
    rows = [
        {"prompt": f"{number}: Which colour has {FRUIT[number % len(FRUIT)]}?", "completion": "blue"}
        for number in range(120)
    ]
    data = root / "blue.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    trained = finetune(
        config(root, data, base, "teacher", "train.method.type=full", "train.learning_rate=2e-3")
    )
    return trained.output


def sequence(teacher: Path, *more: str) -> list[str]:
    kind = ["train.objective.type=sequence_distillation", f"train.objective.teacher={teacher}"]
    return [*kind, "train.objective.answer_tokens=8", *more]


def test_a_student_says_what_the_teacher_says_across_vocabularies(
    tmp_path: Path, tiny_model: Path, fruit_rows: Path, teacher: Path
) -> None:
    wanted = config(tmp_path, fruit_rows, tiny_model, "student", *sequence(teacher))
    folder = finetune(wanted).folder
    taught = ExampleStore(folder.path / "teacher" / "train.arrow")
    given = ExampleStore(folder.data / "train.arrow")
    assert len(taught) == len(given) > 100
    assert {example.messages[-1].content for example in taught} == {"blue"}
    assert {example.messages[-1].content for example in given} == {"red", "زرد"}
    assert [one.messages[:-1] for one in taught] == [one.messages[:-1] for one in given]

    from tanzim.core.records import Message
    from tanzim.infer.engine import Request
    from tanzim.pipeline.opened import open_models

    opened = open_models([str(folder.path)])
    prompt = opened.renderer.prompt([Message("user", "77: Which colour has apple?")])
    assert opened.engine.generate([Request(prompt, opened.adapter, 8)])[0].text == "blue"


@pytest.mark.slow
def test_answers_are_kept_and_not_asked_for_again(
    tmp_path: Path, tiny_model: Path, fruit_rows: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tanzim.infer.engine import Engine

    few = ("data.max_train=24", "train.max_steps=1", "train.objective.answers_at_once=2")
    sampled = sequence(teacher, "train.objective.answer_temperature=1.5")
    wanted = [config(tmp_path, fruit_rows, tiny_model, name, *few, *sampled) for name in ("whole", "cut")]
    whole = finetune(wanted[0]).folder

    generate, asked = Engine.generate, []

    def interrupted(self, requests, **options):  # type: ignore[no-untyped-def]
        asked.append(len(requests))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return generate(self, requests, **options)

    monkeypatch.setattr(Engine, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(wanted[1])
    cut = RunFolder(tmp_path / "runs" / "cut")
    assert not (cut.path / "teacher" / "train.arrow").exists()
    finetune(wanted[1])
    assert asked[:4] == [8, 8, 0, 8]  # the first eight were kept
    lines = [list(read_lines(folder.path / "teacher" / "answers.jsonl")) for folder in (whole, cut)]
    assert lines[0] == lines[1]
    assert len({line["answer"] for line in lines[0]}) > 1  # they were sampled


def test_unfinished_answers_are_left_out_and_named(
    tmp_path: Path, tiny_model: Path, fruit_rows: Path, teacher: Path
) -> None:
    short = config(
        tmp_path, fruit_rows, tiny_model, "short", *sequence(teacher), "train.objective.answer_tokens=1"
    )
    with pytest.raises(DataError, match="finished no answer"):
        finetune(short)
    place = tmp_path / "runs" / "short" / "teacher"
    left_out = list(read_lines(place / "left_out.jsonl"))
    assert {line["reason"] for line in left_out} == {"the answer was cut off"}
    assert json.loads((place / "report.json").read_text())["left_out"] == len(left_out) > 100


def test_another_vocabulary_is_refused_with_the_way_out(
    tmp_path: Path, tiny_model: Path, fruit_rows: Path, teacher: Path
) -> None:
    soft = ["train.objective.type=distillation", f"train.objective.teacher={teacher}"]
    with pytest.raises(ModelError, match=r"another vocabulary: \d+ of \d+ tokens differ") as refused:
        finetune(config(tmp_path, fruit_rows, tiny_model, "soft", *soft))
    assert "sequence_distillation" in str(refused.value)


@pytest.mark.slow
def test_distributions_of_a_teacher_through_the_pipeline(
    tmp_path: Path, tiny_model: Path, fruit_rows: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=9)
    soft = ["train.objective.type=distillation", f"train.objective.teacher={other}", "train.max_steps=4"]
    wanted = config(tmp_path, fruit_rows, tiny_model, "soft", *soft)
    made = finetune(wanted)
    assert made.result["step"] == 4
    said = [line["message"] for line in made.folder.read_metrics() if line["kind"] == "event"]
    assert any("teacher's loss by" in message for message in said)


def test_raw_text_has_no_question_to_answer(tmp_path: Path, tiny_model: Path, teacher: Path) -> None:
    data = tmp_path / "text.jsonl"
    data.write_text("".join(json.dumps({"text": f"pear and plum {n}"}) + "\n" for n in range(40)))
    with pytest.raises(DataError, match="no question here"):
        finetune(config(tmp_path, data, tiny_model, "text", *sequence(teacher)))
