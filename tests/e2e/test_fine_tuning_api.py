"""Fine-tuning through the unmodified ``openai`` client: files, jobs, events, chat; with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from helpers.serving import serving
from tanzim.models.config import ModelConfig
from tanzim.pipeline.config import Config
from tanzim.pipeline.opened import open_models

pytestmark = pytest.mark.slow

FAST = {"n_epochs": 20, "batch_size": 20, "learning_rate_multiplier": 25.0}
ENDED = ("succeeded", "failed", "cancelled")


@contextmanager
def client_of(model: Path, folder: Path) -> Iterator[openai.OpenAI]:
    opened = open_models([str(model)])
    project = Config(model=ModelConfig(name=str(model)))
    with (
        serving(opened.engine, opened.renderer, {"tiny": None}, folder, project) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture
def client(tiny_model: Path, tmp_path: Path) -> Iterator[openai.OpenAI]:
    with client_of(tiny_model, tmp_path / "server") as made:
        yield made


def create(client: openai.OpenAI, file: str, **settings: Any) -> Any:
    method = {"type": "supervised", "supervised": {"hyperparameters": settings.pop("hyper", FAST)}}
    return client.fine_tuning.jobs.create(model="tiny", training_file=file, method=method, seed=5, **settings)


def wait(client: openai.OpenAI, job: str, until: Callable[[Any], bool], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not until(found := client.fine_tuning.jobs.retrieve(job)):
        assert time.monotonic() < end, found
        assert found.status not in ENDED or until(found), found
        time.sleep(0.1)
    return found


def steps_of(client: openai.OpenAI, job: str) -> list[int]:
    """Return the training steps that were told, in the order they were."""
    told = list(client.fine_tuning.jobs.list_events(job, limit=100))
    return [e.data["step"] for e in reversed(told) if e.type == "metrics" and "train_loss" in e.data]


def test_from_a_file_to_an_answer(client: openai.OpenAI, fruit_rows: Path) -> None:
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
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model

    assert done.fine_tuned_model in [model.id for model in client.models.list()]
    asked: Any = [{"role": "user", "content": "77: Which colour has apple?"}]
    answers = {
        name: client.chat.completions.create(model=name, messages=asked, temperature=0, max_tokens=8)
        for name in ("tiny", done.fine_tuned_model)
    }
    assert answers[done.fine_tuned_model].choices[0].message.content == "red"
    assert answers["tiny"].choices[0].message.content != "red"
    client.models.delete(done.fine_tuned_model)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model=done.fine_tuned_model, messages=asked)


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
    path.write_text("\n".join([json.dumps(good), "{half", json.dumps(unanswered)]) + "\n")
    file = client.files.create(file=path, purpose="fine-tune")
    job = create(client, file.id)
    failed = wait(client, job.id, lambda j: j.status == "failed")
    assert failed.error.code == "invalid_file_format"
    assert failed.error.param == "training_file"
    assert "line 2: the line is not valid JSON" in failed.error.message
    assert "line 3: the conversation does not end with the assistant" in failed.error.message
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


def process_of(folder: Path, job: str) -> int:
    path = folder / "jobs" / job / "pid"
    while not path.is_file():
        time.sleep(0.05)
    return int(path.read_text())


def test_killed_process_and_restarted_server_lose_nothing(
    tiny_model: Path, fruit_rows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    slow = {**FAST, "n_epochs": 40}
    train = {"tanzim": {"train": {"save_steps": 3}}}
    with client_of(tiny_model, folder) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        whole = create(client, file.id, hyper=slow, extra_body=train)
        wait(client, whole.id, lambda j: j.status == "succeeded")

        job = create(client, file.id, hyper=slow, extra_body=train)
        wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 10)
        os.kill(process_of(folder, job.id), signal.SIGKILL)
    # The server is gone as well; a new one finds the job.
    with client_of(tiny_model, folder) as client:
        wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 20)
        first = process_of(folder, job.id)
    os.kill(first, 0)  # the server ended, the job's process goes on
    with client_of(tiny_model, folder) as client:
        wait(client, job.id, lambda j: j.status == "succeeded")
        assert process_of(folder, job.id) == first  # it was not started a second time
        told = [list(client.fine_tuning.jobs.list_events(i, limit=100)) for i in (whole.id, job.id)]
        first_told, second_told = (
            {e.data["step"]: e.data["train_loss"] for e in some if e.type == "metrics"} for some in told
        )
        assert first_told == second_told  # the same seed, interrupted or not: the same losses
        steps = steps_of(client, job.id)
        assert steps == list(range(1, steps[-1] + 1))  # each step is told once


def test_pause_resume_and_cancel(client: openai.OpenAI, fruit_rows: Path, tmp_path: Path) -> None:
    file = client.files.create(file=fruit_rows, purpose="fine-tune")
    job = create(
        client, file.id, hyper={**FAST, "n_epochs": 50}, extra_body={"tanzim": {"train": {"save_steps": 3}}}
    )
    waits = create(client, file.id)
    wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 5)
    assert client.fine_tuning.jobs.retrieve(waits.id).status == "validating_files"  # one job at a time
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    process = process_of(tmp_path / "server", job.id)
    wait(client, waits.id, lambda j: j.status == "running")  # the place is free
    assert not Path(f"/proc/{process}").exists()
    assert client.fine_tuning.jobs.cancel(waits.id).status == "cancelled"
    assert client.fine_tuning.jobs.resume(job.id).status in ("paused", "queued", "running")
    wait(client, job.id, lambda j: j.status == "succeeded")
    assert steps_of(client, job.id)[:6] == [1, 2, 3, 4, 5, 6]
    assert client.fine_tuning.jobs.retrieve(waits.id).fine_tuned_model is None
    with pytest.raises(openai.BadRequestError, match="cannot be cancelled"):
        client.fine_tuning.jobs.cancel(job.id)
