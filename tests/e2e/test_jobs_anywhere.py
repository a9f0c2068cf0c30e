"""Jobs behave alike as processes of this machine and in a real Ray cluster, through the ``openai`` client."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from helpers.fine_tuning import FAST, client_of, create, losses_of, process_of, steps_of, told, wait
from helpers.ray_cluster import TOKEN, Cluster, ray_cluster
from tanzim.serve.jobs.config import RayExecution
from tanzim.serve.jobs.executor import State
from tanzim.serve.jobs.process import JobFolder
from tanzim.serve.jobs.ray import RayExecutor

pytestmark = pytest.mark.slow

LONG = {"hyper": {**FAST, "n_epochs": 40}, "extra_body": {"tanzim": {"train": {"save_steps": 3}}}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as made:
        yield made


def on(cluster: Cluster, **settings: Any) -> dict[str, Any]:
    # A busy machine may leave a process without a turn for seconds: that is no reason to end itself here.
    return {"type": "ray", "address": cluster.address, "lease_seconds": 12, **settings}


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    if request.param == "local":
        return {"type": "local"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    return on(request.getfixturevalue("cluster"))


def leases_of(folder: Path, job: str) -> int:
    """Return how many processes a job has had in a cluster."""
    return len(list((folder / "jobs" / job / "lease").iterdir()))


def submissions(cluster: Cluster, job: str) -> list[tuple[str, str]]:
    """Return what the cluster itself knows of a job: submissions, and how they stand."""
    request = urllib.request.Request(f"{cluster.address}/api/jobs/")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = json.load(answer)
    return sorted(
        (one["submission_id"], one["status"]) for one in found if (one["submission_id"] or "").startswith(job)
    )


def test_from_a_file_to_an_answer(
    executor: dict[str, Any], tiny_model: Path, fruit_rows: Path, tmp_path: Path
) -> None:
    with client_of(tiny_model, tmp_path / "server", executor=executor) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        job = create(client, file.id)
        done = wait(client, job.id, lambda j: j.status == "succeeded")
        steps = steps_of(client, job.id)
        assert steps == list(range(1, steps[-1] + 1))
        assert told(client, job.id)[-1] == "The job has successfully completed"
        answer = client.chat.completions.create(
            model=done.fine_tuned_model,
            messages=[{"role": "user", "content": "77: Which colour has apple?"}],
            temperature=0,
            max_tokens=8,
        )
        assert answer.choices[0].message.content == "red"


@pytest.fixture(scope="module")
def undisturbed(
    tiny_model: Path, fruit_rows: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, float]:
    """Return the losses of the long job where nothing happens to it."""
    with client_of(tiny_model, tmp_path_factory.mktemp("undisturbed")) as client:
        job = create(client, client.files.create(file=fruit_rows, purpose="fine-tune").id, **LONG)
        wait(client, job.id, lambda j: j.status == "succeeded")
        return losses_of(client, job.id)


def test_a_killed_process_and_a_server_that_ends_lose_nothing(
    executor: dict[str, Any],
    undisturbed: dict[int, float],
    tiny_model: Path,
    fruit_rows: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "server"
    with client_of(tiny_model, folder, executor=executor) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        job = create(client, file.id, **LONG)
        wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 10)
        first = process_of(folder, job.id)
        os.kill(first, signal.SIGKILL)
    # The server is gone as well; a new one finds the job.
    with client_of(tiny_model, folder, executor=executor) as client:
        wait(client, job.id, lambda j: process_of(folder, j.id) != first)
        second = process_of(folder, job.id)
    os.kill(second, 0)  # the server ended, the job's process goes on
    with client_of(tiny_model, folder, executor=executor) as client:
        wait(client, job.id, lambda j: j.status == "succeeded")
        assert process_of(folder, job.id) == second  # it was not started a third time
        assert losses_of(client, job.id) == undisturbed  # the same seed, interrupted or not
        steps = steps_of(client, job.id)
        assert steps == list(range(1, steps[-1] + 1))  # each step is told once
    if executor["type"] == "ray":
        assert leases_of(folder, job.id) == 2


def test_pause_resume_and_cancel(
    executor: dict[str, Any], tiny_model: Path, fruit_rows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    with client_of(tiny_model, folder, executor=executor) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        job = create(client, file.id, **LONG)
        waits = create(client, file.id, **LONG)
        wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 5)
        process = process_of(folder, job.id)
        assert client.fine_tuning.jobs.pause(job.id).status == "paused"
        wait(client, waits.id, lambda j: len(steps_of(client, j.id)) >= 2)  # the place is free
        assert not Path(f"/proc/{process}").exists()
        other = process_of(folder, waits.id)
        assert client.fine_tuning.jobs.cancel(waits.id).status == "cancelled"
        reached = len(steps_of(client, job.id))
        client.fine_tuning.jobs.resume(job.id)
        wait(client, job.id, lambda j: j.status == "succeeded")
        steps = steps_of(client, job.id)
        assert steps == list(range(1, steps[-1] + 1))
        assert steps[-1] > reached
        # It went on from what it saved when it was asked to end: no step was made again.
        assert "The job was paused" in told(client, job.id)
        assert not Path(f"/proc/{other}").exists()
        assert not (folder / "jobs" / waits.id / "runs").exists()
        assert client.fine_tuning.jobs.retrieve(waits.id).fine_tuned_model is None


def test_a_cluster_that_is_away_for_a_while(
    cluster: Cluster, tiny_model: Path, fruit_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    folder = tmp_path / "server"
    with client_of(tiny_model, folder, executor=on(cluster)) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        job = create(client, file.id, **LONG)
        wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 3)
        process = process_of(folder, job.id)
        cluster.signal(signal.SIGSTOP, "dashboard")
        try:
            away = "The cluster does not answer (timed out); the job is left as it is"
            wait(client, job.id, lambda j: away in told(client, j.id))
            assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
        finally:
            cluster.signal(signal.SIGCONT, "dashboard")
        wait(client, job.id, lambda j: j.status == "succeeded")
        assert process_of(folder, job.id) == process
    assert submissions(cluster, job.id) == [(f"{job.id}-1", "SUCCEEDED")]
    assert leases_of(folder, job.id) == 1


def test_a_cluster_that_comes_back_without_memory(
    tiny_model: Path, fruit_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    folder = tmp_path / "server"
    with ray_cluster() as first:
        settings = on(first)
        with client_of(tiny_model, folder, executor=settings) as client:
            file = client.files.create(file=fruit_rows, purpose="fine-tune")
            job = create(client, file.id, **LONG)
            wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 7)
            first.kill()
            away = "The cluster does not answer (Connection refused); the job is left as it is"
            wait(client, job.id, lambda j: away in told(client, j.id))
            with ray_cluster(int(first.address.rpartition(":")[2])) as second:
                wait(client, job.id, lambda j: j.status == "succeeded")
                assert submissions(second, job.id) == [(f"{job.id}-1", "SUCCEEDED")]
            steps = steps_of(client, job.id)
            assert steps == list(range(1, steps[-1] + 1))
            assert leases_of(folder, job.id) == 2


def test_a_process_that_the_cluster_believes_dead_is_not_joined_by_another(
    cluster: Cluster, tiny_model: Path, fruit_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    folder = tmp_path / "server"
    with client_of(tiny_model, folder, executor=on(cluster, lease_seconds=120)) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        job = create(client, file.id, **LONG)
        wait(client, job.id, lambda j: len(steps_of(client, j.id)) >= 3)
        process = process_of(folder, job.id)
        os.kill(process, signal.SIGSTOP)  # so that it is not done too soon, for less than its lease
        # As where a network breaks: Ray's own process beside the job dies, and cannot take the job along.
        parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        cluster.signal(signal.SIGKILL, f"kill -s 0 {parent};")
        os.kill(parent, signal.SIGKILL)
        second = f"The job has a process in the cluster ({job.id}-2)"
        wait(client, job.id, lambda j: second in told(client, j.id))
        os.kill(process, signal.SIGCONT)  # both live now, and one works
        wait(client, job.id, lambda j: j.status == "succeeded")
        assert process_of(folder, job.id) == process
        steps = steps_of(client, job.id)
        assert steps == list(range(1, steps[-1] + 1))
    assert submissions(cluster, job.id) == [(f"{job.id}-1", "FAILED"), (f"{job.id}-2", "SUCCEEDED")]


@pytest.mark.parametrize(
    ("command", "said"),
    [(["true"], "must lie on storage that all of its machines share"), (["/nowhere/python"], "Python")],
)
def test_a_machine_that_lacks_something_says_what(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], said: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    executor = RayExecutor(RayExecution(**on(cluster)))
    folder = JobFolder(tmp_path / f"lacking-{command[0].rpartition('/')[2]}")
    if command != ["true"]:
        folder.path.mkdir()
    executor.start(folder, 1, command)
    end = time.monotonic() + 60
    while submissions(cluster, folder.path.name) != [(f"{folder.path.name}-1", "FAILED")]:
        assert time.monotonic() < end
        time.sleep(0.2)
    seen = executor.look(folder, 1)
    executor.release()
    assert seen.state is State.BARRED
    assert said in seen.said


def test_without_the_token_nothing_is_started(
    cluster: Cluster, tiny_model: Path, fruit_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with client_of(tiny_model, tmp_path / "server", executor=on(cluster)) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        job = create(client, file.id)
        wait(client, job.id, lambda j: any("RAY_AUTH_TOKEN must be set" in one for one in told(client, j.id)))
        assert submissions(cluster, job.id) == []
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        wait(client, job.id, lambda j: bool(submissions(cluster, j.id)))
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        end = time.monotonic() + 60
        while submissions(cluster, job.id) != [(f"{job.id}-1", "STOPPED")]:
            assert time.monotonic() < end
            time.sleep(0.2)


def test_more_than_the_cluster_has_is_waited_for(
    cluster: Cluster, tiny_model: Path, fruit_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with client_of(tiny_model, tmp_path / "server", executor=on(cluster, gpus=1)) as client:
        file = client.files.create(file=fruit_rows, purpose="fine-tune")
        job = create(client, file.id)
        waiting = f"The job waits for room in the cluster ({job.id}-1)"
        wait(client, job.id, lambda j: waiting in told(client, j.id))
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        with pytest.raises(openai.BadRequestError):
            client.fine_tuning.jobs.resume(job.id)
