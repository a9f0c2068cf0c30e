"""Raw text divided into blocks, against the one sentence that defines it: every token is a target once."""

import pytest

from tanzim.core.records import Provenance, Rendered, Segment
from tanzim.models.fit import blocks, is_text


def text(length: int, bos: bool) -> Rendered:
    border = int(bos)
    segments = (*((Segment(0, 1, "text", False),) if bos else ()), Segment(border, length, "text", True))
    weights = (0.0, *(1.0,) * (length - 1))
    return Rendered(tuple(range(length)), weights, segments, Provenance("a.txt", 1))


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("length", "limit"), [(9, 10), (10, 10), (11, 10), (19, 10), (20, 10), (57, 8)])
def test_every_token_but_the_first_is_predicted_once_from_the_one_before(length, limit, bos):
    whole = text(length, bos)
    made = blocks(whole, limit)
    predicted = []
    for block in made:
        assert 1 < len(block.ids) <= limit
        assert block.weights[0] == 0
        assert block.segments[0].start == 0
        assert block.segments[-1].end == len(block.ids)
        pairs = zip(block.ids, block.ids[1:], block.weights[1:], strict=False)
        predicted += [(before, after) for before, after, weight in pairs if weight]
    assert predicted == [(token, token + 1) for token in range(length - 1)]
    assert all(len(block.ids) == limit for block in made[:-1])


def test_only_raw_text_can_be_divided():
    one = text(5, bos=False)
    assert is_text(one)
    turns = Rendered(one.ids, one.weights, (Segment(0, 5, "assistant", True),), one.provenance)
    assert not is_text(turns)
    assert not is_text(Rendered(one.ids, one.weights, one.segments, one.provenance, ((1,),)))
