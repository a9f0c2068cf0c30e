"""A second model to learn from: its distributions (`load_teacher`), or its answers (`taught_examples`).

Sequence-level distillation trains on the answers that the teacher gives to the training questions (Kim and
Rush 2016, arXiv:1606.07947). Text passes between the two, so that their vocabularies need not agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import DataError, ModelError
from tanzim.core.files import write_json
from tanzim.core.progress import Reporter
from tanzim.core.records import Example, Json, Message, Progress
from tanzim.core.run import RunFolder, append_line
from tanzim.core.seeds import derive
from tanzim.data.store import ExampleStore, write_examples
from tanzim.evaluate.answers import AnswerLog
from tanzim.infer.engine import Request
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer, pick_dtype
from tanzim.models.resolve import resolve
from tanzim.pipeline.config import Config
from tanzim.pipeline.opened import Opened, open_base
from tanzim.train.objectives.config import DistillationConfig, SequenceDistillationConfig
from tanzim.train.objectives.distillation import Teacher

_KEEP_AFTER = 4  # batches, after which answers are kept: the engine fills places that short answers leave
KEY = "train.objective.teacher"


def load_teacher(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: torch.device,
    reporter: Reporter,
) -> Teacher | None:
    """Load the teacher whose distributions are learnt; None where the objective has none.

    Args:
        config: the project.
        tokenizer: the student's.
        device: where the student is.
        reporter: takes the progress.

    Raises:
        ModelError: the teacher cannot be loaded, or its vocabulary is another.

    """
    objective = config.train.objective
    if not isinstance(objective, DistillationConfig):
        return None
    with reporter.task("loading the teacher") as progress:
        base = resolve(_model(config.model, objective), progress=progress)
        check_vocabularies(tokenizer, load_tokenizer(base), name=base.name)
        dtype = pick_dtype(config.model, device)
        return Teacher(load_model(base, dtype=dtype, device=device), base.hash)


def check_vocabularies(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, *, name: str
) -> None:
    """Compare two vocabularies token by token.

    Raises:
        ModelError: a token id means different things to the two models, or one does not know it.

    """
    ours, theirs = ({number: token for token, number in t.get_vocab().items()} for t in (student, teacher))
    differing = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if differing:
        first = differing[0]
        raise ModelError(
            f"the teacher '{name}' has another vocabulary: {len(differing)} of {len(ours)} tokens differ, "
            f"the first is number {first}, {ours.get(first)!r} here and {theirs.get(first)!r} there",
            where=KEY,
            fix="train.objective.type=sequence_distillation learns from its answers, whatever its vocabulary",
        )


def taught_examples(
    config: Config, folder: RunFolder, examples: Iterator[Example], reporter: Reporter
) -> ExampleStore:
    """Return the training examples with the teacher's answers in place of the last ones (made once).

    Answers are kept as they come, so that an interrupted run goes on. Those cut off at ``answer_tokens`` and
    empty ones are left out, named in ``teacher/left_out.jsonl`` and counted.

    Args:
        config: the project; its objective is sequence distillation.
        folder: the run; ``teacher/`` in it holds the answers.
        examples: the training conversations.
        reporter: takes the progress and the count.

    Raises:
        ModelError: the teacher cannot be loaded.
        DataError: an example has no question, or the teacher answered none.

    """
    objective = config.train.objective
    assert isinstance(objective, SequenceDistillationConfig)
    place = folder.path / "teacher"
    done = place / "train.arrow"
    if not done.is_file():
        opened = open_base(_model(config.model, objective), reporter=reporter)
        left_out = place / "left_out.jsonl"
        left_out.unlink(missing_ok=True)
        with reporter.task(f"asking the teacher {opened.base.name}") as progress:
            asked = _Asked(opened, objective, AnswerLog(place / "answers.jsonl"), config.seed, progress)
            kept = write_examples(done, asked.answered(examples, left_out))
        write_json(
            place / "report.json",
            {"teacher": opened.base.name, "hash": opened.base.hash, "kept": kept, "left_out": asked.left_out},
        )
        if asked.left_out:
            reporter.say(f"{asked.left_out} answers of the teacher are left out, see {left_out}")
    store = ExampleStore(done)
    if not len(store):
        raise DataError(
            "the teacher finished no answer",
            where=KEY,
            fix=f"raise train.objective.answer_tokens (it is {objective.answer_tokens}), or take another",
        )
    return store


class _Asked:
    """The teacher's answers to conversations, in order.

    Args:
        opened: the teacher.
        config: how it answers.
        log: where answers are kept.
        seed: the run's seed, for sampling.
        progress: called as answers come in.

    """

    def __init__(
        self,
        opened: Opened,
        config: SequenceDistillationConfig,
        log: AnswerLog,
        seed: int,
        progress: Progress,
    ) -> None:
        self.opened = opened
        self.config = config
        self.log = log
        self.seed = seed
        self.progress = progress
        self.left_out = 0

    def answered(self, examples: Iterator[Example], left_out: Path) -> Iterator[Example]:
        """Yield the examples that got a whole answer."""
        number = 0
        while batch := list(islice(examples, _KEEP_AFTER * self.config.answers_at_once)):
            for example, line in zip(batch, self._answers(batch, number), strict=True):
                reason = _unfit(line)
                if reason is None:
                    yield _with_answer(example, line["answer"])
                    continue
                self.left_out += 1
                where = {"source": example.provenance.source, "row": example.provenance.row}
                append_line(left_out, {**where, "reason": reason, "answer": line["answer"]})
            number += len(batch)
            self.progress(number, None, "answers of the teacher")

    def _answers(self, batch: Sequence[Example], number: int) -> list[Json]:
        requests = [self._request(example, number + place) for place, example in enumerate(batch)]
        keys = [_key(self.opened.base.hash, request) for request in requests]
        pending = [place for place, key in enumerate(keys) if key not in self.log.lines]
        completions = self.opened.engine.generate(
            [requests[place] for place in pending], max_batch=self.config.answers_at_once
        )
        for place, completion in zip(pending, completions, strict=True):
            self.log.add(keys[place], {"answer": completion.text, "finish": completion.finish_reason})
        return [self.log.lines[key] for key in keys]

    def _request(self, example: Example, number: int) -> Request:
        if (
            example.kind != "messages"
            or len(example.messages) < 2
            or example.messages[-1].role != "assistant"
        ):
            raise DataError(
                "there is no question here that a teacher could answer",
                where=str(example.provenance),
                fix="sequence distillation needs conversations that end with an answer; for raw text "
                "train.objective.type=distillation",
            )
        return Request(
            self.opened.renderer.prompt(example.messages[:-1], example.tools),
            max_new_tokens=self.config.answer_tokens,
            temperature=self.config.answer_temperature,
            top_p=self.config.answer_top_p,
            seed=derive(self.seed, "teacher", number),
        )


def _model(student: ModelConfig, objective: DistillationConfig | SequenceDistillationConfig) -> ModelConfig:
    """Return what names the teacher, computed where and as the student is."""
    return student.model_copy(update={"name": objective.teacher, "revision": objective.teacher_revision})


def _key(teacher: str, request: Request) -> str:
    sampling = (request.temperature, request.top_p, request.seed) if request.temperature else ()
    parts = (teacher, request.prompt_ids, request.max_new_tokens, sampling)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _unfit(line: Json) -> str | None:
    if line["finish"] != "stop":
        return "the answer was cut off"
    return None if line["answer"].strip() else "the answer is empty"


def _with_answer(example: Example, answer: str) -> Example:
    """Replace the last answer; the earlier ones are not the teacher's, and stay as context alone."""
    before = (
        replace(message, weight=0.0) if message.role == "assistant" else message
        for message in example.messages[:-1]
    )
    return replace(example, messages=(*before, Message("assistant", answer, weight=1.0)))
