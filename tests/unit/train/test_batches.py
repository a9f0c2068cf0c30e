from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.records import Provenance
from tanzim.train import batches
from tanzim.train.batches import Sampler, collate, filled, pack
from tanzim.train.tokens import Document

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=120).map(np.array)


@examples(60)
@given(LENGTHS, st.integers(1, 64), st.integers(0, 3), st.integers(1, 40))
def test_no_document_is_lost_or_duplicated(
    lengths: np.ndarray, tokens_per_step: int, epoch: int, window: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "WINDOW", window)
        sampler = Sampler(lengths, seed=1, tokens_per_step=tokens_per_step, packing=True)
        steps = sampler.steps(epoch)
    assert Counter(d for step in steps for d in step) == Counter(range(len(lengths)))
    for step in steps:
        assert lengths[step].sum() <= tokens_per_step or len(step) == 1


@examples(60)
@given(LENGTHS, st.integers(1, 64), st.booleans())
def test_passes_hold_all_documents_of_a_step(lengths: np.ndarray, size: int, packing: bool) -> None:
    sampler = Sampler(lengths, seed=1, tokens_per_step=10**6, packing=packing)
    passes = sampler.passes(lengths, size)
    assert sorted(d for part in passes for d in part) == list(range(len(lengths)))
    for part in passes:
        assert len(part) == 1 or (packing and lengths[part].sum() <= size)


@examples(60)
@given(LENGTHS, st.integers(20, 64))
def test_packing_is_within_the_bound_of_best_fit_decreasing(lengths: np.ndarray, capacity: int) -> None:
    # BFD uses at most 11/9 of the best possible + 4 bins (Johnson 1974); the best is at least Σ/capacity.
    lengths = np.minimum(lengths, capacity)
    ours = len(pack(lengths, range(len(lengths)), capacity))
    least = max(-(-int(lengths.sum()) // capacity), int((lengths > capacity / 2).sum()))
    assert ours <= 11 / 9 * least + 4


def test_order_is_fixed_by_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(5, 400, 3000)

    def order(seed: int, epoch: int, size: int = 2048) -> list[list[int]]:
        return Sampler(lengths, seed=seed, tokens_per_step=size, packing=True).steps(epoch)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)
    sampler = Sampler(lengths, seed=1, tokens_per_step=2048, packing=True)
    assert (sampler.steps(1), sampler.steps(0)) == (order(1, 1), order(1, 0))


def test_order_stays_random_and_steps_well_filled() -> None:
    lengths = np.random.default_rng(0).lognormal(4.5, 0.6, 20_000).astype(int).clip(5, 1000)
    sampler = Sampler(lengths, seed=1, tokens_per_step=2048, packing=True)
    steps = sampler.steps(0)
    assert sampler.fill(2048)["step_fill"] > 0.98
    first_half = np.concatenate(steps[: len(steps) // 2])
    # Row numbers and lengths of the first half are those of any half.
    assert abs(first_half.mean() / len(lengths) - 0.5) < 0.02
    assert abs(lengths[first_half].mean() / lengths.mean() - 1) < 0.05
    means = np.array([lengths[step].mean() for step in steps])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_smaller_passes_leave_the_steps_alone() -> None:
    lengths = np.random.default_rng(0).integers(5, 400, 500)
    sampler = Sampler(lengths, seed=1, tokens_per_step=4096, packing=True)
    steps = sampler.steps(0)
    for size in (4096, 1024, 64):
        for step in steps:
            parts = sampler.passes(lengths[step], size)
            assert sorted(d for part in parts for d in part) == list(range(len(step)))


@pytest.mark.parametrize(("epochs", "max_steps"), [(1.0, None), (2.5, None), (0.3, None), (3.0, 4)])
def test_total_steps_count_what_the_epochs_hold(epochs: float, max_steps: int | None) -> None:
    lengths = np.random.default_rng(0).integers(5, 400, 300)
    sampler = Sampler(lengths, seed=1, tokens_per_step=1024, packing=True)
    counts = [len(sampler.steps(epoch)) for epoch in range(3)]
    expected = sum(counts[: int(epochs)]) + int(np.ceil(epochs % 1 * counts[int(epochs) % 3]))
    assert sampler.total_steps(epochs, max_steps) == min(expected, max_steps or expected)


def test_fill_reports_what_a_count_gives() -> None:
    sampler = Sampler(np.array([60, 40, 100, 50]), seed=1, tokens_per_step=100, packing=True)
    report = sampler.fill(100)
    assert report == {
        "documents": 4,
        "tokens": 250,
        "steps": 3,
        "passes": 3,
        "step_fill": 250 / 300,
        "pass_fill": 250 / 300,
    }


def test_targets_shift_within_documents() -> None:
    batch = collate(
        [
            Document(np.array([5, 6, 7], np.int32), np.array([9, 0, 1], np.float32), Provenance("a", 1)),
            Document(np.array([8, 9], np.int32), np.array([9, 0.5], np.float32), Provenance("a", 2)),
        ]
    )
    assert batch.input_ids_1T.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.position_ids_1T.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.cu_seq_lens.tolist() == [0, 3, 5]
    assert batch.cu_seq_lens.dtype == torch.int32
    # The last token of a document predicts nothing: neither its weight nor the next one's counts.
    assert batch.weights_T.tolist() == [0, 1, 0, 0.5, 0]
    trained = batch.weights_T != 0
    assert batch.targets_T[trained].tolist() == [7, 9]
    assert (batch.tokens, batch.max_length, len(batch.documents)) == (5, 3, 2)


def rows_of(length: int) -> Document:
    return Document(np.arange(length, dtype=np.int32), np.ones(length, np.float32), Provenance("a", length))


def test_a_row_is_filled_without_touching_its_documents() -> None:
    batch = collate([rows_of(5), rows_of(6)])
    longer = filled(batch, 16)
    assert longer.tokens == 16
    assert longer.cu_seq_lens.tolist() == [0, 5, 11, 16]
    assert longer.position_ids_1T[0].tolist() == [*range(5), *range(6), *range(5)]
    assert float(longer.weights_T[11:].sum()) == 0
    assert torch.equal(longer.input_ids_1T[:, :11], batch.input_ids_1T)
    assert filled(longer, 16) is longer
