"""Fine-tuning through the unmodified ``openai`` client: files, jobs, events, chat; with real processes.

What kills, pauses and restarts do to jobs is in test_jobs_anywhere.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from helpers.fine_tuning import client_of, create, steps_of, wait

pytestmark = pytest.mark.slow


@pytest.fixture
def client(tiny_model: Path, tmp_path: Path) -> Iterator[openai.OpenAI]:
    with client_of(tiny_model, tmp_path / "server") as made:
        yield made


def test_from_a_file_to_an_answer(client: openai.OpenAI, fruit_rows: Path, tmp_path: Path) -> None:
    file = client.files.create(file=fruit_rows, purpose="fine-tune")
    assert (file.filename, file.bytes) == ("fruit.jsonl", fruit_rows.stat().st_size)
    assert client.files.content(file.id).read() == fruit_rows.read_bytes()

    job = create(client, file.id, suffix="fruit", metadata={"who": "test"})
    assert (job.status, job.model, job.fine_tuned_model) == ("validating_files", "tiny", None)
    done = wait(client, job.id, lambda j: j.status == "succeeded")
    assert done.fine_tuned_model.startswith("ft:tiny:default:fruit:")
    assert done.trained_tokens > 0
    assert done.metadata == {"who": "test"}
    steps = steps_of(client, job.id)
    assert steps == list(range(1, steps[-1] + 1))
    told = client.fine_tuning.jobs.list_events(job.id, limit=100)
    losses = {e.data["step"]: e.data["train_loss"] for e in told if e.type == "metrics"}
    assert losses[steps[-1]] < losses[1] / 2
    table = client.files.content(done.result_files[0]).read().decode().splitlines()
    assert table[0] == "step,train_loss,valid_loss"
    assert len(table) == len(steps) + 1
    last, *earlier = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert last.fine_tuned_model_checkpoint == done.fine_tuned_model
    assert last.step_number == steps[-1]
    assert [one.fine_tuned_model_checkpoint for one in earlier] == [
        f"{done.fine_tuned_model}:ckpt-step-{one.step_number}" for one in earlier
    ]
    assert len(earlier) == 2  # of the last three epochs; the third is the result
    assert steps[-1] > earlier[0].step_number > earlier[1].step_number
    assert {one.metrics.train_loss for one in earlier} == {losses[one.step_number] for one in earlier}

    listed = [model.id for model in client.models.list()]
    assert {done.fine_tuned_model, *(one.fine_tuned_model_checkpoint for one in earlier)} < set(listed)
    asked: Any = [{"role": "user", "content": "77: Which colour has apple?"}]
    answers = {
        name: client.chat.completions.create(model=name, messages=asked, temperature=0, max_tokens=8)
        for name in ("tiny", done.fine_tuned_model)
    }
    assert answers[done.fine_tuned_model].choices[0].message.content == "red"
    assert answers["tiny"].choices[0].message.content != "red"
    for name in (done.fine_tuned_model, earlier[0].fine_tuned_model_checkpoint):
        client.models.delete(name)
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model=name, messages=asked)
    kept = earlier[1].fine_tuned_model_checkpoint
    answer = client.chat.completions.create(model=kept, messages=asked, temperature=0, max_tokens=8)
    assert answer.model == kept
    assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job.id)] == [
        earlier[1].step_number
    ]
    (left,) = tmp_path.glob("server/jobs/*/runs/*/epochs/step-*/adapter_model.safetensors")
    assert left.parent.name == f"step-{earlier[1].step_number}"
    assert list(tmp_path.glob("server/jobs/*/runs/*/adapter")) == []


def test_the_lines_of_the_readme(
    tiny_model: Path, fruit_rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "OpenAI" in block]
    with client_of(tiny_model, tmp_path / "server") as client:
        for theirs, ours in (
            ("http://127.0.0.1:8000/v1", str(client.base_url)),
            ("messages.jsonl", str(fruit_rows)),
            ("smollm2-135m-instruct", "tiny"),
        ):
            assert theirs in code
            code = code.replace(theirs, ours)
        exec(compile(code, "README.md", "exec"), {})
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Created fine-tuning job: ftjob-")
    steps = [int(line.split()[1].split("/")[0]) for line in told if line.startswith("Step ") and "/" in line]
    assert steps == list(range(1, steps[-1] + 1))  # each as it came, once, in order
    assert "The job has successfully completed" in told


def test_faulty_lines_are_named(client: openai.OpenAI, tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    unanswered = {"messages": good["messages"][:1]}
    path = tmp_path / "bad.jsonl"
    twice = r'{"a\ud800\u0000": 1, "a\ud800\u0000": 2}'
    path.write_text("\n".join([json.dumps(good), "{half", json.dumps(unanswered), twice]) + "\n")
    file = client.files.create(file=path, purpose="fine-tune")
    job = create(client, file.id)
    failed = wait(client, job.id, lambda j: j.status == "failed")
    assert failed.error.code == "invalid_file_format"
    assert failed.error.param == "training_file"
    assert "line 2: the line is not valid JSON" in failed.error.message
    assert "line 3: the conversation does not end with the assistant" in failed.error.message
    assert r"line 4: a key stands twice in the row ('a\ud800\u0000')" in failed.error.message
    assert str(tmp_path) not in failed.error.message


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"model": "other"}, "model"),
        ({"training_file": "file-none"}, "training_file"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"extra_body": {"tanzim": {"train": {"trackers": ["wandb"]}}}}, "tanzim.train.trackers"),
        ({"extra_body": {"tanzim": {"train": {"learning_rates": 1}}}}, "tanzim.train"),
    ],
)
def test_what_can_never_run_is_refused(
    client: openai.OpenAI, fruit_rows: Path, settings: dict[str, Any], param: str
) -> None:
    file = client.files.create(file=fruit_rows, purpose="fine-tune")
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(**{"model": "tiny", "training_file": file.id, **settings})
    assert caught.value.param == param
    assert list(client.fine_tuning.jobs.list()) == []
