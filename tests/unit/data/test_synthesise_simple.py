"""Examples written by small models: what rules tell of a draft, and a script that plays such a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Json, Message, Provenance
from tanzim.data.chain import Done, run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.prepare import prepare
from tanzim.data.shards import write_shards
from tanzim.data.similarity import normalise
from tanzim.data.store import ExampleStore
from tanzim.data.synthesise.rules import agree, fault, numbers
from tanzim.data.synthesise.seed import Seed
from tanzim.data.synthesise.simple import spoken_of

MILL = "The old mill was built in 1874 by Thomas Arden. It grinds wheat for eleven villages."
FARSI = "آسیاب کهنه در سال ۱۲۵۳ ساخته شد. این آسیاب برای یازده روستا گندم آرد می‌کند."


def _seed(text: str) -> Seed:
    return Seed("conversation", text, document=True)


@pytest.mark.parametrize(
    ("text", "question", "answer", "reason"),
    [
        (MILL, "Who built the old mill?", "Thomas Arden built it.", None),
        (MILL, "When was the mill built?", "In 1874.", None),
        (MILL, "How many villages have their wheat ground?", "For 11 villages.", None),
        (FARSI, "آسیاب کهنه در چه سالی ساخته شد؟", "آسیاب در سال 1253 ساخته شد.", None),
        (FARSI, "آسیاب برای چند روستا گندم آرد می‌کند؟", "برای ۱۱ روستا.", None),
        (MILL, "Who built the old mill?", "آن را توماس ساخت.", "in another language"),
        (MILL, "The old mill was built in 1874.", "By Thomas Arden.", "asks nothing"),
        (MILL, "Does the mill mill wheat?", "Thomas Arden.", "the question goes round in a circle"),
        (MILL, "What do pupils grow in autumn?", "Wheat.", "the question is not about the document"),
        (MILL, "What is the old mill?", "The old mill is old.", "the answer says no more than the question"),
        (MILL, "How old is the mill?", "It grinds wheat.", "the answer names no number, which was asked for"),
        (MILL, "Who built the mill?", "Built in 1874.", "the answer names nobody, who was asked for"),
        (MILL, "When was the mill built?", "It was built in 1875.", "the document does not state the answer"),
        (
            MILL,
            "What is the old mill?",
            "A medieval English castle.",
            "the document does not state the answer",
        ),
        (FARSI, "آسیاب کهنه چیست؟", "یک کاخ بزرگ است.", "the document does not state the answer"),
        (FARSI, "دکتر بیماران را کجا می‌بیند؟", "در روستا.", "the question is not about the document"),
    ],
)
def test_rules_on_documents(text: str, question: str, answer: str, reason: str | None) -> None:
    found = fault(_seed(text), {"question": question, "answer": answer}, min_stated=0.6)
    assert (found and found[0]) == reason


def test_rules_can_be_left_out_and_lengths_are_those_of_the_seed() -> None:
    castle = {"question": "What is the old mill?", "answer": "A medieval English castle of 1500."}
    assert fault(_seed(MILL), castle, min_stated=0.0) is None
    seed = Seed("labelled", "buy it now " * 5, "advert")
    for words, fits in ((1, False), (5, True), (25, False)):
        assert (fault(seed, {"text": "hello you " * words}, min_stated=0.6) is None) == fits


def test_numbers_in_words_and_digits_are_the_same() -> None:
    assert numbers("eleven of ۱۲ and 7.5") == {"11", "12", "7.5"}
    assert numbers("سی روز و ١٤ شب") == {"30", "14"}


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("It was built by Thomas Arden.", "The engineer Thomas Arden built it.", True),
        ("Within thirty days.", "Customers return it in 30 days.", True),
        ("In 1874.", "In 1932.", False),
        ("In 1874.", "By Thomas Arden.", False),
        ("Yes", "yes.", True),
        ("", "", False),
        ("برای یازده روستا", "یازده روستا", True),
        ("برای یازده روستا", "برای دوازده روستا", False),
    ],
)
def test_answers_that_agree(one: str, two: str, same: bool) -> None:
    assert agree("What of the mill?", one, two) is agree("What of the mill?", two, one) is same


def test_where_a_document_speaks_of_a_question() -> None:
    text = "Bees fly. The mill grinds wheat. Sheep eat grass. Wheat is sold in town. It rains."
    assert spoken_of(text, "Where is wheat sold?", "en") == "The mill grinds wheat. Wheat is sold in town."


# --- a script that plays a small model

DOCUMENTS = {
    1: MILL,
    2: "The ferry to Selm costs four crowns.",
    3: "The baker Mira sells rye bread.",
    4: FARSI.split(".", maxsplit=1)[0] + ".",
    5: "Lamps are returned within thirty days.",
    6: "The museum of Tarsen keeps a tablet.",
}
# What is written about each document, and what is answered once more.
WRITTEN = {
    1: ("Who built the old mill?", "Thomas Arden built it.", "It was built by Thomas Arden in 1874."),
    2: ("What does the ferry to Selm cost?", "The ferry costs four crowns.", "The ferry goes to Selm."),
    3: ("What does the baker Mira sell?", "She sells apple cake.", "She sells rye bread."),
    4: ("آسیاب کهنه در چه سالی ساخته شد؟", "در سال ۱۲۵۳ ساخته شد.", "آسیاب در سال ۱۲۵۳ ساخته شد."),
    5: ("When are lamps returned?", "", ""),
    6: ("What does the museum of Tarsen keep?", "It keeps a tablet.", "I do not know."),
}


class Small:
    """Answers by the last turn alone; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []

    def __call__(
        self, conversations: Sequence[Sequence[Message]], *, longest: int | None = None
    ) -> list[str]:
        return [self._one(turns, longest) for turns in conversations]

    def _one(self, turns: Sequence[Message], longest: int | None) -> str:
        last = turns[-1].content
        self.asked.append((last, longest))
        first_shot = turns[0].content
        for number, text in DOCUMENTS.items():
            question, answer, again = WRITTEN[number]
            if question in last and ("full sentence" in last or "جمله‌ی کامل" in last):
                return "It is a castle of the year 1200." if number == 1 else f"Answer: {answer}"
            if question in last:
                garden = "1998" in first_shot or "۱۳۷۷" in first_shot
                return answer if garden else again
            if text[:20] in last or text[-20:] in last:
                return f"Question: {question}\nAnd more?"
        raise AssertionError(last)


