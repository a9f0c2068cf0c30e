"""Starts the processes of jobs, follows them, and ends what clients want ended.

It looks again and again and keeps nothing in memory that it needs: a server that is killed at any moment
finds its jobs as they are when it starts again.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import RowMapping
from sqlalchemy.exc import SQLAlchemyError

from tanzim.core.errors import ConfigError, TanzimError
from tanzim.core.files import new_file, write_text
from tanzim.core.records import Json
from tanzim.serve.jobs.executor import Executor, Seen, State
from tanzim.serve.jobs.process import EVENTS, LOG, JobFolder
from tanzim.serve.jobs.progress import estimate, new_lines
from tanzim.serve.jobs.results import models_of, result_table
from tanzim.serve.jobs.work import Order, Workshop
from tanzim.serve.store.database import AWAY
from tanzim.serve.store.files import Files
from tanzim.serve.store.ids import new_id
from tanzim.serve.store.jobs import Jobs

_log = logging.getLogger(__name__)
OWNER = "owner"  # file in the folder of the jobs
_LOOK = 0.25  # seconds between two looks
_STOPPED = ("paused", "queued")  # statuses of a job whose process ended because it was asked to
_DEATHS = 3  # times a job's process may die without having reached another checkpoint
_TIDY = 3600  # seconds between two times of tidying up
_KNOWN = (SQLAlchemyError, OSError, TanzimError)  # faults whose traceback tells nothing more


class Supervisor:
    """Looks after the unfinished jobs of one folder, in a thread of its own.

    Who takes a job first keeps it: servers with other folders, and the same database, leave it alone.

    Args:
        jobs: the queue.
        files: the clients' files.
        root: has a folder for each job.
        workshop: how a job is configured and run.
        executor: where its process runs.
        most: jobs that run at the same time.
        tidy: called at the start and every hour.

    """

    def __init__(
        self,
        jobs: Jobs,
        files: Files,
        root: Path,
        workshop: Workshop,
        executor: Executor,
        most: int,
        tidy: Callable[[], object] = lambda: None,
    ) -> None:
        self._jobs, self._files, self._root = jobs, files, root
        self._workshop, self._executor, self._most, self._tidy = workshop, executor, most, tidy
        self._owner = name_of(root)
        self._faults: dict[str, str] = {}  # job → what the log has of it
        self._said: dict[str, str] = {}  # job → what the executor said of it last
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tanzim-jobs", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; the jobs' processes go on."""
        self._stop.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether anybody looks."""
        return self._thread.is_alive()

    def _run(self) -> None:
        tidy = time.monotonic()
        while not self._stop.wait(_LOOK):
            try:
                self.look()
                if time.monotonic() >= tidy:
                    tidy = time.monotonic() + _TIDY
                    self._tidy()
            except Exception as error:  # noqa: BLE001 - such as a database that is away: look again
                self._complain("", error)
                self._stop.wait(1)
            else:
                self._faults.pop("", None)

    def _complain(self, job: str, error: Exception) -> None:
        """Write a fault into the server's log, once."""
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if self._faults.get(job) != said:
            self._faults[job] = said
            trace = None if isinstance(error, _KNOWN) else error
            message = "looking after %s failed and is tried again: %s"
            _log.warning(message, job or "the jobs", said, exc_info=trace)

    def look(self) -> None:
        """Do what is to be done now."""
        mine = [
            job
            for job in self._jobs.unfinished()
            if job["owner"] == self._owner
            or (job["owner"] is None and self._jobs.take(job["id"], self._owner))
        ]
        folders = [JobFolder(self._root / job["id"]) for job in mine]
        try:
            found = [self._seen(job, folder) for job, folder in zip(mine, folders, strict=True)]
            running = sum(seen is None or seen.state is State.ALIVE for seen in found)
            for job, folder, seen in zip(mine, folders, found, strict=True):
                if seen is None:
                    continue
                try:
                    self._say(job["id"], seen)
                    if seen.state is State.ALIVE:
                        self._follow(job, folder)
                    else:
                        running += self._attend(job, folder, seen, running < self._most)
                except AWAY:
                    raise
                except Exception as error:  # noqa: BLE001 - of this job: the others go on
                    self._complain(job["id"], error)
                else:
                    self._faults.pop(job["id"], None)
        finally:
            self._executor.release()

    def _seen(self, job: RowMapping, folder: JobFolder) -> Seen | None:
        """Ask the executor for a job; None if it fails, and the job may have a process for all we know."""
        try:
            return self._executor.look(folder, job["attempts"])
        except Exception as error:  # noqa: BLE001 - of this job: the others go on
            self._complain(job["id"], error)
            return None

    def _say(self, id_: str, seen: Seen) -> None:
        """Tell as an event what the executor says of a job that may go on, when it changes."""
        if seen.said and seen.state is not State.BARRED and seen.said != self._said.get(id_):
            self._jobs.change(id_, seen.said)
        self._said[id_] = seen.said

    def _follow(self, job: RowMapping, folder: JobFolder) -> None:
        """Take what a running job has written; stop it if that is wanted."""
        self._take(job, folder)
        if job["wanted"] != "run":
            self._executor.stop(folder, job["attempts"])
        elif job["status"] in ("validating_files", "queued") and folder.checked:
            message = "Files validated, moving job to running state"
            self._jobs.change(job["id"], message, status="running")

    def _attend(self, job: RowMapping, folder: JobFolder, seen: Seen, free: bool) -> bool:
        """Decide about a job that has no process now; tell whether it has one afterwards."""
        self._take(job, folder)
        outcome = folder.outcome()
        if job["wanted"] == "cancel":
            folder.close()
            shutil.rmtree(folder.path / "runs", ignore_errors=True)
            self._jobs.change(job["id"], "The job was cancelled", status="cancelled", finished_at=_now())
        elif outcome is not None:
            self._settle(job, folder, outcome)
        elif job["wanted"] == "pause":
            if job["status"] != "paused":
                self._jobs.change(job["id"], "The job was paused", status="paused")
        elif seen.state is State.BARRED:
            self._fail(job, "server_error", seen.said, None)
        elif free:
            return self._begin(job, folder, seen)
        elif job["status"] == "paused":
            self._jobs.change(job["id"], "The job waits for its turn", status="queued")
        return False

    def _begin(self, job: RowMapping, folder: JobFolder, seen: Seen) -> bool:
        order = order_of(job)
        try:
            for key in ("training_file", "validation_file"):
                if job[key]:
                    self._fetch(job[key], folder.path / f"{key.removesuffix('_file')}.jsonl")
            self._workshop.furnish(order, folder.path)
        except FileNotFoundError:
            self._fail(job, "file_not_found", "a file of the job was deleted before it ran", "training_file")
            return False
        except ConfigError as error:
            self._fail(job, "invalid_value", str(error), None)
            return False
        last, died = job["attempts"], seen.state is State.GONE and job["status"] not in _STOPPED
        if died and folder.count_death(last) >= _DEATHS:
            message = f"the job's process died {_DEATHS} times without getting further"
            where = f"jobs/{job['id']}/{LOG} in the server's folder has its last words"
            self._fail(job, "server_error", f"{message}; {where}", None)
            return False
        lost = bool(last) and seen.state is State.NEW  # what was meant to start it did not get there
        attempt = last if lost else last + 1
        message = "The job goes on where it stopped" if last else "Validating training file"
        status = "running" if folder.checked else "validating_files"
        self._jobs.change(job["id"], None if lost else message, status=status, attempts=attempt)
        command = self._workshop.command(folder.path, self._executor.lease)
        self._executor.start(folder, attempt, command)
        return True

    def _fetch(self, file: str, path: Path) -> None:
        if not path.is_file():
            with self._files.open(file) as source, new_file(path) as out:
                shutil.copyfileobj(source, out, 1 << 20)

    def _take(self, job: RowMapping, folder: JobFolder) -> None:
        """Turn what the process has written since the last look into events, all of it."""
        read, (lines, end) = job["read_bytes"], new_lines(folder.path / EVENTS, job["read_bytes"])
        while lines:
            self._jobs.progress(job["id"], lines, (read, end), estimate(lines))
            read, (lines, end) = end, new_lines(folder.path / EVENTS, end)

    def _settle(self, job: RowMapping, folder: JobFolder, outcome: Json) -> None:
        if outcome["status"] != "succeeded":
            self._fail(job, outcome["code"], outcome["message"], outcome.get("param"))
            return
        table = result_table(folder.path)
        result = self._files.bring(job["project"], "step_metrics.csv", "fine-tune-results", table)
        made = models_of(job, folder.path, outcome)
        if self._jobs.succeed(job["id"], made, result, trained_tokens=outcome["trained_tokens"]):
            self._files.settle(result["id"])
        else:
            self._files.discard(result["id"])

    def _fail(self, job: RowMapping, code: str, message: str, param: str | None) -> None:
        self._jobs.fail(job["id"], {"code": code, "message": message, "param": param})


def name_of(root: Path) -> str:
    """Return what the server of a folder is called in the database, the same each time.

    It stands in the folder and is not the machine's name: a container made anew has another name, and must
    find the jobs of the one before.
    """
    path = root / OWNER
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{OWNER}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two servers may start at once
        if not path.is_file():
            write_text(path, new_id("server"))
    return path.read_text(encoding="utf-8")


def order_of(job: RowMapping) -> Order:
    """Return what a queued job wants trained."""
    method = job["method"]
    return Order(
        job["id"],
        job["model"],
        job["seed"],
        method[method["type"]]["hyperparameters"],
        job["settings"],
        job["validation_file"] is not None,
    )


def _now() -> int:
    return int(time.time())
