"""Writing examples with a scripted model: every stage, every reason, a kill, and the endpoint's own API."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.errors import ConfigError, DataError, ModelError
from tanzim.core.powers import Complete, Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.augment.kept import KeptAnswers
from tanzim.data.chain import Done, run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.shards import write_shards
from tanzim.data.synthesise.known import Known
from tanzim.data.synthesise.read import read_draft, read_line, read_verdict
from tanzim.pipeline.power_complete import KEY, Endpoint

QUESTIONS = [
    "پایتخت فرانسه کجاست؟",
    "How do I send a parcel back?",
    "When does the shop open on Sunday?",
    "چگونه رمز خود را عوض کنم؟",
    "Which card may I pay with?",
    "چه کسی چراغ شکسته‌ی من را تعمیر می‌کند؟",
]


def _run(
    folder: Path, examples: Sequence[Example], complete: Complete, **step: Any
) -> tuple[list[Example], Done]:
    settings = {"type": "synthesise", "model": "fake", **step}
    configs = DataConfig.model_validate({"steps": [settings]}).steps
    dataset = write_shards(folder / "in", examples)
    powers = Powers(complete=lambda name: complete)
    (done,) = run_steps(configs, dataset, folder / "cache", seed=3, powers=powers, executor=Local(1))
    return list(done.dataset), done


def _talks() -> list[Example]:
    return [
        Example(
            "messages",
            Provenance("rows", n),
            messages=(Message("system", "Be kind."), Message("user", asked), Message("assistant", f"{n}.")),
            about={"licence": "CC0"},
        )
        for n, asked in enumerate(QUESTIONS, 1)
    ]


class Script:
    """A model that writes by script: what the seed's question is decides what becomes of its draft."""

    def __init__(self) -> None:
        self.said: Counter[str] = Counter()

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        return [self.answer(turns[-1].content) for turns in conversations]

    def answer(self, asked: str) -> str:
        places = {n: asked.find(q) for n, q in enumerate(QUESTIONS) if q in asked}
        places |= {n: asked.find(f"n{n}n") for n in range(6) if f"n{n}n" in asked and n not in places}
        number = min(places, key=lambda n: places[n])  # the seed stands first
        if "correct? Answer yes" in asked:
            self.said["accuracy"] += 1
            return "No, it is wrong." if number == 1 else "Yes."
        if "Is it what was wanted?" in asked:
            self.said["relevance"] += 1
            return {2: "no - off the subject", 3: "Perhaps."}.get(number, "بله، همین است.")
        stage = "refine" if "This is a draft" in asked else "generate"
        self.said[stage] += 1
        if number == 4:
            return "I cannot write that."
        persian = number in (0, 3, 5)
        again = f"n{number}n {stage}d پرسشی تازه برای شما؟" if persian else f"n{number}n {stage}d and new?"
        again = QUESTIONS[0] if number == 5 else again
        answer = f"n{number}n چنین است" if persian else f"n{number}n so"
        if number == 2:
            return "Here:\n```json\n" + json.dumps({"question": again, "answer": answer}) + "\n```"
        return f"Here it is.\n\n**Question:** {again}\nAnswer: {answer}\n"


def test_each_stage_decides_and_rejects_are_kept(tmp_path: Path) -> None:
    script = Script()
    out, done = _run(tmp_path, _talks(), script, count=6)
    (made,) = [one for one in out if one.provenance.derived]
    assert made == Example(
        "messages",
        Provenance("rows", 1, "synthesise 1"),
        messages=(
            Message("system", "Be kind."),
            Message("user", "n0n refined پرسشی تازه برای شما؟"),
            Message("assistant", "n0n چنین است"),
        ),
        about={"licence": "CC0", "written_by": "fake"},
    )
    assert [one for one in out if not one.provenance.derived] == _talks()
    # Both questions are asked of every draft that could be read: 6 less the one that is none.
    assert script.said == {"generate": 6, "refine": 5, "accuracy": 5, "relevance": 5}
    expected = {
        "not accurate": 1,
        "not relevant": 1,
        "no verdict whether it is relevant": 1,
        "the draft could not be read": 1,
        "repeats what is there": 1,
    }
    assert done.report.findings == {"tried": 6, "made": 1, "rejected": expected}
    lines = [json.loads(line) for path in done.rejected for line in path.read_text("utf-8").splitlines()]
    assert Counter(line["reason"] for line in lines) == expected
    assert {line["row"] for line in lines} == {2, 3, 4, 5, 6}
    assert all(line["derived"] == "synthesise draft 1" and line["content"] for line in lines)


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    class Dying(Script):
        def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
            if self.said["refine"]:
                raise KeyboardInterrupt
            return super().__call__(conversations)

    dying, second, whole = Dying(), Script(), Script()
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, _talks(), dying, count=6)
    out, _ = _run(tmp_path, _talks(), second, count=6)
    expected, _ = _run(tmp_path / "whole", _talks(), whole, count=6)
    assert out == expected
    assert dying.said + second.said == whole.said
    assert dying.said["generate"] == 6


