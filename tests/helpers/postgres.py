"""A real PostgreSQL on this machine for the time of a test, from Debian's package (scripts/servers.sh)."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "p%ss: w@rd/گذر"  # signs that a URL and a message may trip over


@dataclass
class Server:
    port: int
    programs: Path
    folder: Path
    user: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, also after a kill; when this returns, it answers."""
        settings = (
            f"-c port={self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB "
            f"-c unix_socket_directories={self.folder}"
        ).split()
        ready = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        for _ in range(600):
            # The processes of a killed one may take a moment to notice, and it cannot start before.
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(
                    [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *settings],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, **self.user,
                )  # fmt: skip
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError("PostgreSQL does not start")

    def kill(self) -> None:
        """Kill it with SIGKILL, as a power cut or the system's want of memory would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def backends(self) -> list[int]:
        """Return the processes that answer clients now."""
        import psycopg

        known = {"host": "127.0.0.1", "port": self.port, "user": "owner", "dbname": "postgres"}
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
        with psycopg.connect(**known, password=PASSWORD, autocommit=True) as connection:
            own = connection.info.backend_pid
            return [row[0] for row in connection.execute(query) if row[0] != own]

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def url(self, password: str = "", user: str = "owner") -> str:
        return (
            f"postgresql+psycopg://{user}{f':{password}' if password else ''}@127.0.0.1:{self.port}/postgres"
        )

    def run(self, *statements: str) -> None:
        import psycopg

        known = {"host": "127.0.0.1", "port": self.port, "user": "owner", "dbname": "postgres"}
        with psycopg.connect(**known, password=PASSWORD, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@contextmanager
def local_postgres() -> Iterator[Server]:
    """Start a server on a free port, with a password, as a user without rights; it leaves nothing behind."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert found, "there is no PostgreSQL: sh scripts/servers.sh installs it"
    programs = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="tanzim-postgres-"))
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        one = pwd.getpwnam("nobody")
        os.chown(folder, one.pw_uid, one.pw_gid)
        user = {"user": one.pw_uid, "group": one.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = folder / "secret"
    secret.write_text(PASSWORD, encoding="utf-8")
    secret.chmod(0o644)
    data = str(folder / "data")
    initdb = [
        str(programs / "initdb"), "-D", data, "-U", "owner", "--auth=scram-sha-256", f"--pwfile={secret}",
        "-E", "UTF8", "--locale=C", "--no-sync",
    ]  # fmt: skip
    server = Server(port, programs, folder, user)
    try:
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **user)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
