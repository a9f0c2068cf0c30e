"""Tokens of texts and of tagged words against the tokenizer's own alignment, and at the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from tanzim.core.errors import RenderError
from tanzim.core.records import Example, Provenance
from tanzim.models.encode import LabelEncoder
from tanzim.models.fit import fit

WORDS = ("play", "##ing", "##ed", "the", "game", "می", "##رو", "##م", ",", "g", "##a", "##me", "p")
TAGS = ("B-X", "I-X", "O")


@pytest.fixture
def bert(tmp_path: Path) -> Any:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]), encoding="utf-8")
    return BertTokenizerFast(vocab=str(path), strip_accents=False)


def byte_level() -> Any:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(["playing the game played the game"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


def tagged(words: list[str], tags: list[str] | None = None) -> Example:
    tags = tags or [TAGS[place % 3] for place in range(len(words))]
    return Example(
        "tagged", Provenance("t.jsonl", 4), text=" ".join(words), words=tuple(words), tags=tuple(tags)
    )


def test_a_text_is_tokenised_as_the_tokenizer_does_it(bert: Any) -> None:
    encoder = LabelEncoder(bert, ("no", "yes"), tagged=False)
    examples = [
        Example("labelled", Provenance("t.csv", n), text="playing the game" * n, label="yes") for n in (1, 2)
    ]
    for example, one in zip(examples, encoder.render_many(examples), strict=True):
        assert list(one.ids) == bert(example.text)["input_ids"]
        assert one.targets == ((1,),)
        assert sum(one.weights) == 1
        assert [segment.role for segment in one.segments] == ["special", "text", "special"]
        assert one.segments[-1].end == len(one.ids)


def test_tags_stand_where_the_tokenizers_own_words_begin(bert: Any) -> None:
    words = ["playing", "the", "game,", "می\u200cروم", "xyz", "played"]
    one = LabelEncoder(bert, TAGS, tagged=True).render_many([tagged(words)])[0]
    theirs = bert(words, is_split_into_words=True)
    assert list(one.ids) == theirs["input_ids"]
    owners = theirs.word_ids()
    first = [owners.index(number) for number in range(len(words))]
    assert [place for place, weight in enumerate(one.weights) if weight] == first
    assert one.targets == ((0, 1, 2, 0, 1, 2),)


def test_words_are_found_in_byte_level_tokens() -> None:
    tokenizer = byte_level()
    words = ["playing", "the", "ü", "game"]
    one = LabelEncoder(tokenizer, TAGS, tagged=True).render_many([tagged(words)])[0]
    starts = [place for place, weight in enumerate(one.weights) if weight]
    ends = [*starts[1:], len(one.ids)]
    parts = [tokenizer.decode(list(one.ids[a:b])).strip() for a, b in zip(starts, ends, strict=True)]
    assert parts == words


def test_what_leaves_no_token_is_refused_by_name(bert: Any) -> None:
    encoder = LabelEncoder(bert, TAGS, tagged=True)
    with pytest.raises(RenderError, match=r"word 2 \('\\u200d'\)(.|\n)*t.jsonl, row 4"):
        encoder.render_many([tagged(["the", "\u200d", "game"])])
    texts = LabelEncoder(bert, ("a", "b"), tagged=False)
    with pytest.raises(RenderError, match="leaves nothing of this text"):
        texts.render_many([Example("labelled", Provenance("t.csv", 1), text="\u200d", label="a")])


def test_cutting_keeps_the_last_special_token_and_the_labels_that_are_left(bert: Any) -> None:
    words = ["playing", "the", "game", "played"]
    one = LabelEncoder(bert, TAGS, tagged=True).render_many([tagged(words)])[0]
    cut = fit(one, 6, "truncate")
    assert cut is not None
    assert list(cut.ids) == bert(" ".join(words), truncation=True, max_length=6)["input_ids"]
    assert cut.targets == ((0, 1, 2),)
    assert sum(map(bool, cut.weights)) == 3
    assert cut.segments[-1].end == 6
    assert fit(one, 6, "drop") is None
    text = LabelEncoder(bert, ("a", "b"), tagged=False)
    long = text.render_many([Example("labelled", Provenance("t", 1), text="the " * 30, label="b")])[0]
    short = fit(long, 5, "truncate")
    assert short is not None
    assert short.ids == (*long.ids[:4], bert.sep_token_id)
    assert short.targets == ((1,),)
    assert sum(short.weights) == 1