def test_labels_and_documents(tmp_path: Path) -> None:
    def complete(conversations: Sequence[Sequence[Message]]) -> list[str]:
        asked = [turns[-1].content for turns in conversations]
        assert all("برچسب" in one or "document" in one for one in asked)
        written = (
            "متن: هوا آفتابی است و گرم",
            "Question: What fell on the hills?\nAnswer: Snow fell all night.",
        )
        return ["yes" if "yes or no" in one else written["document" in one] for one in asked]

    labelled = [Example("labelled", Provenance("l", 1), text="باران می‌بارد و سرد است", label="برچسب")]
    out, _ = _run(tmp_path / "l", labelled, complete, count=2)
    assert [(one.text, one.label) for one in out[1:]] == [
        ("هوا آفتابی است و گرم", "برچسب")
    ]  # once: both are the same
    texts = [Example("text", Provenance("t", 1), text="Snow fell on the hills all night long.")]
    out, _ = _run(tmp_path / "t", texts, complete, count=1, make="questions")
    assert [(one.kind, one.text, len(one.messages)) for one in out[1:]] == [("messages", "", 2)]
    tagged = [Example("tagged", Provenance("g", 1), text="a", words=("a",), tags=("X",))]
    with pytest.raises(DataError, match="nothing to write from"):
        _run(tmp_path / "g", tagged, complete)


def test_kept_answers_drop_a_line_cut_off(tmp_path: Path) -> None:
    asked: list[str] = []

    def complete(conversations: Sequence[Sequence[Message]]) -> list[str]:
        asked.extend(turns[0].content for turns in conversations)
        return [turns[0].content.upper() for turns in conversations]

    path = tmp_path / "answers.jsonl"
    turns = [[Message("user", text)] for text in ("a", "ß\u2028", "a")]
    assert KeptAnswers(complete, path)(turns) == ["A", "SS\u2028", "A"]
    assert asked == ["a", "ß\u2028"]
    path.write_bytes(path.read_bytes()[:-3])
    assert KeptAnswers(complete, path)(turns) == ["A", "SS\u2028", "A"]
    assert asked == ["a", "ß\u2028", "ß\u2028"]
    assert len(path.read_text("utf-8").strip().split("\n")) == 2


def test_an_answer_of_another_length_is_another_answer(tmp_path: Path) -> None:
    def complete(conversations: Sequence[Sequence[Message]], *, longest: int | None = None) -> list[str]:
        return [turns[0].content[:longest] for turns in conversations]

    kept = KeptAnswers(complete, tmp_path / "answers.jsonl")
    turns = [[Message("user", "abcdef")]]
    assert [kept(turns), kept(turns, longest=2), kept(turns, longest=3)] == [["abcdef"], ["ab"], ["abc"]]
    assert kept.asked == 3
    assert kept(turns, longest=2) == ["ab"]
    assert kept.asked == 3


def test_known_texts_are_found_by_their_jaccard_similarity() -> None:
    def grams(text: str) -> set[str]:
        return {text[n : n + 5] for n in range(len(text) - 4)}

    texts = ["the shop opens at nine on sunday", "کتاب‌ها هنوز نرسیده‌اند و من منتظرم", "abcde"]
    known = Known(0.5)
    folded = [known.add(text) for text in texts]
    for text in (*texts, "the shop opens at ten on sunday", "the shop is shut", "كتاب ها هنوز نرسیده اند"):
        plain = text.replace("\u200c", " ").replace("ك", "ک")
        shares = {one: len(grams(plain) & grams(one)) / len(grams(plain) | grams(one)) for one in folded}
        best = max(shares, key=lambda one: shares[one])
        assert known.repeated(text) == (best if shares[best] >= 0.5 else None)
    known.remove(folded[2])
    assert known.repeated("abcde") is None


