"""Recognise the shape of the rows: which format, by which columns, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from tanzim.core.errors import DataError
from tanzim.core.records import Json
from tanzim.data.config import Columns, DataConfig
from tanzim.data.ingest import names

SAMPLE = 200  # rows that decide
_LICENCE, _SHORT = ("licence", "license"), 100  # names of such a column, and most characters of its values
ASIDE = ("group", "time", "licence")  # parts that say something about an example, and are none of it
_SHARE = 0.5  # of the sampled rows must have a column for it to count


@dataclass(frozen=True, slots=True)
class Detection:
    """What the rows are.

    Args:
        format: alpaca, sharegpt, messages, prompt_completion, labelled, tagged, preference or text; or
            a format that is known but cannot be trained on here: kto, multiple_choice, message_tree.
        reason: one sentence for the user.
        columns: which column plays which part (the keys of ``data.columns``).
        refusal: for a format that cannot be used, what to do about it.

    """

    format: str
    reason: str
    columns: dict[str, str] = field(default_factory=dict)
    refusal: str = ""


class _Sample:
    """The sampled rows by column, found by the names that a part goes by."""

    def __init__(self, rows: Sequence[Json], mapped: Columns) -> None:
        self.rows = rows
        counts: dict[str, int] = {}
        for row in rows:
            for key in row:
                counts[key] = counts.get(key, 0) + 1
        self.names = list(counts)
        named = {part: name for part, name in mapped if name is not None}
        self.aside: dict[str, str] = {part: name for part, name in named.items() if part in ASIDE}
        if "licence" not in named and (found := self._licence(named.values())):
            self.aside["licence"] = found
        self.mapped: dict[str, str] = {part: name for part, name in named.items() if part not in ASIDE}
        self._usual: dict[str, str] = {}
        self._rare: dict[str, str] = {}
        for name, count in counts.items():
            self._rare.setdefault(names.normal(name), name)
            if count >= _SHARE * len(rows):
                self._usual.setdefault(names.normal(name), name)

    def _licence(self, taken: Collection[str]) -> str | None:
        """Return the column that by its name, and by how short its values are, names a licence."""
        for name in self.names:
            if names.normal(name) in _LICENCE and name not in taken:
                values = self.values(name)
                return name if all(isinstance(one, str) and len(one) <= _SHORT for one in values) else None
        return None

    def values(self, name: str) -> list[Any]:
        """Return what a column holds, without the missing."""
        return [row[name] for row in self.rows if row.get(name) is not None]

    def find(self, part: str, usual: Sequence[str], *not_these: str | None) -> str | None:
        """Return the column of a part: the mapped one, or the first that bears a usual name."""
        if part in self.mapped:
            return self.mapped[part]
        taken = {*not_these, *self.mapped.values(), *self.aside.values()}
        return next((self._usual[n] for n in usual if n in self._usual and self._usual[n] not in taken), None)

    def extra(self, part: str, usual: Sequence[str]) -> str | None:
        """Return the column of a part that a row may lack: a few rows with it are enough."""
        return self.mapped.get(part) or next((self._rare[n] for n in usual if n in self._rare), None)

    def first(self, usual: Sequence[str]) -> str | None:
        """Return the first column that bears a usual name."""
        return next((self._usual[name] for name in usual if name in self._usual), None)

    def mostly(self, name: str, test: Callable[[Any], bool]) -> bool:
        """Tell whether most values of a column pass a test."""
        values = self.values(name)
        return bool(values) and sum(map(test, values)) > 0.5 * len(values)

    def parts(self, **found: str | None) -> dict[str, str]:
        """Keep the parts that have a column, with everything the config maps."""
        return {**{part: name for part, name in found.items() if name is not None}, **self.mapped}


def as_turns(value: Any) -> list[Json] | None:  # noqa: ANN401 - any cell
    """Return a cell as a list of turns, parsed if it is JSON text; None if it is not one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        keys = {key for turn in value for key in turn}
        if keys & {"role", "from"} and keys & {"content", "value", "tool_calls", "function_call"}:
            return value
    return None


