"""From the name in the config to a local folder of safetensors weights with a known hash."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from tanzim.core.errors import ModelError
from tanzim.core.files import read_json
from tanzim.core.records import Json, Progress, no_progress
from tanzim.models.config import ModelConfig
from tanzim.models.embedded import ALIASES, embedded
from tanzim.models.gguf import unpacked
from tanzim.models.hashing import weight_files, weights_hash
from tanzim.models.hub import download
from tanzim.models.quantised import Quantised

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on this disk.

    Args:
        name: as the config says it: alias, hub id, folder or GGUF file.
        source: where it came from.
        path: a local folder in the Hugging Face layout, with safetensors weights.
        hash: SHA-256 over the weights; the same wherever the folder lies.
        license: as the model card or the file says it, if it does.
        quantised: in which form its weights are kept in memory; None for the model's precision.

    """

    name: str
    source: Literal["alias", "hub", "local", "gguf"]
    path: Path
    hash: str
    license: str | None
    quantised: Quantised | None = None


def resolve(config: ModelConfig, *, progress: Progress = no_progress) -> Base:
    """Find the base model that a config names; fetch or unpack it on first use.

    Args:
        config: ``name`` is an alias, a GGUF file, a local folder or a hub id (looked for in this
            order); ``revision`` belongs to a hub id.
        progress: told about downloads and conversions.

    Raises:
        ModelError: there is no such model, it cannot be fetched, or it is of a kind we refuse
            (pickled weights, code of its own, quantised weights).

    """
    name, path = config.name, Path(config.name).expanduser()
    license_: str | None
    source: Literal["alias", "hub", "local", "gguf"]
    if config.revision is not None and (name in ALIASES or path.exists()):
        raise ModelError(
            f"model.revision is '{config.revision}', but '{name}' is no hub id", fix="remove model.revision"
        )
    if name in ALIASES:
        source, folder, license_ = "alias", embedded(name, progress=progress), ALIASES[name].license
    elif path.suffix.lower() == ".gguf":
        source, folder, license_ = "gguf", unpacked(path, progress=progress), None
    elif path.is_dir():
        source, folder, license_ = "local", path.resolve(), card_license(path)
    elif HUB_ID.fullmatch(name):
        folder = download(name, config.revision, progress=progress)
        source, license_ = "hub", card_license(folder)
    else:
        raise ModelError(
            f"there is no model '{name}'",
            where="model.name",
            fix=f"give an alias ({', '.join(ALIASES)}), a hub id (owner/name), a folder or a .gguf file",
        )
    check_folder(folder)
    return Base(name=name, source=source, path=folder, hash=weights_hash(folder), license=license_)


def check_folder(folder: Path) -> None:
    """Refuse a model folder that cannot be used, before anything large is read.

    Raises:
        ModelError: no config, no safetensors weights, a missing shard, own code, or quantised weights.

    """
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                "this is an adapter, not a model",
                where=str(folder),
                fix="name its base model here and the adapter where one is asked for",
            )
        gguf = sorted(file.name for file in folder.glob("*.gguf"))
        fix = f"name the file: {folder / gguf[0]}" if gguf else "a model folder has a config.json"
        raise ModelError("this is not a model folder: it has no config.json", where=str(folder), fix=fix)
    _check_weights(folder)
    _check_config(folder, _read(folder / "config.json"))


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(_read(index).get("weight_map", {}).values())
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise ModelError(
                f"{len(missing)} of {len(shards)} weights files are missing, such as {missing[0]}",
                where=str(folder),
                fix="download the model again",
            )
    if weight_files(folder):
        return
    if _any(folder, PICKLES):
        raise ModelError(
            "the weights are pickle files, which can run code when they are opened",
            where=str(folder),
            fix="use a safetensors version of the model (many hub repositories have one on another revision)",
        )
    raise ModelError("there are no safetensors weights here", where=str(folder), fix="check model.name")


def _check_config(folder: Path, config: Json) -> None:
    from transformers import CONFIG_MAPPING

    model_type = config.get("model_type")
    if model_type not in CONFIG_MAPPING:
        own_code = "it brings code of its own, which is never run here" if config.get("auto_map") else ""
        raise ModelError(
            f"the architecture '{model_type}' is not one that transformers knows"
            + (f"; {own_code} (trust_remote_code is off)" if own_code else ""),
            where=str(folder / "config.json"),
            fix="use a model whose architecture is part of transformers, or a newer transformers",
        )
    quantised = config.get("quantization_config")
    if quantised:
        raise ModelError(
            f"the weights are quantised ({quantised.get('quant_method', 'unknown method')})",
            where=str(folder / "config.json"),
            fix="use the model's unquantised version, or its GGUF file",
        )


def card_license(folder: Path) -> str | None:
    """Return the licence in the front matter of a model card (``README.md``), if it names one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    if not isinstance(front, dict):
        return None
    value = front.get("license_name") if front.get("license") == "other" else front.get("license")
    return str(value) if value else None


def _any(folder: Path, patterns: Iterable[str]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def _read(path: Path) -> Json:
    try:
        value = read_json(path)
    except ValueError as error:
        raise ModelError(f"this is not valid JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise ModelError("expected a JSON object", where=str(path))
    return value