def test_drafts_are_read_from_lines_and_json() -> None:
    good = {"question": "q", "answer": "{a}"}
    for said in (
        f"{{no}} {json.dumps(good)} tail",
        "Question: q\nAnswer: {a}",
        "Sure!\n\n**Question 1:** q\n**Answer 1:** {a}\nQuestion 2: r\nAnswer 2: s",
        "- پرسش: «q»\n- پاسخ: {a}",
        "question：q\n\nANSWER : {a}",
    ):
        assert read_draft("conversation", said) == good
    long = "Question: Why?\nAnswer: Because:\n1. one\n2. two"
    assert read_draft("conversation", long) == {"question": "Why?", "answer": "Because:\n1. one\n2. two"}
    assert read_draft("labelled", 'Here you are.\nText: "so it is"') == {"text": "so it is"}
    bad = ("", "{", '{"question": "q"}', '{"question": "q", "answer": " … "}', '["q"]', "[" * 5000)
    for said in (*bad, "Question: q", "Question:\nAnswer: a", "The question: q, the answer: a"):
        assert read_draft("conversation", said) is None
    lines = {"\n Question: Who?\nAnswer: me": "Who?", "«سلام»": "سلام", "پاسخ: ۵ تا": "۵ تا", " \n": ""}
    assert {said: read_line(said) for said in lines} == lines


def test_verdicts_are_read_strictly() -> None:
    said = {"Yes, because": True, "**yes**": True, "بله.": True, "No": False, "خیر": False, "نه": False}
    said |= {"Yesterday": None, "Nobody knows": None, "": None, "It is correct": None}
    assert {answer: read_verdict(answer) for answer in said} == said


# --- an endpoint


class _Api(BaseHTTPRequestHandler):
    seen: list[tuple[str, str | None, Any]]
    busy: int

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "only"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).seen.append((self.path, self.headers.get("authorization"), body))
        said = body["messages"][-1]["content"]
        if said == "busy" and type(self).busy:
            type(self).busy -= 1
            return self._send(429, {})
        if said == "refused":
            return self._send(401, {})
        if said == "broken":
            return self._send(200, {"choices": []})
        ended = "length" if said == "long" else "stop"
        return self._send(200, {"choices": [{"message": {"content": said[::-1]}, "finish_reason": ended}]})

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    _Api.seen, _Api.busy = [], 2
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def _user(*texts: str) -> list[list[Message]]:
    return [[Message("system", "s"), Message("user", text)] for text in texts]


def test_an_endpoint_is_asked_in_the_chat_api(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "k-1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    endpoint = Endpoint(f"{api}#سلام")
    assert endpoint(_user("ab", "cd", "busy", "long")) == ["ba", "dc", "ysub", ""]
    assert {(path, key, body["model"], body["temperature"]) for path, key, body in _Api.seen} == {
        ("/v1/chat/completions", "Bearer k-1", "سلام", 0)
    }
    assert _Api.seen[0][2]["messages"][0] == {"role": "system", "content": "s"}
    monkeypatch.delenv(KEY)
    endpoint = Endpoint(api)
    _Api.seen.clear()
    endpoint(_user("x"))
    assert [(key, body["model"]) for _, key, body in _Api.seen] == [(None, "only")]
    endpoint(_user("x"), longest=7)
    assert [body["max_tokens"] for _, _, body in _Api.seen] == [1024, 7]
    with pytest.raises(ModelError, match="refuses the key"):
        endpoint(_user("refused"))
    with pytest.raises(ModelError, match="none of the chat API"):
        endpoint(_user("broken"))


def test_addresses_that_are_none() -> None:
    for url in ("ftp://host/v1", "http:///v1#m"):
        with pytest.raises(ConfigError, match="no address"):
            Endpoint(url)
    with pytest.raises(ConfigError, match="password") as error:
        Endpoint("https://me:secret@host/v1#m")
    assert "secret" not in str(error.value)
    with pytest.raises(ModelError, match="does not answer"):
        Endpoint("http://127.0.0.1:1/v1")
