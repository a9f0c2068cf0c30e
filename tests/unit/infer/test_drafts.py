"""Where a draft comes from, and how much of it pays: both beside a search through everything."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tanzim.infer.drafts import LENGTHS, LONGEST, MISS, MOST, NOTHING, Drafter
from tanzim.infer.lean import filled
from tanzim.infer.speculation import ROWS, Budget, Cost


def searched(ids: list[int], most: int) -> tuple[list[int], float]:
    """Return what follows the latest place that agrees, and the chance of its first token."""
    for length in LENGTHS:
        for place in range(len(ids) - 1, length - 1, -1):
            if ids[place - length : place] == ids[len(ids) - length :]:
                agreeing = max(
                    n for n in range(1, LONGEST + 1) if n <= place and ids[place - n : place] == ids[-n:]
                )
                found = list(ids)
                for offset in range(most):
                    found.append(found[place + offset])
                return found[len(ids) :], 1 - MISS**agreeing
    return [], 0.0


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 20), st.integers(1, 12))
def test_drafts_are_what_followed_the_latest_place_alike(ids: list[int], grown: int, most: int) -> None:
    known = ids[: max(0, len(ids) - grown)]
    drafter = Drafter(known)
    for token in [*ids[len(known) :], None]:  # the sequence grows under it
        draft = drafter.draft(most)
        tokens, chance = searched(known, min(most, MOST))
        assert draft.tokens == tokens
        assert draft.chances == pytest.approx([chance ** (n + 1) for n in range(len(tokens))])
        above = drafter.draft(most, 0.5).chances
        assert above == [value for value in draft.chances if value > 0.5]
        if token is not None:
            known.append(token)


def test_a_record_of_wrong_guesses_ends_them_for_a_time() -> None:
    drafter = Drafter([1, 2, 3, 4, 5] * 4)
    least, tries = 0.5, []
    for _ in range(200):
        draft = drafter.draft(8, least)
        tries.append(len(draft.tokens))
        drafter.learn(draft, 0)
    assert tries[0] > 1
    assert 0 in tries[:8]
    later = [number for number, count in enumerate(tries) if count and number > 20]
    assert 1 <= len(later) <= 20  # tried again, and seldom
    assert all(tries[number] <= 2 for number in later)
    for _ in range(12):
        drafter.learn(drafter.draft(8), 8)
    assert drafter.draft(8, least) == drafter.draft(8)  # right guesses bring them back
    assert drafter.draft(0) is NOTHING


chances = st.lists(st.floats(0.05, 0.99), max_size=3).map(
    lambda rates: [rate * 0.9**place for place, rate in enumerate(sorted(rates, reverse=True))]
)


@given(
    st.lists(chances, min_size=1, max_size=4),
    st.floats(0, 30),
    st.floats(0.1, 5),
    st.integers(0, 100),
)
def test_no_other_share_brings_more_tokens_per_second(
    drafts: list[list[float]], fixed: float, price: float, others: int
) -> None:
    budget = Budget(Cost(fixed, price, 0.0), [price] * len(drafts), others)

    def rate(counts: tuple[int, ...]) -> float:
        tokens = len(drafts) + sum(sum(own[:n]) for own, n in zip(drafts, counts, strict=True))
        return tokens / (fixed + price * filled(len(drafts) + sum(counts) + others))

    best = max(rate(counts) for counts in product(*(range(len(own) + 1) for own in drafts)))
    none = rate((0,) * len(drafts))
    if best > 1.101 * none:
        assert rate(tuple(budget.share_out(drafts))) == pytest.approx(best)
    elif best < 1.099 * none:
        assert not any(budget.share_out(drafts))


def test_a_token_that_costs_more_must_be_surer() -> None:
    cost = Cost(1.0, 0.0, 0.1)
    prices = [cost.of(1, adapted=False), cost.of(5, adapted=False)]
    assert Budget(cost, prices, 0).share_out([[0.3] * 2, [0.3] * 2]) == [2, 0]
    assert Budget(cost, prices, 0).share_out([[0.3] * 2, [1.0] * 2]) == [2, 2]
    assert Budget(cost, prices, 0).least(0) < Budget(cost, prices, 0).least(1) < 1.0


def test_a_pass_has_a_bound() -> None:
    cost = Cost(1.0, 0.0, 0.0)
    for rows in (1, 20, 60, ROWS + 5):
        counts = Budget(cost, [0.0] * rows, 0).share_out([[0.9] * MOST] * rows)
        assert sum(counts) == min(rows * MOST, max(0, ROWS - rows))
    assert Cost(1.0, 2.0, 0.5).of(10, adapted=False) == 7.0
    assert Cost(1.0, 2.0, 0.5).of(10, adapted=True) == 8.0
