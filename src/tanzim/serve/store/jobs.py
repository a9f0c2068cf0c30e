"""Fine-tuning jobs, their events, and the models that came of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, update

from tanzim.core.records import Json
from tanzim.serve.store.database import writing
from tanzim.serve.store.ids import new_id
from tanzim.serve.store.page import Page, page
from tanzim.serve.store.quota import check_queue
from tanzim.serve.store.tables import events, files, jobs, models
from tanzim.serve.store.words import storable

UNFINISHED = ("validating_files", "queued", "running", "paused")


class Jobs:
    """The durable queue. What is written here outlives the server and every job's process.

    ``status`` is what clients see; ``wanted`` is what they asked for last: run, pause or cancel.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, project: str, asked: Json) -> RowMapping:
        """Queue a job; when this returns, it will run.

        Args:
            project: whose it is.
            asked: model, training_file, validation_file, suffix, seed, method, settings, metadata.

        Raises:
            FullError: the project has as many jobs as it may that have not ended.

        """
        row = {
            **asked,
            "id": new_id("ftjob"),
            "project": project,
            "status": "validating_files",
            "wanted": "run",
            "attempts": 0,
            "read_bytes": 0,
            "created_at": int(time.time()),
        }
        with writing(self._engine) as connection:
            check_queue(connection, project, UNFINISHED)
            connection.execute(insert(jobs).values(row))
            tell(connection, row["id"], f"Created fine-tuning job: {row['id']}")
            return _get(connection, row["id"])

    def get(self, project: str, id_: str) -> RowMapping | None:
        """Return a job of a project; None if it has no such."""
        query = select(jobs).where(jobs.c.project == project, jobs.c.id == id_)
        with self._engine.begin() as connection:
            return connection.execute(query).mappings().one_or_none()

    def list(self, project: str, *, after: str | None, limit: int) -> Page:
        """Return a page of a project's jobs, the newest first."""
        query = select(jobs).where(jobs.c.project == project)
        with self._engine.begin() as connection:
            return page(connection, jobs, query, after=after, limit=limit)

    def unfinished(self) -> Sequence[RowMapping]:
        """Return the jobs that have not come to an end, in the order they were made."""
        query = select(jobs).where(jobs.c.status.in_(UNFINISHED)).order_by(jobs.c.number)
        with self._engine.begin() as connection:
            return connection.execute(query).mappings().all()

    def take(self, id_: str, owner: str) -> bool:
        """Make a job ``owner``'s if it is nobody's yet; tell whether it is."""
        with self._engine.begin() as connection:
            found: str | None = connection.scalar(select(jobs.c.owner).where(jobs.c.id == id_))
        if found is None:
            free = update(jobs).where(jobs.c.id == id_, jobs.c.owner.is_(None)).values(owner=owner)
            with writing(self._engine) as connection:
                return bool(connection.execute(free).rowcount)
        return found == owner

    def want(self, id_: str, wanted: str, among: tuple[str, ...]) -> bool:
        """Note what a client wants of a job, if its status is ``among`` these; tell whether it is.

        Who was told that a job is cancelled stays right: nothing else can be wanted of it any more.
        """
        change = update(jobs).where(jobs.c.id == id_, jobs.c.status.in_(among)).values(wanted=wanted)
        if wanted != "cancel":
            change = change.where(jobs.c.wanted != "cancel")
        with writing(self._engine) as connection:
            return bool(connection.execute(change).rowcount)

    def change(self, id_: str, message: str | None = None, level: str = "info", **values: Any) -> None:  # noqa: ANN401
        """Change a job, and tell it as an event, both or neither."""
        with writing(self._engine) as connection:
            if values:
                connection.execute(update(jobs).where(jobs.c.id == id_).values(**values))
            if message is not None:
                tell(connection, id_, message, level=level)

    def progress(
        self, id_: str, lines: Sequence[Json], read: tuple[int, int], finish: int | None = None
    ) -> None:
        """Take what a job's process wrote since the last time; each line becomes one event, once.

        Args:
            id_: of the job.
            lines: events: message, type, data, created_at.
            read: how many bytes of the process's log had been taken before these lines, and with them. Where
                somebody else (a server that is just going) has taken them, nothing happens.
            finish: when it will be done, as far as can be said.

        """
        before, after = read
        change = update(jobs).where(jobs.c.id == id_, jobs.c.read_bytes == before)
        with writing(self._engine) as connection:
            if connection.execute(change.values(read_bytes=after, estimated_finish=finish)).rowcount:
                for line in lines:
                    tell(connection, id_, **line)

    def succeed(self, id_: str, made: Sequence[Json], result: Json, **values: Any) -> bool:  # noqa: ANN401
        """End a job with its models and its table of results, all at once, unless it was cancelled.

        Args:
            id_: of the job.
            made: rows of models; the first is the job's result.
            result: the row of the table's file (`Files.bring`).
            values: columns of the job.

        Returns:
            Whether it was so.

        """
        now, name = int(time.time()), made[0]["id"]
        ended = {"status": "succeeded", "fine_tuned_model": name, "result_file": result["id"]}
        with writing(self._engine) as connection:
            if not _finish(connection, id_, **values, **ended, finished_at=now):
                return False
            connection.execute(insert(files).values(result))
            job = _get(connection, id_)
            for model in sorted(made, key=lambda model: model["step"]):  # lists show the newest first
                row = {**model, "project": job["project"], "job": id_, "created_at": now}
                connection.execute(insert(models).values(row))
            tell(connection, id_, f"New fine-tuned model created: {name}")
            tell(connection, id_, "The job has successfully completed")
        return True

    def fail(self, id_: str, error: Json) -> None:
        """End a job with an error (code, message, param), unless it was cancelled."""
        error = {**error, "message": storable(error["message"])}
        with writing(self._engine) as connection:
            if _finish(connection, id_, status="failed", error=error, finished_at=int(time.time())):
                tell(connection, id_, f"The job failed: {error['message']}", level="error")

    def counts(self) -> dict[str, float]:
        """Return how many jobs there are of each status."""
        query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
        with self._engine.begin() as connection:
            return {status: float(count) for status, count in connection.execute(query)}

    def events(self, id_: str, *, after: str | None, limit: int, oldest_first: bool = False) -> Page:
        """Return a page of a job's events, the newest first unless told otherwise."""
        query = select(events).where(events.c.job == id_)
        with self._engine.begin() as connection:
            return page(connection, events, query, after=after, limit=limit, oldest_first=oldest_first)

    def checkpoints(self, id_: str, *, after: str | None, limit: int) -> Page:
        """Return a page of the models that a job made, the newest first."""
        query = select(models).where(models.c.job == id_, models.c.step.is_not(None))
        with self._engine.begin() as connection:
            return page(connection, models, query, after=after, limit=limit)


