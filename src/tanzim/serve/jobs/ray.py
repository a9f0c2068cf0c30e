"""Jobs in a Ray cluster, by the Jobs API of its dashboard: plain HTTP, so Ray need not be installed here.

Ray's own `JobSubmissionClient` waits without limit for a cluster that hangs, and lets RAY_ADDRESS overrule
the config; so the API is spoken to directly.

That no job runs twice rests on two things. A submission is called after the job and the attempt, and a
cluster takes each name once: what was perhaps submitted may be submitted again. And whatever the cluster
believes of a machine that it lost from sight, a job's process holds a lease on its folder (see `lease`).

Specification: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import time
from pathlib import Path
from urllib.parse import urlsplit

from tanzim.core.records import Json
from tanzim.serve.jobs.config import RayExecution
from tanzim.serve.jobs.executor import GRACE, Seen, State
from tanzim.serve.jobs.process import LOG, JobFolder

_FRESH = 1.0  # seconds for which an answer holds
_PAUSE = 5.0  # seconds after which a cluster that did not answer is asked again
_TIMEOUT = 5.0  # seconds that the cluster gets to answer
_MOST = 1 << 22  # bytes of an answer
_UNSEEN = 120.0  # seconds that an outcome may take to be seen here, through the storage's caches
_NO_PROJECT, _NO_FOLDER = 66, 67  # exit statuses of our own, before the job's process
_BARRED = {
    _NO_PROJECT: "a machine of the cluster does not have the folder that the server was started in",
    _NO_FOLDER: "a machine of the cluster does not see the server's folder: serve.folder must lie on storage "
    "that all of its machines share, at the same path",
    126: "a machine of the cluster cannot run this server's Python: it must be installed at the same path",
    127: "a machine of the cluster does not have this server's Python: it must be installed at the same path",
}


class _AwayError(Exception):
    """The cluster gives no answer that could be used; the text says why."""


class RayExecutor:
    """Runs each attempt as a Ray Job; implements `Executor`.

    Args:
        config: where the cluster is, and what a job takes of it.

    """

    def __init__(self, config: RayExecution) -> None:
        self.lease: float | None = config.lease_seconds
        self._config, self._cluster = config, _Cluster(config.address)
        self._locks: list[int] = []
        self._answers: dict[
            str, tuple[float, Json | None]
        ] = {}  # submission → when it was asked for, what is known
        self._submitted: dict[str, tuple[float, str]] = {}  # submission → when, and why it was not taken
        self._stopped: set[str] = set()

    def look(self, folder: JobFolder, attempt: int) -> Seen:
        """Ask the cluster; the folder's lock keeps another server on this machine from starting it too."""
        lock = folder.claim()
        if lock is None:
            return Seen(State.ALIVE)
        self._locks.append(lock)
        if attempt == 0:
            return Seen(State.NEW)
        name = _name(folder, attempt)
        try:
            known = self._ask(name)
        except _AwayError as error:
            return Seen(State.ALIVE, f"The cluster does not answer ({error}); the job is left as it is")
        if known is None:
            when, why = self._submitted.get(name, (-_PAUSE, ""))
            late = time.monotonic() - when > _PAUSE
            return Seen(State.NEW if late else State.ALIVE, why)
        seen = _judge(name, known, folder)
        if seen.state is not State.ALIVE:
            self._answers.pop(name, None)
            self._submitted.pop(name, None)
            self._stopped.discard(name)
        return seen

    def start(self, folder: JobFolder, attempt: int, command: list[str]) -> None:
        """Submit it. Whether that worked is for the next look to say: an answer may get lost."""
        name, config = _name(folder, attempt), self._config
        body: Json = {
            "submission_id": name,
            "entrypoint": _entrypoint(Path.cwd(), folder.path, command),
            "entrypoint_num_cpus": config.cpus,
            # Ray sends SIGTERM first, and SIGKILL after so many seconds.
            "runtime_env": {
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE), "OMP_WAIT_POLICY": "PASSIVE"}
            },
        }
        if config.gpus:
            body["entrypoint_num_gpus"] = config.gpus
        if config.memory_gib:
            body["entrypoint_memory"] = int(config.memory_gib * 2**30)
        self._answers.pop(name, None)
        self._submitted[name] = time.monotonic(), ""
        try:
            status, text = self._cluster.ask("POST", "/api/jobs/", body)
        except _AwayError:
            return
        if status != http.HTTPStatus.OK:
            why = f"The cluster did not take the job ({status}): {_last_line(text)}"
            self._submitted[name] = time.monotonic(), why

    def stop(self, folder: JobFolder, attempt: int) -> None:
        """Have Ray stop it, once."""
        name = _name(folder, attempt)
        if name not in self._stopped:
            try:
                status, _ = self._cluster.ask("POST", f"/api/jobs/{name}/stop")
            except _AwayError:
                return
            if status == http.HTTPStatus.OK:
                self._stopped.add(name)

    def release(self) -> None:
        """Let go of the locks."""
        while self._locks:
            os.close(self._locks.pop())

    def _ask(self, name: str) -> Json | None:
        """Return what the cluster knows of a submission; None if it knows of none."""
        asked, known = self._answers.get(name, (-_FRESH, None))
        if time.monotonic() - asked > _FRESH:
            status, text = self._cluster.ask("GET", f"/api/jobs/{name}")
            known = None
            if status != http.HTTPStatus.NOT_FOUND:
                known = _record(status, text)
            self._answers[name] = time.monotonic(), known
        return known


