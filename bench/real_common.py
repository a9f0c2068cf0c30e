"""What the real-data benches share: the command line as users have it, in a folder of its own."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def arguments(description: str) -> argparse.Namespace:
    """Read PATH, --work and the overrides from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("path", type=Path, help="the data file, or the folder it lies in")
    parser.add_argument("--work", type=Path, help="keep configs and runs here (default: a temporary folder)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config keys to change")
    return parser.parse_intermixed_args()


def find(path: Path, name: str) -> Path:
    """Return the data file: ``path`` itself, or the file called ``name`` in that folder."""
    file = (path / name if path.is_dir() else path).resolve()
    if not file.is_file():
        sys.exit(f"there is no {name} at {path}")
    return file


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """Yield ``given`` (kept), or a temporary folder that vanishes."""
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="tanzim-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def tanzim(*words: str, folder: Path) -> None:
    """Run ``tanzim WORDS`` in ``folder``; what it prints goes to stderr, our stdout is for the result."""
    print("$ tanzim", *words, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "tanzim", *words], cwd=folder, check=True, stdout=sys.stderr)


def init_and_run(file: Path, name: str, settings: list[str], folder: Path) -> Path:
    """Do ``tanzim init FILE`` and ``tanzim run`` with ``settings``; return the run directory."""
    config = f"{name}.yaml"
    tanzim("init", str(file), "--output", config, "--force", folder=folder)
    tanzim("run", config, f"name={name}", *settings, "--overwrite", folder=folder)
    return folder / "runs" / name


def read(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def systems(run: Path) -> dict[str, Any]:
    """Return each measured system of the run's evaluation by its name."""
    return {system["name"]: system for system in read(run / "evaluation" / "report.json")["systems"]}


def finish(result: dict[str, Any], *faults: str) -> None:
    """Print the result as the last line, and exit with 1 if the bench missed its goal."""
    for fault in filter(None, faults):
        print(f"missed: {fault}", file=sys.stderr)
    print(json.dumps(result), flush=True)
    sys.exit(1 if any(faults) else 0)
