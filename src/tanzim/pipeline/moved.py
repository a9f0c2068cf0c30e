"""Write how far a run's layers moved beside it: ``moved.json``."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from tanzim.adapters.moved import moved_layers
from tanzim.core.files import write_json
from tanzim.core.run import RunFolder
from tanzim.models.hashing import weight_files
from tanzim.models.resolve import Base


def write_moved(folder: RunFolder, base: Base, model: nn.Module) -> None:
    """Measure how far each layer of a trained model is from ``base``, and write it into the run.

    Args:
        folder: the run.
        base: what the training began with.
        model: what was trained, in memory, holding the chosen weights.

    """
    files = _index(base.path)

    def base_weight(name: str) -> Tensor | None:
        if name not in files:
            return None
        with safe_open(files[name], framework="pt") as file:
            weight: Tensor = file.get_tensor(name)
        return weight

    write_json(folder.moved, moved_layers(model, base_weight))


def _index(path: Path) -> dict[str, Path]:
    """Return in which file each weight of a base stands."""
    index: dict[str, Path] = {}
    for file in weight_files(path):
        with safe_open(file, framework="pt") as weights:
            index |= dict.fromkeys(weights.keys(), file)
    return index
