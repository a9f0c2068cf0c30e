"""Seeded random conversations: Persian, emoji, code, odd white space, tools, thinking."""

import random

from tanzim.core.records import Message, ToolCall

PIECES = [
    "hello", "Where is my order?", "می‌خواهم", "کتاب‌ها نرسیده‌اند.", "🙂🚀", "def f(x):\n    return x + 1",
    "```json\n{\"a\": [1, 2]}\n```", "ا", "é", "1,234.5", "\n\n", "<b>bold</b>", "a\tb", "سلام! چطوری؟", "OK",
]  # fmt: skip
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "هوای شهر",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def words(dice: random.Random, hostile: tuple[str, ...] = ()) -> str:
    text = " ".join(dice.choice([*PIECES, *hostile * 5]) for _ in range(dice.randint(1, 5)))
    return dice.choice(["", "", " ", "\n"]) + text + dice.choice(["", "", " ", "\n"])


def talk(
    seed: int, *, system: bool, tools: bool, thinking: bool, hostile: tuple[str, ...] = ()
) -> tuple[list[Message], list[dict]]:
    """One conversation that ends with an answer, and its tools; ``hostile`` words stand in it often."""
    dice = random.Random(seed)
    turns = []
    if system and dice.random() < 0.6:
        turns.append(Message("system", dice.choice(["", words(dice, hostile), "You answer briefly."])))
    with_tools = tools and dice.random() < 0.5
    for _ in range(dice.randint(1, 4)):
        turns.append(Message("user", words(dice, hostile)))
        if with_tools and dice.random() < 0.6:
            call = ToolCall(
                "get_weather", {"city": words(dice, hostile), "days": dice.randint(1, 9)}, "call12345"
            )
            turns.append(Message("assistant", tool_calls=(call,)))
            turns.append(Message("tool", words(dice, hostile), tool_call_id="call12345", name="get_weather"))
        why = words(dice, hostile).strip() if thinking and dice.random() < 0.5 else None
        turns.append(Message("assistant", words(dice, hostile), thinking=why))
    return turns, [TOOL] if with_tools else []
