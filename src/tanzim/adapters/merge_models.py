"""Merge whole models of one architecture: linear, SLERP, task arithmetic; one tensor in memory at a time.

- ``linear``: θ = Σ w_i θ_i, the weights scaled to sum to one (model soups, Wortsman et al. 2022,
  arXiv:2203.05482).
- ``slerp``: between two models along the arc, θ = sin((1−t)Ω)/sin Ω · θ_1 + sin(tΩ)/sin Ω · θ_2, where Ω is
  the angle between the tensors (Shoemake 1985); straight where they are all but parallel.
- ``task_arithmetic``: θ = θ_base + Σ w_i (θ_i − θ_base); a negative weight takes a skill away (Ilharco et
  al. 2022, arXiv:2212.04089).

Inputs and output are safetensors; the sums are made in float64 and stored in the models' own precision.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tanzim.core.errors import ConfigError, ModelError
from tanzim.core.files import new_folder, read_json, sha256, write_json
from tanzim.core.records import Json, Progress, no_progress

Way = Literal["linear", "slerp", "task_arithmetic"]
WAYS: tuple[Way, ...] = ("linear", "slerp", "task_arithmetic")
PARALLEL = 1 - 1e-6  # |cos Ω| above this leaves too few digits for sin Ω
RECORD = "tanzim.json"
_INDEX = "model.safetensors.index.json"
# Names of the config that say where a model came from or how it is run, not what it computes.
_FREE = {
    "_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "bos_token_id",
    "eos_token_id", "pad_token_id",
}  # fmt: skip
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_VOCABULARY = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
)


@dataclass(frozen=True, slots=True)
class MergePlan:
    """How models are merged.

    Args:
        way: one of `WAYS`.
        weights: one per model; for slerp one number, t: 0 is the first model, 1 the second.

    Raises:
        ConfigError: a value cannot be used.

    """

    way: Way
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ConfigError(
                f"there is no way '{self.way}' to merge models", fix=f"one of {', '.join(WAYS)}"
            )
        if not self.weights or not all(map(math.isfinite, self.weights)):
            raise ConfigError(f"the weights {list(self.weights)} must be finite numbers")
        if self.way == "slerp" and not (len(self.weights) == 1 and 0 <= self.weights[0] <= 1):
            raise ConfigError(
                f"slerp takes one weight from 0 (the first model) to 1 (the second), not {list(self.weights)}"
            )
        if self.way == "linear" and abs(sum(self.weights)) < 1e-9:
            raise ConfigError(f"the weights {list(self.weights)} sum to zero")


def merge_models(
    models: Sequence[Path],
    out: Path,
    plan: MergePlan,
    *,
    base: Path | None = None,
    record: Json | None = None,
    progress: Progress = no_progress,
) -> int:
    """Merge model folders into a new one, whole or not at all.

    Config, tokenizer and template are those of the base, or of the first model without one.

    Args:
        models: folders in Hugging Face layout with safetensors weights.
        out: the new folder; replaced if it exists.
        plan: how, with weights.
        base: what the models were trained from; for task arithmetic alone.
        record: what else is written to ``tanzim.json``.
        progress: told after each tensor.

    Returns:
        How many tensors were merged.

    Raises:
        ConfigError: too few models or weights.
        ModelError: the models differ in names, shapes, precision, architecture or vocabulary, or a file is
            damaged, or the result is not finite.

    """
    _check_number(models, plan, base)
    everything = [base, *models] if base is not None else list(models)
    with ExitStack() as stack:
        weights = [stack.enter_context(_opened(folder)) for folder in everything]
        _check_alike(everything, weights)
        shards = weights[0].shards
        total, done = len(weights[0].places), 0
        with new_folder(out) as temporary:
            for file, names in shards.items():
                with (temporary / file).open("wb") as stream:
                    _write_header(stream, weights[0], names)
                    for name in names:
                        stream.write(_bytes(_merged(name, weights, plan, base is not None)))
                        done += 1
                        progress(done, total, name)
            _copy_rest(everything[0], temporary, set(shards))
            made = {"merged": plan.way, "weights": list(plan.weights), **(record or {})}
            write_json(temporary / RECORD, made)
    return total


@dataclass(frozen=True, slots=True)
class _Weights:
    """The open weight files of a model: which tensor stands where, with what precision and shape."""

    folder: Path
    shards: Mapping[str, list[str]]
    places: Mapping[str, Any]
    kinds: Mapping[str, tuple[str, tuple[int, ...]]]

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self.places[name].get_tensor(name)
        return tensor


@contextmanager
def _opened(folder: Path) -> Iterator[_Weights]:
    files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if not files or not (folder / "config.json").is_file():
        raise ModelError(
            "this is not a model folder with safetensors weights",
            where=str(folder),
            fix="name the folder of a whole model (config.json, model.safetensors)",
        )
    shards: dict[str, list[str]] = {}
    places: dict[str, Any] = {}
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
    with ExitStack() as stack:
        for file in files:
            try:
                opened: Any = stack.enter_context(safe_open(file, framework="pt"))
            except SafetensorError as error:
                raise ModelError(f"this weights file is damaged: {error}", where=str(file)) from error
            shards[file.name] = sorted(opened.keys())
            for name in shards[file.name]:
                part = opened.get_slice(name)
                places[name], kinds[name] = opened, (part.get_dtype(), tuple(part.get_shape()))
        odd = sorted({dtype for dtype, _ in kinds.values()} - _BYTES.keys())
        if odd:
            raise ModelError(
                f"the weights are stored as {odd[0]}, which cannot be averaged", where=str(folder)
            )
        yield _Weights(folder, shards, places, kinds)


def _check_number(models: Sequence[Path], plan: MergePlan, base: Path | None) -> None:
    if plan.way == "task_arithmetic" and base is None:
        raise ConfigError("task arithmetic needs the base the models were trained from", fix="--base FOLDER")
    if plan.way != "task_arithmetic" and base is not None:
        raise ConfigError(f"'{plan.way}' has no base", fix="leave it out, or merge by task_arithmetic")
    wanted = 2 if plan.way == "slerp" else len(plan.weights)
    if len(models) != wanted:
        raise ConfigError(f"{len(models)} models, but the weights {list(plan.weights)} are for {wanted}")
    if len(models) < 2 and plan.way == "linear":
        raise ConfigError("one model alone cannot be merged", fix="name at least two")


def _check_alike(folders: Sequence[Path], weights: Sequence[_Weights]) -> None:
    """Refuse models that are not of one architecture, precision and vocabulary."""
    first = weights[0]
    for folder, other in zip(folders[1:], weights[1:], strict=True):
        where = f"{folders[0]}, {folder}"
        different = sorted(
            name
            for name in first.kinds.keys() | other.kinds.keys()
            if first.kinds.get(name) != other.kinds.get(name)
        )
        if different:
            name = different[0]
            raise ModelError(
                f"{len(different)} tensors differ in name, shape or precision, the first: {name} is "
                f"{_said(first.kinds.get(name))} and {_said(other.kinds.get(name))}",
                where=where,
                fix="merge models of one architecture, saved in one precision",
            )
        ours, theirs = (_config(one) for one in (folders[0], folder))
        keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if keys:
            one, two = ours.get(keys[0]), theirs.get(keys[0])
            raise ModelError(
                f"the models differ in '{keys[0]}' of config.json: {one} and {two}",
                where=where,
                fix="merge models of one architecture",
            )
        difference = _vocabulary_differs(folders[0], folder)
        if difference:
            raise ModelError(
                f"the models' vocabularies differ: {difference}", where=where, fix="merge models of one"
            )


def _said(kind: tuple[str, tuple[int, ...]] | None) -> str:
    return "missing" if kind is None else f"{kind[0]} {kind[1]}"


def _config(folder: Path) -> Json:
    config: Json = read_json(folder / "config.json")
    return {key: value for key, value in config.items() if key not in _FREE}


def _vocabulary_differs(ours: Path, theirs: Path) -> str | None:
    """Say in which file the vocabularies differ; how text is normalised or cut up does not matter here."""
    for name in _VOCABULARY:
        left, right = ours / name, theirs / name
        if not (left.is_file() and right.is_file()):
            continue
        if name == "tokenizer.json":
            one, two = (_tokens(read_json(path)) for path in (left, right))
            if one != two:
                odd = sorted(one.items() ^ two.items())[0]
                return f"in {name}, such as the token {odd[0]!r}"
        elif sha256(left) != sha256(right):
            return f"in {name}"
    return None


def _tokens(tokenizer: Json) -> dict[str, int]:
    """Return token → id of a ``tokenizer.json``."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: (token, log-probability) in the order of the ids
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
    return {**vocabulary, **added}


