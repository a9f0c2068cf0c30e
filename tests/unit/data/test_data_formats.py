"""Each format of the field is recognised, and its rows become the examples that its makers define."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.config import DataConfig
from tanzim.data.ingest.convert import Converter, conversation
from tanzim.data.ingest.detect import Detection, detect
from tanzim.data.ingest.rows import BadRow, Row

WHERE = Provenance("a.jsonl", 1)


def _user(text: str) -> Message:
    return Message("user", text)


def _says(text: str, **more: Any) -> Message:
    return Message("assistant", text, **more)


def _make(rows: Sequence[dict[str, Any]], **config: Any) -> tuple[Detection, Example]:
    settings = DataConfig.model_validate(config)
    detection = detect(rows, settings)
    return detection, Converter(detection, settings)(Row("a.jsonl", 1, dict(rows[0])))


def _messages(*turns: Message, **more: Any) -> Example:
    return Example("messages", WHERE, messages=turns, **more)


def _pair(prompt: Sequence[Message], chosen: str, rejected: str) -> Example:
    return Example(
        "pair", WHERE, messages=tuple(prompt), chosen=(_says(chosen),), rejected=(_says(rejected),)
    )


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
ASKED = (_user("q"), _says("a"))
HH = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: "

FORMATS: dict[str, tuple[list[dict[str, Any]], str, Example]] = {
    "Alpaca": (
        [{"instruction": "Add.", "input": "1 and 2", "output": "3"}],
        "alpaca",
        _messages(_user("Add.\n\n1 and 2"), _says("3")),
    ),
    "Alpaca without input": (
        [{"instruction": "Hi.", "input": "", "output": "Hello."}],
        "alpaca",
        _messages(_user("Hi."), _says("Hello.")),
    ),
    "Alpaca with system and history": (
        [{"instruction": "c", "input": "", "output": "d", "system": "s", "history": [["a", "b"]]}],
        "alpaca",
        _messages(Message("system", "s"), _user("a"), _says("b"), _user("c"), _says("d")),
    ),
    "Dolly": (
        [{"instruction": "q", "context": "c", "response": "a", "category": "closed_qa"}],
        "prompt_completion",
        _messages(_user("q\n\nc"), _says("a")),
    ),
    "ShareGPT": (
        [
            {
                "id": "x",
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ],
            }
        ],
        "sharegpt",
        _messages(Message("system", "s"), *ASKED),
    ),
    "ShareGPT with tools": (
        [
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "تهران"}}'},
                    {"from": "observation", "value": '{"t": 31}'},
                    {"from": "gpt", "value": "hot"},
                ],
                "tools": json.dumps([WEATHER["function"]]),
            }
        ],
        "sharegpt",
        _messages(
            _user("q"),
            _says("", tool_calls=(ToolCall("weather", {"city": "تهران"}),)),
            Message("tool", '{"t": 31}'),
            _says("hot"),
            tools=(WEATHER,),
        ),
    ),
    "ShareGPT with roles": (
        [{"conversation": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]}],
        "messages",
        _messages(*ASKED),
    ),
    "OpenAI messages": (
        [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}],
        "messages",
        _messages(*ASKED),
    ),
    "OpenAI messages with weights": (
        [
            {
                "messages": [
                    {"role": "developer", "content": "s"},
                    {"role": "user", "content": "q", "name": "Sara"},
                    {"role": "assistant", "content": "a", "weight": 0},
                    {"role": "user", "content": "r"},
                    {"role": "assistant", "content": "b", "weight": 1, "reasoning_content": "t"},
                ]
            }
        ],
        "messages",
        _messages(
            Message("system", "s"),
            Message("user", "q", name="Sara"),
            _says("a", weight=0.0),
            _user("r"),
            _says("b", weight=1.0, thinking="t"),
        ),
    ),
    "OpenAI messages with tools": (
        [
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {
                                "id": "c1",
                                "type": "function",
                                "function": {"name": "weather", "arguments": '{"city": "Yazd"}'},
                            }
                        ],
                    },
                    {"role": "tool", "tool_call_id": "c1", "content": "31"},
                    {"role": "assistant", "content": "hot"},
                ],
                "tools": [WEATHER],
            }
        ],
        "messages",
        _messages(
            _user("q"),
            _says("", tool_calls=(ToolCall("weather", {"city": "Yazd"}, "c1"),)),
            Message("tool", "31", tool_call_id="c1"),
            _says("hot"),
            tools=(WEATHER,),
        ),
    ),
    "OpenAI's older function_call": (
        [
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {
                        "role": "assistant",
                        "content": "",
                        "function_call": {"name": "weather", "arguments": "{}"},
                    },
                    {"role": "function", "name": "weather", "content": "31"},
                    {"role": "assistant", "content": "hot"},
                ],
                "functions": [WEATHER["function"]],
            }
        ],
        "messages",
        _messages(
            _user("q"),
            _says("", tool_calls=(ToolCall("weather", {}),)),
            Message("tool", "31", name="weather"),
            _says("hot"),
            tools=(WEATHER,),
        ),
    ),
    "typed content": (
        [
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "value": "q"}], "loss_weight": 0.0},
                    {"role": "assistant", "content": [{"type": "text", "text": "a"}], "loss_weight": 1.0},
                ]
            }
        ],
        "messages",
        _messages(Message("user", "q", weight=0.0), _says("a", weight=1.0)),
    ),
    "messages as JSON text": (
        [{"messages": json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])}],
        "messages",
        _messages(*ASKED),
    ),
    "prompt and completion": ([{"prompt": "q", "completion": "a"}], "prompt_completion", _messages(*ASKED)),
    "question and answer": ([{"question": "q", "answer": "a"}], "prompt_completion", _messages(*ASKED)),
    "instruction and response": (
        [{"instruction": "q", "response": "a"}],
        "prompt_completion",
        _messages(*ASKED),
    ),
    "input and output": ([{"input": "q", "output": "a"}], "prompt_completion", _messages(*ASKED)),
    "query and response": ([{"Query": "q", "Response": "a"}], "prompt_completion", _messages(*ASKED)),
    "conversational prompt and completion": (
        [
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            }
        ],
        "prompt_completion",
        _messages(*ASKED),
    ),
    "SQuAD row": (
        [
            {
                "id": "1",
                "context": "c",
                "question": "q",
                "answers": {"text": ["a", "b"], "answer_start": [1, 2]},
            }
        ],
        "prompt_completion",
        _messages(_user("q\n\nc"), _says("a")),
    ),
    "SQuAD list of answers": (
        [
            {
                "context": "c",
                "question": "q",
                "answers": [{"text": "a", "answer_start": 3}],
                "is_impossible": False,
            }
        ],
        "prompt_completion",
        _messages(_user("q\n\nc"), _says("a")),
    ),
    "SQuAD unanswerable": (
        [{"context": "c", "question": "q", "answers": [], "is_impossible": True}],
        "prompt_completion",
        _messages(_user("q\n\nc"), _says("The text does not answer this.")),
    ),
    "text and label": (
        [{"text": "good", "label": 1}, {"text": "bad", "label": 0}] * 9,
        "labelled",
        Example("labelled", WHERE, text="good", label="1"),
    ),
    "review and sentiment": (
        [
            {"review": "good", "sentiment": "3", "category": "food"},
            {"review": "b", "sentiment": "-1", "category": "tea"},
        ]
        * 9,
        "labelled",
        Example("labelled", WHERE, text="good", label="3"),
    ),
    "two sentences and label": (
        [
            {"premise": "p", "hypothesis": "h", "label": "entailment"},
            {"premise": "p", "hypothesis": "i", "label": "neutral"},
        ]
        * 9,
        "labelled",
        Example("labelled", WHERE, text="p\n\nh", label="entailment"),
    ),
    "boolean label": (
        [{"text": "spam!", "label": True}, {"text": "fine", "label": False}] * 9,
        "labelled",
        Example("labelled", WHERE, text="spam!", label="true"),
    ),
    "label as a float": (
        [{"text": "x", "label": 1.0}, {"text": "y", "label": 0.0}] * 9,
        "labelled",
        Example("labelled", WHERE, text="x", label="1"),
    ),
    "preference": (
        [{"prompt": "q", "chosen": "a", "rejected": "b"}],
        "preference",
        _pair([_user("q")], "a", "b"),
    ),
    "preference with a system": (
        [{"system": "s", "question": "q", "chosen": "a", "rejected": "b"}],
        "preference",
        _pair([Message("system", "s"), _user("q")], "a", "b"),
    ),
    "preference as turns": (
        [
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            }
        ],
        "preference",
        _pair([_user("q")], "a", "b"),
    ),
    "preference as whole conversations": (
        [
            {
                "prompt": "q",
                "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
            }
        ],
        "preference",
        _pair([_user("q")], "a", "b"),
    ),
    "chosen_messages": (
        [
            {
                "chosen_messages": [
                    {"role": "user", "content": [{"type": "text", "value": "q"}]},
                    {"role": "assistant", "content": "a"},
                ],
                "rejected_messages": [
                    {"role": "user", "content": [{"type": "text", "value": "q"}]},
                    {"role": "assistant", "content": "b"},
                ],
            }
        ],
        "preference",
        _pair([_user("q")], "a", "b"),
    ),
    "HH": (
        [{"chosen": HH + "four", "rejected": HH + "five"}],
        "preference",
        _pair([_user("one"), _says("two"), _user("three")], "four", "five"),
    ),
    "OpenAI DPO": (
        [
            {
                "input": {"messages": [{"role": "user", "content": "q"}], "tools": []},
                "preferred_output": [{"role": "assistant", "content": "a"}],
                "non_preferred_output": [{"role": "assistant", "content": "b"}],
            }
        ],
        "preference",
        _pair([_user("q")], "a", "b"),
    ),
    "two responses and a verdict": (
        [{"prompt": "q", "response 1": "b", "response 2": "a", "label": 1}],
        "preference",
        _pair([_user("q")], "a", "b"),
    ),
    "raw text": ([{"text": "words"}], "text", Example("text", WHERE, text="words")),
    "raw text with metadata": (
        [{"content": f"words {n}", "url": f"u{n}"} for n in range(9)],
        "text",
        Example("text", WHERE, text="words 0"),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_recognised_and_converted(name: str) -> None:
    rows, format_, expected = FORMATS[name]
    detection, example = _make(rows)
    assert detection.format == format_
    assert len(detection.reason) > 10
    assert example == expected
    assert Example.from_json(json.loads(json.dumps(example.to_json()))) == expected


@pytest.mark.parametrize("name", [name for name, case in FORMATS.items() if case[1] not in ("sharegpt",)])
def test_naming_the_format_gives_what_detecting_it_gives(name: str) -> None:
    rows, format_, expected = FORMATS[name]
    assert _make(rows, format=format_)[1] == expected


@pytest.mark.parametrize(
    ("rows", "format_"),
    [
        ([{"messages": [{"role": "user", "content": "q"}], "label": True}], "kto"),
        ([{"prompt": "q", "completion": "a", "label": False}], "kto"),
        ([{"question": "q", "choices": ["a", "b"], "answer": 0}], "multiple_choice"),
        ([{"prompt": {"text": "q", "replies": [{"text": "a"}]}}], "message_tree"),
    ],
)
def test_formats_that_cannot_be_trained_on_are_named(rows: list[dict[str, Any]], format_: str) -> None:
    detection = detect(rows, DataConfig())
    assert detection.format == format_
    assert detection.refusal
    with pytest.raises(DataError, match="cannot be trained on as they are"):
        Converter(detection, DataConfig())


def test_columns_are_mapped() -> None:
    rows = [{"frage": "q", "antwort": "a", "mehr": "c", "rolle": "s"}]
    columns = {"prompt": "frage", "completion": "antwort", "context": "mehr", "system": "rolle"}
    expected = _messages(Message("system", "s"), _user("q\n\nc"), _says("a"))
    assert _make(rows, columns=columns)[1] == expected
    labelled = [{"دیدگاه": "خوب", "برچسب": "1", "answer": "x", "question": "y"}] * 9
    detection, example = _make(labelled, columns={"text": "دیدگاه", "label": "برچسب"})
    assert detection.format == "labelled"
    assert (example.text, example.label) == ("خوب", "1")
    assert _make([{"a": "x", "text": "y"}], columns={"text": "a"})[1] == Example("text", WHERE, text="x")
    turns = [{"m": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "text": "z"}]
    assert _make(turns, columns={"messages": "m"})[1] == _messages(*ASKED)
    pairs = [{"besser": "a", "schlechter": "b", "prompt": "q"}]
    assert _make(pairs, columns={"chosen": "besser", "rejected": "schlechter"})[1] == _pair(
        [_user("q")], "a", "b"
    )


def test_unused_columns_are_named() -> None:
    rows = [{"instruction": "q", "input": "", "output": "a", "category": "qa", "id": 1}]
    assert detect(rows, DataConfig()).reason.endswith("not used: 'category', 'id'")


def test_column_that_few_rows_have_is_used() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "tools": [WEATHER]}, *({"messages": turns} for _ in range(20))]
    assert _make(rows)[1] == _messages(*ASKED, tools=(WEATHER,))


def test_labels_are_named_and_others_refused() -> None:
    rows = [{"text": "x", "label": 1}, {"text": "y", "label": 0}, {"text": "z", "label": 7}] * 5
    config = DataConfig.model_validate({"labels": {0: "sad", 1: "happy"}})
    convert = Converter(detect(rows, config), config)
    assert [convert(Row("a", n, row)).label for n, row in enumerate(rows[:2])] == ["happy", "sad"]
    with pytest.raises(BadRow, match=r"no name in data\.labels"):
        convert(Row("a", 3, rows[2]))


def test_system_prompt_goes_where_there_is_none() -> None:
    plain = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]
    assert _make(plain, system="S")[1].messages[0] == Message("system", "S")
    own = [{"messages": [{"role": "system", "content": "own"}, *plain[0]["messages"]]}]
    assert [m.content for m in _make(own, system="S")[1].messages] == ["own", "q", "a"]


def test_no_answer_is_configurable() -> None:
    rows = [{"context": "c", "question": "q", "answers": [], "is_impossible": True}]
    assert _make(rows, no_answer="پاسخ در متن نیست.")[1].messages[-1] == _says("پاسخ در متن نیست.")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "the same"),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, "blank"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "not text"),
        ({"prompt": "q", "chosen": "a"}, "missing"),
        (
            {"prompt": "q", "chosen": {"role": "user", "content": "a"}, "rejected": "b"},
            "end with the assistant",
        ),
    ],
)
def test_malformed_pairs_are_refused(row: dict[str, Any], reason: str) -> None:
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    convert = Converter(detect([good], DataConfig()), DataConfig())
    with pytest.raises(BadRow, match=reason):
        convert(Row("a", 1, row))


def test_ties_are_refused_by_name() -> None:
    rows = [{"prompt": "q", "response_1": "a", "response_2": "b", "label": 2}]
    with pytest.raises(BadRow, match="tie"):
        _make(rows)


def test_media_columns_are_refused_by_name() -> None:
    with pytest.raises(BadRow, match="media are not supported yet: the column 'image_name'"):
        _make([{"question": "q", "answer": "a", "image_name": "x.jpg"}])


def test_labelled_text_becomes_a_conversation() -> None:
    example = Example("labelled", WHERE, text="a {labels} b", label="ham")
    got = conversation(example, labels=["ham", "spam"], instruction="One of {labels}: {text}", system="S")
    assert got == _messages(Message("system", "S"), _user("One of ham, spam: a {labels} b"), _says("ham"))


def test_conversation_leaves_others_and_refuses_pairs() -> None:
    text, chat = Example("text", WHERE, text="x"), _messages(*ASKED)
    kept = [conversation(e, labels=[], instruction="{text}", system=None) for e in (text, chat)]
    assert kept == [text, chat]
    with pytest.raises(DataError, match="preference training"):
        conversation(_pair([_user("q")], "a", "b"), labels=[], instruction="{text}", system=None)


def test_instruction_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no \{text\}"):
        DataConfig(instruction="Classify: {labels}")
    assert issubclass(ConfigError, ValueError)


def test_a_column_called_license_is_kept_with_the_example() -> None:
    """Sources that have none stand beside; a long text under that name is no licence."""
    config = DataConfig()
    rows = (
        {"text": "متن نخست", "License": "CC-BY-4.0"},
        {"text": "second"},
        {"text": "third", "license": "Permission is hereby granted " * 9},
    )
    found = [Converter(detect([row], config), config)(Row("a.jsonl", 1, row)).about for row in rows]
    assert found == [{"licence": "CC-BY-4.0"}, {}, {}]
