"""Toxic text: what the step does with a scorer's probabilities, in which language, in which turns."""

from __future__ import annotations

import pytest

from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.chain import run_steps
from tanzim.data.screen.config import ToxicityConfig
from tanzim.data.screen.toxicity import Toxicity
from tanzim.data.shards import write_shards
from tanzim.data.step import Removed

ASKED: list[str] = []


def judge(texts):
    """Judge by two words."""
    ASKED.extend(texts)
    return [{"toxic": 0.9 * ("idiot" in text), "threat": 0.3 * ("hurt" in text)} for text in texts]


POWERS = Powers(judge=lambda name: {"two words": judge}[name])


def said(question: str, answer: str, row: int = 1, **about) -> Example:
    turns = (Message("system", "idiot"), Message("user", question), Message("assistant", answer))
    return Example("messages", Provenance("a", row), messages=turns[1:], about=about)


def outcome(example: Example, **settings):
    step = Toxicity(ToxicityConfig(model="two words", **settings), POWERS, 0)
    (result,) = step.apply([example])
    return result, step.counts


def test_drop_by_category():
    removed, counts = outcome(said("you idiot", "no"))
    assert isinstance(removed, Removed)
    assert (removed.reason, removed.detail) == ("toxic: toxic", "toxic 0.90")
    assert counts == {"toxic": 1}
    threat = said("I will hurt you", "no")
    assert outcome(threat)[0] is threat
    assert outcome(threat, thresholds={"threat": 0.2})[0].reason == "toxic: threat"
    assert outcome(said("you idiot", "no"), thresholds={"toxic": 0.95})[0].kind == "messages"


def test_what_is_judged():
    rude_user = said("you idiot", "Please stay polite.")
    assert outcome(rude_user, turns="answers")[0] is rude_user
    assert isinstance(outcome(said("hi", "you idiot"), turns="answers")[0], Removed)
    pair = Example(
        "pair",
        Provenance("a", 2),
        chosen=(Message("assistant", "fine"),),
        rejected=(Message("assistant", "idiot"),),
    )
    assert isinstance(outcome(pair)[0], Removed)
    text = Example("labelled", Provenance("a", 3), text="you idiot", label="insult")
    assert isinstance(outcome(text, turns="answers")[0], Removed)


def test_marks():
    marked, _ = outcome(said("you idiot", "I will hurt you", url="u"), action="mark")
    assert marked.about == {"url": "u", "toxicity": {"toxic": 0.9, "threat": 0.3}}
    assert marked.messages == said("you idiot", "I will hurt you").messages


def test_what_the_scorer_does_not_know_is_counted():
    ASKED.clear()
    persian = said("احمق idiot هستی و بی‌ادب", "نه")
    kept, counts = outcome(persian)
    assert (kept, counts) == (persian, {"not judged: in another language": 1})
    german = said("you idiot", "nein", language="de")
    assert outcome(german)[0] is german
    assert outcome(said("Ты идиот idiot", "нет"))[1] == {"not judged: in another language": 1}
    assert ASKED == []
    assert isinstance(outcome(persian, languages=[])[0], Removed)
    assert isinstance(outcome(persian, languages=["fa"])[0], Removed)


def test_in_the_chain_and_without_a_scorer(tmp_path):
    dataset = write_shards(tmp_path / "in", iter([said("you idiot", "no"), said("hello", "hi", row=2)]))
    config = ToxicityConfig(model="two words")
    (done,) = run_steps([config], dataset, tmp_path / "cache", seed=0, powers=POWERS)
    assert (done.dataset.rows, dict(done.report.removed)) == (1, {"toxic: toxic": 1})
    with pytest.raises(ConfigError, match="a scorer of texts"):
        list(run_steps([ToxicityConfig()], dataset, tmp_path / "other", seed=0))
