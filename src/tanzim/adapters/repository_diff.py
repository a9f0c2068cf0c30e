"""What differs between two adapters: settings, scores, and how far apart their weights are, by module.

Plain LoRA is compared by what it does, ΔW = s·B·A, since many pairs (A, B) do the same; ΔW itself is never
made: ⟨B_1·A_1, B_2·A_2⟩ = Σ (B_1ᵀ·B_2) ∘ (A_1·A_2ᵀ). Every other kind is compared tensor by tensor.

Legend: R rank, I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tanzim.adapters.folder import CONFIG, WEIGHTS
from tanzim.adapters.lora_files import Factors, is_plain, read_lora, read_tensors
from tanzim.adapters.repository_state import Entry
from tanzim.core.errors import ModelError
from tanzim.core.files import read_json

# Settings of a file, not of an adapter.
_IGNORED = {"peft_version", "inference_mode", "base_model_name_or_path", "auto_mapping", "revision"}


@dataclass(frozen=True, slots=True)
class Distance:
    """How far one module of two adapters is apart.

    Args:
        module: its path in the base model, or the tensor's name.
        one: Frobenius norm of the first adapter's update; None where it has none.
        two: the same of the second.
        distance: ‖ΔW_1 − ΔW_2‖ / max(‖ΔW_1‖, ‖ΔW_2‖): 0 the same, 2 opposite; None where
            one has no such module, or the shapes differ.
        cosine: cosine of the angle between the two updates.

    """

    module: str
    one: float | None
    two: float | None
    distance: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two adapters.

    Args:
        facts: base, data, lineage: name → both values.
        config: keys of ``adapter_config.json`` → both values.
        scores: task → metric → both values, equal ones too.
        modules: every module of either.

    """

    facts: Mapping[str, tuple[Any, Any]]
    config: Mapping[str, tuple[Any, Any]]
    scores: Mapping[str, Mapping[str, tuple[float | None, float | None]]]
    modules: tuple[Distance, ...]


def compare(one: Entry, one_folder: Path, two: Entry, two_folder: Path) -> Diff:
    """Compare two adapters of the repository.

    Args:
        one: the first.
        one_folder: its files.
        two: the second.
        two_folder: its files.

    Raises:
        ModelError: the weights of one are damaged.

    """
    settings = [
        {key: value for key, value in read_json(folder / CONFIG).items() if key not in _IGNORED}
        for folder in (one_folder, two_folder)
    ]
    plain = all(is_plain(config) for config in settings)
    distances = _by_module(one_folder, two_folder) if plain else _by_tensor(one_folder, two_folder)
    facts = [
        {
            "kind": entry.kind,
            "base": f"{entry.base} {entry.base_hash[:12]}",
            "task": entry.facts.task,
            **{f"data.{split}": digest[:12] for split, digest in entry.facts.data.items()},
            "made": entry.facts.made,
            "from": list(entry.facts.parents),
        }
        for entry in (one, two)
    ]
    tasks = {**one.facts.scores, **two.facts.scores}
    scores = {
        task: {
            metric: (one.facts.scores.get(task, {}).get(metric), two.facts.scores.get(task, {}).get(metric))
            for metric in {**one.facts.scores.get(task, {}), **two.facts.scores.get(task, {})}
        }
        for task in tasks
    }
    return Diff(_different(*facts), _different(*settings), scores, distances)


def _different(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (one.get(key), two.get(key)) for key in {**one, **two} if one.get(key) != two.get(key)}


def _by_module(one: Path, two: Path) -> tuple[Distance, ...]:
    try:
        left, right = read_lora(one).layers, read_lora(two).layers
    except ModelError:  # parts beside B·A, such as an adapted embedding
        return _by_tensor(one, two)
    found = []
    for path in sorted(left.keys() | right.keys()):
        a, b = left.get(path), right.get(path)
        if a is None or b is None:
            norms = (None if x is None else math.sqrt(max(_inner(x, x), 0.0)) for x in (a, b))
            found.append(Distance(path, *norms))
        else:
            found.append(_distance(path, _inner(a, a), _inner(b, b), _inner(a, b)))
    return tuple(found)


def _by_tensor(one: Path, two: Path) -> tuple[Distance, ...]:
    left, right = (
        {key: tensor.double() for key, tensor in read_tensors(folder / WEIGHTS).items()}
        for folder in (one, two)
    )
    found = []
    for name in sorted(left.keys() | right.keys()):
        a, b = left.get(name), right.get(name)
        if a is None or b is None or a.shape != b.shape:
            norms = (None if x is None else float(x.norm()) for x in (a, b))
            found.append(Distance(name, *norms))
        else:
            found.append(_distance(name, float((a * a).sum()), float((b * b).sum()), float((a * b).sum())))
    return tuple(found)


def _inner(one: Factors, two: Factors) -> float:
    """Return ⟨ΔW_1, ΔW_2⟩ by way of two R × R matrices."""
    outer = (one.b_OR.double().T @ two.b_OR.double()) * (one.a_RI.double() @ two.a_RI.double().T)
    return one.scale * two.scale * float(outer.sum())


def _distance(module: str, one: float, two: float, inner: float) -> Distance:
    """Make a distance of squared norms and the inner product."""
    norms = math.sqrt(max(one, 0.0)), math.sqrt(max(two, 0.0))
    most = max(norms)
    apart = math.sqrt(max(one + two - 2 * inner, 0.0))
    both = norms[0] * norms[1]
    return Distance(module, *norms, apart / most if most else 0.0, inner / both if both else None)
