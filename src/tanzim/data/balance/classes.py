"""The class of each example, written shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json
from tanzim.core.records import Example
from tanzim.data.step import Survey

Codes = npt.NDArray[np.int64]
NONE = -1  # the code of an example without a class


def class_of(example: Example, by: str = "label") -> str | None:
    """Return the class of an example; None if it has none (a conversation, words with a tag each).

    Args:
        example: of any kind.
        by: "label", or "about." and a key of what is known about it.

    """
    if by == "label":
        return example.label if example.kind == "labelled" else None
    value = example.about.get(by.removeprefix("about."))
    return str(value) if isinstance(value, str | int | float | bool) else None


def survey_classes(examples: Iterable[Example], by: str, path: Path) -> None:
    """Write the class of each example of a shard."""
    names: dict[str, int] = {}
    codes = [
        NONE if (name := class_of(example, by)) is None else names.setdefault(name, len(names))
        for example in examples
    ]
    write_json(path, {"names": list(names), "codes": codes})


def read_classes(surveys: Sequence[Survey]) -> tuple[Codes, list[str]]:
    """Read the classes of all examples.

    Returns:
        The number of each example's class, or `NONE`, [N]; and the names of the classes, sorted.

    """
    names: dict[str, int] = {}
    parts = [np.empty(0, np.int64)]
    for survey in surveys:
        value = read_json(survey.path)
        known = np.array([names.setdefault(name, len(names)) for name in value["names"]] + [NONE], np.int64)
        parts.append(known[np.array(value["codes"], np.int64)])
    return sort_names(np.concatenate(parts), list(names))


def sort_names(codes: Codes, names: Sequence[str]) -> tuple[Codes, list[str]]:
    """Number classes in the order of their names, so that nothing hangs on which example came first."""
    order = sorted(range(len(names)), key=lambda code: names[code])
    place = np.empty(len(names) + 1, np.int64)
    place[order] = np.arange(len(names))
    place[-1] = NONE
    return place[codes], [names[code] for code in order]


def count_classes(codes: Codes, names: Sequence[str], step: str) -> Codes:
    """Count the examples of each class, [C].

    Raises:
        DataError: there are no two classes to even out.

    """
    if len(names) < 2:
        found = f"only the class '{names[0]}'" if names else "no example with a class"
        raise DataError(
            f"there is {found} among the {len(codes):,} training examples",
            where=f"data.steps: {step}",
            fix="leave the step out, or say what classes are (by: label, or by: about.language)",
        )
    return np.bincount(codes[codes != NONE], minlength=len(names))
