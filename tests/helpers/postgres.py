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

PASSWORD = "p%ss: w@rd/گذر"  # signs that a URL and a message may trip over


@dataclass(frozen=True)
class Server:
    port: int

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
    user = {}
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
    settings = (
        f"-c port={port} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB "
        f"-c unix_socket_directories={folder}"
    ).split()
    try:
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **user)
        server = subprocess.Popen(
            [str(programs / "postgres"), "-D", data, *settings],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **user,
        )  # fmt: skip
        try:
            _wait(str(programs / "pg_isready"), port)
            yield Server(port)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(ready: str, port: int) -> None:
    command = [ready, "-q", "-h", "127.0.0.1", "-p", str(port)]
    for _ in range(600):
        if subprocess.run(command, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError("PostgreSQL does not start")
