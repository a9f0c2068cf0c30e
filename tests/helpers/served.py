"""A real ``tanzim serve`` in a process of its own, that can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx


class Served:
    """The server of one folder.

    Args:
        folder: where ``tanzim.yaml`` stands; the server's own folder is ``server`` in it.
        models: what it serves.
        settings: of the section ``serve``.
        environment: set besides this process's own.

    """

    def __init__(
        self,
        folder: Path,
        models: list[str],
        settings: Mapping[str, object],
        environment: Mapping[str, str],
    ) -> None:
        self.folder, self.log, self.models = folder, folder / "server.log", models
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        tanzim = shutil.which("tanzim", path=sysconfig.get_path("scripts")) or "tanzim"
        said = [f"serve.{key}={value}" for key, value in settings.items()]
        self._command = [tanzim, "serve", *models, f"serve.port={self.port}", *said]
        self._environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 180) -> None:
        """Start it; when this returns, it answers.

        Raises:
            AssertionError: it has ended, or does not answer after so many seconds.

        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + seconds
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end, and wait for that; return its status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def jobs(self) -> dict[str, int]:
        """Return the processes of the jobs that run now: job → process."""
        running = {}
        for path in (self.folder / "server" / "jobs").glob("*/pid"):
            try:
                pid = int(path.read_text())
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError):  # it is just being written, or the process is gone
                continue
            if os.fsencode(path.parent) in words:
                running[path.parent.name] = pid
        return running


@contextmanager
def served(
    folder: Path, models: list[str], environment: Mapping[str, str] | None = None, **settings: object
) -> Iterator[Served]:
    """Run a server for the time of a block; neither it nor a job's process is left behind."""
    server = Served(folder, models, settings, environment or {})
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
        for pid in server.jobs().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
