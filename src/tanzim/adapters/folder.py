"""What makes a folder an adapter: three files, one of which names the base weights. No torch here."""

from __future__ import annotations

from pathlib import Path

from tanzim.core.errors import ModelError, WrongBaseError
from tanzim.core.files import read_json
from tanzim.core.records import Json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
RECORD = "tanzim.json"
# Kinds that peft does not know; their folders have our own layout.
OWN_TYPES = ("bitfit", "bottleneck", "spiel", "whole")


def read_record(folder: Path) -> Json:
    """Return what an adapter's or model's ``tanzim.json`` says: ``base`` and ``base_hash``.

    Raises:
        WrongBaseError: there is none.

    """
    path = folder / RECORD
    if not path.is_file():
        raise WrongBaseError(
            f"this does not say which base weights it was made for (no {RECORD})",
            where=str(folder),
            fix=f'if you are sure, write {{"base": "...", "base_hash": "..."}} to {path}',
        )
    record: Json = read_json(path)
    return record


def check_base(folder: Path, base_hash: str) -> None:
    """Refuse a folder that is no adapter, or one for other base weights.

    Raises:
        ModelError: files of an adapter are missing.
        WrongBaseError: it was made for other base weights, or does not say for which.

    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise ModelError(f"this is not an adapter folder (no {file})", where=str(folder))
    record = read_record(folder)
    if record.get("base_hash") != base_hash:
        raise WrongBaseError(
            f"this adapter is for '{record.get('base')}', weights {str(record.get('base_hash'))[:12]}…; "
            f"the loaded base has {base_hash[:12]}…",
            where=str(folder),
            fix="load the base it was trained on",
        )


def own_type(folder: Path) -> str | None:
    """Return which of our own kinds the adapter in ``folder`` is; None for one of peft's."""
    path = folder / RECORD
    method: Json = (read_json(path).get("method") or {}) if path.is_file() else {}
    kind = method.get("type")
    return kind if kind in OWN_TYPES else None
