"""A run directory and its config: made, found again, and kept from being mixed with another."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from tanzim.core.config import load
from tanzim.core.errors import RunError
from tanzim.core.files import sha256, write_text
from tanzim.core.records import Json
from tanzim.core.run import RunFolder, RunManifest
from tanzim.pipeline.config import Config

# What makes a run the run it is; evaluation, export and serving may change afterwards.
_FIXED = ("seed", "data", "model", "train")
_FREE = (
    "train.trackers",
    "train.keep_checkpoints",
    "train.keep_epochs",
    "train.save_steps",
    "train.tokens_per_pass",
    "train.gradient_checkpointing",
    "train.offload_activations",
    "train.compile",
)
_PACKAGES = ("tanzim", "torch", "transformers", "peft", "tokenizers", "safetensors", "pyarrow", "numpy")


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read ``tanzim.yaml`` (or ``path``), with ``key=value`` overrides on top.

    Raises:
        ConfigError: what is wrong, on which line, and the nearest known key.
    """
    if path is None and Path("tanzim.yaml").is_file():
        path = "tanzim.yaml"
    return load(Config, Path(path) if path is not None else None, overrides)


def open_run(config: Config, *, overwrite: bool = False) -> RunFolder:
    """Make the run directory of ``config``, or find it again to go on with it.

    Args:
        config: the project; ``runs_dir`` and ``name`` say where.
        overwrite: delete an existing run of that name first.

    Raises:
        RunError: a run of that name was made with other settings; the message lists them.
    """
    folder = RunFolder(Path(config.runs_dir) / config.name)
    if overwrite and folder.path.exists():
        folder.read_manifest()  # only a run directory is ever deleted
        shutil.rmtree(folder.path)
    if folder.config.is_file():
        before = load(Config, folder.config)
        differences = list(_differences(before.model_dump(), config.model_dump()))
        if differences:
            raise RunError(
                f"the run '{config.name}' was made with other settings: " + "; ".join(differences),
                where=str(folder.path),
                fix="name=other for a new run, or --overwrite to delete the old one",
            )
    text = yaml.safe_dump(json.loads(config.model_dump_json()), allow_unicode=True, sort_keys=False)
    write_text(folder.config, text)
    if not (folder.path / "manifest.json").is_file():
        folder.write_manifest(RunManifest(config.name, seed=config.seed, environment=environment()))
    return folder


def find_run(path: str | Path) -> tuple[RunFolder, Config]:
    """Open an existing run directory and the config it was made with.

    Raises:
        RunError: there is no run there.
    """
    folder = RunFolder(Path(path))
    folder.read_manifest()
    return folder, load(Config, folder.config)


def _differences(before: Any, after: Any, keys: tuple[str, ...] = ()) -> Iterator[str]:  # noqa: ANN401
    dotted = ".".join(keys)
    if (keys and keys[0] not in _FIXED) or dotted in _FREE:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differences(before.get(key), after.get(key), (*keys, key))
    elif before != after:
        yield f"{dotted} {before!r} → {after!r}"


def environment() -> Json:
    """Return what a run's numbers depend on outside its config: versions and platform."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": versions}


def trained_fingerprint(folder: RunFolder, base_hash: str) -> str:
    """Return what tells a run's trained weights, an adapter's or a model's, from all others.

    Args:
        folder: a trained run.
        base_hash: hash of the base weights.

    """
    if folder.adapter.is_dir():
        return f"{base_hash}/{sha256(folder.adapter / 'adapter_model.safetensors')}"
    return f"{base_hash}/{sha256(folder.model / 'model.safetensors')}"
