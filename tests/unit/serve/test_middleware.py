"""What prompts and answers pass: in pieces as whole, over a real socket, nothing slips through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import serving
from tanzim.core.records import Message
from tanzim.data.screen.found import Found
from tanzim.infer.engine import Engine
from tanzim.serve.access.roles import Caller
from tanzim.serve.middleware.build import build_chain
from tanzim.serve.middleware.config import FakeConfig, RedactPiiConfig
from tanzim.serve.middleware.held import Held

WORDS = st.lists(st.sampled_from(["secret", " ", "sec", "ret", "a b", "\n", "سلام", "‌"]), max_size=80)


def pieces(text: str, cuts: Sequence[int]) -> Iterator[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(text)], strict=True):
        yield text[start:end]


@settings(max_examples=200, deadline=None)
@given(WORDS, st.lists(st.integers(0, 500), max_size=12))
def test_a_text_in_pieces_is_changed_as_the_whole(words: list[str], cuts: list[int]) -> None:
    text = "".join(words)

    def find(seen: str) -> list[Found]:
        return [Found(*m.span(), "word", 1.0) for m in re.finditer("secret", seen)]

    held = Held(find, lambda one, text: "*", 6)
    assert "".join(map(held.push, pieces(text, cuts))) + held.finish() == text.replace("secret", "*")


SAID = (
    "My name is Sarah Connor and you can write to sarah.connor@example.com or call +44 20 7946 0958. "
    "کد ملی من ۰۰۸۴۵۷۵۹۴۸ است و شماره موبایلم ۰۹۱۲۳۴۵۶۷۸۹ است، لطفاً با من تماس بگیرید. "
    "The IBAN is GB82 WEST 1234 5698 7654 32, and the weather in the mountains is fine today, "
    "thank you very much."
)
SECRETS = ("sarah.connor@example.com", "7946 0958", "۰۰۸۴۵۷۵۹۴۸", "۰۹۱۲۳۴۵۶۷۸۹", "1234 5698")


@pytest.mark.parametrize("size", [1, 3, 7, 20, 64, 1000])
def test_personal_data_does_not_leave_in_pieces_of_any_size(size: int) -> None:
    chain = build_chain([RedactPiiConfig()])
    passing = chain.answer([], Caller())
    assert passing is not None
    out = "".join(passing.push(SAID[i : i + size]) for i in range(0, len(SAID), size)) + passing.finish()
    for secret in SECRETS:
        assert secret in SAID
        assert secret not in out
    assert "[EMAIL_ADDRESS]" in out
    assert out.endswith("the weather in the mountains is fine today, thank you very much.")


def test_personal_data_does_not_reach_the_model() -> None:
    chain = build_chain([RedactPiiConfig(allow=["sarah.connor@example.com"])])
    seen = chain.prompt([Message("system", "Help."), Message("user", SAID)], Caller())
    assert seen[0] == Message("system", "Help.")
    assert "sarah.connor@example.com" in seen[1].content
    assert not any(secret in seen[1].content for secret in SECRETS[1:])
    keeps = build_chain([RedactPiiConfig(prompts=False, answers=False)])
    assert keeps.prompt(seen, Caller()) == seen
    assert keeps.answer(seen, Caller()) is None


def test_answers_pass_the_links_backwards() -> None:
    chain = build_chain([FakeConfig(find="a", write="b"), FakeConfig(find="b", write="c")])
    assert chain.prompt([Message("user", "a")], Caller())[0].content == "c"
    passing = chain.answer([], Caller())
    assert passing is not None
    assert passing.push("ab") + passing.finish() == "bc"


class Recording:
    """A renderer of the words alone that remembers what it saw."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.seen: list[str] = []

    def prompt(self, messages: Any, tools: Any = ()) -> list[int]:
        self.seen.append("".join(turn.content for turn in messages))
        return self._tokenizer.encode(self.seen[-1], add_special_tokens=False)


def test_through_the_server_whole_and_streamed(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)

    def ask(folder: str, middleware: list[dict[str, Any]], text: str, **more: Any) -> tuple[Any, list[str]]:
        renderer = Recording(tiny_tokenizer)
        asked = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0, **more}
        with serving(
            engine, renderer, {"tiny": None}, tmp_path / folder, middleware=middleware, max_new_tokens=40
        ) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=asked)
        return answer, renderer.seen[1:]  # after the trial by which the format of calls is chosen

    plain, _ = ask("1", [], "the quick brown fox")
    said = plain.json()["choices"][0]["message"]["content"]
    word = said[5:9]
    fake = {"type": "fake", "find": word, "write": "<gone>"}
    changed, _ = ask("2", [fake], "the quick brown fox")
    assert changed.json()["choices"][0]["message"]["content"] == said.replace(word, "<gone>")
    streamed, _ = ask("3", [fake], "the quick brown fox", stream=True)
    parts = re.findall(r'"content": ?"((?:[^"\\]|\\.)*)"', streamed.text)
    assert "".join(parts).encode().decode("unicode_escape", "replace").count("<gone>") == said.count(word)
    _, seen = ask("4", [{"type": "fake", "find": "quick", "write": "slow"}], "the quick brown fox")
    assert seen == ["the slow brown fox"]
    refused, seen = ask("5", [{"type": "fake", "find": "x", "refuse": "brown"}], "the quick brown fox")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
    assert seen == []
    ended, _ = ask("6", [{"type": "fake", "find": "\0", "refuse": word}], "the quick brown fox")
    choice = ended.json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert word not in choice["message"]["content"]
    no_logprobs, _ = ask("7", [fake], "the", logprobs=True)
    assert no_logprobs.json()["error"]["param"] == "logprobs"
