"""What the words of a cluster mean for a job; the real cluster is in tests/e2e/test_jobs_anywhere.py."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.config import load
from tanzim.core.errors import ConfigError
from tanzim.pipeline.config import Config
from tanzim.serve.jobs import ray
from tanzim.serve.jobs.config import LocalExecution, RayExecution
from tanzim.serve.jobs.executor import Seen, State, open_executor
from tanzim.serve.jobs.local import LocalExecutor
from tanzim.serve.jobs.process import OUTCOME, JobFolder
from tanzim.serve.jobs.ray import RayExecutor


class Answers(ThreadingHTTPServer):
    """A dashboard that answers as the test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.known: dict[str, dict[str, Any]] = {}
        self.status, self.headers, self.delay = 200, {}, 0.0
        self.asked: list[tuple[str, str, str | None]] = []
        self.bodies: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self._note()
        name = self.path.rpartition("/")[2]
        if self.server.status == 200 and name not in self.server.known:
            return self._answer(404, f"Job {name} does not exist")
        return self._answer(self.server.status, json.dumps(self.server.known.get(name)))

    def do_POST(self) -> None:
        self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if body:
            self.server.bodies.append(json.loads(body))
        self._answer(self.server.status, "{}")

    def _note(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        time.sleep(self.server.delay)

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ray, "_FRESH", 0.0)
    with Answers() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def executor(cluster: Answers) -> RayExecutor:
    return RayExecutor(
        RayExecution(address=f"http://127.0.0.1:{cluster.server_port}", cpus=2, memory_gib=1.5)
    )


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    (tmp_path / "ftjob-1").mkdir()
    return JobFolder(tmp_path / "ftjob-1")


def look(executor: RayExecutor, folder: JobFolder, attempt: int = 1) -> Seen:
    try:
        return executor.look(folder, attempt)
    finally:
        executor.release()


def now() -> int:
    return int(time.time() * 1000)


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({"status": "PENDING"}, State.ALIVE),
        ({"status": "RUNNING"}, State.ALIVE),
        ({"status": "A WORD OF A LATER RAY"}, State.ALIVE),
        ({"status": "STOPPED", "driver_exit_code": None}, State.GONE),
        ({"status": "FAILED", "driver_exit_code": -9}, State.GONE),
        ({"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED"}, State.GONE),
        ({"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"}, State.UNBEGUN),
        ({"status": "FAILED", "driver_exit_code": 67}, State.BARRED),
        ({"status": "FAILED", "driver_exit_code": 127}, State.BARRED),
        ({"status": "SUCCEEDED", "end_time": 1000}, State.GONE),
    ],
)
def test_what_each_word_means(
    cluster: Answers, executor: RayExecutor, folder: JobFolder, record: dict[str, Any], state: State
) -> None:
    cluster.known["ftjob-1-3"] = record
    assert look(executor, folder, 3).state is state


def test_an_outcome_may_take_a_while_to_be_seen(
    cluster: Answers, executor: RayExecutor, folder: JobFolder
) -> None:
    cluster.known["ftjob-1-1"] = {"status": "SUCCEEDED", "end_time": now()}
    assert look(executor, folder).state is State.ALIVE
    (folder.path / OUTCOME).write_text("{}")
    assert look(executor, folder).state is State.GONE


def test_what_is_submitted(
    cluster: Answers, executor: RayExecutor, folder: JobFolder, tmp_path: Path
) -> None:
    assert look(executor, folder, 0) == Seen(State.NEW)
    assert cluster.asked == []  # nothing was submitted, so there is nothing to ask for
    executor.start(folder, 1, ["/the python", "-m", "job", "$(touch /x)"])
    (body,) = cluster.bodies
    place, log = folder.path, folder.path / "log.txt"
    assert body.pop("entrypoint") == (
        f"cd {Path.cwd()} || exit 66; test -d {place} || exit 67; "
        f"exec '/the python' -m job '$(touch /x)' >> {log} 2>&1"
    )
    assert body == {
        "submission_id": "ftjob-1-1",
        "entrypoint_num_cpus": 2,
        "entrypoint_memory": 1610612736,
        "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120", "OMP_WAIT_POLICY": "PASSIVE"}},
    }


