"""Repetition: runs, shares and phrases, against plain counting."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, no_progress
from tanzim.data.clean import recurring
from tanzim.data.clean.config import RepetitionConfig
from tanzim.data.clean.recurring import hashed, merge_counts, write_counts
from tanzim.data.clean.repetition import Repetition, phrases_of, repeats
from tanzim.data.step import Outcome, Removed, Survey

NOUNS = re.findall(r"\w+", "river door candle window garden letter stone bridge carpet mirror basket ladder")
VERBS = re.findall(r"\w+", "crosses opens lights paints waters carries lifts repairs covers finds follows")


def story(rng: random.Random, sentences: int = 12) -> str:
    said = (
        f"{rng.choice(NOUNS)} {rng.choice(VERBS)} a {rng.choice(NOUNS)} of {rng.randrange(9999)}."
        for _ in range(sentences)
    )
    return " ".join(said)


def talk(answer: str, row: int = 1, question: str = "Say something.") -> Example:
    turns = (Message("user", question), Message("assistant", answer))
    return Example("messages", Provenance("talks.jsonl", row), messages=turns)


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("ok " * 9, "a word that follows itself", "9 times ok"),
        ("خیلی " * 12 + "خوب بود", "a word that follows itself", "12 times خیلی"),
        ("I do not know. " * 5, "a phrase that follows itself", "5 times I do not know"),
        ("Well. " + "نمی‌دانم چه بگویم. " * 6, "a phrase that follows itself", "6 times نمی‌دانم چه بگویم"),
        ("عالی" + "ی" * 40, "a character that follows itself", "41 times ی"),
    ],
)
def test_runs_are_found_and_named(text: str, reason: str, detail: str) -> None:
    assert repeats(text, RepetitionConfig()) == (reason, detail)


@pytest.mark.parametrize(
    "text", ["ok " * 8, "I do not know. " * 4, "-" * 200, "عالی" + "ی" * 10, "", "۱۲ ۱۳ ۱۴"]
)
def test_what_is_within_bounds_stays(text: str) -> None:
    assert repeats(text, RepetitionConfig()) is None


@given(st.lists(st.sampled_from("abc"), max_size=60))
@examples(200)
def test_runs_are_those_of_a_plain_search(letters: Sequence[str]) -> None:
    config = RepetitionConfig(max_word_run=4, max_phrase_run=3, max_character_run=None, min_words=1000)
    text = " ".join(letters)
    again = re.search(r"(?:^| )(\w)(?: \1){4}(?= |$)", f"{text}")
    phrase = any(
        letters[at : at + p] * 4 == letters[at : at + 4 * p]
        for p in range(2, 21)
        for at in range(len(letters) - 4 * p + 1)
    )
    # A phrase of one word again and again is a phrase too.
    assert bool(repeats(text, config)) == (bool(again) or phrase)


def test_shares_of_words_are_those_of_plain_counting() -> None:
    """Gopher's shares, computed again from their definition over strings."""
    rng = random.Random(1)
    for seed in range(40):
        words = [rng.choice(NOUNS[: 4 + seed % 9]) for _ in range(120)]
        text = " ".join(words)
        grams = [" ".join(words[at : at + 3]) for at in range(118)]
        gram, count = Counter(grams).most_common(1)[0]
        share = len(gram) * count / len(text)
        only = {"duplicate_ngrams": {}, "max_word_run": None, "max_phrase_run": None}
        found = repeats(text, RepetitionConfig(top_ngrams={3: share - 1e-6}, **only))
        assert found == ("one run of 3 words again and again", f"{gram}: {share:.2f} of the text")
        assert repeats(text, RepetitionConfig(top_ngrams={3: share}, **only)) is None


