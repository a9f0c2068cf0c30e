"""Rows as examples, by the detected format."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json, Message, Provenance
from tanzim.data.config import DataConfig
from tanzim.data.ingest.detect import ASIDE, Detection, as_turns
from tanzim.data.ingest.names import MEDIA, UNANSWERABLE, normal
from tanzim.data.ingest.preference import pair
from tanzim.data.ingest.rows import BadRow, Row, excerpt
from tanzim.data.ingest.turns import check, messages, text_of, tools_of
from tanzim.data.split.times import seconds


class Converter:
    """Makes an example of each row of one source.

    Args:
        detection: the format and which column plays which part.
        config: names of labels, the system prompt, the answer to unanswerable questions.

    Raises:
        DataError: the format is known, but there is no training on it here.

    """

    def __init__(self, detection: Detection, config: DataConfig, where: str = "data") -> None:
        if detection.refusal:
            raise DataError(
                f"the rows cannot be trained on as they are. {detection.reason}.",
                where=where,
                fix=detection.refusal,
            )
        self._detection = detection
        self._columns = detection.columns
        self._config = config
        self.unanswerable = 0
        self.further_answers = 0
        self._make = {
            "alpaca": self._asked,
            "prompt_completion": self._asked,
            "messages": self._turns,
            "sharegpt": self._turns,
            "labelled": self._labelled,
            "tagged": self._tagged,
            "preference": self._pair,
            "text": self._text,
        }[detection.format]

    def __call__(self, row: Row) -> Example:
        """Make the example of a row.

        Raises:
            BadRow: the row cannot be used.

        """
        for name, value in row.value.items():
            if value not in (None, "", []) and normal(name) in MEDIA and name not in self._columns.values():
                raise BadRow(
                    "rows with media are not supported yet", f"the column '{name}' holds {excerpt(value)}"
                )
        example = self._make(row.value, Provenance(row.source, row.row))
        about = {part: said for part in ASIDE if (said := self._aside(row.value, part)) is not None}
        return replace(example, about={**example.about, **about}) if about else example

    def _aside(self, row: Json, part: str) -> str | float | None:
        """Return what a row says about its example: its group, time or licence."""
        name = self._columns.get(part)
        value = row.get(name) if name is not None else None
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if part != "time":
            return text_of(value, name or part).strip()
        try:
            seconds(value)
        except (ValueError, OverflowError) as error:
            raise BadRow("the time cannot be read", f"'{name}' is {excerpt(value)}: {error}") from None
        return value if isinstance(value, int | float) else str(value).strip()

    def context(self, row: Row) -> str:
        """Return the text that a row shares with others asked about it, such as SQuAD's paragraph."""
        return self._optional(row.value, "context")

    def _cell(self, row: Json, part: str) -> Any:  # noqa: ANN401 - any cell
        name = self._columns[part]
        if name not in row:
            raise BadRow(f"the column '{name}' is missing", f"there are: {', '.join(map(str, row))}"[:120])
        return row[name]

    def _optional(self, row: Json, part: str) -> str:
        value = row.get(self._columns[part]) if part in self._columns else None
        return "" if value is None else text_of(value, self._columns[part])

    def _with_system(self, turns: tuple[Message, ...], row: Json) -> tuple[Message, ...]:
        system = self._optional(row, "system")
        system = system if system.strip() else (self._config.system or "")
        if not system or any(turn.role == "system" for turn in turns):
            return turns
        return (Message("system", system), *turns)

    def _conversation(self, turns: tuple[Message, ...], row: Json, provenance: Provenance) -> Example:
        check(turns)
        tools = tools_of(row.get(self._columns.get("tools", "tools")))
        return Example("messages", provenance, messages=self._with_system(turns, row), tools=tools)

    def _turns(self, row: Json, provenance: Provenance) -> Example:
        turns = messages(self._cell(row, "messages"), self._columns["messages"])
        return self._conversation(turns, row, provenance)

    def _asked(self, row: Json, provenance: Provenance) -> Example:
        asked = self._cell(row, "prompt")
        if as_turns(asked) is not None:
            prompt = messages(asked, self._columns["prompt"])
        else:
            text = text_of(asked, self._columns["prompt"])
            if not text.strip():
                raise BadRow("the prompt is blank", f"'{self._columns['prompt']}'")
            context = self._optional(row, "context")
            prompt = (Message("user", f"{text}\n\n{context}" if context.strip() else text),)
            prompt = (*_history(row.get("history")), *prompt)
        return self._conversation((*prompt, *self._answer(row)), row, provenance)

    def _answer(self, row: Json) -> tuple[Message, ...]:
        """Return the answer: text, turns, or the first of SQuAD's answers."""
        value = self._cell(row, "completion")
        if as_turns(value) is not None:
            return messages(value, self._columns["completion"])
        if isinstance(value, dict) and isinstance(
            value.get("text"), list
        ):  # {"text": […], "answer_start": […]}
            value = [{"text": text} for text in value["text"]]
        none = any(row.get(name) is True or row.get(name) in ("true", "True", 1) for name in UNANSWERABLE)
        if none or value == []:
            if none or self._columns["completion"] == "answers":
                self.unanswerable += 1
                return (Message("assistant", self._config.no_answer),)
            raise BadRow("an answer is blank", f"'{self._columns['completion']}' is an empty list")
        if isinstance(value, list):
            self.further_answers += len(value) > 1
            value = value[0].get("text") if isinstance(value[0], dict) else value[0]
        text = text_of(value, self._columns["completion"])
        if not text.strip():
            raise BadRow("an answer is blank", f"'{self._columns['completion']}'")
        return (Message("assistant", text),)

    def _labelled(self, row: Json, provenance: Provenance) -> Example:
        text = text_of(self._cell(row, "text"), self._columns["text"])
        more = self._optional(row, "context")
        if not text.strip():
            raise BadRow("the text is blank", f"'{self._columns['text']}'")
        value = self._cell(row, "label")
        if value is None or (isinstance(value, str) and not value.strip()):
            raise BadRow("the label is missing", f"'{self._columns['label']}'")
        text = f"{text}\n\n{more}" if more.strip() else text
        return Example("labelled", provenance, text=text, label=self._named(value, "label"))

    def _named(self, value: Any, part: str) -> str:  # noqa: ANN401 - any cell
        """Return a label by its name in data.labels, if it has one."""
        label = str(value).lower() if isinstance(value, bool) else text_of(value, self._columns[part]).strip()
        named = self._config.labels
        if named and label not in named and label not in named.values():
            raise BadRow("the label has no name in data.labels", f"'{label}'")
        return named.get(label, label)

    def _tagged(self, row: Json, provenance: Provenance) -> Example:
        cells = {part: self._cell(row, part) for part in ("words", "tags")}
        for part, cell in cells.items():
            if not isinstance(cell, list):
                raise BadRow("words or tags are not a list", f"'{self._columns[part]}' is {excerpt(cell)}")
        words, tags = cells["words"], cells["tags"]
        if len(words) != len(tags):
            raise BadRow("words and tags differ in number", f"{len(words)} words, {len(tags)} tags")
        if not words:
            raise BadRow("there are no words", f"'{self._columns['words']}' is empty")
        for place, (word, tag) in enumerate(zip(words, tags, strict=True), 1):
            if not isinstance(word, str) or not word.strip():
                raise BadRow("a word is blank or no text", f"word {place} is {excerpt(word)}")
            if tag is None or (isinstance(tag, str) and not tag.strip()):
                raise BadRow("a tag is missing", f"of word {place}, {excerpt(word)}")
        named = tuple(self._named(tag, "tags") for tag in tags)
        return Example("tagged", provenance, text=" ".join(words), words=tuple(words), tags=named)

    def _text(self, row: Json, provenance: Provenance) -> Example:
        text = text_of(self._cell(row, "text"), self._columns["text"])
        if not text.strip():
            raise BadRow("the text is blank", f"'{self._columns['text']}'")
        return Example("text", provenance, text=text)

    def _pair(self, row: Json, provenance: Provenance) -> Example:
        for part in ("chosen", "rejected"):
            self._cell(row, part)
        prompt, chosen, rejected, tools = pair(row, self._detection)
        turns = self._with_system(prompt, row)
        return Example("pair", provenance, messages=turns, tools=tools, chosen=chosen, rejected=rejected)


