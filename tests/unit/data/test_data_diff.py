"""The difference of two datasets, against one worked out by hand with multisets."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.files import write_json
from tanzim.core.records import Example, Provenance
from tanzim.data.config import DataConfig
from tanzim.data.describe.diff import SPLITS, data_diff
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.store import write_examples


def _folder(path: Path, splits: dict[str, list[str]]) -> Path:
    row = 0
    for split in SPLITS:
        examples = []
        for text in splits.get(split, []):
            row += 1
            examples.append(Example("text", Provenance("a.txt", row), text=text))
        write_examples(path / f"{split}.arrow", examples)
    counts = {split: len(splits.get(split, [])) for split in SPLITS}
    report = DataReport("text", "", {}, [], row, counts, {}, {}, {}, {}, {}, {})
    write_json(path / "report.json", report.to_json())
    return path


TEXTS = st.lists(st.sampled_from("abcdefg"), max_size=8)
SIDES = st.fixed_dictionaries(dict.fromkeys(SPLITS, TEXTS))


@examples(60)
@given(one=SIDES, two=SIDES)
def test_counts_are_those_of_multisets(
    one: dict[str, list[str]], two: dict[str, list[str]], tmp_path: Path
) -> None:
    a, b = _folder(tmp_path / "a", one), _folder(tmp_path / "b", two)
    diff = data_diff(a, b)
    everything = [Counter(text for texts in side.values() for text in texts) for side in (one, two)]
    assert sum(diff.only_a.values()) == (everything[0] - everything[1]).total()
    assert sum(diff.only_b.values()) == (everything[1] - everything[0]).total()
    shared = (everything[0] & everything[1]).total()
    assert diff.same + sum(diff.moved.values()) == shared
    assert diff.equal == all(Counter(one[split]) == Counter(two[split]) for split in SPLITS)


def test_a_changed_step_is_named_with_what_it_changed(tmp_path: Path) -> None:
    rows = [{"text": f"متن شمارهٔ {n} " + "و باز هم " * n} for n in range(40)]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    for name, most in (("a", 500), ("b", 200)):
        steps = [{"type": "length", "max_characters": most}]
        config = DataConfig.model_validate({"path": str(tmp_path / "r.jsonl"), "steps": steps})
        prepare(config, tmp_path / name, seed=3)
    diff = data_diff(tmp_path / "a", tmp_path / "b")
    assert sum(diff.only_a.values()) == sum(200 < len(row["text"]) <= 500 for row in rows)
    assert not diff.only_b
    assert [line[0] for line in diff.steps] == ["−", "+"]
    assert "500" in diff.steps[0]
    assert diff.samples["only_a"][0]["text"].startswith("متن شمارهٔ")
