"""Export of embedding models: proven on the vectors of texts, by plain transformers and peft."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedTokenizerBase

from tanzim.adapters.folder import RECORD, check_base
from tanzim.core.errors import DriftError
from tanzim.core.files import read_json, write_json, write_text
from tanzim.core.records import Json
from tanzim.export.config import ExportConfig
from tanzim.export.verify import Parity
from tanzim.models.quiet import quiet
from tanzim.models.resolve import Base

Hidden = Callable[[Sequence[int]], Tensor]


def complete_encoder(folder: Path, *, tokenizer: PreTrainedTokenizerBase, how: Json, card: str) -> None:
    """Put what a stranger needs beside the weights: tokenizer, card, and in tanzim.json how to pool.

    Args:
        folder: an adapter's or a whole model's.
        tokenizer: as it was trained with.
        how: pooling and normalize.
        card: the text of ``README.md``.

    """
    tokenizer.save_pretrained(str(folder))
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    write_json(folder / RECORD, record | {"embedding": how})
    write_text(folder / "README.md", card)


def plain_encoder(folder: Path) -> Any:  # noqa: ANN401 - a transformers model
    """Load an encoder as anyone would: plain transformers, float32, on the CPU."""
    with quiet():
        return AutoModel.from_pretrained(
            str(folder),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        ).eval()


def plain_encoder_adapter(base: Base, folder: Path) -> Any:  # noqa: ANN401 - a peft model
    """Load an adapter as anyone would: plain peft around a plain encoder.

    Raises:
        WrongBaseError: the adapter was made for other base weights.

    """
    check_base(folder, base.hash)
    with quiet(), warnings.catch_warnings():
        # peft 0.21 still asks transformers by the old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return peft.PeftModel.from_pretrained(plain_encoder(base.path), str(folder)).eval()


def hidden_of(model: Any) -> Hidden:  # noqa: ANN401 - a transformers or peft model
    """Return a function from token ids to the final hidden states, in float32 on the CPU."""
    device = next(model.parameters()).device

    @torch.inference_mode()
    def hidden(ids: Sequence[int]) -> Tensor:
        model.eval()
        ids_1T = torch.tensor([list(ids)], device=device)
        found: Tensor = model(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T)).last_hidden_state
        return found[0].float().cpu()

    return hidden


def compare_hidden(
    reference: Hidden, exported: Hidden, texts: Sequence[Sequence[int]], *, config: ExportConfig, form: str
) -> Parity:
    """Compare an export with what was trained, on the hidden states that embeddings are pooled from.

    Args:
        reference: what was trained.
        exported: what came of it.
        texts: token ids.
        config: number of texts and tolerance.
        form: what the export is, for messages.

    Raises:
        DriftError: a number differs by more than the tolerance.

    """
    chosen = texts[: config.prompts]
    if not chosen:
        raise DriftError(f"there is no text to compare the {form} form on", fix="keep a test split")
    largest = 0.0
    for number, ids in enumerate(chosen, 1):
        difference = float((reference(ids) - exported(ids)).abs().max())
        if not difference <= config.tolerance:
            raise DriftError(
                f"the {form} form gives other vectors than what was trained: they differ by up to "
                f"{difference:.2g} (tolerance {config.tolerance:g})",
                where=f"text {number}",
                fix="export in float32 (export.dtype), or accept the difference with export.tolerance",
            )
        largest = max(largest, difference)
    details: Json = {"vectors_within": largest}
    return Parity(form, len(chosen), len(chosen), tolerance=config.tolerance, details=details)
