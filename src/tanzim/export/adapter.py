"""Complete an adapter folder for the world outside, and prove that plain peft makes the same model of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tanzim.adapters.folder import check_base, own_type
from tanzim.adapters.store import load_adapter
from tanzim.core.files import write_text
from tanzim.export.config import ExportConfig
from tanzim.export.verify import Decode, Observe, Parity, compare, observer
from tanzim.models.quantised import Quantised, keep_exact, loading
from tanzim.models.quiet import quiet
from tanzim.models.resolve import Base


def complete(
    folder: Path, *, base: Base, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], card: str
) -> None:
    """Put what a stranger needs beside the weights: tokenizer, chat template, generation config, card.

    Args:
        folder: an adapter's or a whole model's.
        base: the base model, whose generation settings are kept.
        tokenizer: as it was trained with; its template goes to ``chat_template.jinja``.
        stop_ids: tokens that end an answer, which generation stops at.
        card: the text of ``README.md`` (`model_card`).

    """
    tokenizer.save_pretrained(str(folder))
    generation_config(base, tokenizer, stop_ids).save_pretrained(str(folder))
    write_text(folder / "README.md", card)


def generation_config(
    base: Base, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]
) -> GenerationConfig:
    """Return the base's generation settings, with the stop tokens that the answers were trained to end in."""
    if (base.path / "generation_config.json").is_file():
        config = GenerationConfig.from_pretrained(str(base.path), local_files_only=True)
    else:
        config = GenerationConfig()  # type: ignore[no-untyped-call]
    config.eos_token_id = list(stop_ids)
    config.pad_token_id = tokenizer.pad_token_id
    config.bos_token_id = tokenizer.bos_token_id
    return config


def plain_model(folder: Path, quantised: Quantised | None = None) -> PreTrainedModel:
    """Load a model folder as anyone would: plain transformers, its own attention, float32, on the CPU."""
    with quiet():
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model: Any = auto.from_pretrained(
            str(folder),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **loading(quantised, dtype=torch.float32, device=torch.device("cpu")),
        )
    keep_exact(model)
    return cast(PreTrainedModel, model.eval())


def plain_adapter(base: Base, folder: Path) -> PreTrainedModel | PeftModel:
    """Load an adapter as anyone would: plain peft around plain transformers.

    One of our own kinds, which peft does not know, is put on plain transformers by us.

    Raises:
        WrongBaseError: the adapter was made for other base weights.

    """
    check_base(folder, base.hash)
    if own_type(folder) is not None:
        return load_adapter(plain_model(base.path), folder, name="plain", base_hash=base.hash)
    with quiet(), warnings.catch_warnings():
        # peft 0.21 still asks transformers by the old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        # peft looks AdaLoRA's ranks up under the names of LoRA's; they find their layers all the same.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        # A merge unties what is adapted on one side alone.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        adapted: PeftModel = PeftModel.from_pretrained(plain_model(base.path, base.quantised), str(folder))
    adapted.eval()
    return adapted


def verify_adapter(
    folder: Path,
    *,
    base: Base,
    reference: Observe,
    prompts: Sequence[Sequence[int]],
    config: ExportConfig,
    stop_ids: Sequence[int],
    decode: Decode,
) -> Parity:
    """Prove that plain peft on the same base does with the folder what was trained.

    Args:
        folder: the adapter, PEFT layout or our own (see `plain_adapter`).
        base: the base it was trained on.
        reference: what was trained (`observer` of the model in float32).
        prompts: token ids of the prompts to compare on.
        config: number of prompts, length of the texts, tolerance.
        stop_ids: tokens that end an answer.
        decode: token ids to text, for messages.

    Raises:
        DriftError: it does otherwise.
        WrongBaseError: the adapter was made for other base weights.

    """
    plain = observer(plain_adapter(base, folder), stop_ids=stop_ids, new_tokens=config.new_tokens)
    return compare(reference, plain, prompts, config=config, form="adapter", decode=decode)


def verify_model(
    folder: Path,
    *,
    reference: Observe,
    prompts: Sequence[Sequence[int]],
    config: ExportConfig,
    stop_ids: Sequence[int],
    decode: Decode,
) -> Parity:
    """Prove that plain transformers does with a whole model's folder what was trained (see `verify_adapter`).

    Raises:
        DriftError: it does otherwise.

    """
    plain = observer(plain_model(folder), stop_ids=stop_ids, new_tokens=config.new_tokens)
    return compare(reference, plain, prompts, config=config, form="model", decode=decode)
