"""A GGUF file, unpacked once into a safetensors folder that everything else can use."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tanzim.core.errors import ModelError
from tanzim.core.files import cache_folder, new_folder
from tanzim.core.records import Progress, no_progress
from tanzim.models.quiet import quiet

# What the readers of a cut-off or foreign file raise.
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, struct.error)


def unpacked(file: Path, *, progress: Progress = no_progress) -> Path:
    """Return the safetensors folder of a GGUF file, made on first use and kept in the cache.

    Args:
        file: the GGUF file; changing it makes another folder.
        progress: told when the unpacking starts and ends.

    Raises:
        ModelError: the file is no GGUF, damaged, or of an architecture transformers cannot read.

    """
    if not file.is_file():
        raise ModelError("there is no such GGUF file", where=str(file), fix="check model.name")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError("this is not a GGUF file (its first bytes are not 'GGUF')", where=str(file))
    state = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{state.st_size}|{state.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache_folder() / "models" / f"{file.stem}-{key}"
    return unpack_once(folder, lambda _: file, progress=progress)


def unpack_once(folder: Path, find: Callable[[Path], Path], *, progress: Progress = no_progress) -> Path:
    """Fill ``folder`` from a GGUF file, unless it is there already.

    Two processes that start together convert once: the second waits on a lock.

    Args:
        folder: what to fill.
        find: gives the GGUF file, given a folder for what it must fetch first.
        progress: told when the unpacking starts and ends.

    Raises:
        ModelError: as `convert` does, and whatever ``find`` raises.

    """
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not (folder / "config.json").is_file():
            for left in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
                file = find(Path(scratch))
                progress(0, None, f"unpacking {file.name} to {folder} (once; about half a minute)")
                with new_folder(folder) as temporary:
                    convert(file, temporary)
            progress(1, 1, f"unpacked {file.name}")
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file as float32 safetensors with its config, tokenizer and chat template.

    Raises:
        ModelError: the file cannot be read, or the folder cannot be written.

    """
    try:
        from transformers import GgufConfig  # newer than the oldest transformers that trains

        # The reader shows a bar of its own that no setting hides.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
    except ImportError as error:
        raise ModelError(
            f"reading GGUF needs a package that is missing: {error}", fix='pip install "tanzim[train]"'
        ) from error
    except _UNREADABLE as error:
        raise ModelError(
            f"this GGUF file cannot be read: {_first_line(error)}",
            where=str(file),
            fix="download it again, or use a safetensors folder of the same model",
        ) from error
    _forget_quantisation(model)
    try:
        with quiet():
            tokenizer.save_pretrained(folder)
            model.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the unpacked model cannot be written: {_first_line(error)}",
            where=str(folder),
            fix="free some disk space, or set TANZIM_CACHE to a larger disk",
        ) from error


def _forget_quantisation(model: PreTrainedModel) -> None:
    """Drop what still says that the weights are packed; they are plain float32 now."""
    model.hf_quantizer = None  # type: ignore[assignment]
    model.is_quantized = False  # type: ignore[assignment]
    for name in ("quantization_config", "_model_name_or_path"):
        if hasattr(model.config, name):
            delattr(model.config, name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
