"""Adapters from the runs they came from to a measured combination, on a tiny random model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tanzim.core.errors import ConfigError
from tanzim.core.files import sha256
from tanzim.pipeline.adapters import add_adapter, fetch_adapter
from tanzim.pipeline.workspace import load_config

pytestmark = pytest.mark.slow
FRUIT = ("apple", "pear", "plum", "cherry")
LONG = "It is known far and wide for its fine red colour."


def tanzim(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tanzim", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def rows(path: Path, question: str, answer: str) -> Path:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"{n}: {question} {FRUIT[n % 4]}?"},
                {"role": "assistant", "content": answer},
            ]
        }
        for n in range(120)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Return a folder with two trained and evaluated runs on one base: chat (long answers), label (short)."""
    from tanzim.pipeline.evaluate import evaluate_run
    from tanzim.pipeline.finetune import finetune

    folder = tmp_path_factory.mktemp("adapters")
    for name, question, answer in (("chat", "Tell me of the", LONG), ("label", "Which colour has", "red")):
        config = load_config(
            None,
            [
                f"name={name}",
                f"runs_dir={folder / 'runs'}",
                f"data.path={[str(rows(folder / f'{name}.jsonl', question, answer))]}",
                "data.split.leakage=allow",
                f"model.name={tiny_model}",
                "train.max_steps=30",
                "train.epochs=20",
                "train.tokens_per_step=512",
                "train.tokens_per_pass=512",
                "train.learning_rate=1e-2",
                "evaluate.max_new_tokens=64",
                "evaluate.max_items=12",
                "evaluate.resamples=100",
            ],
        )
        finetune(config)
        evaluate_run(config)
    return folder


@pytest.fixture(scope="module")
def kept(project: Path) -> Path:
    """Return the project after both runs were added on the command line and promoted."""
    for name in ("chat", "label"):
        added = tanzim("adapters", "add", f"runs/{name}", "--tag", "demo", "--promote", cwd=project)
        assert added.returncode == 0, added.stderr
        assert f"{name}@1 is kept for '{name}' and promoted" in added.stdout
    return project


def test_a_run_is_filed_with_all_it_knows(kept: Path) -> None:
    entry, folder = fetch_adapter("chat", repository=kept / "adapters")
    manifest = json.loads((kept / "runs" / "chat" / "manifest.json").read_text())
    report = json.loads((kept / "runs" / "chat" / "evaluation" / "report.json").read_text())
    tuned = next(system for system in report["systems"] if system["name"] == "tuned")
    assert entry.base_hash == manifest["base"]["hash"]
    assert entry.facts.data == manifest["data"]["fingerprints"]
    assert entry.facts.scores["chat"]["loss"] == tuned["loss"]
    values = {metric: groups["all"]["value"] for metric, groups in tuned["metrics"].items()}
    assert values
    assert values.items() <= entry.facts.scores["chat"].items()
    assert entry.facts.parents == ({"run": str((kept / "runs" / "chat").resolve())},)
    assert entry.facts.made["train"]["max_steps"] == 30
    weights = kept / "runs" / "chat" / "adapter" / "adapter_model.safetensors"
    assert sha256(folder / weights.name) == sha256(weights)


def test_list_search_show_diff_and_fetch(kept: Path) -> None:
    shown = tanzim("adapters", "list", cwd=kept).stdout
    assert "chat@1" in shown
    assert "label ★" in shown
    assert "2 adapters" in shown
    found = tanzim("adapters", "search", "label", "--tag", "demo", cwd=kept).stdout
    assert "label@1" in found
    assert "chat@1" not in found
    entry = json.loads(tanzim("adapters", "show", "chat", cwd=kept).stdout)
    assert entry["lineage"] == [f"run {(kept / 'runs' / 'chat').resolve()}"]
    difference = tanzim("adapters", "diff", "chat", "label", cwd=kept).stdout
    assert "model.layers.0" in difference
    assert "data.train" in difference
    folder = tanzim("adapters", "fetch", "chat", cwd=kept).stdout.strip()
    assert (kept / folder / "adapter_model.safetensors").is_file()
    from tanzim.pipeline.chat import chat

    assert "".join(chat(str(kept / folder), "7: Tell me of the plum?")) == LONG


