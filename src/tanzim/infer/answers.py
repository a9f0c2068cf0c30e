"""Scoring given answers: the log-probability of each candidate, with the prompt computed once.

Legend: B rows, T new tokens, A answer tokens, L columns, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence as Rows

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from tanzim.core.errors import ConfigError
from tanzim.core.records import Progress
from tanzim.infer.cache import KVCache
from tanzim.infer.forward import Forward, common_prefix, left_padded
from tanzim.infer.request import AnswerScore
from tanzim.infer.weights import Weights

LOGIT_ROWS = 512  # most positions whose logits are held at once
Item = tuple[list[int], list[list[int]]]


@torch.inference_mode()
def score_answers(
    forward: Forward,
    weights: Weights,
    items: Rows[Item],
    adapter: str | None,
    *,
    max_batch: int,
    progress: Progress,
) -> list[list[AnswerScore]]:
    """Return how likely each candidate answer is after its prompt (see `Engine.score_answers`)."""
    if any(not prompt or not all(answers) for prompt, answers in items):
        raise ConfigError("a prompt or a candidate answer is empty", fix="give each at least one token")
    scores: list[list[AnswerScore]] = [[] for _ in items]
    order = sorted(range(len(items)), key=lambda index: -len(items[index][0]))
    learnt = weights.start(adapter)
    # Where a window counts columns, no padding may stand between what was learnt and the text.
    single = forward.single_row or (forward.contiguous and learnt is not None)
    size = 1 if single else max_batch
    with weights.using(adapter):
        prefix, known = _prefix(forward, [prompt for prompt, _ in items], learnt)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            found = _score_batch(forward, [items[index] for index in batch], prefix, known, size)
            for index, score in zip(batch, found, strict=True):
                scores[index] = score
            progress(start + len(batch), len(order), "items")
    return scores


def _prefix(forward: Forward, prompts: list[list[int]], learnt: KVCache | None) -> tuple[KVCache | None, int]:
    """Compute the beginning that all prompts share, after what the adapter learnt; and its tokens."""
    length = common_prefix(prompts) if len(prompts) > 1 and not forward.contiguous else 0
    if length == 0:
        return learnt, 0
    ids_1T = torch.tensor([prompts[0][:length]], device=forward.device)
    cache = learnt.repeat(1) if learnt is not None else KVCache()
    forward(ids_1T, torch.arange(length, device=forward.device)[None] + cache.get_seq_length(), None, cache)
    return cache, length


def _score_batch(
    forward: Forward, items: list[Item], prefix: KVCache | None, known: int, size: int
) -> list[list[AnswerScore]]:
    """Score the candidates of a few prompts, the first ``known`` tokens of which are in ``prefix``."""
    shared = 0 if prefix is None else prefix.get_seq_length()
    cache = forward.new_cache() if prefix is None else prefix.repeat(len(items))
    ids_BT, new_BT = left_padded([prompt[known:] for prompt, _ in items], forward.device)
    positions_BT = (new_BT.cumsum(1) - 1).clamp_min(0) + shared
    mask_BL = torch.cat([new_BT.new_ones(len(items), shared), new_BT], dim=1)
    first_BV = forward(ids_BT, positions_BT, mask_BL, cache)[:, -1].float().log_softmax(-1)
    ends_B = positions_BT[:, -1] + 1

    candidates = [(row, answer) for row, (_, answers) in enumerate(items) for answer in answers]
    found = {key: [float(first_BV[row, answer[0]])] for key, (row, answer) in enumerate(candidates)}
    longer = sorted(
        (key for key in found if len(candidates[key][1]) > 1), key=lambda key: -len(candidates[key][1])
    )
    while longer:
        width = max(1, min(size, LOGIT_ROWS // len(candidates[longer[0]][1])))
        keys, longer = longer[:width], longer[width:]
        rows = torch.tensor([candidates[key][0] for key in keys], device=forward.device)
        answers = [candidates[key][1] for key in keys]
        rest = _score_rest(forward, cache, mask_BL, ends_B, rows, answers)
        for key, values in zip(keys, rest, strict=True):
            found[key] += values
    result: list[list[AnswerScore]] = [[] for _ in items]
    for key, (row, _) in enumerate(candidates):
        result[row].append(AnswerScore(tuple(found[key])))
    return result


def _score_rest(
    forward: Forward, cache: Cache, mask_BL: Tensor, ends_B: Tensor, rows: Tensor, answers: list[list[int]]
) -> list[list[float]]:
    """Return the log-probabilities of all answer tokens but the first, over copies of the prompts' cache."""
    copies = cache.select(rows) if isinstance(cache, KVCache) else copy.deepcopy(cache)
    longest = max(map(len, answers)) - 1
    # Padding stands at the end, where causal attention hides it from every real token.
    ids_BA = torch.tensor(
        [answer[:-1] + [0] * (longest - len(answer) + 1) for answer in answers], device=forward.device
    )
    positions_BA = ends_B[rows, None] + torch.arange(longest, device=forward.device)
    mask_BL = torch.cat([mask_BL[rows], mask_BL.new_ones(len(answers), longest)], dim=1)
    logprob_BAV = forward(ids_BA, positions_BA, mask_BL, copies, keep=longest).float().log_softmax(-1)
    return [
        logprob_AV[range(len(answer) - 1), answer[1:]].tolist()
        for logprob_AV, answer in zip(logprob_BAV, answers, strict=True)
    ]
