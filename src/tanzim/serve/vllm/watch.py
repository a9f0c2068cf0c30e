"""One vLLM watched over: made ready, started again when it dies, ended with the server."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, TypeVar

from tanzim.core.errors import ModelError, TanzimError
from tanzim.core.records import Progress, no_progress
from tanzim.serve.backend import Unavailable
from tanzim.serve.vllm.process import Process
from tanzim.serve.vllm.wire import Wire

_T = TypeVar("_T")

BASE = "base"  # what vLLM calls the base model
_OLDEST = (0, 32)  # that reads an adapter's rank and alpha of each layer; before, they were passed over
_HOUR, _LONGEST_PAUSE = 3600.0, 60.0  # seconds
_LOOK = 0.2  # seconds between two looks at whether it is ready
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_HOST_IP": "127.0.0.1",
}


class Watch:
    """Keeps one vLLM running.

    Args:
        command: what starts it, its model included.
        arguments: the rest.
        folder: for its log.
        start_seconds: how long it may take to load the model (s).
        restarts: how often it is started again within an hour.
        say: told when it dies and lives again.

    Raises:
        ConfigError: this is not Linux.

    """

    def __init__(
        self,
        command: Sequence[str],
        arguments: Sequence[str],
        folder: Path,
        *,
        start_seconds: float,
        restarts: int,
        say: Callable[[str], None],
    ) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="tanzim-vllm-"))  # mode 0700; paths of sockets are short
        self._socket = self._home / "socket"
        key = token_urlsafe(32)
        self.wire = Wire(self._socket, key)
        whole = [*command, "--uds", str(self._socket), "--served-model-name", BASE, *arguments]
        self._process = Process(whole, {**_ENVIRONMENT, "VLLM_API_KEY": key}, folder)
        self._start_seconds, self._most = start_seconds, restarts
        self._say = say
        self._deaths: deque[float] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tanzim-vllm", daemon=True)
        self.lives = 0  # how often it has become ready
        self.ready = False
        self.failure: str | None = None  # why it is not started again
        self.context_length: int | None = None

    @property
    def log(self) -> Path:
        """Where it says what it does."""
        return self._process.log

    def launch(self, *, progress: Progress = no_progress) -> None:
        """Start it and wait until it answers.

        Args:
            progress: told the seconds that it takes.

        Raises:
            ConfigError: it cannot be started.
            ModelError: it ended, did not come in time, is too old, or does not speak as vLLM.
            OSError: the system does not let it be started: a full disk, too many files or processes.

        """
        self._socket.unlink(missing_ok=True)  # vLLM takes no address that is there
        with ExitStack() as on_failure:
            on_failure.callback(self._process.stop)
            self._process.start()
            self._await(progress)
            on_failure.pop_all()

    def _await(self, progress: Progress) -> None:
        """Wait until it answers, and look who it is."""
        began = time.monotonic()
        while not self.wire.healthy():
            took = time.monotonic() - began
            if self._stopping.is_set():
                return
            if not self._process.alive:
                raise self._did_not_start("vLLM ended before it was ready")
            if took > self._start_seconds:
                raise self._did_not_start(f"vLLM was not ready after {self._start_seconds:g} s")
            progress(int(took), None, "s")
            self._stopping.wait(_LOOK)
        _check_version(self._asked(str, "/version", "version"))
        self.context_length = self._asked(int, "/v1/models", "data", 0, "max_model_len")
        self.lives += 1
        self.ready = True

    def _asked(self, kind: Callable[[Any], _T], path: str, *keys: str | int) -> _T:
        """Return what stands at `keys` in its answer to GET.

        Raises:
            ModelError: nothing of that kind.
            Unavailable: nobody answers.

        """
        answer = self.wire.ask(path)
        try:
            found = answer.json()
            for key in keys:
                found = found[key]
            return kind(found)
        except (ValueError, LookupError, TypeError) as error:
            raise ModelError(
                f"what was started does not answer {path} as vLLM does",
                where="serve.engine.command",
                fix=f"name vLLM's own program; its log: {self.log}",
            ) from error

    def start(self) -> None:
        """Watch over it from now on, after `launch`."""
        self._thread.start()

    def stop(self) -> None:
        """End it, and watch no more."""
        self.ready = False
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._process.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    async def wait(self) -> None:
        """Wait until it is ready, if it is being started again.

        Raises:
            Unavailable: it is not, and will not be.

        """
        deadline = time.monotonic() + self._start_seconds
        while not self.ready:
            if self.failure is not None or self._stopping.is_set() or time.monotonic() > deadline:
                raise Unavailable(self.failure or "vLLM is not running")
            await asyncio.sleep(_LOOK)

    def _did_not_start(self, what: str) -> ModelError:
        return ModelError(what, where=f"{self.log}, which says:\n{self._process.last_words()}")

    def _run(self) -> None:
        try:
            while self.failure is None and not self._stopping.wait(_LOOK):
                if not self._process.alive:
                    self.ready = False
                    self._again()
        finally:
            if self.failure is None and not self._stopping.is_set():  # else /health would go on saying ok
                self.ready = False
                self.failure = "vLLM is watched over no more, for what watched it has failed"

    def _again(self) -> None:
        """Start it anew, as often as is allowed."""
        while not self._stopping.is_set():
            now = time.monotonic()
            while self._deaths and now - self._deaths[0] > _HOUR:
                self._deaths.popleft()
            died = len(self._deaths) + 1
            if died > self._most:
                self.failure = f"vLLM has died {died} times within an hour and is not started again"
                self._say(f"{self.failure}; its log: {self.log}")
                return
            pause = min(_LONGEST_PAUSE, 2.0 ** len(self._deaths))
            self._deaths.append(now)
            self._say(f"vLLM has died; it is started again in {pause:g} s; its log: {self.log}")
            if self._stopping.wait(pause):
                return
            try:
                self.launch()
            except (TanzimError, OSError) as error:
                self._say(str(error))
            else:
                self._say("vLLM answers again")
                return


def _check_version(version: str) -> None:
    """Refuse a vLLM that does not do what is relied upon.

    Raises:
        ModelError: it is too old.

    """
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < _OLDEST:
        raise ModelError(
            f"this is vLLM {version}; the oldest that can be used is {_OLDEST[0]}.{_OLDEST[1]}",
            where="serve.engine.command",
            fix="install a newer one",
        )
