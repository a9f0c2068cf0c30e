"""A Ray cluster of one machine, with the dashboard that takes jobs, for the time of a test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from helpers.environments import environment

TOKEN = "a-token-of-the-tests-0123456789"
_HERE = Path(__file__).parent / "ray"


@dataclass(frozen=True)
class Cluster:
    """One head.

    Args:
        address: of the dashboard.
        folder: of Ray's own files, by which its processes are known.

    """

    address: str
    folder: Path

    def processes(self, word: str = "") -> list[int]:
        """Return the processes of the cluster, and of its jobs, whose command has this word."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = f"TANZIM_TEST_CLUSTER={self.folder}".encode() in (place / "environ").read_bytes()
                if ours and word.encode() in (place / "cmdline").read_bytes():
                    found.append(int(place.name))
        return found

    def signal(self, number: int, word: str = "") -> None:
        """Send those a signal."""
        for process in self.processes(word):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self) -> None:
        """Kill all of it at once, and wait for the end."""
        end = time.monotonic() + 60
        while left := self.processes():
            self.signal(signal.SIGKILL)
            assert time.monotonic() < end, left
            time.sleep(0.1)


@contextmanager
def ray_cluster(port: int | None = None) -> Iterator[Cluster]:
    """Start a head that wants `TOKEN`; nothing of it is left afterwards.

    Args:
        port: of the dashboard; None takes a free one.

    """
    programs = environment(_HERE / "requirements.txt", _HERE / "constraints.txt")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="tz-ray-"))  # short: it has sockets in it
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        free = _free_ports(6)
        port = port or free[0]
        cluster = Cluster(f"http://127.0.0.1:{port}", folder)
        stack.callback(cluster.kill)
        command = [
            *("start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
            *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
            *(f"--port={free[1]}", f"--ray-client-server-port={free[2]}"),
            *(f"--dashboard-agent-listen-port={free[3]}", f"--metrics-export-port={free[4]}"),
            *(f"--dashboard-agent-grpc-port={free[5]}", f"--temp-dir={folder}"),
            *("--num-cpus=2", "--object-store-memory=100000000"),
        ]
        variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address, as on those systems
            "TANZIM_TEST_CLUSTER": str(folder),
        }
        with (folder / "head.log").open("wb") as log:
            head = subprocess.Popen(
                [programs / "python", programs / "ray", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        stack.callback(head.wait)
        stack.callback(cluster.kill)
        _wait_for(cluster, head)
        yield cluster


def _wait_for(cluster: Cluster, head: subprocess.Popen[bytes]) -> None:
    """Wait until jobs are taken: an unknown one is answered with 404."""
    request = urllib.request.Request(f"{cluster.address}/api/jobs/none")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    end = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(request, timeout=5)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return
        except OSError:
            pass
        said = (cluster.folder / "head.log").read_text(errors="replace")
        assert head.poll() is None, said
        assert time.monotonic() < end, said
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in made]
