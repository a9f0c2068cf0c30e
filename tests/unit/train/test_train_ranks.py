"""How documents are shared among ranks, and what a way of sharing refuses; the collectives are in parity/."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tanzim.core.errors import TrainError
from tanzim.train.distributed import Replicated
from tanzim.train.objectives.contrastive import Contrastive
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.ranks import Ranks, divide
from tanzim.train.sharded import ENTRYWISE, Sharded
from tanzim.train.training import refuse_joint

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(lengths=LENGTHS, world=st.integers(1, 6))
def test_every_document_goes_to_one_rank_and_the_load_is_even(lengths: list[int], world: int) -> None:
    shares = divide(np.array(lengths), world)
    assert len(shares) == world
    assert sorted(document for share in shares for document in share) == list(range(len(lengths)))
    loads = [sum(lengths[document] for document in share) for share in shares]
    # Graham 1969: the greedy rule is never farther apart than one document.
    assert max(loads) - min(loads) <= max(lengths)


def test_one_rank_has_all_documents_in_their_order() -> None:
    assert Ranks().shares(np.array([3, 9, 1])) == [[0, 1, 2]]


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "lomo", "mezo"])
def test_parts_are_not_given_to_optimisers_of_whole_tensors(optimizer: str) -> None:
    ranks = Sharded.__new__(Sharded)
    with pytest.raises(TrainError, match=optimizer):
        ranks.check(optimizer, averaged=False)
    for kind in ENTRYWISE:
        ranks.check(kind, averaged=False)
    with pytest.raises(TrainError, match="average of weights"):
        ranks.check("adamw", averaged=True)


def test_lomo_cannot_be_shared() -> None:
    with pytest.raises(TrainError, match="lomo") as caught:
        Replicated.__new__(Replicated).check("lomo", averaged=False)
    assert "mini_batch" in str(caught.value.fix)
    Ranks().check("lomo", averaged=True)


class Two(Ranks):
    world = 2


def test_pairs_that_are_one_anothers_negatives_are_not_divided() -> None:
    contrastive = Contrastive.__new__(Contrastive)
    with pytest.raises(TrainError, match="learnt from together"):
        refuse_joint(contrastive, Two())
    refuse_joint(contrastive, Ranks())
    refuse_joint(LanguageModel.__new__(LanguageModel), Two())
