"""What a run's directory tells the adapter repository; the verbs as functions. No model, no torch."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tanzim.adapters.recipe import make_recipes
from tanzim.adapters.repository import Repository
from tanzim.core.config import load
from tanzim.core.errors import ConfigError, RunError
from tanzim.core.run import RunFolder, RunManifest
from tanzim.pipeline.adapters import (
    add_adapter,
    fetch_adapter,
    free_folder,
    open_repository,
    search_adapters,
    system_scores,
)
from tanzim.pipeline.combine import _check_room, combine_adapters
from tanzim.pipeline.config import Config
from tanzim.pipeline.export import export_run

BASE = "c" * 64


def adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "tanzim.json").write_text(json.dumps({"base": "tiny", "base_hash": BASE}))
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "runs" / "support")
    adapter(folder.adapter)
    config = load(Config, None, ["name=support", "seed=4", "train.learning_rate=3e-4"])
    folder.config.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    folder.write_manifest(
        RunManifest("support", "trained", base={"hash": BASE}, data={"fingerprints": {"train": "1" * 64}})
    )
    return folder


def test_a_run_without_evaluation_and_then_with_one(run):
    first = add_adapter("runs/support", text="before")
    assert (first.ref, first.facts.task, first.base_hash) == ("support@1", "support", BASE)
    assert first.facts.data == {"train": "1" * 64}
    assert first.facts.scores == {}
    assert first.facts.parents == ({"run": str(run.path.resolve())},)
    assert first.facts.made["seed"] == 4
    assert first.facts.made["train"]["learning_rate"] == 3e-4
    run.evaluation.mkdir()
    systems = [
        {"name": "base", "loss": 9.0, "metrics": {}},
        {
            "name": "tuned",
            "loss": 1.5,
            "perplexity": None,
            "metrics": {
                "chrf": {"all": {"value": 0.5}, "Latin": {"value": 0.1}},
                "json_fields.kind": {"all": {"value": 1}},
                "rouge_l": {"all": {"value": math.inf}},
            },
        },
    ]
    (run.evaluation / "report.json").write_text(json.dumps({"systems": systems}))
    second = add_adapter("runs/support/adapter", name="fa", task="persian", tags=["x"])
    assert second.ref == "fa@1"
    assert second.facts.scores == {"persian": {"loss": 1.5, "chrf": 0.5}}
    assert system_scores({"systems": systems}, "nobody") == {}


def test_an_unfinished_run_and_one_without_adapter_are_refused(run):
    run.write_manifest(replace(run.read_manifest(), status="created"))
    with pytest.raises(RunError, match="no adapter to keep: it is not trained"):
        add_adapter("runs/support")
    run.adapter.rename(run.model)
    with pytest.raises(RunError, match="every weight was trained"):
        add_adapter("runs/support")


def test_a_folder_alone_is_named_after_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert add_adapter(adapter(tmp_path / "mine")).ref == "mine@1"


def test_the_config_says_where(run, tmp_path):
    assert open_repository().url == "adapters"
    Path("tanzim.yaml").write_text(f"adapters:\n  repository: {tmp_path / 'elsewhere'}\n")
    entry = add_adapter("runs/support")
    assert Repository(tmp_path / "elsewhere").get("support") == entry
    assert search_adapters("support") == [entry]
    assert search_adapters("support", repository=tmp_path / "third") == []
    Path("tanzim.yaml").write_text("adapters:\n  repositry: x\n")
    with pytest.raises(ConfigError, match="did you mean 'repository'"):
        open_repository()


def test_only_runs_that_write_answers_and_are_here_are_measured(run, tmp_path):
    from tanzim.pipeline.combine import _tasks

    def other(name, *overrides):
        folder = RunFolder(tmp_path / "runs" / name)
        adapter(folder.adapter)
        config = load(Config, None, [f"name={name}", *overrides])
        folder.config.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
        folder.write_manifest(RunManifest(name, "trained"))
        folder.data.mkdir()
        (folder.data / "test.arrow").write_bytes(b"")
        return add_adapter(folder.path)

    kept = [other("writes"), other("embeds", "train.objective.type=contrastive"), other("gone")]
    (tmp_path / "runs" / "gone").rename(tmp_path / "runs" / "elsewhere")
    bare = add_adapter(adapter(tmp_path / "bare"))
    again = add_adapter("runs/writes", name="writes2")
    skipped: list[str] = []
    tasks = list(_tasks(open_repository().state(), [*kept, bare, again], skipped))
    assert [(task.name, task.own.ref) for task in tasks] == [("writes", "writes@1")]
    assert [line.split(":")[0] for line in skipped] == ["embeds@1", "gone@1", "bare@1"]
    assert "labels or embeds" in skipped[0]
    assert "not on this machine" in skipped[1]
    assert "without its run" in skipped[2]


def test_fetch_wants_a_task_or_a_name(run):
    entry = add_adapter("runs/support")
    assert fetch_adapter(ref="support")[0] == entry
    for wrong in ({}, {"task": "support", "ref": "support"}):
        with pytest.raises(RunError, match="name a task or an adapter"):
            fetch_adapter(**wrong)


def test_the_verbs_that_read_no_weights_import_no_torch():
    code = "import tanzim.pipeline.adapters, tanzim.adapters.recipe, sys; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_a_folder_of_other_files_is_not_replaced(tmp_path):
    """Exports and merged models replace their folder whole: only an empty one or one of ours may go."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.md").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    ours = adapter(tmp_path / "both" / "svd-1_1").parent
    for check in (free_folder, _check_room):
        with pytest.raises(ConfigError, match="holds other things"):
            check(tmp_path / "mine")
        with pytest.raises(ConfigError, match="a file, not a folder"):
            check(tmp_path / "file")
        check(tmp_path / "empty")
        check(tmp_path / "new")
    free_folder(ours / "svd-1_1")
    (ours / "report.json").write_text("{}")
    (ours / "evaluation").mkdir()
    _check_room(ours)
    (ours / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other things"):
        _check_room(ours)


def test_export_and_combine_refuse_it_before_they_do_anything(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("tanzim.pipeline.export.trained_run", lambda config: run)
    with pytest.raises(ConfigError, match="a file, not a folder"):
        export_run(Config(), output=tmp_path / "file")
    add_adapter(adapter(tmp_path / "a"), task="x")
    add_adapter(adapter(tmp_path / "b"), task="y")
    recipes = make_recipes(["svd"], [(1.0, 1.0)])
    with pytest.raises(ConfigError, match="a file, not a folder"):
        combine_adapters(["a", "b"], recipes, name="both", output=tmp_path / "file")
