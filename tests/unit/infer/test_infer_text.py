"""Text that appears while tokens come: equal to decoding at once, never half a character."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from tanzim.infer.pieces import Pieces
from tanzim.infer.text import REPLACEMENT, Detokeniser, StopFinder

TEXTS = [
    "plain words, one two  three",
    "سلام! می‌خواهم کتاب‌هایم را ببینم؛ ۱۲۳۴",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽 done",
    "mixed متن and 漢字 and é è ü",
    "",
]


@pytest.fixture(scope="module")
def byte_fallback() -> PreTrainedTokenizerFast:
    """A sentencepiece-like tokenizer: word-start marks, and bytes for all it does not know."""
    words = ["▁the", "▁fox", "▁", "t", "h", "e", "s", "ing", "سلام", "▁دنیا"]
    vocabulary = {"<unk>": 0, "</s>": 1} | {f"<0x{b:02X}>": 2 + b for b in range(256)}
    vocabulary |= {word: 258 + index for index, word in enumerate(words)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def stream(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[str]:
    detokeniser = Detokeniser(tokenizer)
    return [*(detokeniser.push(token) for token in ids), detokeniser.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    pieces = stream(tokenizer, tokenizer.encode(text, add_special_tokens=False))
    assert "".join(pieces) == text
    assert all(REPLACEMENT not in piece for piece in pieces)


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_join_to_the_text(byte_fallback: PreTrainedTokenizerFast, text: str) -> None:
    ids = [2 + byte for byte in text.encode()]
    pieces = stream(byte_fallback, ids)
    assert "".join(pieces) == byte_fallback.decode(ids)
    assert all(REPLACEMENT not in piece for piece in pieces)


@pytest.mark.parametrize("seed", range(20))
def test_random_valid_tokens_equal_decoding_at_once(
    byte_fallback: PreTrainedTokenizerFast, seed: int
) -> None:
    draw = random.Random(seed)
    ids: list[int] = []
    for _ in range(40):
        whole = [2 + byte for byte in draw.choice("سگ🙂é漢").encode()]
        ids += draw.choice([[draw.randrange(258, 268)], whole, [1]])
    assert "".join(stream(byte_fallback, ids)) == byte_fallback.decode(ids, skip_special_tokens=True)


def test_half_a_character_at_the_end_is_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("ok 🙂", add_special_tokens=False)
    assert REPLACEMENT in tokenizer.decode(ids[:-1])
    assert "".join(stream(tokenizer, ids[:-1])) == "ok "


def test_broken_bytes_do_not_hold_the_text_back(tokenizer: PreTrainedTokenizerFast) -> None:
    broken = tokenizer.convert_tokens_to_ids("Ģ")  # the byte 0x80, which begins no character
    ids = [broken] * 12 + tokenizer.encode("fine", add_special_tokens=False)
    pieces = stream(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert any(pieces[:8])


@pytest.mark.parametrize("seed", range(30))
def test_stop_strings_in_every_cut(seed: int) -> None:
    draw = random.Random(seed)
    stops = tuple("".join(draw.choices("ab", k=draw.randint(1, 4))) for _ in range(draw.randint(1, 3)))
    text = "".join(draw.choices("abc", k=30))
    finder, released, rest = StopFinder(stops), "", text
    while rest and not finder.found:
        size = draw.randint(1, 5)
        released += finder.push(rest[:size])
        rest = rest[size:]
        assert not any(stop in released for stop in stops)
    ended = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    released += finder.finish()
    if finder.found:
        assert any(text[len(released) :].startswith(stop) for stop in stops)
    assert released == text[: len(released)]
    # A longer stop that begins earlier may still be incomplete when a shorter one is whole.
    assert len(released) >= ended if not finder.found else len(released) <= len(text)
    assert finder.found == any(stop in text for stop in stops)


def test_a_stop_string_over_several_pieces() -> None:
    finder = StopFinder(("END",))
    assert [finder.push(piece) for piece in ("some E", "N", "x E", "ND tail")] == ["some ", "", "ENx ", ""]
    assert finder.found


def test_bytes_of_single_tokens(
    tokenizer: PreTrainedTokenizerFast, byte_fallback: PreTrainedTokenizerFast
) -> None:
    for tokens, text in ((tokenizer, "hello 🙂 سلام"), (byte_fallback, "the 🙂")):
        ids = tokens.encode(text, add_special_tokens=False)
        pieces = Pieces(tokens)
        found = [byte for token in ids for byte in pieces.bytes(token) or ()]
        assert bytes(found) == text.encode()