def _name(folder: JobFolder, attempt: int) -> str:
    return f"{folder.path.name}-{attempt}"


def _entrypoint(project: Path, folder: Path, command: list[str]) -> str:
    """Return the shell's line: the checks of the machine, then the command in place of the shell."""
    place, log = shlex.quote(str(folder)), shlex.quote(str(folder / LOG))
    return (
        f"cd {shlex.quote(str(project))} || exit {_NO_PROJECT}; test -d {place} || exit {_NO_FOLDER}; "
        f"exec {shlex.join(command)} >> {log} 2>&1"
    )


def _record(status: int, text: str) -> Json:
    """Read what the cluster says of a submission.

    Raises:
        _AwayError: it is none of Ray's answers.

    """
    try:
        found = json.loads(text) if status == http.HTTPStatus.OK else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("status"), str):
        raise _AwayError(f"its answer has status {status} and is not one of Ray's")
    return found


def _judge(name: str, known: Json, folder: JobFolder) -> Seen:
    """Return what the cluster's word for a submission means here."""
    status, code = known["status"], known.get("driver_exit_code")
    if status == "PENDING":
        return Seen(State.ALIVE, f"The job waits for room in the cluster ({name})")
    if status not in ("SUCCEEDED", "FAILED", "STOPPED"):
        return Seen(State.ALIVE, f"The job has a process in the cluster ({name})")
    ended = (known.get("end_time") or 0) / 1000
    if status == "SUCCEEDED" and folder.outcome() is None and time.time() - ended < _UNSEEN:
        return Seen(State.ALIVE, "The job's process has ended; what it left is not to be seen here yet")
    if status == "FAILED" and code in _BARRED:
        return Seen(State.BARRED, _BARRED[code])
    if status == "FAILED" and known.get("error_type") == "JOB_SUPERVISOR_ACTOR_START_TIMEOUT":
        return Seen(State.UNBEGUN)
    return Seen(State.GONE)


def _last_line(text: str) -> str:
    """Return what a traceback says in the end."""
    return text.strip(" .\n").rpartition("\n")[2][:200]


class _Cluster:
    """The HTTP side: bounded time and size, no proxies, no redirections, Ray's token."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "", parts.port
        self._silent: tuple[float, str] = (-_PAUSE, "")  # when it last did not answer, and why

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, str]:
        """Return status and text of an answer.

        Raises:
            _AwayError: there is none, now or a moment ago.

        """
        when, why = self._silent
        if time.monotonic() - when < _PAUSE:
            raise _AwayError(why)
        try:
            status, text = self._request(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        else:
            if status not in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
                return status, text
            why = "it wants a token: RAY_AUTH_TOKEN must be set, and right, where this server runs"
        self._silent = time.monotonic(), why
        raise _AwayError(why)

    def _request(self, method: str, path: str, body: Json | None) -> tuple[int, str]:
        connection = self._kind(self._host, self._port, timeout=_TIMEOUT)
        try:
            headers = {"Content-Type": "application/json"}
            if token := _token():
                headers["Authorization"] = f"Bearer {token}"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_MOST).decode("utf-8", "replace")
        finally:
            connection.close()


def _token() -> str:
    """Return the cluster's token, from where Ray takes it; "" without one.

    Raises:
        _AwayError: it can be none.

    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    token = os.environ.get("RAY_AUTH_TOKEN") or (Path(path).read_text(encoding="utf-8") if path else "")
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise _AwayError("what RAY_AUTH_TOKEN holds is no token")
    return token