def test_promote_roll_back_delete(kept: Path) -> None:
    add_adapter(kept / "runs" / "label" / "adapter", task="chat", text="again", repository=kept / "adapters")
    assert "label@2 is promoted for 'chat'" in tanzim("adapters", "promote", "label@2", cwd=kept).stdout
    refused = tanzim("adapters", "delete", "label@2", cwd=kept)
    assert refused.returncode == 1
    assert "'label@2' is promoted for chat" in refused.stderr
    assert "'chat' is back at chat@1" in tanzim("adapters", "rollback", "chat", cwd=kept).stdout
    assert "label@2 is deleted" in tanzim("adapters", "delete", "label@2", cwd=kept).stdout
    assert fetch_adapter("chat", repository=kept / "adapters")[0].ref == "chat@1"


def test_every_combination_is_measured_on_every_task_and_short_answers_are_seen(kept: Path) -> None:
    combined = tanzim(
        "adapters", "combine", "chat", "label", "--name", "both",
        "--mode", "cat", "--mode", "ties_svd", "--weights", "1,0", "--weights", "0,1",
        cwd=kept,
    )  # fmt: skip
    assert combined.returncode == 0, combined.stderr
    report = json.loads((kept / "combined" / "both" / "report.json").read_text())
    header, *table = report["table"]
    assert header == [
        "task", "measure", "base", "own adapter",
        "cat 1:0", "cat 0:1", "ties_svd 1:0 d0.5", "ties_svd 0:1 d0.5",
    ]  # fmt: skip
    assert {row[0] for row in table} == {"chat", "label"}
    # With all weight on one adapter, the combination by concatenation is that adapter.
    losses = {
        (task, system["name"]): system["loss"]
        for task in ("chat", "label")
        for system in json.loads(
            (kept / "combined" / "both" / "evaluation" / task / "report.json").read_text()
        )["systems"]
    }
    assert losses["chat", "cat 1:0"] == pytest.approx(losses["chat", "tuned"], rel=1e-5)
    assert losses["label", "cat 0:1"] == pytest.approx(losses["label", "tuned"], rel=1e-5)
    assert losses["chat", "cat 0:1"] > losses["chat", "tuned"] + 0.5
    short = [text for text in report["short_answers"] if "'cat 0:1'" in text]
    assert len(short) == 1
    assert short[0].startswith("short answers: on 'chat', 'cat 0:1' writes ")
    assert "perhaps taken over from 'label'" in short[0]
    assert not any("'cat 1:0'" in text and "on 'chat'" in text for text in report["short_answers"])
    assert "short answers: on 'chat'" in combined.stdout.replace("\n", " ")
    versions = [one["adapter"] for one in report["combinations"]]
    assert versions == ["both@1", "both@2", "both@3", "both@4"]
    entry, folder = fetch_adapter(ref="both@2", repository=kept / "adapters")
    assert entry.facts.parents == (
        {"adapter": "chat@1", "weight": 0.0},
        {"adapter": "label@1", "weight": 1.0},
    )
    assert entry.facts.task == "chat+label"
    assert entry.facts.scores["chat"]["loss"] == losses["chat", "cat 0:1"]
    assert "short-answers" in entry.facts.tags
    assert json.loads((folder / "tanzim.json").read_text())["made"]["adapters"] == ["chat@1", "label@1"]


