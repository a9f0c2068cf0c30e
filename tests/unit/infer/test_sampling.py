"""Sampling against the distribution it should follow."""

from __future__ import annotations

import torch

from tanzim.infer.request import Request
from tanzim.infer.sampling import Sampler, choose, logprobs

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
DRAWS = 4000


def frequencies(request: Request) -> torch.Tensor:
    sampler = Sampler(request)
    drawn = torch.tensor([sampler.choose(LOGITS) for _ in range(DRAWS)])
    return drawn.bincount(minlength=5) / DRAWS


def test_frequencies_follow_the_softmax() -> None:
    expected = torch.softmax(LOGITS / 1.5, 0)
    found = frequencies(Request([1], temperature=1.5, seed=1))
    # Five standard deviations of a binomial share.
    assert (found - expected).abs().max() < 5 * (0.25 / DRAWS) ** 0.5


def test_nucleus_holds_the_fewest_tokens_that_reach_top_p() -> None:
    probability = torch.softmax(LOGITS, 0)
    assert probability[:2].sum() < 0.85 < probability[:3].sum()
    expected = torch.cat([probability[:3] / probability[:3].sum(), torch.zeros(2)])
    found = frequencies(Request([1], temperature=1.0, top_p=0.85, seed=2))
    assert (found[3:] == 0).all()
    assert (found - expected).abs().max() < 5 * (0.25 / DRAWS) ** 0.5


def test_top_p_zero_is_greedy() -> None:
    assert frequencies(Request([1], temperature=1.0, top_p=0.0, seed=2))[0] == 1


def test_wide_nucleus_is_found_beyond_the_first_tokens() -> None:
    flat = torch.zeros(5000)
    sampler = Sampler(Request([1], temperature=1.0, top_p=0.9, seed=5))
    drawn = {sampler.choose(flat) for _ in range(2000)}
    assert len(drawn) > 1400  # 4500 tokens of equal weight; 1024 would be too few


def test_cold_sampling_is_greedy_and_finite() -> None:
    sampler = Sampler(Request([1], temperature=1e-6, seed=5))
    assert {sampler.choose(LOGITS * 100) for _ in range(20)} == {0}


def test_seed_decides_whatever_the_row() -> None:
    logits = torch.stack([LOGITS, LOGITS.flip(0), LOGITS])
    ask = Request([1], temperature=1.0, seed=9)
    alone = [Sampler(ask)]
    mixed = [Sampler(Request([1])), Sampler(Request([1], temperature=2.0, seed=1)), Sampler(ask)]
    for _ in range(20):
        assert choose(logits[2:], alone)[0] == choose(logits, mixed)[2]


def test_logprobs_are_of_the_model_not_of_the_temperature() -> None:
    expected = torch.log_softmax(LOGITS, 0)
    samplers = [Sampler(Request([1], temperature=5.0, logprobs=2, seed=1)), Sampler(Request([1]))]
    found = logprobs(LOGITS.expand(2, -1), [3, 0], samplers)
    assert found[1] is None
    first = found[0]
    assert first is not None
    assert abs(first.logprob - float(expected[3])) < 1e-6
    assert [token for token, _ in first.top] == [0, 1]
    assert torch.allclose(torch.tensor([value for _, value in first.top]), expected[:2])
