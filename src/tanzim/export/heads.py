"""Export of models that label: proven on logits, by plain transformers and peft.

Legend: N things labelled, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerBase,
)

from tanzim.adapters.folder import check_base
from tanzim.core.errors import DriftError
from tanzim.core.files import write_json, write_text
from tanzim.export.config import ExportConfig
from tanzim.export.verify import Parity
from tanzim.models.quiet import quiet
from tanzim.models.resolve import Base

RECORD = "tanzim.json"
LABELS = "labels.json"  # the head's outputs in order, for an adapter, whose base does not name them
Logits = Callable[[Sequence[int]], Tensor]


def complete_headed(
    folder: Path, *, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], card: str
) -> None:
    """Put what a stranger needs beside the weights: tokenizer, names of the labels, card."""
    tokenizer.save_pretrained(str(folder))
    write_json(folder / LABELS, {"id2label": dict(enumerate(labels))})
    write_text(folder / "README.md", card)


def logits_of(model: nn.Module) -> Logits:
    """Return a function from token ids to the head's logits [N, C], in float32 on the CPU."""
    device = next(model.parameters()).device

    @torch.inference_mode()
    def logits(ids: Sequence[int]) -> Tensor:
        model.eval()
        found: Tensor = model(input_ids=torch.tensor([list(ids)], device=device)).logits
        return found.float().cpu().reshape(-1, found.shape[-1])

    return logits


def plain_headed(folder: Path, *, tagged: bool, labels: Sequence[str] = (), pad: int | None = None) -> Any:  # noqa: ANN401 - a transformers model
    """Load a model with a head as anyone would: plain transformers, float32, on the CPU.

    Args:
        folder: a base, which gets a new head for ``labels``, or an exported model, which has one.
        tagged: whether the head labels words or texts.
        labels: the classes, for a base.
        pad: the token that fills rows, for a base that names none.

    """
    auto: Any = AutoModelForTokenClassification if tagged else AutoModelForSequenceClassification
    new = {"num_labels": len(labels), "ignore_mismatched_sizes": True} if labels else {}
    with quiet():
        model = auto.from_pretrained(
            str(folder),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **new,
        )
    if pad is not None:
        model.config.get_text_config().pad_token_id = pad
    return model.eval()


def plain_headed_adapter(
    base: Base, folder: Path, *, tagged: bool, labels: Sequence[str], pad: int | None
) -> Any:  # noqa: ANN401 - a peft model
    """Load an adapter with its head as anyone would: plain peft around plain transformers.

    Raises:
        WrongBaseError: the adapter was made for other base weights.

    """
    check_base(folder, base.hash)
    plain = plain_headed(base.path, tagged=tagged, labels=labels, pad=pad)
    with quiet(), warnings.catch_warnings():
        # peft 0.21 still asks transformers by the old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        return peft.PeftModel.from_pretrained(plain, str(folder)).eval()


def compare_logits(
    reference: Logits, exported: Logits, texts: Sequence[Sequence[int]], *, config: ExportConfig, form: str
) -> Parity:
    """Compare an export with what was trained, on the logits of whole texts.

    Args:
        reference: what was trained.
        exported: what came of it.
        texts: token ids.
        config: number of texts and tolerance.
        form: what the export is, for messages.

    Raises:
        DriftError: a log-probability differs by more than the tolerance, or a label differs.

    """
    if not texts:
        raise DriftError(f"there is no text to compare the {form} form on", fix="keep a test split")
    largest, same, rows = 0.0, 0, 0
    for number, ids in enumerate(texts[: config.prompts], 1):
        ours_NC, theirs_NC = reference(ids).log_softmax(-1), exported(ids).log_softmax(-1)
        difference = float((ours_NC - theirs_NC).abs().max())
        agree = int((ours_NC.argmax(-1) == theirs_NC.argmax(-1)).sum())
        close = float(ours_NC.topk(2).values.diff().abs().min()) <= 2 * config.tolerance
        if not difference <= config.tolerance or (agree < len(ours_NC) and not close):
            raise DriftError(
                f"the {form} form does not label as what was trained: log-probabilities differ by up to "
                f"{difference:.2g} (tolerance {config.tolerance:g}), {agree} of {len(ours_NC)} labels agree",
                where=f"text {number}",
                fix="export in float32 (export.dtype), or accept the difference with export.tolerance",
            )
        largest, same, rows = max(largest, difference), same + agree, rows + len(ours_NC)
    count = len(texts[: config.prompts])
    return Parity(
        form, count, count, largest, same / rows, rows, config.tolerance, details={"labels_equal": same}
    )


def merge_headed(
    adapted: Any,  # noqa: ANN401 - a peft model
    folder: Path,
    *,
    base: Base,
    labels: Sequence[str],
    dtype: torch.dtype,
) -> None:
    """Write a model with the adapter merged into the base and its head in place.

    An adapter of our own kinds has changed the weights already.

    Args:
        adapted: what `plain_headed_adapter` returned; it is changed.
        folder: where to.
        base: the base it was trained on.
        labels: the classes, in order.
        dtype: precision of what is written.

    """
    merged = adapted
    if isinstance(adapted, peft.PeftModel):
        for name, module in list(adapted.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):  # peft 0.21 cannot unwrap a head of several layers
                adapted.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
        merged = adapted.merge_and_unload()
    merged.config.id2label = dict(enumerate(labels))
    merged.config.label2id = {label: number for number, label in enumerate(labels)}
    merged.config.problem_type = "single_label_classification"
    with quiet():
        merged.to(dtype).save_pretrained(str(folder))
    write_json(folder / RECORD, {"base": base.name, "base_hash": base.hash, "merged": {"head": True}})
