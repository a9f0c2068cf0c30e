"""The fingerprint of a set of weights: the same wherever the folder lies and however it is sharded."""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from pathlib import Path
from typing import Any

from tanzim.core.errors import ModelError
from tanzim.core.files import cache_folder, read_json, write_json

MAX_HEADER = 100_000_000  # bytes; the safetensors format's own limit
_VERSION = 1


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, in name order."""
    return sorted(file for file in folder.glob("*.safetensors") if file.is_file())


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 over every tensor's name, dtype, shape and bytes, in name order.

    The result is kept in the cache folder under the files' sizes and modification times, so that
    only new or changed weights are read.

    Args:
        folder: a model folder with ``*.safetensors`` files.

    Raises:
        ModelError: there are no such files, or one of them is damaged.

    """
    files = weight_files(folder)
    if not files:
        raise ModelError("there are no safetensors weights here", where=str(folder))
    state = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    key = hashlib.sha256(json.dumps([_VERSION, state]).encode()).hexdigest()
    note = cache_folder() / "hashes" / f"{key}.json"
    if note.is_file():
        known: str = read_json(note)["sha256"]
        return known
    value = _hash(files)
    write_json(note, {"sha256": value, "files": state})
    return value


def _hash(files: list[Path]) -> str:
    places: dict[str, tuple[Path, int, Any]] = {}
    for file in files:
        start, header = read_header(file)
        for name, entry in header.items():
            if name in places:
                raise ModelError(f"the tensor '{name}' stands in two weights files", where=str(file))
            places[name] = (file, start, entry)
    digest = hashlib.sha256()
    maps: dict[Path, mmap.mmap] = {}
    try:
        for name in sorted(places):
            file, start, entry = places[name]
            if file not in maps:
                with file.open("rb") as stream:
                    maps[file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            begin, end = entry["data_offsets"]
            digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
            with memoryview(maps[file]) as view, view[start + begin : start + end] as data:
                digest.update(data)
    finally:
        for opened in maps.values():
            opened.close()
    return digest.hexdigest()


def read_header(file: Path) -> tuple[int, dict[str, Any]]:
    """Read a safetensors header: where the data starts, and each tensor's dtype, shape and offsets.

    Specification: https://huggingface.co/docs/safetensors

    Raises:
        ModelError: the file is cut off or not safetensors.

    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else MAX_HEADER + 1
        try:
            header = json.loads(stream.read(length)) if length <= min(MAX_HEADER, size - 8) else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise _torn(file, "its header cannot be read")
    header.pop("__metadata__", None)
    try:
        need = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (KeyError, TypeError, IndexError):
        raise _torn(file, "its header is malformed") from None
    if size != need:
        raise _torn(file, f"it has {size:,} bytes and its header speaks of {need:,}")
    return 8 + length, header


def _torn(file: Path, why: str) -> ModelError:
    return ModelError(
        f"this safetensors file is damaged: {why}", where=str(file), fix="download or copy the file again"
    )