def _run(
    folder: Path, examples: Sequence[Example], powers: Powers, **step: Any
) -> tuple[list[Example], Done]:
    settings = {"type": "synthesise", "model": "fake", "style": "simple", **step}
    configs = DataConfig.model_validate({"steps": [settings]}).steps
    dataset = write_shards(folder / "in", examples)
    (done,) = run_steps(configs, dataset, folder / "cache", seed=3, powers=powers, executor=Local(1))
    return list(done.dataset), done


def _rejected(done: Done) -> dict[int, Json]:
    lines = [json.loads(line) for path in done.rejected for line in path.read_text("utf-8").splitlines()]
    return {line["row"]: line for line in lines}


def _texts() -> list[Example]:
    return [Example("text", Provenance("t", n), text=text) for n, text in DOCUMENTS.items()]


def test_questions_are_written_a_thing_a_call_and_answered_once_more(tmp_path: Path) -> None:
    small = Small()
    out, done = _run(
        tmp_path, _texts(), Powers(complete=lambda name: small), make="questions", count=len(DOCUMENTS)
    )
    made = {one.provenance.row: one for one in out if one.provenance.derived}
    # The refined answer to the first speaks of a castle: rules find fault, so that the draft stood.
    assert {row: tuple(m.content for m in one.messages) for row, one in made.items()} == {
        1: WRITTEN[1][:2],
        4: WRITTEN[4][:2],
    }
    reasons = {row: (line["reason"], line["detail"]) for row, line in _rejected(done).items()}
    otherwise = "not accurate: the verifier answers otherwise"
    assert reasons == {
        2: (otherwise, "The ferry goes to Selm."),
        3: ("the document does not state the answer", "it has no apple, cake"),
        5: ("the question was not answered", "nothing was said, or no end was found"),
        6: (otherwise, "I do not know."),
    }
    assert all(longest for _, longest in small.asked)
    again = [asked for asked, _ in small.asked if WRITTEN[1][0] in asked]
    assert WRITTEN[1][1] not in again[-1]  # the verifier does not see the answer that it checks
    assert "it grinds wheat" in again[-1].lower()


def test_what_is_far_from_its_document_is_left_out(tmp_path: Path) -> None:
    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[0.0, 1.0] if "Question" in t and "mill" in t else [1.0, 0.0] for t in texts], "f4")

    powers = Powers(complete=lambda name: Small(), embed=lambda name: embed)
    out, done = _run(tmp_path, _texts(), powers, make="questions", count=len(DOCUMENTS), embedding="e")
    assert [one.provenance.row for one in out if one.provenance.derived] == [4]
    line = _rejected(done)[1]
    assert (line["reason"], line["detail"]) == ("about something else", "cosine 0.00")


