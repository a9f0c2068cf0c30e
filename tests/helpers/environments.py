"""Environments of packages whose pins are not ours: made once, kept in the user's cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Whatever connects to another machine, or asks for its address, is noted and refused. Python imports a module
# of this name at its start, in every process below.
GUARD = """
import os, platform, sys
_AWAY = os.environ["TANZIM_TEST_AWAY"]
_HERE = (None, "", "localhost", "::1", "0.0.0.0", platform.node())
def _look(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in _HERE and not str(host).startswith("127."):
        with open(_AWAY, "a") as file:
            print(event, host, sys.argv, file=file)
        raise PermissionError(f"{event}: {host}")
sys.addaudithook(_look)
"""


def environment(requirements: Path, constraints: Path) -> Path:
    """Return the ``bin`` folder of an environment with these requirements.

    It is made by pip from the registry that pip is set up for: in 15 s for Dagster, 50 s for Airflow.

    Args:
        requirements: a file of them.
        constraints: the versions of all that they bring along.

    """
    wanted = requirements.read_text() + constraints.read_text() + sys.version
    key = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("TANZIM_CACHE") or Path.home() / ".cache" / "tanzim")
    folder = cache / "environments" / f"{requirements.parent.name}-{key}"
    done = folder / "done"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
            made = subprocess.run(
                [*pip, "-r", requirements, "-c", constraints], capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stderr[-2000:]
            done.touch()
    return folder / "bin"


def guarded(folder: Path, **more: str) -> dict[str, str]:
    """Return environment variables under which Python programs stay on this machine.

    Args:
        folder: takes the guard, the programs' home, and ``away``: one line for each attempt to leave.
        more: further variables.

    """
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {
        **kept,
        "HOME": str(folder),
        "PYTHONPATH": str(folder / "guard"),
        "TANZIM_TEST_AWAY": str(folder / "away"),
        **more,
    }