def test_a_combination_of_combinations_finds_the_test_sets_of_its_ancestors(
    kept: Path, tmp_path: Path
) -> None:
    from tanzim.adapters.recipe import make_recipes
    from tanzim.pipeline.combine import combine_adapters

    shutil.copytree(kept / "runs" / "chat" / "adapter", tmp_path / "x")
    add_adapter(tmp_path / "x", repository=tmp_path / "r")
    for name in ("chat", "label"):
        add_adapter(kept / "runs" / name, repository=tmp_path / "r")

    def combine(refs, mode, weights, name, **more):
        recipes = make_recipes([mode], [weights], rank=16)
        return combine_adapters(
            refs, recipes, name=name, repository=tmp_path / "r", output=tmp_path / name, **more
        )

    combine(["chat", "label"], "cat", (1, 0), "m", measure=False)
    result = combine(["m", "label"], "svd", (1, 0), "n")
    assert set(result.reports) == {"chat", "label"}
    chat = result.reports["chat"]
    # All weight on m, which is all chat, cut back to chat's own rank.
    assert chat.system("svd 1:0 r16").loss == pytest.approx(chat.system("tuned").loss, rel=1e-4)
    assert result.skipped == ()
    answers = (tmp_path / "n" / "evaluation" / "chat" / "answers.jsonl").read_bytes()
    again = combine(["m", "label"], "svd", (1, 0), "n")
    assert again.combinations == result.combinations  # filed once, and nothing is answered twice
    assert (tmp_path / "n" / "evaluation" / "chat" / "answers.jsonl").read_bytes() == answers
    assert combine(["chat", "m"], "cat", (1, 0), "p").reports.keys() == {"chat", "label"}
    with pytest.raises(ConfigError, match="1 of 2 ways to combine are there twice"):
        combine_adapters(
            ["chat", "label"], make_recipes(["cat", "cat"], [(1, 1)]), name="q", repository=tmp_path / "r"
        )
    second = add_adapter(kept / "runs" / "chat", name="label2", task="label", repository=tmp_path / "r")
    assert set(combine(["label", second.ref], "cat", (1, 1), "two").reports) == {"label", "label (label2@1)"}
    alone = combine(["x", "label"], "cat", (1, 1), "o")
    assert set(alone.reports) == {"label"}
    assert alone.skipped == ("x@1: it was added without its run, so there is no test set",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "nowhere"], "there is no such folder"),
        (["add", "runs"], "no tanzim.json"),
        (["promote", "nobody"], "there is no adapter 'nobody' in the repository (names: "),
        (["rollback", "label"], "cannot be rolled back"),
        (["delete", "chat"], "which version of 'chat'"),
        (["fetch"], "name a task or an adapter"),
        (["fetch", "poetry"], "no adapter is promoted for the task 'poetry'"),
        (["combine", "chat", "--name", "y"], "one adapter alone"),
        (["combine", "chat", "label", "--name", "y", "--mode", "sum"], "there is no way 'sum'"),
        (["combine", "chat", "label", "--name", "y", "--weights", "1,x"], "are not numbers"),
        (["combine", "chat", "label", "--name", "y", "--weights", "1"], "1 weights for 2 adapters"),
        (["combine", "chat", "label", "--name", "a/b"], "cannot be the name"),
        (["merge-models", "a-model", "-o", "runs"], "holds other things"),
        (["list", "-r", "nosuch://place"], "cannot be opened"),
    ],
)
def test_mistakes_are_one_clear_message(
    kept: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tanzim.cli.main import main

    monkeypatch.chdir(kept)
    monkeypatch.setattr(sys, "argv", ["tanzim", "adapters", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert words in " ".join(capsys.readouterr().err.split())


def test_whole_models_are_merged_and_can_be_asked(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_model.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = load_file(tiny_model / "model.safetensors")
    moved = {name: value + 0.01 for name, value in weights.items()}
    save_file(moved, other / "model.safetensors", metadata={"format": "pt"})
    made = tanzim(
        "adapters", "merge-models", str(other), "--way", "task_arithmetic", "--base", str(tiny_model),
        "--weights=-0.5", "-o", "merged", cwd=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    got = load_file(tmp_path / "merged" / "model.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(got[name], value - 0.005, rtol=1e-5, atol=1e-6)
    from tanzim.pipeline.opened import open_models

    assert open_models([str(tmp_path / "merged")]).base.hash != open_models([str(tiny_model)]).base.hash
