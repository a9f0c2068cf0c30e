"""Airbyte connectors as programs: each installed into an environment of its own, and run with bounds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.files import cache_folder, read_json, write_json
from tanzim.core.records import Json
from tanzim.data.ingest.secrets import Secrets

# What a connector gets of this environment: no secret of another program.
_PASSED = {
    "PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY",
    "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SYSTEMROOT",
}  # fmt: skip
# Nothing is told to anybody: the signs that Airbyte's packages, and those they bring along, heed.
_SILENT = {
    "DO_NOT_TRACK": "1", "AIRBYTE_OFFLINE_MODE": "1", "SCARF_NO_ANALYTICS": "true", "SEGMENT_DISABLED": "1",
    "LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false", "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8", "PYTHONNOUSERSITE": "1",
}  # fmt: skip
# Types of messages, and the field of each that holds what it says.
_HOLDS = {
    "SPEC": "spec", "CONNECTION_STATUS": "connectionStatus", "CATALOG": "catalog", "RECORD": "record",
    "STATE": "state", "TRACE": "trace", "LOG": "log",
}  # fmt: skip
_ASK = """
import json, re, sys
from importlib.metadata import distribution
found = distribution(sys.argv[1])
names = [one.name for one in found.entry_points if one.group == "console_scripts"]
print(json.dumps([found.version, sorted(names, key=lambda name: not name.startswith("source-"))]))
"""


@dataclass(frozen=True, slots=True)
class Program:
    """An installed connector.

    Args:
        command: its executable.
        package: its name.
        version: the version that is installed.

    """

    command: Path
    package: str
    version: str


def installed(connector: str, python: str | None = None) -> Program:
    """Return a connector's program; it is installed by pip, from the registry that pip is set up for, once.

    Args:
        connector: its package, with a version or without.
        python: the interpreter of its environment; None takes this one.

    Raises:
        DataError: it cannot be installed, or has no program.

    """
    interpreter = python or sys.executable
    package = re.split(r"[\[=]", connector)[0]
    key = hashlib.sha256(f"{connector} {interpreter}".encode()).hexdigest()[:12]
    folder = cache_folder() / "airbyte" / f"{package}-{key}"
    done = folder / "program.json"
    if not done.is_file():
        _install(folder, connector, package, interpreter)
    known = read_json(done)
    return Program(folder / "bin" / known["command"], package, known["version"])


def _install(folder: Path, connector: str, package: str, interpreter: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = str(folder / "bin" / "python")
    pip = [own, "-m", "pip", "--disable-pip-version-check", "install", "-q", connector]
    _tell([interpreter, "-m", "venv", str(folder)], connector, "make an environment for")
    _tell(pip, connector, "install")
    version, names = json.loads(_tell([own, "-c", _ASK, package], connector, "find the program of"))
    if not names:
        raise DataError(
            "this package holds no program, so it is no connector",
            where=connector,
            fix="name the package of a source connector, such as airbyte-source-faker",
        )
    write_json(folder / "program.json", {"command": names[0], "version": version})


def _tell(command: list[str], connector: str, doing: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(
            f"cannot {doing} the connector: {error.strerror or error}", where=command[0], fix="check the path"
        ) from None
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip() and "WARNING" not in line]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason")
        raise DataError(
            f"cannot {doing} the connector: {said.removeprefix('ERROR: ')[:300]}",
            where=connector,
            fix="check the name, the version, and the network; a connector that wants another Python gets it "
            "by data.sources[].python",
        )
    return result.stdout


class Connector:
    """A connector that speaks the Airbyte protocol: JSON messages, one a line.

    Args:
        program: what to run.
        limit: bytes of one message at the most.
        secrets: kept out of messages.

    """

    def __init__(self, program: Program, limit: int, secrets: Secrets) -> None:
        self.program, self._limit, self._secrets = program, limit, secrets
        self._folder = Path(tempfile.mkdtemp(prefix="tanzim-airbyte-"))

    def close(self) -> None:
        """Delete its files, the config with its secrets among them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def file(self, name: str, value: Any) -> str:  # noqa: ANN401 - any JSON value
        """Write a file for it that only this user can read; return its path."""
        path = self._folder / name
        with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as stream:
            json.dump(value, stream)
        return str(path)

    def messages(self, *arguments: str) -> Iterator[Json]:
        """Run a command of the protocol, and yield its messages; log lines are left out.

        Raises:
            DataError: the connector fails, or sends what is no message.

        """
        environment = {name: value for name, value in os.environ.items() if name in _PASSED}
        environment |= {**_SILENT, "HOME": str(self._folder), "TMPDIR": str(self._folder)}
        said: list[str] = []
        with (self._folder / "stderr").open("w+b") as stderr:
            process = subprocess.Popen(
                [str(self.program.command), *arguments], stdout=subprocess.PIPE, stderr=stderr,
                stdin=subprocess.DEVNULL, cwd=self._folder, env=environment, start_new_session=True,
            )  # fmt: skip
            try:
                yield from self._listen(process, said)
            finally:
                _stop(process)
            stderr.seek(max(0, stderr.tell() - 10_000))
            tail = stderr.read().decode("utf-8", "replace").strip().splitlines()
        if process.returncode:
            raise self.failed(said[0] if said else tail[-1] if tail else f"exit status {process.returncode}")
        if said and said[0].startswith("error: "):
            raise self.failed(said[0])

    def _listen(self, process: subprocess.Popen[bytes], said: list[str]) -> Iterator[Json]:
        assert process.stdout is not None
        while line := process.stdout.readline(self._limit + 1):
            if len(line) > self._limit:
                raise self.failed(f"a message is above data.max_line_mb ({self._limit / 1e6:g} MB)")
            try:
                message = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                continue  # what libraries print; the protocol has it taken for a log
            except (ValueError, RecursionError) as error:  # JSON, but of endless numbers or depth
                raise self.failed(f"a message cannot be read ({error})") from None
            kind = message.get("type") if isinstance(message, dict) else None
            if not isinstance(kind, str) or kind not in _HOLDS:
                continue
            inside = message.get(_HOLDS[kind])
            if not isinstance(inside, dict):
                raise self.failed(f"a message of type {kind} does not hold '{_HOLDS[kind]}'")
            if kind == "TRACE" and inside.get("type") == "ERROR":
                fault = inside.get("error")
                said.insert(0, f"error: {fault.get('message') if isinstance(fault, dict) else fault}")
            elif kind == "LOG" and inside.get("level") in ("FATAL", "ERROR"):
                said.append(str(inside.get("message", "")))
            elif kind not in ("TRACE", "LOG"):
                yield message
        process.wait()

    def failed(self, said: object) -> DataError:
        """Say in one line what the connector says is wrong."""
        line = next(
            (one.strip() for one in str(said).removeprefix("error: ").splitlines() if one.strip()), ""
        )
        return DataError(
            f"the connector fails: {self._secrets.hidden(line)[:300]}",
            where=f"{self.program.package} {self.program.version}",
            fix="check its settings in data.sources[].config",
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a connector and what it started, if it still runs."""
    if process.poll() is None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, how)
                process.wait(timeout=5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
            break
    if process.stdout is not None:
        process.stdout.close()