def test_what_may_be_on_its_way_is_not_sent_again_at_once(
    cluster: Answers, executor: RayExecutor, folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.status = 500
    executor.start(folder, 1, ["job"])
    cluster.status = 200
    seen = look(executor, folder)
    assert seen == Seen(State.ALIVE, "The cluster did not take the job (500): {}")
    monkeypatch.setattr(ray, "_PAUSE", 0.0)
    assert look(executor, folder).state is State.NEW


def test_a_cluster_that_does_not_answer_is_not_asked_at_every_look(
    cluster: Answers, executor: RayExecutor, folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "_TIMEOUT", 0.2)
    cluster.delay = 1.0
    for _ in range(3):
        seen = look(executor, folder)
        assert seen == Seen(State.ALIVE, "The cluster does not answer (timed out); the job is left as it is")
    assert len(cluster.asked) == 1
    monkeypatch.setattr(ray, "_PAUSE", 0.0)
    monkeypatch.setattr(ray, "_TIMEOUT", 20.0)
    assert look(executor, folder).state is State.NEW


def test_what_is_none_of_rays_answers_ends_nothing(
    cluster: Answers, executor: RayExecutor, folder: JobFolder
) -> None:
    for status, headers in ((502, {}), (302, {"Location": "http://127.0.0.1:1/"}), (200, {})):
        cluster.status, cluster.headers, cluster.known = status, headers, {"ftjob-1-1": {"no": "status"}}
        seen = look(executor, folder)
        assert seen.state is State.ALIVE
        assert f"its answer has status {status} and is not one of Ray's" in seen.said


def test_the_token_comes_from_where_ray_takes_it(
    cluster: Answers,
    executor: RayExecutor,
    folder: JobFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "_PAUSE", 0.0)
    cluster.status = 401
    assert "RAY_AUTH_TOKEN must be set" in look(executor, folder).said
    (tmp_path / "token").write_text("from-a-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    look(executor, folder)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from-the-environment")
    look(executor, folder)
    assert [asked[2] for asked in cluster.asked] == [
        None,
        "Bearer from-a-file",
        "Bearer from-the-environment",
    ]


def test_it_is_stopped_once(cluster: Answers, executor: RayExecutor, folder: JobFolder) -> None:
    cluster.known["ftjob-1-1"] = {"status": "RUNNING"}
    for _ in range(3):
        assert look(executor, folder).state is State.ALIVE
        executor.stop(folder, 1)
    assert [path for method, path, _ in cluster.asked if method == "POST"] == ["/api/jobs/ftjob-1-1/stop"]


def test_another_server_of_this_machine_leaves_it_alone(
    executor: RayExecutor, folder: JobFolder, cluster: Answers
) -> None:
    other = RayExecutor(RayExecution(address=f"http://127.0.0.1:{cluster.server_port}"))
    assert executor.look(folder, 1).state is State.NEW
    assert look(other, folder).state is State.ALIVE
    executor.release()
    assert look(other, folder).state is State.NEW


def test_how_it_is_configured() -> None:
    def config(*overrides: str) -> Any:
        return load(Config, None, overrides).serve.executor

    assert config() == LocalExecution()
    assert isinstance(open_executor(config()), LocalExecutor)
    chosen = config("serve.executor={type: ray, gpus: 1}")
    assert chosen == RayExecution(address="http://127.0.0.1:8265", gpus=1)
    assert isinstance(open_executor(chosen), RayExecutor)
    for wrong in (
        "ray://head:10001",
        "http://user:secret@head",
        "http://head/path",
        "file:///x",
        "http://head:99999",
    ):
        with pytest.raises(ConfigError, match="address"):
            config(f"serve.executor={{type: ray, address: '{wrong}'}}")
