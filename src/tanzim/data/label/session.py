"""One person at a review queue: what is shown next, and what becomes of a key."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tanzim.core.records import Example, Provenance
from tanzim.data.label.log import Log


@dataclass(frozen=True, slots=True)
class Progress:
    """How far somebody is.

    Args:
        done: tasks with a label.
        skipped: tasks put off.
        total: all tasks.

    """

    done: int
    skipped: int
    total: int


class Session:
    """The tasks of one annotator, in turn: those without an answer, then those skipped in earlier sessions.

    Every answer is on disk before the next task is shown.

    Args:
        tasks: the examples, in this annotator's order.
        log: the answers given so far, open for more.
        votes: what the others said of each task, for one who decides; empty for annotators, who are blind.

    """

    def __init__(
        self, tasks: Sequence[Example], log: Log, votes: Mapping[Provenance, Counter[str]] | None = None
    ) -> None:
        self._tasks = {example.provenance: example for example in tasks}
        self._log = log
        self._votes = votes or {}
        fresh = [origin for origin in self._tasks if origin not in log.said]
        put_off = [origin for origin in self._tasks if log.said.get(origin, "") is None]
        self._turns = deque([*fresh, *put_off])
        self.before: str | None = None  # what was said of the present task before it was taken back

    @property
    def current(self) -> Example | None:
        """The task to be answered; None when all are."""
        return self._tasks[self._turns[0]] if self._turns else None

    @property
    def votes(self) -> Counter[str]:
        """What annotators said of the present task, for one who decides."""
        return self._votes.get(self._turns[0], Counter()) if self._turns else Counter()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        mine = [label for origin, label in self._log.said.items() if origin in self._tasks]
        skipped = mine.count(None)
        return Progress(len(mine) - skipped, skipped, len(self._tasks))

    def answer(self, label: str | None) -> None:
        """Give the present task a label; None skips it."""
        self._log.answer(self._turns[0], label)
        self._turns.popleft()
        self.before = None

    def undo(self) -> bool:
        """Take the newest answer back and show its task again; False where there is none."""
        before = next(reversed(self._log.said.items()), None)
        if before is None or before[0] not in self._tasks:
            return False
        origin, label = before
        self._log.undo()
        if origin in self._turns:  # skipped in an earlier session
            self._turns.remove(origin)
        self._turns.appendleft(origin)
        self.before = label
        return True
