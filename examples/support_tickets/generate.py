"""Write the demo's data: customer messages in English and Persian, each with its ticket as JSON.

    python examples/support_tickets/generate.py [--out FOLDER] [--seed N]

Every row is a conversation in the OpenAI ``messages`` format. The phrases of the three splits are
disjoint (`phrases_en`, `phrases_fa`), so that a model that learnt sentences by heart scores nothing
on the test split. Only the standard library is used; the same seed writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import phrases_en
import phrases_fa

SYSTEM = "JSON ticket: intent, item, order, urgency"
ROWS = {"train": 3000, "validation": 60, "test": 180}
LANGUAGES: dict[str, ModuleType] = {"en": phrases_en, "fa": phrases_fa}
# In turn. The base model knows English and hardly any Persian: it gets three Persian messages in five.
TURNS = {"train": ["fa", "en", "fa", "en", "fa"], "validation": ["en", "fa"], "test": ["en", "fa"]}
PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
HALF_SPACE = "\u200c"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the model is to find in a message."""

    intent: str
    item: str | None
    order: str | None
    urgency: str

    def to_json(self) -> str:
        """Return the ticket as the assistant writes it."""
        return json.dumps(asdict(self), separators=(",", ":"))


class Writer:
    """Composes messages of one split and language from the phrases of that split."""

    def __init__(self, rng: random.Random, split: str, language: str) -> None:
        self.rng = rng
        self.split = split
        self.language = language
        self.phrases = LANGUAGES[language]

    def compose(self) -> tuple[str, Ticket]:
        """Return a message and its ticket."""
        rng, phrases, split = self.rng, self.phrases, self.split
        intent = rng.choice(list(phrases.PROBLEMS))
        item, other = rng.sample(list(phrases.ITEMS), 2)
        template = rng.choice(phrases.PROBLEMS[intent][split])
        subject = item if "{item}" in template else None
        urgent = rng.random() < 0.4
        extras, order = self._numbers()
        if urgent:
            extras.append(rng.choice(phrases.URGENT[split]))
        elif rng.random() < 0.35:
            extras.append(rng.choice(phrases.CALM[split]))
        if subject and rng.random() < 0.4:
            extras.append(self._fill(rng.choice(phrases.SECONDS[split]), item, other))
        if len(extras) < 2 and rng.random() < 0.25:
            extras.append(rng.choice(phrases.BACKGROUND[split]))
        rng.shuffle(extras)
        at = 0 if rng.random() < 0.5 else rng.randint(0, len(extras))
        problem = self._fill(template, item, other)
        message = " ".join([*extras[:at], problem, *extras[at:]])
        return self._frame(message), Ticket(intent, subject, order, "high" if urgent else "normal")

    def _numbers(self) -> tuple[list[str], str | None]:
        """Choose an order clause, or a clause with some other number, or both, or neither."""
        rng, clauses, order = self.rng, [], None
        if rng.random() < 0.4:
            order = str(rng.randint(1000, 9999))
            clauses.append(self._number(rng.choice(self.phrases.ORDERS[self.split]), order, typed=False))
        if rng.random() < 0.15:
            other = str(rng.randint(1000, 9999))
            clauses.append(self._number(rng.choice(self.phrases.NUMBERS[self.split]), other, typed=True))
        return clauses, order

    def _number(self, template: str, number: str, *, typed: bool) -> str:
        """Fill in a number; order numbers are copied as the shop writes them, others typed as people do."""
        if typed and self.language == "fa" and self.rng.random() < 0.5:
            number = number.translate(PERSIAN_DIGITS)
        return template.format(n=number)

    def _name(self, item: str) -> str:
        held_out = getattr(self.phrases, "TEST_ITEMS", {}).get(item)
        if self.split == "test" and held_out and self.rng.random() < 0.2:
            return str(self.rng.choice(held_out))
        return str(self.rng.choice(self.phrases.ITEMS[item]))

    def _fill(self, template: str, item: str, other: str) -> str:
        return template.format(item=self._name(item), other=self._name(other))

    def _frame(self, message: str) -> str:
        """Add what people add: a greeting, a name, slips of the finger."""
        rng, english = self.rng, self.language == "en"
        if rng.random() < 0.2:
            message = f"{rng.choice(self.phrases.GREETINGS)}{', ' if english else '، '}{message}"
        if rng.random() < (0.15 if english else 0.08):
            message = f"{message} {rng.choice(self.phrases.SIGNATURES)}"
        return _slip_english(message, rng) if english else _slip_persian(message, rng)


def _slip_english(message: str, rng: random.Random) -> str:
    """Swap two letters of a long word, or write everything small, now and then."""
    chance = rng.random()
    if chance < 0.12:
        return message.lower()
    if chance < 0.22:
        words = message.split(" ")
        long = [index for index, word in enumerate(words) if len(word) > 5 and word.isalpha()]
        if long:
            index = rng.choice(long)
            word, at = words[index], rng.randint(1, len(words[index]) - 3)
            words[index] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return " ".join(words)
    return message


def _slip_persian(message: str, rng: random.Random) -> str:
    """Write a space or nothing for the half-spaces, or Arabic yeh and kaf, now and then."""
    chance = rng.random()
    if chance < 0.08:
        return message.replace(HALF_SPACE, " ")
    if chance < 0.14:
        return message.replace(HALF_SPACE, "")
    if chance < 0.20:
        return message.replace("ی", "ي").replace("ک", "ك")
    return message


def generate(split: str, rows: int, seed: int) -> list[dict[str, list[dict[str, str]]]]:
    """Return ``rows`` different conversations of a split, its languages in turn.

    Args:
        split: train, validation or test.
        rows: how many conversations.
        seed: the same seed gives the same conversations.

    """
    rng = random.Random(f"{seed}/{split}")
    writers = [Writer(rng, split, language) for language in TURNS[split]]
    seen: set[str] = set()
    conversations = []
    while len(conversations) < rows:
        message, ticket = writers[len(conversations) % len(writers)].compose()
        if message in seen:
            continue
        seen.add(message)
        turns = {"system": SYSTEM, "user": message, "assistant": ticket.to_json()}
        conversations.append({"messages": [{"role": r, "content": c} for r, c in turns.items()]})
    return conversations


def main() -> None:
    """Write train.jsonl, validation.jsonl and test.jsonl."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--seed", type=int, default=13)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, rows in ROWS.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in generate(split, rows, arguments.seed)]
        (arguments.out / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{arguments.out / f'{split}.jsonl'}: {rows} conversations")


if __name__ == "__main__":
    main()
