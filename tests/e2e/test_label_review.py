"""People label at a real terminal: keys, Persian, Ctrl-C and going on, agreement, and a set to train on."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tanzim.cli.main import main
from tanzim.pipeline.data_queue import queue_data
from tanzim.pipeline.data_review import open_review

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "tanzim", "data"]
TEXTS = [
    "غذا عالی بود، می‌خواهم دوباره بخرم.",
    "The soup was cold.",
    "بد نبود",
    "Great service!",
    "کتاب‌ها نرسید",
]
CODES = re.compile(r"\x1b\[[?\d;]*[a-zA-Z]")


OPEN: list[Terminal] = []


class Terminal:
    """A program in a terminal of its own, 100 × 30: what is typed, and the screen it shows."""

    def __init__(self, *arguments: str, folder: Path, limit: int | None = None) -> None:
        self.handle, inner = pty.openpty()
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        for name in ("VTE_VERSION", "KONSOLE_VERSION", "TERM_PROGRAM"):
            environment.pop(name, None)
        command = ["setsid", "--ctty", *COMMAND, *arguments]  # the terminal is its own: Ctrl-C reaches it
        if limit is not None:
            command = ["prlimit", f"--fsize={limit}", *command]
        self.process = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=folder,
            env=environment,
        )
        self.said = ""
        OPEN.append(self)

    def close(self) -> None:
        """End the program, if it has not ended, and the terminal."""
        self.process.kill()
        self.process.wait()
        os.close(self.handle)
        os.close(self.inner)

    def wait(self, *words: str) -> str:
        """Return the screen once all words are on it."""
        end = time.monotonic() + 60
        while not all(word in self.screen for word in words):
            assert time.monotonic() < end, f"{words} never came; there is: {self.screen}"
            self._read()
        return self.screen

    def type(self, keys: str) -> None:
        os.write(self.handle, keys.encode())

    def end(self) -> tuple[int, str]:
        """Return the exit status and what stands below the screen it left."""
        end = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on; there is: {self.screen}"
            self._read()
        self._read()
        code = self.process.returncode
        assert termios.tcgetattr(self.inner) == self.before  # the terminal is as it was
        return code, CODES.sub("", self.said.rpartition("\x1b[?1049l")[2])

    @property
    def screen(self) -> str:
        """What was last drawn."""
        return CODES.sub("", self.said.rpartition("\x1b[H")[2])

    def _read(self) -> None:
        if select.select([self.handle], [], [], 0.2)[0]:
            self.said += os.read(self.handle, 1 << 16).decode(errors="replace")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS)
    (tmp_path / "texts.jsonl").write_text(rows, encoding="utf-8")
    queue_data(str(tmp_path / "q"), str(tmp_path / "texts.jsonl"), labels=["خوب", "bad"])
    return tmp_path


def tanzim(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def said(folder: Path, name: str) -> list[str | None]:
    """Return what a log comes to, read without our code."""
    found: dict[int, str | None] = {}
    for line in (folder / "q" / "answers" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.pop(row["task"]["row"], None)
        if not row.get("undone"):
            found[row["task"]["row"]] = row["label"]
    return list(found.values())


def test_keys_are_answers_and_a_stop_loses_none(queue: Path) -> None:
    terminal = Terminal("review", "q", "-a", "سارا", folder=queue)
    first = terminal.wait("0 of 5", "bad", "q quit")
    assert "ﺏﻮﺧ" in first  # the label, turned and joined
    terminal.type("1")
    terminal.wait("1 of 5")
    assert said(queue, "سارا") == ["خوب"]  # on disk before the next key
    terminal.type("9")
    terminal.wait("no label has the number 9")
    terminal.type("x")
    terminal.wait("that key does nothing")
    terminal.type("۲")  # a Persian digit
    terminal.wait("2 of 5")
    terminal.type("u")
    terminal.wait("1 of 5", "before: bad")
    terminal.type("1s")
    terminal.wait("3 of 5", "1 skipped")
    terminal.type("\x03")  # Ctrl-C
    code, rest = terminal.end()
    assert code == 130
    assert "the same command goes on from here" in rest
    assert "Traceback" not in terminal.said
    assert said(queue, "سارا") == ["خوب", "خوب", None]

    again = Terminal("review", "q", "-a", "سارا", folder=queue)
    again.wait("3 of 5", "1 skipped")
    again.type("22")
    again.wait("5 of 5")  # and the skipped one once more
    again.type("1")
    code, rest = again.end()
    assert code == 0
    assert "5 of 5 labelled" in rest
    assert said(queue, "سارا") == ["خوب", "خوب", "bad", "bad", "خوب"]
    over = tanzim("review", "q", "-a", "سارا", folder=queue)
    assert "answered everything" in over.stdout


def test_letters_are_turned_and_turned_back(queue: Path) -> None:
    terminal = Terminal("review", "q", "-a", "x", folder=queue)
    screens = [terminal.wait("0 of 5", "q quit")]
    for number in range(1, 5):
        terminal.type("2")
        screens.append(terminal.wait(f"{number} of 5", "q quit"))
    shown = "\n".join(screens)
    assert "ﺩﻮﺑ ﯽﻟﺎﻋ ﺍﺬﻏ" in shown
    assert "The soup was cold." in shown
    line = next(line for line in shown.splitlines() if "ﺪﯿﺳﺮﻧ" in line)
    assert line.rstrip("\r").rstrip().endswith("ﺎﻫﺏﺎﺘﮐ")
    assert len(line.rstrip("\r\n")) >= 97  # at the right
    terminal.type("b")
    terminal.wait("خوب")
    terminal.type("q")
    assert terminal.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(queue: Path, number: signal.Signals) -> None:
    terminal = Terminal("review", "q", "-a", "x", folder=queue)
    terminal.wait("0 of 5", "q quit")
    terminal.type("1")
    terminal.wait("1 of 5")
    terminal.process.send_signal(number)
    assert terminal.end()[0] == 128 + number
    assert said(queue, "x") == ["خوب"]


def test_a_kill_loses_nothing_that_was_answered(queue: Path) -> None:
    terminal = Terminal("review", "q", "-a", "x", folder=queue)
    terminal.wait("0 of 5", "q quit")
    terminal.type("12")
    terminal.wait("2 of 5")
    terminal.process.kill()
    terminal.process.wait()
    assert said(queue, "x") == ["خوب", "bad"]
    again = Terminal("review", "q", "-a", "x", folder=queue)  # the lock went with it
    again.wait("2 of 5")
    again.type("q")
    assert again.end()[0] == 0


def test_a_full_disk_is_one_message(queue: Path) -> None:
    with open_review(str(queue / "q"), "another") as (_, session):
        session.answer("خوب")
    line = (queue / "q" / "answers" / "another.jsonl").stat().st_size
    terminal = Terminal("review", "q", "-a", "x", folder=queue, limit=line + 40)
    terminal.wait("0 of 5", "q quit")
    terminal.type("1")
    terminal.wait("1 of 5")
    terminal.type("2")
    code, rest = terminal.end()
    assert code == 1
    assert "cannot be written" in rest
    assert "what was answered before is kept" in " ".join(rest.split())
    assert "Traceback" not in terminal.said
    assert said(queue, "x") == ["خوب"]


def test_bad_input_is_one_message(
    queue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(queue)
    (queue / "other").mkdir()
    for arguments, words in (
        (["review", "other", "-a", "x"], "no review queue"),
        (["review", "q"], "nobody is named"),
        (["review", "q", "-a", "../x"], "no annotator's name"),
        (["review", "q", "-a", "x"], "a review needs a terminal"),
        (["review", "q", "-a", "x", "--import", "texts.jsonl"], "no task of a review queue"),
        (["review", "q", "-a", "x", "--import", "nowhere"], "cannot be read"),
        (["agree", "q"], "nobody has labelled anything yet"),
        (["queue", "new", "texts.jsonl"], "is no choice"),
        (["queue", "new"], "no data is named"),
    ):
        monkeypatch.setattr(sys, "argv", ["tanzim", "data", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1, arguments
        assert words in " ".join(capsys.readouterr().err.split())
    assert not (queue / "q" / "answers" / "x.jsonl").exists()


def test_from_two_reviewers_to_a_set_that_can_be_trained_on(queue: Path) -> None:
    answer(queue, "sara", "11112")
    file = queue / "q" / "exchange" / "ali.jsonl"
    assert tanzim("review", "q", "-a", "ali", "--export", "plain", folder=queue).returncode == 0
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    by_row = {json.loads(line)["task"]["row"]: json.loads(line)["label"] for line in answers(queue, "sara")}
    disputed = sorted(by_row)[:2]
    for row in rows:  # the same labels, but for two
        number = row["task"]["row"]
        other = {"خوب": "bad", "bad": "خوب"}[by_row[number]]
        row["label"] = other if number in disputed else by_row[number]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    done = tanzim("review", "q", "--import", str(file), folder=queue)
    assert "ali 5" in done.stdout, done.stderr
    found = tanzim("agree", "q", folder=queue).stdout
    assert "Krippendorff's alpha" in found
    assert "Cohen's kappa" in found
    assert "2 disputed" in found

    refused = tanzim("review", "q", "-a", "ali", "--disputed", folder=queue)
    assert "cannot decide" in " ".join(refused.stderr.split())
    boss = Terminal("review", "q", "-a", "boss", "--disputed", folder=queue)
    boss.wait("0 of 2", "annotators said", "× 1")
    boss.type("22")
    assert boss.end()[0] == 0
    done = tanzim("agree", "q", "-o", "labelled.jsonl", folder=queue)
    assert "5 of 5 examples have a label" in done.stdout
    assert "disputed" not in done.stdout

    config = {"data": {"path": "labelled.jsonl", "split": {"test": 0.2, "validation": 0.0}}, "name": "run"}
    (queue / "tanzim.yaml").write_text(json.dumps(config), encoding="utf-8")
    prepared = tanzim("prepare", folder=queue)
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    report = json.loads((queue / "runs" / "run" / "data" / "report.json").read_text(encoding="utf-8"))
    assert report["format"] == "labelled"
    expected = [*("bad" for _ in disputed), *(by_row[row] for row in by_row if row not in disputed)]
    counted = {label: sum(splits.values()) for label, splits in report["labels"].items()}
    assert counted == {label: expected.count(label) for label in set(expected)}


def answers(folder: Path, name: str) -> list[str]:
    return (folder / "q" / "answers" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def answer(folder: Path, name: str, keys: str) -> None:
    terminal = Terminal("review", "q", "-a", name, folder=folder)
    terminal.wait("0 of 5", "q quit")
    terminal.type(keys)
    assert terminal.end()[0] == 0
