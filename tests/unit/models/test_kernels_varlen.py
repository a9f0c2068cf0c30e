"""What is asked of torch's variable-length kernel, CUDA's own, held against a plain form of its contract."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen

from tanzim.models.kernels.attention import _packed, _varlen

LENGTHS = (5, 1, 9, 3)


def contract(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """Compute what torch documents of ``varlen_attn``, by scores and a softmax of every document.

    A token looks at ``window_size[0]`` tokens before itself and ``window_size[1]`` after; −1 is no limit.
    """
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert max_q == max_k == int(cu_seq_q.diff().max())
    assert enable_gqa == (query.shape[1] != key.shape[1])
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, dim=1), value.repeat_interleave(repeat, dim=1)
    mixed = torch.empty_like(query)
    for start, end in pairwise(cu_seq_q.tolist()):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        score = q @ k.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        ahead = torch.arange(end - start)[None, :] - torch.arange(end - start)[:, None]
        before, after = window_size
        hidden = torch.zeros_like(ahead, dtype=torch.bool)
        if before >= 0:
            hidden |= ahead < -before
        if after >= 0:
            hidden |= ahead > after
        mixed[start:end] = (score.masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(0, 1)
    return mixed


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)], ids=["heads", "groups"])
@pytest.mark.parametrize(
    ("causal", "window", "scaling"), [(True, None, None), (True, 3, 0.2), (False, None, None)]
)
def test_it_is_asked_for_what_the_cpu_computes(
    causal: bool,
    window: int | None,
    scaling: float | None,
    heads: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", contract)
    draw = torch.Generator().manual_seed(0)
    total, size = sum(LENGTHS), 8
    query, key, value = (
        torch.randn(1, count, total, size, generator=draw, dtype=torch.float64)
        for count in (heads[0], heads[1], heads[1])
    )
    borders = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
    asked = _varlen(query, key, value, borders, max(LENGTHS), causal, window, scaling)
    packed: dict[str, Any] = {"cu_seq_lens_q": borders, "sliding_window": window}
    own = _packed(query, key, value, causal, 0.0, scaling, packed)
    torch.testing.assert_close(asked, own)
