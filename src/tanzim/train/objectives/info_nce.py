"""The loss of embeddings: each text is to be nearer to its match than to all others.

For anchors aᵢ, matches pᵢ and further texts that match nobody (hard negatives), with similarity s and
temperature τ,

  lossᵢ = −log [exp(s(aᵢ, pᵢ)/τ) / Σⱼ exp(s(aᵢ, cⱼ)/τ)],   c over all matches and hard negatives

(InfoNCE, van den Oord et al. 2018, arXiv:1807.03748; with the matches of others as negatives, Henderson et
al. 2017, arXiv:1705.00652). A match of another anchor that is the same text, or whose anchor is the same
text, is no negative and is left out of the sum.

Legend: N pairs, R of them looked at, C candidates (the N matches first, then hard negatives), E numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Text = tuple[int, ...]


def info_nce(
    anchor_RE: Tensor, candidate_CE: Tensor, rows_R: Tensor, other_RC: Tensor, *, temperature: float
) -> Tensor:
    """Return the loss of each anchor [R].

    Args:
        anchor_RE: embeddings of the anchors, of unit length for the cosine.
        candidate_CE: embeddings of the matches, in the order of the pairs, and of hard negatives.
        rows_R: the number of each anchor's pair, which is its match's place.
        other_RC: True where a candidate is a negative of an anchor (`negatives`).
        temperature: τ.

    """
    logits_RC = anchor_RE @ candidate_CE.T / temperature
    own_RC = functional.one_hot(rows_R, candidate_CE.shape[0]).bool()
    logits_RC = logits_RC.masked_fill(~(other_RC | own_RC), -torch.inf)
    wide = torch.promote_types(logits_RC.dtype, torch.float32)
    return functional.cross_entropy(logits_RC.to(wide), rows_R, reduction="none")


def negatives(
    anchors: Sequence[Text], matches: Sequence[Text], hard: Sequence[Text], rows: Sequence[int]
) -> Tensor:
    """Tell which candidates are negatives of the anchors ``rows``, bool [R, N + hard negatives].

    Args:
        anchors: the N anchors, as tokens.
        matches: their matches.
        hard: further texts.
        rows: numbers of the anchors to tell for.

    """
    known: dict[Text, set[Text]] = {}
    for anchor, match in zip(anchors, matches, strict=True):
        known.setdefault(anchor, set()).add(match)
    candidates = [*matches, *hard]
    names = {text: number for number, text in enumerate(dict.fromkeys(candidates))}
    name_C = torch.tensor([names[text] for text in candidates])
    result = torch.ones(len(rows), len(candidates), dtype=torch.bool)
    for place, row in enumerate(rows):
        for match in known[anchors[row]]:
            result[place] &= name_C != names[match]
    return result


def pool(hidden_BTE: Tensor, seen_BT: Tensor, way: str) -> Tensor:
    """Return one vector per text [B, E] from the hidden states of its tokens.

    Args:
        hidden_BTE: final hidden states.
        seen_BT: 1 where there is a token, 0 for the filling at the end.
        way: mean of all tokens, the last token's (causal models), or the first's (cls).

    """
    if way == "cls":
        return hidden_BTE[:, 0]
    if way == "last":
        last_B = seen_BT.sum(1) - 1
        return hidden_BTE[torch.arange(len(last_B), device=last_B.device), last_B]
    share_BT1 = seen_BT[:, :, None].to(hidden_BTE.dtype)
    return (hidden_BTE * share_BT1).sum(1) / share_BT1.sum(1)
