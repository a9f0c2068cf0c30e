"""Does an export behave as what was trained? The same prompts to both, logits and greedy text.

Legend: T compared positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tanzim.adapters.soft_prompts import virtual_tokens
from tanzim.core.errors import DriftError
from tanzim.core.records import Json, Message
from tanzim.export.config import ExportConfig

# Logits of so many last prompt positions are compared: all V of each, so more would be gigabytes.
WINDOW = 64


@dataclass(frozen=True, slots=True)
class Observation:
    """What a model does with a prompt.

    Args:
        logprobs_TV: natural log-probabilities at the last prompt positions, then at each new token
            (row T − n + k says what follows the first k of n new tokens).
        ids: the greedy continuation, its stop token included.

    """

    logprobs_TV: Tensor
    ids: tuple[int, ...]


Observe = Callable[[Sequence[int]], Observation]
Decode = Callable[[Sequence[int]], str]
Answer = Callable[[Sequence[Message]], str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely an export follows what was trained.

    Args:
        form: adapter, merged, served…
        prompts: how many were compared.
        texts_equal: how many greedy texts are the same.
        max_logprob_difference: largest difference of any token's log-probability (None: texts alone).
        top1_agreement: share of positions with the same likeliest token (None: texts alone).
        positions: positions compared.
        tolerance: what was accepted.
        details: what else was proven: dtype, changed tensors, tied embeddings.

    """

    form: str
    prompts: int
    texts_equal: int
    max_logprob_difference: float | None = None
    top1_agreement: float | None = None
    positions: int = 0
    tolerance: float | None = None
    details: Json = field(default_factory=dict)


def observer(model: nn.Module, *, stop_ids: Sequence[int], new_tokens: int) -> Observe:
    """Return a function that runs ``model`` on a prompt, greedily, by plain forward passes.

    Args:
        model: a causal or encoder-decoder model of transformers, or of peft around one.
        stop_ids: tokens that end an answer.
        new_tokens: longest continuation, in tokens.

    """
    device = next(model.parameters()).device
    inner: Any = model

    @torch.inference_mode()
    def observe(prompt_ids: Sequence[int]) -> Observation:
        model.eval()
        if getattr(model.config, "is_encoder_decoder", False):
            return _observe_target(model, prompt_ids, stop_ids, new_tokens)
        ids, rows = [int(token) for token in prompt_ids], []
        answer: list[int] = []
        cache, fresh = None, ids
        run, learnt = inner, virtual_tokens(model)
        while True:
            seen = len(ids) + len(answer) + (0 if run is inner else learnt)
            output = run(
                input_ids=torch.tensor([fresh], device=device),
                attention_mask=torch.ones(1, seen, dtype=torch.long, device=device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=WINDOW,
            )
            if learnt and cache is None:
                # From here on the learnt vectors are in the cache, where peft would put them again.
                run = inner.get_base_model()
            cache = output.past_key_values
            rows.append(output.logits[0].float().log_softmax(-1).cpu())
            answer.append(int(rows[-1][-1].argmax()))
            if answer[-1] in stop_ids or len(answer) == new_tokens:
                return Observation(torch.cat(rows), tuple(answer))
            fresh = answer[-1:]

    return observe


def _observe_target(
    model: Any,  # noqa: ANN401 - an encoder-decoder model of transformers, or of peft around one
    source_ids: Sequence[int],
    stop_ids: Sequence[int],
    new_tokens: int,
) -> Observation:
    """Return what the model writes to a source; all rows are those of new tokens."""
    device = next(model.parameters()).device
    source = torch.tensor([list(source_ids)], device=device)
    written = [int(model.config.decoder_start_token_id)]
    while True:
        logits = model(input_ids=source, decoder_input_ids=torch.tensor([written], device=device)).logits
        rows_TV = logits[0].float().log_softmax(-1).cpu()
        written.append(int(rows_TV[-1].argmax()))
        if written[-1] in stop_ids or len(written) > new_tokens:
            return Observation(rows_TV, tuple(written[1:]))


def compare(
    reference: Observe,
    exported: Observe,
    prompts: Sequence[Sequence[int]],
    *,
    config: ExportConfig,
    form: str,
    decode: Decode,
) -> Parity:
    """Compare an export with what was trained on the first ``config.prompts`` prompts.

    Args:
        reference: what was trained.
        exported: what came of it.
        prompts: token ids.
        config: number of prompts and tolerance.
        form: what the export is, for messages.
        decode: token ids to text, for messages.

    Raises:
        DriftError: a log-probability differs by more than the tolerance, or a greedy text differs;
            the message names the prompt and the numbers.

    """
    chosen = _some(prompts, config.prompts, form)
    largest = 0.0
    same = positions = 0
    for number, prompt in enumerate(chosen, 1):
        ours, theirs = reference(prompt), exported(prompt)
        difference, agree, rows = _measure(ours, theirs)
        if not difference <= config.tolerance or ours.ids != theirs.ids:
            texts = "the same" if ours.ids == theirs.ids else _instead(decode(theirs.ids), decode(ours.ids))
            raise DriftError(
                f"the {form} form does not behave as what was trained: log-probabilities differ by up to "
                f"{difference:.2g} (tolerance {config.tolerance:g}), the likeliest token is the same at "
                f"{agree} of {rows} positions, the greedy text is {texts}",
                where=f"prompt {number} of {len(chosen)}: {_short(decode(prompt))!r}",
                fix="export in float32 (export.dtype), or accept the difference with export.tolerance",
            )
        largest = max(largest, difference)
        same, positions = same + agree, positions + rows
    agreement = same / positions
    return Parity(form, len(chosen), len(chosen), largest, agreement, positions, config.tolerance)


def compare_answers(
    reference: Answer,
    complete: Answer,
    conversations: Sequence[Sequence[Message]],
    *,
    prompts: int,
    form: str,
) -> Parity:
    """Compare the greedy answers of a running server with those made in this process.

    Args:
        reference: answers in this process.
        complete: asks the server (temperature 0).
        conversations: the messages of each prompt.
        prompts: how many are compared.
        form: what the export is, for messages.

    Raises:
        DriftError: an answer differs.

    """
    chosen = _some(conversations, prompts, form)
    for number, messages in enumerate(chosen, 1):
        ours, theirs = reference(messages), complete(messages)
        if ours != theirs:
            raise DriftError(
                f"the {form} form answers otherwise than what was trained: " + _instead(theirs, ours),
                where=f"prompt {number} of {len(chosen)}: {_short(messages[-1].content)!r}",
                fix="check that both use the same adapter, chat template and stop strings",
            )
    return Parity(form, len(chosen), len(chosen))


def _some(prompts: Sequence[T], most: int, form: str) -> Sequence[T]:
    if not prompts:
        raise DriftError(f"there is no prompt to compare the {form} form on", fix="keep a test split")
    return prompts[:most]


def _measure(ours: Observation, theirs: Observation) -> tuple[float, int, int]:
    """Compare the rows that follow the same tokens: largest difference, same likeliest tokens, rows."""
    pairs = zip(ours.ids, theirs.ids, strict=False)
    parting = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours.ids), len(theirs.ids)) - 1)
    rows = len(ours.logprobs_TV) - len(ours.ids) + parting + 1
    left_TV, right_TV = ours.logprobs_TV[:rows], theirs.logprobs_TV[:rows]
    agree = int((left_TV.argmax(-1) == right_TV.argmax(-1)).sum())
    return float((left_TV - right_TV).abs().max()), agree, rows


def _instead(theirs: str, ours: str) -> str:
    return f"{_short(theirs)!r} instead of {_short(ours)!r}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"…{text[-79:]}"
