"""One rank of a run: ``python -m tanzim.pipeline.rank RUN``, as torchrun or Ray Train start it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tanzim.core.errors import TanzimError
from tanzim.core.progress import Reporter
from tanzim.core.records import Progress
from tanzim.launch.heartbeat import failed
from tanzim.launch.place import place
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.launch import RANKS
from tanzim.pipeline.workspace import find_run


class Lines(Reporter):
    """Shows facts and every tenth of long work as lines of a log.

    Args:
        log: the file they go to; None prints them.

    """

    def __init__(self, log: Path | None = None) -> None:
        super().__init__()
        self.log = log

    def say(self, text: str) -> None:
        """Print one line."""
        if self.log is None:
            print(text, flush=True)
        else:
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(f"{text}\n")

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """Print where the work called ``title`` stands."""
        seen = -1

        def update(done: int, total: int | None, note: str) -> None:
            nonlocal seen
            tenth = 10 * done // total if total else -1
            if tenth != seen:
                seen = tenth
                self.say(f"{title} {done}/{total} {note}".rstrip())

        yield update


def work(run: str, reporter: Reporter) -> None:
    """Do this rank's part in the training of the run directory ``run``.

    Raises:
        TanzimError: why it failed, which its heartbeat says as well.

    """
    folder, config = find_run(run)
    try:
        finetune(config, reporter=reporter)
    except TanzimError as error:
        here = place()
        failed(folder.path / RANKS, here.rank if here else 0, error)
        raise


def ray_worker(run: str) -> None:
    """Do `work`, with a log of its own and an error that Ray can pass on between processes."""
    here = place()
    log = Path(run) / RANKS / f"rank-{here.rank if here else 0}.log"
    log.parent.mkdir(parents=True, exist_ok=True)  # on another machine there is none yet
    try:
        work(run, Lines(log))
    except TanzimError as error:
        raise RuntimeError(str(error)) from None


def main() -> int:
    """Run as a process: an error is one message, never a traceback."""
    try:
        work(sys.argv[1], Lines())
    except TanzimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
