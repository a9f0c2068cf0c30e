"""One rank of a run: ``python -m tanzim.pipeline.rank RUN``, as torchrun or Ray Train start it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tanzim.core.errors import TanzimError
from tanzim.core.progress import Reporter
from tanzim.core.records import Progress
from tanzim.launch.heartbeat import failed
from tanzim.launch.place import place
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.launch import RANKS
from tanzim.pipeline.workspace import find_run


class Lines(Reporter):
    """Shows facts and every tenth of long work as lines of a log."""

    def say(self, text: str) -> None:
        """Print one line."""
        print(text, flush=True)

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


def work(run: str) -> None:
    """Do this rank's part in the training of the run directory ``run``.

    Raises:
        TanzimError: why it failed, which its heartbeat says as well.

    """
    folder, config = find_run(run)
    try:
        finetune(config, reporter=Lines())
    except TanzimError as error:
        here = place()
        failed(folder.path / RANKS, here.rank if here else 0, error)
        raise


def ray_worker(run: str) -> None:
    """Do `work`, with an error that Ray can pass on between processes."""
    try:
        work(run)
    except TanzimError as error:
        raise RuntimeError(str(error)) from None


def main() -> int:
    """Run as a process: an error is one message, never a traceback."""
    try:
        work(sys.argv[1])
    except TanzimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