def _merged(name: str, weights: Sequence[_Weights], plan: MergePlan, with_base: bool) -> Tensor:
    tensors = [one.tensor(name) for one in weights]
    first = tensors[0]
    if not first.is_floating_point():
        if any(not torch.equal(first, other) for other in tensors[1:]):
            raise ModelError(
                f"'{name}' holds whole numbers that differ", fix="merge models of one architecture"
            )
        return first
    if plan.way == "slerp":
        result = _slerp(tensors[0].double(), tensors[1].double(), plan.weights[0])
    elif with_base:
        result = first.double()
        for tensor, weight in zip(tensors[1:], plan.weights, strict=True):
            result = result.add(tensor.double().sub_(first.double()), alpha=weight)
    else:
        share = sum(plan.weights)
        result = torch.zeros_like(first, dtype=torch.float64)
        for tensor, weight in zip(tensors, plan.weights, strict=True):
            result.add_(tensor.double(), alpha=weight / share)
    merged = result.to(first.dtype)
    if not torch.isfinite(merged).all():
        precision = str(first.dtype).removeprefix("torch.")
        raise ModelError(
            f"'{name}' of the merged model holds NaN or infinity in {precision}",
            fix="use smaller weights, or check the models",
        )
    return merged


def _slerp(one: Tensor, two: Tensor, t: float) -> Tensor:
    norms = float(one.norm() * two.norm())
    cosine = float((one * two).sum()) / norms if norms else 1.0
    if abs(cosine) > PARALLEL:
        return one * (1 - t) + two * t
    angle = math.acos(cosine)
    return one * (math.sin((1 - t) * angle) / math.sin(angle)) + two * (math.sin(t * angle) / math.sin(angle))


def _write_header(stream: BinaryIO, weights: _Weights, names: Sequence[str]) -> None:
    """Write a safetensors header (https://huggingface.co/docs/safetensors) for tensors in this order."""
    header: Json = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        dtype, shape = weights.kinds[name]
        start, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    stream.write(struct.pack("<Q", len(text)) + text)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _copy_rest(source: Path, target: Path, weights: set[str]) -> None:
    """Copy config, tokenizer and template, and the index of the shards."""
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.name in weights or path.name.startswith(".") or path.name == RECORD:
            continue
        if path.suffix in (".json", ".jinja", ".model", ".txt"):
            shutil.copyfile(path, target / path.name)
