"""The demo's data: held-out phrases are held out, tickets are true, Persian is Persian."""

import json
import random
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tanzim.core.config import load
from tanzim.pipeline.config import Config

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "support_tickets"
MODULES = ["generate", "baseline", "phrases_en", "phrases_fa"]


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield {name: __import__(name) for name in MODULES}
    finally:
        sys.path.remove(str(EXAMPLE))
        for name in MODULES:
            sys.modules.pop(name, None)


def phrases(modules: dict[str, ModuleType], split: str) -> set[str]:
    found = set()
    for name in ("phrases_en", "phrases_fa"):
        module = modules[name]
        extras = [
            module.ORDERS,
            module.NUMBERS,
            module.SECONDS,
            module.BACKGROUND,
            module.URGENT,
            module.CALM,
        ]
        for group in [*module.PROBLEMS.values(), *extras]:
            found |= {" ".join(re.findall(r"\w+", phrase.casefold())) for phrase in group[split]}
    return found


def conversations(modules: dict[str, ModuleType], split: str, rows: int | None = None) -> list[list[dict]]:
    generate = modules["generate"]
    return [row["messages"] for row in generate.generate(split, rows or generate.ROWS[split], 13)]


def test_no_phrase_stands_in_two_splits(modules):
    train, validation, test = (phrases(modules, split) for split in ("train", "validation", "test"))
    assert len(train) > 180
    assert len(test) > 80
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_no_test_message_nearly_repeats_a_training_message(modules):
    """Jaccard similarity of character 5-grams, by scikit-learn, against the demo's leak threshold."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    rows = {
        split: [" ".join(turn["content"] for turn in turns) for turns in conversations(modules, split)]
        for split in ("train", "validation", "test")
    }
    grams = text.CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True)
    grams.fit(rows["train"] + rows["validation"] + rows["test"])
    sets = {split: grams.transform(texts) for split, texts in rows.items()}
    threshold = load(Config, EXAMPLE / "tanzim.yaml").data.split.near_duplicate
    for left, right in (("train", "test"), ("train", "validation"), ("validation", "test")):
        shared = (sets[left] @ sets[right].T).toarray()
        either = sets[left].sum(axis=1) + sets[right].sum(axis=1).T - shared
        assert float((shared / either).max()) < threshold


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name, seed in (("a", 13), ("b", 13), ("c", 14)):
        command = [sys.executable, str(EXAMPLE / "generate.py"), "--out", str(tmp_path / name)]
        subprocess.run([*command, "--seed", str(seed)], check=True, capture_output=True)
    for split in ("train", "validation", "test"):
        a, b, c = ((tmp_path / name / f"{split}.jsonl").read_bytes() for name in "abc")
        assert a == b
        assert a != c


def test_tickets_say_what_the_message_says(modules):
    english, persian = modules["phrases_en"], modules["phrases_fa"]
    for system, user, assistant in conversations(modules, "test") + conversations(modules, "train", 400):
        ticket = json.loads(assistant["content"])
        assert [turn["role"] for turn in (system, user, assistant)] == ["system", "user", "assistant"]
        assert list(ticket) == ["intent", "item", "order", "urgency"]
        assert ticket["intent"] in english.PROBLEMS
        assert ticket["item"] is None or ticket["item"] in english.ITEMS
        assert ticket["urgency"] in ("normal", "high")
        digits = "".join(str(unicodedata.digit(c)) if c.isdigit() else " " for c in user["content"])
        assert ticket["order"] is None or ticket["order"] in digits.split()
        assert ticket["order"] is None or ticket["order"] in user["content"]
        if ticket["item"]:
            names = english.ITEMS | {
                k: v + english.TEST_ITEMS.get(k, []) + persian.ITEMS[k] for k, v in english.ITEMS.items()
            }
            assert has_name(user["content"], names[ticket["item"]])


def has_name(message: str, names: list[str]) -> bool:
    """Whether a product is named, give or take a slip: as many of its letters in some stretch."""

    def letters(text: str) -> str:
        return re.sub(r"[\W_]", "", text.casefold().replace("ي", "ی").replace("ك", "ک"))

    def anagram(text: str, name: str) -> bool:
        wanted = sorted(name)
        return any(sorted(text[i : i + len(name)]) == wanted for i in range(len(text) - len(name) + 1))

    return any(anagram(letters(message), letters(name)) for name in names)


def test_the_splits_cover_every_value_in_both_languages(modules):
    for split, persian_share in (("train", 0.6), ("test", 0.5)):
        rows = conversations(modules, split, 600)
        persian = [turns for turns in rows if re.search(r"[آ-ی]", turns[1]["content"])]
        assert len(persian) == persian_share * len(rows)
        for spoken in (persian, [turns for turns in rows if turns not in persian]):
            tickets = [json.loads(assistant["content"]) for _, _, assistant in spoken]
            assert {t["intent"] for t in tickets} == {"refund", "delivery", "defect", "account"}
            assert len({t["item"] for t in tickets}) == 6
            assert len({t["urgency"] for t in tickets}) == 2
            assert 0.5 < sum(t["order"] is None for t in tickets) / len(tickets) < 0.7


def test_persian_has_half_spaces_persian_digits_and_slips(modules):
    messages = [user["content"] for _, user, _ in conversations(modules, "train")]
    messages = [message for message in messages if re.search(r"[آ-ی]", message)]

    def share(pattern: str) -> float:
        return sum(bool(re.search(pattern, message)) for message in messages) / len(messages)

    assert share("\u200c") > 0.3
    assert share("[۰-۹]") > 0.04
    assert 0.02 < share("[يك]") < 0.2
    # A half-space joins letters: never at the edge of a word, never doubled.
    assert share(r"\u200c(\W|$)|(^|\W)\u200c") == 0


def test_the_baseline_is_sincere_and_not_perfect(modules):
    def fields(split: str) -> float:
        hits = []
        for _, user, assistant in conversations(modules, split):
            answer, ticket = (
                json.loads(t) for t in (modules["baseline"].answer(user["content"]), assistant["content"])
            )
            hits += [answer[key] == ticket[key] for key in ticket]
        return sum(hits) / len(hits)

    assert fields("train") > 0.9
    assert 0.65 < fields("test") < 0.85


def test_the_baseline_answers_each_row_in_order(modules, tmp_path):
    rows = modules["generate"].generate("test", 20, 13)
    data, out = tmp_path / "test.jsonl", tmp_path / "answers.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, str(EXAMPLE / "baseline.py"), "--data", str(data), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == list(range(1, 21))
    assert [line["answer"] for line in lines] == [
        modules["baseline"].answer(row["messages"][1]["content"]) for row in rows
    ]


def test_slips_change_letters_only_inside_words(modules):
    rng = random.Random(0)
    text = "The keyboard stopped working, order 4821."
    for _ in range(200):
        slip = modules["generate"]._slip_english(text, rng)
        assert sorted(slip.lower()) == sorted(text.lower())
        assert "4821" in slip


def test_the_shipped_config_is_valid_and_names_what_the_scripts_write():
    config = load(Config, EXAMPLE / "tanzim.yaml")
    folder = EXAMPLE.relative_to(ROOT) / "data"
    assert config.name == "demo"
    assert config.data.path == str(folder / "train.jsonl")
    assert config.data.validation_path == str(folder / "validation.jsonl")
    assert config.data.test_path == str(folder / "test.jsonl")
    assert list(config.evaluate.others.values()) == [str(folder / "baseline.jsonl")]
