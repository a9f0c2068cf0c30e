"""From logits to tokens: greedy or sampled, each row with its own random numbers.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

import secrets

import torch
from torch import Tensor

from tanzim.infer.grammar import Matcher
from tanzim.infer.request import Request, TokenLogprob

NUCLEUS = 1024  # tokens sorted first; all of them only where these hold less than top_p


class Sampler:
    """The random choice of one request.

    Each token takes one number of the request's own generator and inverts the cumulative
    distribution, so that the text depends on the seed and not on what else is in the batch.

    Args:
        request: what was asked.
        matcher: follows the grammar that the answer must keep to.

    """

    def __init__(self, request: Request, matcher: Matcher | None = None) -> None:
        self.matcher = matcher
        self.temperature = request.temperature
        self.top_p = request.top_p
        self.logprobs = request.logprobs
        seed = secrets.randbits(63) if request.seed is None else request.seed % (1 << 63)
        self._generator = torch.Generator().manual_seed(seed)

    def choose(self, logits_V: Tensor) -> int:
        """Sample one token."""
        share = float(torch.rand((), generator=self._generator, dtype=torch.float64))
        logits_V = logits_V.float()
        prob_V = torch.softmax((logits_V - logits_V.max()) / self.temperature, dim=-1)
        if self.top_p >= 1:
            return _invert(prob_V.double().cumsum(0), share)
        for width in (NUCLEUS, prob_V.shape[0]):
            top, order = prob_V.topk(min(width, prob_V.shape[0]))
            cumulative = top.double().cumsum(0)
            if cumulative[-1] >= self.top_p:
                break
        # The token that crosses the border belongs to the nucleus (Holtzman et al., arXiv:1904.09751).
        size = max(1, int((cumulative - top < self.top_p).sum()))
        return int(order[_invert(cumulative[:size], share)])


def _invert(cumulative: Tensor, share: float) -> int:
    """Return the first index whose cumulative weight exceeds ``share`` of the whole."""
    index = int(torch.searchsorted(cumulative, share * cumulative[-1], right=True))
    return min(index, cumulative.shape[0] - 1)


def choose(logits_BV: Tensor, samplers: list[Sampler]) -> list[int]:
    """Choose the next token of every row.

    Args:
        logits_BV: the model's logits.
        samplers: one per row; a temperature of 0 takes the likeliest token.

    """
    likeliest: list[int] = logits_BV.argmax(dim=-1).tolist()
    return [draw(*row) for row in zip(logits_BV, likeliest, samplers, strict=True)]


def draw(logits_V: Tensor, likeliest: int, sampler: Sampler) -> int:
    """Choose the next token of a sequence.

    Args:
        logits_V: the model's logits.
        likeliest: where they are largest.
        sampler: the sequence's.

    """
    matcher = sampler.matcher
    if matcher is not None:
        logits_V = matcher.masked(logits_V)
    if sampler.temperature > 0:
        likeliest = sampler.choose(logits_V)
    elif matcher is not None:
        likeliest = int(logits_V.argmax())
    if matcher is not None:
        matcher.take(likeliest)
    return likeliest


def logprobs(logits_BV: Tensor, chosen: list[int], samplers: list[Sampler]) -> list[TokenLogprob | None]:
    """Return each row's log-probabilities where its request asks for them, else None.

    Args:
        logits_BV: the model's logits.
        chosen: the token chosen in each row.
        samplers: one per row.

    """
    return [logprob(*row) for row in zip(logits_BV, chosen, samplers, strict=True)]


def logprob(logits_V: Tensor, token: int, sampler: Sampler) -> TokenLogprob | None:
    """Return a token's log-probability and the likeliest ones', if the sequence's request asks for them.

    Args:
        logits_V: the model's logits.
        token: the one chosen.
        sampler: the sequence's.

    """
    if sampler.logprobs is None:
        return None
    logprob_V = torch.log_softmax(logits_V.float(), dim=-1)
    values, ids = logprob_V.topk(min(sampler.logprobs, logprob_V.shape[0]))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token, float(logprob_V[token]), top)