def _turns_column(sample: _Sample) -> str | None:
    if "messages" in sample.mapped:
        return sample.mapped["messages"]
    usual = [sample.first([name]) for name in names.MESSAGES]
    others = [n for n in sample.names if names.normal(n) not in (*names.PROMPT, *names.COMPLETION)]
    for name in [*filter(None, usual), *others]:
        if sample.mostly(name, lambda value: as_turns(value) is not None):
            return name
    return None


def _preference(sample: _Sample) -> Detection | None:
    chosen = sample.find("chosen", names.CHOSEN)
    rejected = sample.find("rejected", names.REJECTED)
    prompt = sample.find("prompt", names.PROMPT, chosen, rejected)
    if chosen and rejected:
        turns = sample.find("messages", names.MESSAGES, chosen, rejected)
        parts = sample.parts(
            chosen=chosen,
            rejected=rejected,
            messages=turns,
            prompt=None if turns else prompt,
            system=sample.extra("system", names.SYSTEM),
            tools=sample.extra("tools", names.TOOLS),
        )
        return Detection("preference", f"Preference pairs: '{chosen}' is preferred to '{rejected}'", parts)
    match, other = (sample.first([name]) for name in names.MATCHES)
    if match and other and prompt and sample.mostly(match, lambda value: isinstance(value, str | list)):
        reason = f"Texts that belong together: '{match}' belongs to '{prompt}', '{other}' does not"
        return Detection("preference", reason, sample.parts(prompt=prompt, chosen=match, rejected=other))
    for first, second in names.TWO_ANSWERS:
        one, two, verdict = sample.first([first]), sample.first([second]), sample.first(names.VERDICT)
        if one and two and verdict and prompt:
            reason = f"Preference pairs: '{verdict}' says which of '{one}' and '{two}' is better"
            parts = sample.parts(prompt=prompt, chosen=one, rejected=two, label=verdict)
            return Detection("preference", reason, parts)
    return None


def _unpaired(sample: _Sample) -> Detection | None:
    label = sample.first(names.UNPAIRED)
    turns = _turns_column(sample)
    answered = turns or (sample.first(["prompt"]) and sample.first(["completion"]))
    if label and answered and sample.mostly(label, lambda value: isinstance(value, bool)):
        return Detection(
            "kto",
            f"Unpaired preferences (KTO): a conversation in '{answered}', and true or false in '{label}'",
            sample.parts(messages=turns, label=label),
            "preference training is not there yet; to imitate the good answers, keep the rows with "
            f"'{label}' true in a file without that column",
        )
    return None


def _conversations(sample: _Sample) -> Detection | None:
    column = _turns_column(sample)
    if column is None:
        return None
    turns = [turn for value in sample.values(column) for turn in as_turns(value) or []]
    keys = {key for turn in turns for key in turn}
    roles = sorted({str(turn.get("from", turn.get("role"))) for turn in turns})[:8]
    share = "from" in keys and "value" in keys
    parts = sample.parts(
        messages=column,
        system=sample.extra("system", names.SYSTEM),
        tools=sample.extra("tools", names.TOOLS),
    )
    how = "'from' and 'value'" if share else "'role' and 'content'"
    title = "ShareGPT" if share else "OpenAI messages"
    reason = f"{title}: '{column}' lists turns with {how}; roles: {', '.join(roles)}"
    return Detection("sharegpt" if share else "messages", reason, parts)


def _refused(sample: _Sample) -> Detection | None:
    """Name what is known but would be nonsense as plain question and answer."""
    prompt = sample.first(["prompt"])
    if prompt and sample.mostly(prompt, lambda v: isinstance(v, dict) and "replies" in v):
        return Detection(
            "message_tree",
            f"A tree of messages: '{prompt}' holds replies to replies",
            {"prompt": prompt},
            "write one path from root to leaf per row, as a list of messages",
        )
    choices, question = sample.first(names.CHOICES), sample.first(["question", "query", "prompt"])
    if choices and question and not sample.mapped:
        return Detection(
            "multiple_choice",
            f"Multiple choice: '{question}' with answers to choose from in '{choices}'",
            {"prompt": question},
            "write the choices into the question and the right one into a column 'answer'; "
            "or map the columns in data.columns",
        )
    return None