class Models:
    """The fine-tuned models that can be asked by name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, project: str, name: str) -> RowMapping | None:
        """Return a model of a project; None if it has no such."""
        query = select(models).where(models.c.project == project, models.c.id == name)
        with self._engine.begin() as connection:
            return connection.execute(query).mappings().one_or_none()

    def all(self, project: str) -> Sequence[RowMapping]:
        """Return a project's models, the oldest first."""
        query = select(models).where(models.c.project == project).order_by(models.c.number)
        with self._engine.begin() as connection:
            return connection.execute(query).mappings().all()

    def delete(self, project: str, name: str) -> bool:
        """Forget a model; tell whether there was one."""
        gone = models.delete().where(models.c.project == project, models.c.id == name)
        with writing(self._engine) as connection:
            return bool(connection.execute(gone).rowcount)


def tell(
    connection: Connection,
    job: str,
    message: str,
    *,
    level: str = "info",
    type: str = "message",
    data: Json | None = None,
    created_at: int | None = None,
) -> None:
    """Write an event of a job."""
    row = {
        "id": new_id("ftevent"),
        "job": job,
        "created_at": created_at or int(time.time()),
        "level": level,
        "message": storable(message),
        "type": type,
        "data": data,
    }
    connection.execute(insert(events).values(row))


def _finish(connection: Connection, id_: str, **values: Any) -> bool:  # noqa: ANN401
    """Give a job its end, unless it has one or was cancelled; tell whether it was given."""
    still = jobs.c.status.in_(UNFINISHED) & (jobs.c.wanted != "cancel")
    change = update(jobs).where(jobs.c.id == id_, still)
    return bool(connection.execute(change.values(**values, estimated_finish=None)).rowcount)


def _get(connection: Connection, id_: str) -> RowMapping:
    return connection.execute(select(jobs).where(jobs.c.id == id_)).mappings().one()
