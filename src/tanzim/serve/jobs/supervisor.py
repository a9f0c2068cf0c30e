"""Starts the processes of jobs, follows them, and ends what clients want ended.

It looks again and again and keeps nothing in memory that it needs: a server that is killed at any moment
finds its jobs as they are when it starts again.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import RowMapping
from sqlalchemy.exc import SQLAlchemyError

from tanzim.core.errors import ConfigError
from tanzim.core.files import new_file
from tanzim.core.records import Json
from tanzim.serve.jobs.process import EVENTS, LOG, JobFolder
from tanzim.serve.jobs.progress import estimate, new_lines
from tanzim.serve.jobs.results import models_of, result_table
from tanzim.serve.jobs.work import Order, Workshop
from tanzim.serve.store.database import AWAY
from tanzim.serve.store.files import Files
from tanzim.serve.store.jobs import Jobs

_log = logging.getLogger(__name__)
_LOOK = 0.25  # seconds between two looks
_DEATHS = 3  # times a job's process may die without having reached another checkpoint
_TIDY = 3600  # seconds between two times of tidying up
_GRACE = 120  # seconds that a process gets to save what it has


class Supervisor:
    """Looks after the unfinished jobs of one folder on one machine, in a thread of its own.

    Who takes a job first keeps it: servers on other machines, with the same database, leave it alone.

    Args:
        jobs: the queue.
        files: the clients' files.
        root: has a folder for each job.
        workshop: how a job is configured and run.
        most: jobs that run at the same time.
        tidy: called at the start and every hour.

    """

    def __init__(
        self,
        jobs: Jobs,
        files: Files,
        root: Path,
        workshop: Workshop,
        most: int,
        tidy: Callable[[], object] = lambda: None,
    ) -> None:
        self._jobs, self._files, self._root = jobs, files, root
        self._workshop, self._most, self._tidy = workshop, most, tidy
        self._owner = f"{socket.gethostname()}:{root.resolve()}"
        self._children: set[int] = set()  # processes that we must take leave of when they end
        self._faults: dict[str, str] = {}  # job → what the log has of it
        self._told: dict[str, float] = {}  # job → when its process was asked to end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tanzim-jobs", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; the jobs' processes go on."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        tidy = time.monotonic()
        while not self._stop.wait(_LOOK):
            try:
                self.look()
                if time.monotonic() >= tidy:
                    tidy = time.monotonic() + _TIDY
                    self._tidy()
            except (SQLAlchemyError, OSError) as error:  # such as a database that is away: look again
                self._complain("", error)
                self._stop.wait(1)
            else:
                self._faults.pop("", None)

    def _complain(self, job: str, error: Exception) -> None:
        """Write a fault into the server's log, once."""
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if self._faults.get(job) != said:
            self._faults[job] = said
            _log.warning("looking after %s failed and is tried again: %s", job or "the jobs", said)

    def look(self) -> None:
        """Do what is to be done now."""
        self._children = {pid for pid in self._children if os.waitpid(pid, os.WNOHANG)[0] == 0}
        mine = [
            job
            for job in self._jobs.unfinished()
            if job["owner"] == self._owner
            or (job["owner"] is None and self._jobs.take(job["id"], self._owner))
        ]
        folders = [JobFolder(self._root / job["id"]) for job in mine]
        locks = [folder.claim() for folder in folders]
        running = locks.count(None)
        with ExitStack() as held:
            for lock in locks:
                if lock is not None:  # a process that is started keeps its own copy
                    held.callback(os.close, lock)
            for job, folder, lock in zip(mine, folders, locks, strict=True):
                try:
                    if lock is None:
                        self._follow(job, folder)
                    else:
                        running += self._attend(job, folder, lock, running < self._most)
                except AWAY:
                    raise
                except (SQLAlchemyError, OSError, ValueError) as error:  # of this job: the others go on
                    self._complain(job["id"], error)
                else:
                    self._faults.pop(job["id"], None)

    def _follow(self, job: RowMapping, folder: JobFolder) -> None:
        """Take what a running job has written; stop it if that is wanted."""
        self._take(job, folder)
        if job["wanted"] != "run":
            self._end(job["id"], folder)
        elif job["status"] in ("validating_files", "queued") and folder.checked:
            message = "Files validated, moving job to running state"
            self._jobs.change(job["id"], message, status="running")

    def _end(self, id_: str, folder: JobFolder) -> None:
        """Ask the process once to save what it has and end; kill it if it does not."""
        told = self._told.get(id_)
        if told is None:
            if folder.signal(signal.SIGTERM):
                self._told[id_] = time.monotonic()
        elif time.monotonic() - told > _GRACE:
            folder.signal(signal.SIGKILL)

    def _attend(self, job: RowMapping, folder: JobFolder, lock: int, free: bool) -> bool:
        """Decide about a job that has no process now; tell whether it has one afterwards."""
        self._take(job, folder)
        self._told.pop(job["id"], None)
        outcome = folder.outcome()
        if job["wanted"] == "cancel":
            shutil.rmtree(folder.path / "runs", ignore_errors=True)
            self._jobs.change(job["id"], "The job was cancelled", status="cancelled", finished_at=_now())
        elif outcome is not None:
            self._settle(job, folder, outcome)
        elif job["wanted"] == "pause":
            if job["status"] != "paused":
                self._jobs.change(job["id"], "The job was paused", status="paused")
        elif free:
            return self._begin(job, folder, lock)
        elif job["status"] == "paused":
            self._jobs.change(job["id"], "The job waits for its turn", status="queued")
        return False

    def _begin(self, job: RowMapping, folder: JobFolder, lock: int) -> bool:
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
        if folder.deaths() >= _DEATHS:
            message = f"the job's process died {_DEATHS} times without getting further"
            self._fail(job, "server_error", f"{message}; its last words are in {folder.path / LOG}", None)
            return False
        again = job["attempts"] > 0
        message = "The job goes on where it stopped" if again else "Validating training file"
        status = "running" if folder.checked else "validating_files"
        self._jobs.change(job["id"], message, status=status, attempts=job["attempts"] + 1)
        folder.count_start()  # now that nothing but the start can fail
        command = self._workshop.command(folder.path)
        self._children.add(folder.start(command, lock, {"OMP_WAIT_POLICY": "PASSIVE"}))
        return True

    def _fetch(self, file: str, path: Path) -> None:
        if not path.is_file():
            with self._files.open(file) as source, new_file(path) as out:
                shutil.copyfileobj(source, out, 1 << 20)

    def _take(self, job: RowMapping, folder: JobFolder) -> None:
        """Turn what the process has written since the last look into events."""
        lines, end = new_lines(folder.path / EVENTS, job["read_bytes"])
        if lines:
            self._jobs.progress(job["id"], lines, (job["read_bytes"], end), estimate(lines))

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
