"""A review in the terminal: one task at a time, one key an answer."""

from __future__ import annotations

import codecs
import os
import select
import signal
import sys
import termios
import tty
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tanzim.cli.review_screen import View, frame, keys
from tanzim.core.errors import DataError

if TYPE_CHECKING:
    from types import FrameType

    from tanzim.data.label.session import Progress, Session

# The same key of a Persian keyboard (ISIRI 9147) does the same.
_SAME = {"س": "s", "ع": "u", "ض": "q", "ذ": "b", " ": "s", "\x7f": "u", "\x08": "u"}
_SCROLL = {"\x1b[A": -1, "\x1b[B": 1, "\x1bOA": -1, "\x1bOB": 1, "\x1b[5~": -10, "\x1b[6~": 10}
_ALONE = 0.05  # seconds after which an escape is a key of its own


def turns_itself() -> bool:
    """Return whether the terminal turns text from right to left itself, as far as can be seen."""
    known = ("VTE_VERSION", "KONSOLE_VERSION")
    multiplexed = "TMUX" in os.environ or os.environ.get("TERM", "").startswith(("screen", "tmux"))
    itself = any(name in os.environ for name in known) or os.environ.get("TERM", "").startswith("mlterm")
    return itself or (os.environ.get("TERM_PROGRAM") == "Apple_Terminal" and not multiplexed)


def review(session: Session, annotator: str, labels: Sequence[str]) -> Progress:
    """Show task after task until all are answered or q is pressed; return how far it came.

    Args:
        session: the tasks.
        annotator: who is asked.
        labels: to choose from.

    Raises:
        DataError: this is no terminal, or an answer cannot be written.
        KeyboardInterrupt: Ctrl-C; what was answered is on disk.

    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise DataError(
            "a review needs a terminal: keys are read one by one",
            where="tanzim data review",
            fix="run it in one, or hand the tasks out: --export plain, argilla or label-studio",
        )
    with _terminal() as typed:
        _Review(session, annotator, labels).run(typed)
    return session.progress


@dataclass(slots=True)
class _Review:
    session: Session
    annotator: str
    labels: Sequence[str]
    turn: bool = field(default_factory=lambda: not turns_itself())
    pressed: str = ""
    message: str = ""
    top: int = 0
    last: int = 0

    def run(self, typed: Iterator[str]) -> None:
        self._show()
        for key in typed:
            if not self._take(_SAME.get(key, key)) or self.session.current is None:
                return
            self._show()

    def _take(self, key: str) -> bool:
        """Do what a key asks for; return whether it goes on."""
        self.message = ""
        if key == "":  # the window has another size
            return True
        if key.isdecimal():  # Persian and Arabic digits, too
            self._press(str(unicodedata.decimal(key)))
            return True
        if self.pressed:
            self.pressed = ""
            if key in ("u", "\x1b"):
                return True
        if key in _SCROLL:
            self.top = max(0, min(self.last, self.top + _SCROLL[key]))
        elif key == "s":
            self._answer(None)
        elif key == "u":
            self.top = 0
            if not self.session.undo():
                self.message = "there is nothing to undo"
        elif key == "b":
            self.turn = not self.turn
        elif key in ("q", "\x04"):
            return False
        else:
            self.message = "that key does nothing here"
        return True

    def _press(self, digit: str) -> None:
        self.pressed += digit
        all_keys = keys(self.labels)
        if self.pressed in all_keys:
            self._answer(self.labels[all_keys.index(self.pressed)])
        elif not any(key.startswith(self.pressed) for key in all_keys):
            self.message = f"no label has the number {self.pressed}"
            self.pressed = ""

    def _answer(self, label: str | None) -> None:
        self.session.answer(label)
        self.pressed, self.top = "", 0

    def _show(self) -> None:
        example = self.session.current
        if example is None:
            return
        size = os.get_terminal_size(sys.stdout.fileno())
        view = View(
            self.annotator,
            self.labels,
            example,
            self.session.progress,
            self.session.votes,
            self.session.before,
            self.pressed,
            self.message,
            self.turn,
            self.top,
        )
        lines, self.last = frame(view, size.columns, size.lines)
        sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[J")
        sys.stdout.flush()


def _ended(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)


@contextmanager
def _terminal() -> Iterator[Iterator[str]]:
    """Yield the keys as they are pressed; the terminal is afterwards as it was, however it ends."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    asked = [signal.SIGTERM, signal.SIGHUP]
    handlers = [signal.signal(number, _ended) for number in asked]
    try:
        tty.setcbreak(handle)
        mode = termios.tcgetattr(handle)
        mode[6][termios.VSUSP] = b"\x00"  # Ctrl-Z would leave the shell with this screen
        termios.tcsetattr(handle, termios.TCSANOW, mode)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")
        yield _typed(handle)
    finally:
        with suppress(OSError, termios.error):  # the window was closed
            sys.stdout.write("\x1b[?25h\x1b[?1049l")
            sys.stdout.flush()
            termios.tcsetattr(handle, termios.TCSADRAIN, before)
        for number, handler in zip(asked, handlers, strict=True):
            signal.signal(number, handler)


def _typed(handle: int) -> Iterator[str]:
    """Yield key after key, and an empty text when the window has another size."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    waiting = ""
    size = os.get_terminal_size(handle)
    while True:
        ready, _, _ = select.select([handle], [], [], _ALONE if waiting else 0.5)
        if ready:
            data = os.read(handle, 1024)
            if not data:  # the terminal is gone
                return
            waiting += decoder.decode(data)
        elif waiting:
            yield waiting[0]
            waiting = waiting[1:]
        while waiting and not _unfinished(waiting):
            key, waiting = _first(waiting)
            yield key
        if (now := os.get_terminal_size(handle)) != size:
            size = now
            yield ""


def _unfinished(text: str) -> bool:
    """Return whether an escape sequence has begun and not ended."""
    if text[0] != "\x1b":
        return False
    if len(text) == 1 or text[1] not in "[O":
        return len(text) == 1
    return not any("@" <= letter <= "~" for letter in text[2:])


def _first(text: str) -> tuple[str, str]:
    if text[0] != "\x1b" or text[1] not in "[O":
        return text[0], text[1:]
    end = next(place for place, letter in enumerate(text) if place > 1 and "@" <= letter <= "~")
    return text[: end + 1], text[end + 1 :]
