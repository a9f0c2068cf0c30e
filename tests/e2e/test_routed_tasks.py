"""Two tasks with contradicting answers in one run: one adapter each, told apart by their files."""

import json
from pathlib import Path

import pytest
from tiny_projects import FRUIT

from tanzim.core.errors import DataError, RunError
from tanzim.core.records import Message
from tanzim.core.run import read_lines
from tanzim.infer.engine import Request
from tanzim.pipeline.config import Config
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.export import export_run
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.opened import open_models
from tanzim.pipeline.workspace import load_config

ANSWERS = {"english": "red", "persian": "زرد"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file per task: the same questions, each with its own answer."""
    folder = tmp_path_factory.mktemp("tasks")
    for task, answer in ANSWERS.items():
        rows = [
            {"prompt": f"{task} {number}: Which colour has {FRUIT[number % 6]}?", "completion": answer}
            for number in range(60)
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{task}.jsonl").write_text(text, encoding="utf-8")
    return {task: folder / f"{task}.jsonl" for task in ANSWERS}


def config(root: Path, files: dict[str, Path], model: Path, *more: str) -> Config:
    names = ", ".join(f"{task}: {path}" for task, path in files.items())
    paths = ", ".join(map(str, files.values()))
    return load_config(
        None,
        [
            f"runs_dir={root / 'runs'}",
            "name=both",
            f"data.path=[{paths}]",
            f"model.name={model}",
            "model.device=cpu",
            "train.method.type=routed",
            f"train.method.tasks={{{names}}}",
            "train.tokens_per_step=512",
            "train.tokens_per_pass=512",
            "train.learning_rate=5e-3",
            "train.epochs=20",
            "train.max_steps=40",
            "evaluate.max_new_tokens=8",
            "export.new_tokens=4",
            *more,
        ],
    )


@pytest.mark.slow
def test_each_task_is_answered_by_its_own_adapter(
    tmp_path: Path, tiny_model: Path, files: dict[str, Path]
) -> None:
    wanted = config(tmp_path, files, tiny_model)
    folder = finetune(wanted).folder
    assert sorted(path.name for path in folder.adapter.iterdir() if path.is_dir()) == sorted(ANSWERS)
    said = [line["message"] for line in folder.read_metrics() if line["kind"] == "event"]
    assert any("documents packed" in message for message in said)

    report = evaluate_run(wanted)
    tuned = report.system("tuned")
    metric = tuned.metrics[report.metrics[0]]
    assert {task: metric[task].value for task in ANSWERS} == dict.fromkeys(ANSWERS, 1.0)
    assert tuned.loss < report.system("base").loss / 2
    for line in read_lines(folder.evaluation / "items.jsonl"):
        task = Path(line["provenance"]["source"]).stem
        assert line["systems"]["tuned"]["answer"] == ANSWERS[task]

    # The adapters stand side by side, and each alone is an ordinary one.
    opened = open_models([str(folder.path)])
    assert set(opened.engine.adapters) == {f"both-{task}" for task in ANSWERS}
    for task, answer in ANSWERS.items():
        prompt = opened.renderer.prompt([Message("user", f"{task} 7: Which colour has pear?")])
        assert opened.engine.generate([Request(prompt, f"both-{task}", 8)])[0].text == answer
        alone = open_models([str(folder.adapter / task)])
        assert alone.engine.generate([Request(prompt, alone.adapter, 8)])[0].text == answer
    with pytest.raises(RunError, match="adapter of its own"):
        export_run(wanted)


def test_data_of_no_task_and_a_task_without_data_are_refused(
    tmp_path: Path, tiny_model: Path, files: dict[str, Path]
) -> None:
    with pytest.raises(DataError, match="belong to none of the tasks"):
        finetune(config(tmp_path, files, tiny_model, "train.method.tasks={english: english.jsonl, x: y}"))
    three = ", ".join(f"{task}: {path}" for task, path in files.items())
    with pytest.raises(DataError, match="'third' has no training example"):
        finetune(
            config(
                tmp_path, files, tiny_model, "name=three", f"train.method.tasks={{{three}, third: x.jsonl}}"
            )
        )
