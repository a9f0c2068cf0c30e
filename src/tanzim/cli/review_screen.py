"""What a reviewer sees: one task, the labels and their keys, how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tanzim.cli.turned import cut, right_to_left, row, rows, safe, width

if TYPE_CHECKING:
    from tanzim.core.records import Example
    from tanzim.data.label.session import Progress

_BOLD, _DIM, _GREEN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"
_LEAST = (60, 10)  # columns and lines


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show.

    Args:
        annotator: who is asked.
        labels: to choose from.
        example: the task.
        progress: how far it is.
        votes: what others said of it, where somebody decides between them.
        before: what was said of it before that was taken back.
        pressed: the digits pressed so far, of a key of several.
        message: what was wrong with the last key.
        turn: whether text from right to left is turned here.
        top: the first row of the text that is seen.

    """

    annotator: str
    labels: Sequence[str]
    example: Example
    progress: Progress
    votes: Counter[str]
    before: str | None = None
    pressed: str = ""
    message: str = ""
    turn: bool = False
    top: int = 0


def keys(labels: Sequence[str]) -> list[str]:
    """Return the key of each label: a number, as many digits for all."""
    digits = len(str(len(labels)))
    return [str(number).zfill(digits) for number in range(1, len(labels) + 1)]


def frame(view: View, columns: int, lines: int) -> tuple[list[str], int]:
    """Return the rows of the screen, and the last row of the text that may stand at its top.

    Args:
        view: what there is to show.
        columns: cells in a row.
        lines: rows of the screen.

    """
    if columns < _LEAST[0] or lines < _LEAST[1]:
        return [f"make the window larger ({_LEAST[0]} × {_LEAST[1]})"[:columns]], 0
    head = [_head(view, columns), _DIM + "─" * columns + _PLAIN]
    foot = _foot(view, columns)
    room = lines - len(head) - len(foot)
    if room < 3:  # very many labels
        kept = lines - len(head) - 3 - 3
        foot = [*foot[:kept], f"{_DIM}  … and more: type a label's number{_PLAIN}", *foot[-2:]]
        room = 3
    text = _text(view.example, columns - 4, view.turn)
    last = max(0, len(text) - room)
    top = min(view.top, last)
    seen = [f"  {line}" for line in text[top : top + room]]
    if top < last:
        seen[-1] = f"{_DIM}  ↓ {len(text) - top - room + 1} more rows{_PLAIN}"
    return [*head, *seen, *[""] * (room - len(seen)), *foot], last


def _head(view: View, columns: int) -> str:
    progress = view.progress
    done = progress.done + progress.skipped
    full = round(20 * done / max(1, progress.total))
    left = f" {view.annotator}"
    middle = f"  {'█' * full}{'░' * (20 - full)}  {done:,} of {progress.total:,}"
    right = f"{progress.skipped:,} skipped " if progress.skipped else ""
    gap = columns - width(left) - width(middle) - width(right)
    if gap < 0:
        count = f"  {done:,} of {progress.total:,}"
        return f"{_BOLD}{cut(left, columns - width(count))}{_PLAIN}{count}"
    return f"{_BOLD}{left}{_PLAIN}{middle}{' ' * gap}{_DIM}{right}{_PLAIN}"


def _text(example: Example, columns: int, turn: bool) -> list[str]:
    found = [""]
    if example.text:
        found += rows(example.text, columns, turn=turn)
    for title, turns in (("", example.messages), ("chosen", example.chosen), ("rejected", example.rejected)):
        for one in turns:
            calls = "".join(f"\n{call.name}({dict(call.arguments)})" for call in one.tool_calls)
            found.append(f"{_DIM}{title or one.role}{_PLAIN}")
            found += [*rows(one.content + calls, columns, turn=turn), ""]
    return found


def _foot(view: View, columns: int) -> list[str]:
    foot = [_DIM + "─" * columns + _PLAIN]
    if view.votes:
        said = ", ".join(f"{row(one, turn=view.turn)} × {count}" for one, count in view.votes.most_common())
        foot.append(cut(f"  annotators said: {said}", columns))
    cells = []
    for key, label in zip(keys(view.labels), view.labels, strict=True):
        chosen = view.pressed and key.startswith(view.pressed)
        mark = _GREEN if chosen or label == view.before else _BOLD
        shown = cut(row(label, turn=view.turn), columns - 8)
        cells.append((width(key) + 1 + width(shown), f"{mark}{key}{_PLAIN} {shown}"))
    wide = max(size for size, _ in cells) + 4
    across = max(1, (columns - 2) // wide)
    for start in range(0, len(cells), across):
        line = cells[start : start + across]
        foot.append("  " + "".join(shown + " " * (wide - size) for size, shown in line).rstrip())
    turns = "   b turn letters" if _backwards(view) else ""
    foot.append(f"{_DIM}  s skip   u undo   ↑↓ scroll{turns}   q quit{_PLAIN}")
    before = f"before: {row(view.before, turn=view.turn)}" if view.before is not None else ""
    foot.append(cut(f"  {view.message or before}", columns))
    return foot


def _backwards(view: View) -> bool:
    said = (view.example.text, *(turn.content for turn in view.example.messages), *view.labels)
    return any(right_to_left(line) for part in said for line in safe(part).split("\n"))