def test_a_text_of_a_class_must_be_told_to_be_one(tmp_path: Path) -> None:
    rows = [("win a prize now", "ad"), ("see you at lunch", "talk"), ("free phone, call now", "ad")]
    examples = [Example("labelled", Provenance("l", n), text=t, label=y) for n, (t, y) in enumerate(rows, 1)]

    def complete(conversations: Sequence[Sequence[Message]], *, longest: int | None = None) -> list[str]:
        found = []
        for turns in conversations:
            last = turns[-1].content
            shots = [turn.content for turn in turns[:-1] if turn.role == "assistant"]
            if last.startswith("Which class"):
                assert set(shots) == {"ad", "talk"}
                found.append("Ad." if "money" in last else "talk")
            elif last.endswith("ad"):
                assert set(shots) == {"win a prize now", "free phone, call now"}
                found.append("free money for you" if shots[-1] == "win a prize now" else "hello my friend")
            else:
                found.append("I wait at home")
        return found

    out, done = _run(tmp_path, examples, Powers(complete=lambda name: complete), count=3)
    made = {(one.text, one.label) for one in out if one.provenance.derived}
    assert made == {("free money for you", "ad"), ("I wait at home", "talk")}
    line = _rejected(done)[3]
    assert (line["reason"], line["detail"]) == ("not accurate: the verifier names another class", "talk")
    powers = Powers(complete=lambda name: complete)
    for number, few in enumerate((examples[::2], [Example("text", Provenance("t", 1), text=MILL)])):
        with pytest.raises(ConfigError, match="nothing to check"):
            _run(tmp_path / str(number), few, powers, count=1)


def test_a_new_question_is_answered_without_the_other_talks(tmp_path: Path) -> None:
    talks = [("When is lunch?", "At noon."), ("Where is the key?", "Under the mat.")]
    examples = [
        Example("messages", Provenance("m", n), messages=(Message("user", q), Message("assistant", a)))
        for n, (q, a) in enumerate(talks, 1)
    ]

    def complete(conversations: Sequence[Sequence[Message]], *, longest: int | None = None) -> list[str]:
        found = []
        for turns in conversations:
            last = turns[-1].content
            if last == "Write a question.":
                found.append(
                    "How many legs has a bee?" if "key" in turns[-2].content else "Who sings at night?"
                )
            elif "full sentence" in last:
                found.append("")
            elif "bee" in last:
                found.append("A bee has six legs." if len(turns) > 1 else "It has 6 legs.")
            else:
                found.append("The owl." if len(turns) > 1 else "A nightingale.")
        return found

    out, done = _run(tmp_path, examples, Powers(complete=lambda name: complete), count=2)
    (made,) = [one for one in out if one.provenance.derived]
    assert [turn.content for turn in made.messages] == ["How many legs has a bee?", "A bee has six legs."]
    assert _rejected(done)[1]["detail"] == "A nightingale."


# --- held-out examples do not come back


def test_what_repeats_a_held_out_text_is_dropped_and_explained(tmp_path: Path) -> None:
    words = [f"word{n} more{n * 7} and else{n * 13} with thing{n * 31}" for n in range(40)]
    rows = [
        json.dumps({"text": f"Case {one} was closed by the office after a long wait.", "label": "ab"[n % 2]})
        for n, one in enumerate(words)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    split = {"path": str(tmp_path / "rows.jsonl"), "split": {"test": 0.2}}
    prepare(DataConfig.model_validate(split), tmp_path / "plain", seed=7)
    held = [one.text for one in ExampleStore(tmp_path / "plain" / "test.arrow")]

    def complete(conversations: Sequence[Sequence[Message]]) -> list[str]:
        found = []
        for turns in conversations:
            asked = turns[-1].content
            if "yes or no" in asked:
                found.append("yes")
            else:  # every other text is one that is held out, with a letter changed
                near = held[len(asked) % len(held)].replace("closed", "clozed") if len(found) % 2 else ""
                found.append(
                    f"Text: {near or f'Quite another matter, namely {len(found)} times {len(asked)}'}"
                )
        return found

    step = {"type": "synthesise", "model": "fake", "count": 6, "max_similarity": 1.0}
    out = tmp_path / "out"
    config = DataConfig.model_validate({**split, "steps": [step]})
    report = prepare(config, out, seed=7, powers=Powers(complete=lambda name: complete))
    assert [one.text for one in ExampleStore(out / "test.arrow")] == held
    train = [one for one in ExampleStore(out / "train.arrow") if one.provenance.derived]
    assert train
    assert not [one.text for one in train if "clozed" in one.text]
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text("utf-8").splitlines()]
    leaked = [line for line in lines if line["step"] == "split"]
    assert leaked
    assert all("held-out" in line["reason"] and "clozed" in line["content"] for line in leaked)
    assert all(line["derived"].startswith("synthesise ") for line in leaked)
    (made,) = [step["findings"]["made"] for step in report.steps]
    assert made == len(train) + len(leaked)
    after = report.leakage["after_steps"]
    assert after["near"] == len(leaked)
    assert all("synthesise" in pair["train_side"] for pair in after["pairs"])
    assert {pair["other_text"] for pair in after["pairs"]} <= set(map(normalise, held))
