"""What small models make of labelled data: the mark that a fine-tuned model has to beat."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.core.records import Json
from tanzim.core.seeds import derive
from tanzim.data.balance.baseline import baselines, measured
from tanzim.data.store import ExampleStore

MOST = 20_000  # examples that the small models learn from: more change little


def baseline(folder: Path, *, seed: int) -> Json:
    """Train small models on the training split of prepared data, and measure them on the held-out one.

    Args:
        folder: what `tanzim.data.prepare.prepare` wrote.
        seed: of the run.

    Returns:
        The split that was measured on, how many examples were learnt from and measured, and by model
        accuracy, macro-F1, balanced accuracy, Cohen's kappa and average precision.

    Raises:
        DataError: there are no labelled examples on both sides, or one class only.
        MissingExtra: scikit-learn is not installed.

    """
    train = _labelled(folder / "train.arrow", seed)
    split = "test"
    held = _labelled(folder / "test.arrow", seed)
    if not held:
        split = "validation"
        held = _labelled(folder / "validation.arrow", seed)
    if not train or not held:
        raise DataError(
            f"{len(train)} labelled examples to learn from and {len(held)} held-out ones are no baseline",
            where="data.baseline",
            fix="leave data.baseline out, or give labelled data with a test split",
        )
    texts, labels = zip(*train, strict=True)
    asked, right = zip(*held, strict=True)
    guesses = baselines(texts, labels, asked, seed=derive(seed, "data", "baseline"))
    models = measured(guesses, right)
    return {"split": split, "learnt_from": len(train), "measured_on": len(held), "models": models}


def _labelled(path: Path, seed: int) -> list[tuple[str, str]]:
    """Read the labelled examples of a split, a seeded sample of very many."""
    store = ExampleStore(path)
    rows: Sequence[int] = range(len(store))
    if len(rows) > MOST:
        rows = sorted(random.Random(derive(seed, "data", "baseline", "sample")).sample(rows, MOST))
    return [(one.text, one.label) for one in (store[row] for row in rows) if one.kind == "labelled"]