def _history(value: Any) -> tuple[Message, ...]:  # noqa: ANN401 - any cell
    """Return Alpaca's ``history``: earlier pairs of question and answer."""
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == 2 for one in value):
        raise BadRow("'history' is not a list of [question, answer]", excerpt(value))
    said = [(text_of(q, "history"), text_of(a, "history")) for q, a in value]
    return tuple(m for q, a in said for m in (Message("user", q), Message("assistant", a)))


def conversation(example: Example, *, labels: list[str], instruction: str, system: str | None) -> Example:
    """Turn a labelled example into a conversation that asks for the label; leave others as they are.

    Args:
        example: kind labelled, messages or text.
        labels: every label there is, for {labels} in the instruction.
        instruction: how the text is put, with {text} and {labels}.
        system: a system prompt for a conversation that has none.

    Raises:
        DataError: the example is a preference pair, or words with tags.

    """
    if example.kind == "tagged":
        raise DataError(
            "words with tags are no conversation to imitate",
            where=str(example.provenance),
            fix="train.objective.type=token_classification learns to tag words",
        )
    if example.kind == "pair":
        raise DataError(
            "a preference pair is not a conversation to imitate",
            where=str(example.provenance),
            fix="preference data needs preference training (DPO); give other data to fine-tune on",
        )
    if example.kind == "text":
        return example
    start = (Message("system", system),) if system else ()
    if example.kind == "messages":
        if not start or any(turn.role == "system" for turn in example.messages):
            return example
        return replace(example, messages=(*start, *example.messages))
    filled = {"{text}": example.text, "{labels}": ", ".join(labels)}
    asked = re.sub(r"\{text\}|\{labels\}", lambda match: filled[match[0]], instruction)
    turns = (*start, Message("user", asked), Message("assistant", example.label))
    return Example("messages", example.provenance, messages=turns)
