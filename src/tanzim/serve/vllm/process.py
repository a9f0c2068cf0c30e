"""The processes of one vLLM: started in a group of their own, and all of them ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tanzim.core.errors import ConfigError
from tanzim.core.files import read_json, write_json

GRACE = 15.0  # seconds in which vLLM ends by itself
_GROUP, _LOG = "group.json", "log.txt"
_ERROR = re.compile(r"(?<![\w`])[A-Z]\w*(?:Error|Exception): .+")
_MOST_LINES, _MOST_CHARACTERS = 5, 400
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
_NOT_ITS = ("PYTHON", "VIRTUAL_ENV", "CONDA_", "PG", "AWS_", "OTEL_")


class Process:
    """Starts and ends vLLM.

    Its group is written down, so that a server finds and ends what one before it could not.

    Args:
        command: with all arguments.
        environment: what it is told besides what of our own environment is no secret.
        folder: where its log and its group are.

    Raises:
        ConfigError: this system has no /proc.

    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        if not Path("/proc/self/stat").is_file():
            raise ConfigError("vLLM can be started on Linux alone", where="serve.engine.type")
        self._command, self._environment = list(command), environment
        self._folder = folder
        self._tether: subprocess.Popen[bytes] | None = None
        self._begin = 0  # of what the log has of this start
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """Where it says what it does."""
        return self._folder / _LOG

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._tether is not None and self._tether.poll() is None

    def start(self) -> None:
        """Start it, after whatever another server has left of one is gone.

        Raises:
            ConfigError: another server is using the folder, or the command cannot be run.

        """
        self._end_group()
        self._end_left_over()
        tether = [sys.executable, "-I", str(Path(__file__).with_name("tether.py")), str(GRACE)]
        environment = {name: value for name, value in os.environ.items() if not _is_ours(name)}
        _check(self._command[0])
        with self.log.open("ab") as log:
            self._begin = log.tell()
            self._tether = subprocess.Popen(
                [*tether, *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**environment, **self._environment},
                start_new_session=True,
            )
        group = self._tether.pid
        write_json(self._folder / _GROUP, {"group": group, "began": _began(group), "boot": _boot()})

    def stop(self) -> None:
        """End it and all that it started."""
        tether = self._tether
        if tether is None:
            return
        assert tether.stdin is not None
        tether.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            tether.wait(GRACE + 5)
        self._end_group()

    def _end_group(self) -> None:
        """Kill what is left of it."""
        tether, self._tether = self._tether, None
        if tether is None:
            return
        assert tether.stdin is not None
        tether.stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(tether.pid, signal.SIGKILL)
        tether.wait()
        (self._folder / _GROUP).unlink(missing_ok=True)

    def _end_left_over(self) -> None:
        """Kill what a server that was killed has left, and its tether could not end."""
        path = self._folder / _GROUP
        if not path.is_file():
            return
        left = read_json(path)
        if left["boot"] == _boot():
            deadline = time.monotonic() + GRACE + 5
            while (began := _began(left["group"])) == left["began"]:  # it is ending the others just now
                if time.monotonic() > deadline:
                    raise ConfigError(
                        "another server that is running has started vLLM here",
                        where=str(self._folder),
                        fix="give each server a serve.folder of its own",
                    )
                time.sleep(0.1)
            if began is None:  # else its number is another process's by now, and nobody of the group is left
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(left["group"], signal.SIGKILL)
        path.unlink()

    def last_words(self) -> str:
        """Return what its log says of why it ended: its first errors since it was started, or its end."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        errors = dict.fromkeys(found.group() for line in lines if (found := _ERROR.search(line)))
        told = list(errors)[:_MOST_LINES] or [line for line in lines if line][-_MOST_LINES:]
        return "\n".join(line[:_MOST_CHARACTERS] for line in told)


def _check(program: str) -> None:
    """Refuse a program that is not there.

    Raises:
        ConfigError: it is not.

    """
    if shutil.which(program) is None:
        raise ConfigError(
            f"there is no program '{program}'",
            where="serve.engine.command",
            fix="install vLLM in an environment of its own and name its program: /path/to/it/bin/vllm, serve",
        )


def _is_ours(name: str) -> bool:
    """Whether a variable is of no use to vLLM, or none of its business."""
    return name.startswith(_NOT_ITS) or any(word in name.upper() for word in _SECRETS)


def _began(process: int) -> int | None:
    """Return when a process began, in ticks since the system did; None if there is none (or it has ended)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _boot() -> str:
    """Return what names this run of the system."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
