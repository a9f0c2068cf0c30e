"""Answers of a system to the items: kept as they come, continued after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tanzim.core.records import Example, Json, Message, Progress, Provenance
from tanzim.core.run import append_line, read_lines
from tanzim.evaluate.items import Item
from tanzim.infer.request import Request

if TYPE_CHECKING:
    from tanzim.infer.engine import Engine
    from tanzim.models.speaker import Speaker

# Answers are kept after so many batches: the engine fills places that short answers leave.
_KEEP_AFTER = 4
# (sum of the cross-entropy over trained tokens, their number) of the test set under an adapter.
HeldoutLoss = Callable[[str | None], tuple[float, int]]


@dataclass(frozen=True, slots=True)
class System:
    """A model to measure.

    Args:
        name: base, tuned…
        engine: generates and scores.
        adapter: the engine's name of the adapter; None is its base model.
        fingerprint: hash of base weights and adapter; answers are kept under it.
        heldout_loss: measures the loss of the whole test set; None leaves it out.
        route: the adapter of each example, by where it came from, in place of ``adapter``; None: one for all.

    """

    name: str
    engine: Engine
    adapter: str | None
    fingerprint: str
    heldout_loss: HeldoutLoss | None = None
    route: Callable[[Provenance], str] | None = None

    def adapters(self, items: Sequence[Item]) -> list[str | None]:
        """Return the adapter that answers each item."""
        if self.route is None:
            return [self.adapter] * len(items)
        return [self.route(item.example.provenance) for item in items]


@dataclass(frozen=True, slots=True)
class Answer:
    """One system's answer to one item.

    Args:
        text: what it wrote.
        finish_reason: stop, length, or file (it was read from one).
        label_logprobs: log-probability of each label as the whole answer, where labels were scored.

    """

    text: str
    finish_reason: str = "file"
    label_logprobs: tuple[float, ...] = ()


class AnswerLog:
    """The side file of answers: one line each, under a key of everything the answer depends on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, Json] = {}
        if path.is_file():
            self._cut_torn_line()
            self.lines = {line["key"]: line for line in read_lines(path)}

    def _cut_torn_line(self) -> None:
        """Remove a last line that a kill left unfinished, or the next would be written onto it."""
        whole = self.path.read_bytes()
        with self.path.open("r+b") as stream:
            stream.truncate(whole.rfind(b"\n") + 1)

    def add(self, key: str, value: Json) -> None:
        """Keep one line."""
        self.lines[key] = {"key": key, **value}
        append_line(self.path, self.lines[key])


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def generate_answers(
    system: System,
    prompts: Sequence[list[int]],
    adapters: Sequence[str | None],
    *,
    log: AnswerLog,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress,
) -> list[Answer]:
    """Answer every prompt greedily; those in ``log`` are taken from there.

    Args:
        system: who answers.
        prompts: token ids of each prompt.
        adapters: the adapter for each prompt.
        log: where answers are kept as they come.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts generated together.
        progress: called as they come in.

    """
    keys = [
        _key("answer", system.fingerprint, *_routed(system, adapter), max_new_tokens, prompt)
        for prompt, adapter in zip(prompts, adapters, strict=True)
    ]
    pending = [index for index, key in enumerate(keys) if key not in log.lines]
    pending.sort(key=lambda index: -len(prompts[index]))  # memory's peak at the start
    for start in range(0, len(pending), _KEEP_AFTER * batch_size):
        batch = pending[start : start + _KEEP_AFTER * batch_size]
        requests = [Request(prompts[i], adapters[i], max_new_tokens=max_new_tokens) for i in batch]
        completions = system.engine.generate(requests, max_batch=batch_size)
        for index, completion in zip(batch, completions, strict=True):
            value = {"system": system.name, "answer": completion.text, "finish": completion.finish_reason}
            log.add(keys[index], value)
        progress(len(prompts) - len(pending) + start + len(batch), len(prompts), f"{system.name} answers")
    return [Answer(log.lines[key]["answer"], log.lines[key]["finish"]) for key in keys]


def score_labels(
    system: System,
    prompts: Sequence[list[int]],
    adapters: Sequence[str | None],
    choices: Sequence[list[list[int]]],
    *,
    log: AnswerLog,
    batch_size: int,
    progress: Progress,
) -> list[tuple[float, ...]]:
    """Return log p(label and end of turn | prompt) of each label for each prompt.

    Args:
        system: who scores.
        prompts: token ids of each prompt.
        adapters: the adapter for each prompt.
        choices: for each prompt, the token ids of each label as an answer (`label_ids`).
        log: where scores are kept as they come.
        batch_size: prompts scored together.
        progress: called as they come in.

    """
    pairs = list(zip(prompts, choices, strict=True))
    keys = [
        _key("labels", system.fingerprint, *_routed(system, adapter), prompt, answers)
        for (prompt, answers), adapter in zip(pairs, adapters, strict=True)
    ]
    pending = [index for index, key in enumerate(keys) if key not in log.lines]
    done = len(prompts) - len(pending)
    for adapter in dict.fromkeys(adapters[index] for index in pending):
        own = [index for index in pending if adapters[index] == adapter]
        own.sort(key=lambda index: -len(prompts[index]))  # memory's peak at the start
        for start in range(0, len(own), _KEEP_AFTER * batch_size):
            batch = own[start : start + _KEEP_AFTER * batch_size]
            scored = system.engine.score_answers([pairs[i] for i in batch], adapter, max_batch=batch_size)
            for index, scores in zip(batch, scored, strict=True):
                totals = [score.total for score in scores]
                log.add(keys[index], {"system": system.name, "label_logprobs": totals})
            done += len(batch)
            progress(done, len(prompts), f"{system.name} labels")
    return [tuple(log.lines[key]["label_logprobs"]) for key in keys]


def _routed(system: System, adapter: str | None) -> tuple[str, ...]:
    """Return what a routed system's answer depends on besides its fingerprint."""
    return () if system.route is None else (str(adapter),)


def label_ids(renderer: Speaker, item: Item, prompt: list[int], label: str) -> list[int]:
    """Return the tokens of ``label`` as the answer to ``item``, with the end of turn.

    The end belongs to it: only then are the log-probabilities of a label and of a longer one that
    begins with it those of different answers.
    """
    answered = Example(
        kind="messages",
        provenance=item.example.provenance,
        messages=(*item.example.messages, Message("assistant", label, weight=1)),
        tools=item.example.tools,
    )
    ids = list(renderer.render(answered).ids)
    shared = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
    answer = ids[shared:]
    end = next((i for i, token in enumerate(answer) if token in renderer.stop_ids), len(answer) - 1)
    return answer[: end + 1]
