"""The main job through the command line, on a tiny random model: init, run, and each verb after it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tanzim.core.run import RunFolder

pytestmark = pytest.mark.slow


def tanzim(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tanzim", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, fruit_rows: Path) -> Path:
    """Return a work folder in which `tanzim init` and `tanzim run` have been done."""
    folder = tmp_path_factory.mktemp("project")
    made = tanzim("init", str(fruit_rows), cwd=folder)
    assert made.returncode == 0, made.stderr
    ran = tanzim(
        "run",
        f"model.name={tiny_model}",
        "train.max_steps=40",
        "train.tokens_per_step=512",
        "train.tokens_per_pass=512",
        "train.learning_rate=5e-3",
        "train.epochs=20",
        "evaluate.max_new_tokens=8",
        cwd=folder,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return folder


def test_everything_a_run_knows_is_in_its_folder(project: Path) -> None:
    folder = RunFolder(project / "runs" / "fruit")
    manifest = folder.read_manifest()
    assert manifest.status == "evaluated"
    assert len(manifest.base["hash"]) == 64
    assert manifest.data["splits"]["train"]["examples"] > 60
    losses = [line["loss"] for line in folder.read_metrics() if line["kind"] == "train"]
    assert len(losses) == 40
    assert losses[-1] < losses[0] / 2
    for path in (folder.config, folder.plan, folder.report, folder.adapter / "adapter_model.safetensors"):
        assert path.is_file(), path
    plan = json.loads(folder.plan.read_text())
    assert plan["measured"]["steps"] == 40


def test_the_tuned_model_is_better_and_the_report_says_so(project: Path) -> None:
    report = json.loads((project / "runs" / "fruit" / "evaluation" / "report.json").read_text())
    systems = {system["name"]: system for system in report["systems"]}
    assert systems["tuned"]["loss"] < systems["base"]["loss"] / 2
    page = (project / "runs" / "fruit" / "report.html").read_text(encoding="utf-8")
    assert "زرد" in page
    assert 'dir="auto"' in page


def test_plain_peft_loads_the_adapter(project: Path, tiny_model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = PeftModel.from_pretrained(model, project / "runs" / "fruit" / "adapter")
    assert tuned.peft_config["default"].r == 16


def test_run_again_does_nothing_twice(project: Path) -> None:
    adapter = project / "runs" / "fruit" / "adapter" / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns
    again = tanzim("train", "runs/fruit/config.yaml", cwd=project)
    assert again.returncode == 0, again.stderr
    assert adapter.stat().st_mtime_ns == before


def test_another_config_is_not_mixed_in(project: Path) -> None:
    other = tanzim("train", "runs/fruit/config.yaml", "train.learning_rate=1e-4", cwd=project)
    assert other.returncode == 1
    assert "train.learning_rate 0.005 → 0.0001" in other.stderr.replace("\n", " ").replace("  ", " ")
    assert "Traceback" not in other.stderr


def test_chat_answers_from_the_adapter(project: Path) -> None:
    answer = tanzim("chat", "runs/fruit", "-m", "77: Which colour has apple?", cwd=project)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip().splitlines()[-1] == "red"


def test_export_merges_and_proves_it(project: Path) -> None:
    merged = tanzim("export", "runs/fruit/config.yaml", "--merge", "-o", "merged", cwd=project)
    assert merged.returncode == 0, merged.stderr
    assert (project / "merged" / "model.safetensors").is_file()
    answer = tanzim("chat", "merged", "-m", "78: Which colour has apple?", cwd=project)
    assert answer.stdout.strip().splitlines()[-1] == "red"


def test_an_adapter_on_another_base_is_refused(project: Path, tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + torch.tensor(0.5)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    adapter = tmp_path / "adapter"
    shutil.copytree(project / "runs" / "fruit" / "adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(other)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    refused = tanzim("chat", str(adapter), "-m", "x", cwd=tmp_path)
    assert refused.returncode == 1
    assert "base" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_preview_writes_an_offline_page(project: Path) -> None:
    shown = tanzim("data", "preview", "runs/fruit/config.yaml", "--html", "p.html", cwd=project)
    assert shown.returncode == 0, shown.stderr
    page = (project / "p.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<|im_end|>" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], "no such config file"),
        (["init", "nowhere.jsonl"], "nowhere.jsonl"),
        (["train", "data.path=x.jsonl", "train.learnin_rate=1"], "did you mean 'learning_rate'"),
        (["chat", "no/such/model-here", "-m", "x"], "no/such/model-here"),
        (["export", "name=never-trained"], "never-trained"),
    ],
)
def test_mistakes_are_one_clear_message(arguments: list[str], words: str, tmp_path: Path) -> None:
    failed = tanzim(*arguments, cwd=tmp_path)
    assert failed.returncode == 1
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr + failed.stdout


def test_the_served_form_answers_as_what_was_trained(project: Path) -> None:
    import re

    from openai import OpenAI

    from tanzim.core.records import Message
    from tanzim.export.verify import compare_answers
    from tanzim.infer.engine import Request
    from tanzim.pipeline.opened import open_models

    server = subprocess.Popen(
        [sys.executable, "-m", "tanzim", "serve", "runs/fruit", "--port", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert server.stdout is not None
        address = next(m[0] for line in server.stdout if (m := re.search(r"http://\S+", line)))
        client = OpenAI(base_url=address, api_key="none")
        opened = open_models([str(project / "runs" / "fruit")])

        def served(messages: list[Message]) -> str:
            turns = [{"role": m.role, "content": m.content} for m in messages]
            answer = client.chat.completions.create(
                model="fruit", messages=turns, temperature=0, max_tokens=16
            )
            return answer.choices[0].message.content

        def here(messages: list[Message]) -> str:
            request = Request(opened.renderer.prompt(messages), adapter=opened.adapter, max_new_tokens=16)
            return opened.engine.generate([request])[0].text

        asked = [
            [Message("user", f"{n}: Which colour has {fruit}?")] for n, fruit in ((1, "pear"), (2, "گلابی"))
        ]
        parity = compare_answers(here, served, asked, prompts=2, form="served")
        assert parity.texts_equal == 2
        assert {model.id for model in client.models.list()} >= {"fruit"}
    finally:
        server.terminate()
        assert server.wait(timeout=30) in (0, -signal.SIGTERM)
        server.stdout.close()