def _alpaca(sample: _Sample) -> Detection | None:
    instruction = sample.find("prompt", ("instruction",))
    output = sample.find("completion", ("output",), instruction)
    if not instruction or not output:
        return None
    context = sample.find("context", ("input",), instruction, output)
    more = f", with '{context}' after it" if context else ""
    parts = sample.parts(
        prompt=instruction, context=context, completion=output, system=sample.extra("system", names.SYSTEM)
    )
    return Detection("alpaca", f"Alpaca: '{output}' answers '{instruction}'{more}", parts)


def _prompt_completion(sample: _Sample) -> Detection | None:
    prompt = sample.find("prompt", names.PROMPT)
    completion = sample.find("completion", names.COMPLETION, prompt)
    if not prompt or not completion:
        return None
    context = sample.find("context", names.CONTEXT, prompt, completion)
    more = f", with '{context}' after it" if context else ""
    parts = sample.parts(
        prompt=prompt,
        context=context,
        completion=completion,
        system=sample.extra("system", names.SYSTEM),
        tools=sample.extra("tools", names.TOOLS),
    )
    return Detection(
        "prompt_completion", f"Prompt and completion: '{completion}' answers '{prompt}'{more}", parts
    )


def _classes(sample: _Sample, name: str, most: int) -> list[str] | None:
    """Return the values of a column if they are a small closed set of short values."""
    values = [value for value in sample.values(name) if value != ""]
    if not values or any(isinstance(value, dict | list) for value in values):
        return None
    classes = sorted({str(value) for value in values})
    few = len(classes) <= max(2, min(most, len(values) // 2)) or len(values) < 10
    return classes if few and max(map(len, classes)) <= 60 else None


def _labelled(sample: _Sample) -> Detection | None:
    candidates = [("label", name, 100) for name in names.LABEL] + [("label", n, 20) for n in names.WEAK_LABEL]
    if "label" in sample.mapped:
        candidates = [("label", "", 1000)]
    for part, name, most in candidates:
        label = sample.find(part, (name,))
        classes = _classes(sample, label, most) if label else None
        if label and classes and (len(classes) > 1 or name in names.LABEL or not name):
            break
    else:
        return _labelled_unnamed(sample)
    context = sample.mapped.get("context")
    text = sample.find("text", names.TEXT, label)
    for first, second in names.TEXT_PAIRS:
        one, two = sample.first([first]), sample.first([second])
        if one and two and "text" not in sample.mapped:
            text, context = one, context or two
    if text is None:
        return None
    more = f" (with '{context}')" if context else ""
    shown = ", ".join(classes[:6]) + (", …" if len(classes) > 6 else "")
    reason = f"Classification: '{label}' is the class of '{text}'{more}; {len(classes)} classes: {shown}"
    return Detection("labelled", reason, sample.parts(text=text, context=context, label=label))


def _tagged(sample: _Sample) -> Detection | None:
    words = sample.find("words", names.WORDS)
    tags = sample.find("tags", names.TAGS, words)
    if not words or not tags or not sample.mostly(tags, _is_list):
        return None
    if not sample.mostly(words, lambda v: isinstance(v, list) and all(isinstance(w, str) for w in v)):
        return None
    kinds = list(dict.fromkeys(str(tag) for value in sample.values(tags) if _is_list(value) for tag in value))
    shown = ", ".join(kinds[:8]) + (", …" if len(kinds) > 8 else "")
    reason = f"Tagged words: '{tags}' has a tag for each of '{words}'; {len(kinds)} tags: {shown}"
    return Detection("tagged", reason, sample.parts(words=words, tags=tags))


def _is_list(value: Any) -> bool:  # noqa: ANN401 - any cell
    """Tell a list of tags: text or numbers."""
    return isinstance(value, list) and all(isinstance(one, str | int) for one in value)


def _labelled_unnamed(sample: _Sample) -> Detection | None:
    """Recognise text and class in a table without column names by what the columns hold."""
    if not sample.names or not all(name.startswith("column_") for name in sample.names):
        return None
    if len(sample.names) != 2 or sample.mapped or len(sample.rows) < 4:
        return None
    length = {n: sum(len(str(v)) for v in sample.values(n)) for n in sample.names}
    label, text = sorted(sample.names, key=lambda name: length[name])
    classes = _classes(sample, label, 20)
    if not classes or len(classes) < 2:
        return None
    shown = ", ".join(classes[:6])
    reason = f"Classification: '{label}' takes {len(classes)} values ({shown}), '{text}' is text"
    return Detection("labelled", reason, {"text": text, "label": label})


def _text(sample: _Sample) -> Detection | None:
    text = sample.find("text", names.RAW_TEXT)
    if (
        text is None
        and len(sample.names) == 1
        and sample.mostly(sample.names[0], lambda v: isinstance(v, str))
    ):
        text = sample.names[0]
    return Detection("text", f"Raw text in '{text}'", {"text": text}) if text else None


_DETECTORS: dict[str, tuple[Callable[[_Sample], Detection | None], ...]] = {
    "auto": (
        _tagged, _preference, _unpaired, _conversations, _refused, _alpaca, _prompt_completion, _labelled,
        _text,
    ),
    "alpaca": (_alpaca,),
    "sharegpt": (_conversations,),
    "messages": (_conversations,),
    "prompt_completion": (_prompt_completion,),
    "labelled": (_labelled,),
    "tagged": (_tagged,),
    "preference": (_preference,),
    "text": (_text,),
}  # fmt: skip


def detect(rows: Sequence[Json], config: DataConfig, where: str = "data") -> Detection:
    """Recognise the format of rows.

    Args:
        rows: the first rows of a source, at least one.
        config: the format, if it is not to be detected, and columns with unusual names.
        where: the file, for messages.

    Raises:
        DataError: a mapped column is not there, or the rows are of no known shape.

    """
    sample = _Sample(rows, config.columns)
    for part, name in {**sample.mapped, **sample.aside}.items():
        if name not in sample.names:
            raise DataError(
                f"there is no column '{name}' (data.columns.{part}); there are: {_listed(sample)}",
                where=where,
                fix=f"correct data.columns.{part}",
            )
    detectors = _DETECTORS[config.format]
    if config.format == "auto" and sample.mapped:
        detectors = (*_implied(sample.mapped), *detectors)
    for detector in detectors:
        found = detector(sample)
        if found is not None:
            return _with_unused(replace(found, columns={**found.columns, **sample.aside}), sample)
    _unknown(sample, config, where)


def _with_unused(found: Detection, sample: _Sample) -> Detection:
    """Say which columns play no part."""
    unused = [name for name in sample.names if name not in found.columns.values()]
    if not unused:
        return found
    shown = ", ".join(f"'{name}'" for name in unused[:6]) + (", …" if len(unused) > 6 else "")
    return replace(found, reason=f"{found.reason}; not used: {shown}")


def _implied(mapped: dict[str, str]) -> list[Callable[[_Sample], Detection | None]]:
    """Try first what the mapped columns speak of."""
    speaks = (
        ({"words"}, _tagged), ({"tags"}, _tagged), ({"messages"}, _conversations),
        ({"chosen"}, _preference), ({"label"}, _labelled),
        ({"prompt"}, _prompt_completion), ({"completion"}, _prompt_completion), ({"text"}, _labelled),
        ({"text"}, _text),
    )  # fmt: skip
    return [detector for parts, detector in speaks if parts & mapped.keys()]


def _listed(sample: _Sample) -> str:
    more = f" and {len(sample.names) - 12} more" if len(sample.names) > 12 else ""
    return (", ".join(f"'{name[:40]}'" for name in sample.names[:12]) or "none") + more


def _unknown(sample: _Sample, config: DataConfig, where: str) -> NoReturn:
    kind = "of no known format" if config.format == "auto" else f"not of the format '{config.format}'"
    raise DataError(
        f"the rows are {kind}; their columns are: {_listed(sample)}",
        where=where,
        fix="say in data.columns which column is what, such as data.columns.prompt=… and "
        "data.columns.completion=…",
    )