@given(st.lists(st.sets(st.sampled_from("abcdefgh"), max_size=6), max_size=40), st.integers(1, 5))
@examples(60)
def test_counts_over_shards_are_those_of_a_counter(
    tmp_path_factory: Any, sets: list[set[str]], least: int
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    paths = [folder / f"{number}.npy" for number in range(3)]
    for number, path in enumerate(paths):
        write_counts(path, (hashed(one) for one in sets[number::3]))
    hashes, counts = merge_counts(paths, least)
    expected = {
        next(iter(hashed(k))): n for k, n in Counter(x for one in sets for x in one).items() if n >= least
    }
    assert dict(zip(hashes.tolist(), counts.tolist(), strict=True)) == expected
    assert recurring.examples_of(paths) == len(sets)


def test_counts_do_not_depend_on_how_many_are_merged_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.npy" for number in range(3)]
    for number, path in enumerate(paths):
        write_counts(path, (hashed([f"{i % 50}", f"{i * number % 70}"]) for i in range(400)))
    whole = merge_counts(paths, 5)
    monkeypatch.setattr(recurring, "_AT_ONCE", 16)
    parts = merge_counts(paths, 5)
    assert np.array_equal(whole[0], parts[0])
    assert np.array_equal(whole[1], parts[1])


def run(
    examples: Sequence[Example], folder: Path, **settings_: Any
) -> tuple[list[Outcome], Repetition, dict[str, Any]]:
    """Run the step over two shards, as the chain does."""
    step = Repetition(RepetitionConfig(**settings_), Powers(), 7)
    half = len(examples) // 2
    surveys = []
    for number, part in enumerate((examples[:half], examples[half:])):
        path = folder / f"{number}.survey"
        step.survey(part, path)
        surveys.append(Survey(path, len(part), 0))
    findings = step.decide(surveys, folder / "verdict", no_progress)
    return list(step.judge(examples, folder / "verdict", 0)), step, findings


def planted(phrase: str, share: float, number: int = 400) -> list[Example]:
    rng = random.Random(3)
    return [
        talk(f"{phrase} {story(rng, 4)}" if rng.random() < share else story(rng, 4), row)
        for row in range(number)
    ]


@pytest.mark.parametrize("phrase", ["This article suggests that", "این مقاله نشان می‌دهد که"])
def test_a_phrase_that_many_answers_share_is_named_with_its_number(tmp_path: Path, phrase: str) -> None:
    examples = planted(phrase, 0.2)
    outcomes, step, findings = run(examples, tmp_path)
    assert outcomes == examples  # reported, not removed
    carriers = sum(phrase in one.messages[1].content for one in examples)
    opening = "^" + " ".join(phrase.lower().split()[:3])
    assert step.counts[f"phrase: {opening}"] == carriers
    assert findings == {"examples": 400, "allowed": 12, "phrases": len(step.counts)}


def test_thinning_brings_a_phrase_down_to_the_share_and_touches_no_other(tmp_path: Path) -> None:
    examples = planted("This article suggests that", 0.5)
    outcomes, _, _ = run(examples, tmp_path, phrases="thin", phrase_share=0.1)
    removed = [one for one in outcomes if isinstance(one, Removed)]
    left = sum(
        "This article suggests" in one.messages[1].content for one in outcomes if isinstance(one, Example)
    )
    assert {one.reason for one in removed} == {"a phrase that too many examples share"}
    assert {one.detail for one in removed} == {"^this article suggests"}
    assert all("This article suggests" in one.example.messages[1].content for one in removed)
    assert 20 <= left <= 60  # 40 expected, by a draw for each example
    assert run(examples, tmp_path, phrases="thin", phrase_share=0.1)[0] == outcomes


def test_phrases_are_sought_in_what_is_learned_alone(tmp_path: Path) -> None:
    asked = [talk(story(random.Random(row)), row, question="Dear all, kindly tell me") for row in range(100)]
    labelled = [
        Example("labelled", Provenance("b", row), text="Dear all, kindly vote", label="x")
        for row in range(100)
    ]
    _, step, findings = run([*asked, *labelled], tmp_path, phrase_words=(3, 9), phrase_examples=60)
    assert findings["examples"] == 100
    assert not step.counts


def test_openings_of_stop_words_are_no_phrases() -> None:
    assert phrases_of(["This is a pen. Honestly, I think so."], 3, 9) == ["^honestly i think"]
    assert phrases_of(["این یک است. بی‌گمان این کتاب"], 3, 9) == ["^بی‌گمان این کتاب"]


def test_turns_are_judged_one_by_one(tmp_path: Path) -> None:
    text = story(random.Random(5), 20)
    turns = (Message("user", f"Correct this: {text}"), Message("assistant", text))
    (outcome,), _, _ = run([Example("messages", Provenance("a", 1), messages=turns)], tmp_path)
    assert isinstance(outcome, Example)  # an answer may say what the question said
    doubled = Example("text", Provenance("a", 2), text=f"{text}\n{text}")
    (outcome,), _, _ = run([doubled], tmp_path)
    assert isinstance(outcome, Removed)
    assert json.dumps(outcome.detail)
