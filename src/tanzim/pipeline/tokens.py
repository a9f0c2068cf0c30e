"""From examples to tokens: the model's tokenizer and renderer, and the tokenised splits of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json
from tanzim.core.progress import Reporter
from tanzim.core.records import Example, Json, Progress, Rendered
from tanzim.core.run import RunFolder
from tanzim.data.config import DataConfig
from tanzim.data.store import ExampleStore
from tanzim.models.config import ModelConfig
from tanzim.models.fit import Overlong, blocks, fit, is_text
from tanzim.models.load import check_kind, load_model, load_tokenizer, positions
from tanzim.models.render import Renderer
from tanzim.models.resolve import Base, resolve
from tanzim.models.source_target import SourceTarget
from tanzim.models.speaker import Speaker
from tanzim.pipeline.config import Config
from tanzim.pipeline.form import form_of, say_form
from tanzim.pipeline.tasks import Encoder, as_conversation, task_of
from tanzim.pipeline.teacher import taught_examples
from tanzim.train.tokens import write_tokens

SPLITS = ("train", "validation", "test")
_TOGETHER = 256  # conversations tokenised in one call


@dataclass(frozen=True, slots=True)
class Ready:
    """A base model's tokenizer side: enough to render, without its weights in memory.

    Args:
        base: the base weights.
        tokenizer: theirs.
        encoder: turns examples into what the objective learns.
        labels: every label of the data, in the order of a head's outputs.

    """

    base: Base
    tokenizer: Any
    encoder: Encoder
    labels: tuple[str, ...] = ()

    @property
    def renderer(self) -> Speaker:
        """The encoder, where it renders conversations."""
        assert isinstance(self.encoder, Renderer | SourceTarget)
        return self.encoder

    @property
    def stop_ids(self) -> Sequence[int]:
        """The tokens that end an answer; none where no text is written."""
        return self.encoder.stop_ids if isinstance(self.encoder, Renderer | SourceTarget) else ()


def ready(config: Config, labels: Iterable[str], reporter: Reporter) -> Ready:
    """Find the base model of ``config``, and make what turns examples into its tokens.

    Args:
        config: the project.
        labels: every label of the data.
        reporter: takes the progress.

    Raises:
        ModelError: the model cannot be found or used.
        RenderError: its chat template fails the self-test.
        DataError: the objective needs labels and there are none.

    """
    with reporter.task("finding the model") as progress:
        base = replace(resolve(config.model, progress=progress), quantised=form_of(config.train.method))
    say_form(base.quantised, reporter)
    check_kind(base, task_of(config).model)
    tokenizer, known = load_tokenizer(base), tuple(labels)
    return Ready(base, tokenizer, task_of(config).encoder(tokenizer, config.model, known), known)


def task_model(config: Config, setup: Ready, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load the base as the kind of model that the objective of ``config`` trains.

    Args:
        config: the project.
        setup: the base and its tokenizer.
        dtype: precision of the weights.
        device: where they go.

    Raises:
        ModelError: the base is not of that kind, is damaged, or does not fit.

    """
    task = task_of(config)
    model = load_model(
        setup.base, dtype=dtype, device=device, kind=task.model, labels=setup.labels, seed=config.seed
    )
    if task.headed:
        # By it a causal model finds the last token of a row, which its head looks at.
        model.config.get_text_config().pad_token_id = setup.tokenizer.pad_token_id
    return model


@dataclass(frozen=True, slots=True)
class SplitTokens:
    """One split as tokens.

    Args:
        examples: conversations kept.
        tokens: their tokens; ``trained_tokens`` of them have a loss weight.
        longest: length of the longest conversation before anything was cut, in tokens.
        dropped: overlong conversations left out.
        truncated: overlong conversations cut at ``max_length``; ``ends_lost`` of them within an answer.
        divided: overlong raw texts divided into blocks, which lose nothing.
        histogram: {"edges": n + 1 lengths in tokens, "counts": n}, before anything was cut.

    """

    examples: int
    tokens: int
    trained_tokens: int
    longest: int
    dropped: int
    truncated: int
    ends_lost: int
    divided: int
    histogram: Json


def conversations(
    examples: Iterable[Example], config: DataConfig, labels: Sequence[str]
) -> Iterator[Example]:
    """Yield each example as the conversation the model sees; a labelled text becomes question and label."""
    for example in examples:
        yield as_conversation(example, config, labels)


def prepared(examples: Iterable[Example], config: Config, labels: Sequence[str]) -> Iterator[Example]:
    """Yield each example as the objective of ``config`` has it.

    Raises:
        DataError: the objective cannot learn from an example.

    """
    make = task_of(config).example
    return (make(example, config.data, labels) for example in examples)


def tokenise(
    config: Config, folder: RunFolder, setup: Ready, labels: Sequence[str], reporter: Reporter
) -> dict[str, SplitTokens]:
    """Write the tokens of every split into the run directory (once), and count what was overlong.

    Raises:
        ModelError: the teacher cannot be loaded, where there is one.
        DataError: conversations are longer than ``model.max_length`` and the policy is error.
        RenderError: a sample has no trained token, or an untrained end.

    """
    done = folder.tokens / "report.json"
    if done.is_file():
        return {name: SplitTokens(**split) for name, split in read_json(done)["splits"].items()}
    splits = {}
    for name in SPLITS:
        store = ExampleStore(folder.data / f"{name}.arrow")
        with reporter.task(f"tokenising {name}") as progress:
            most = positions(setup.base, setup.tokenizer) if task_of(config).headed else None
            counter = _Counter(config.model, most)
            examples = prepared(store, config, labels)
            if name == "train" and config.train.objective.type == "sequence_distillation":
                store = taught_examples(config, folder, examples, reporter)
                examples = iter(store)
            rendered = _rendered(examples, setup.encoder, counter, progress, len(store))
            write_tokens(folder.tokens / f"{name}.arrow", rendered)
        counter.check(name)
        splits[name] = counter.result()
    report = {"max_length": config.model.max_length, "overlong": config.model.overlong}
    write_json(done, report | {"splits": {name: asdict(split) for name, split in splits.items()}})
    return splits


def _rendered(
    examples: Iterator[Example], encoder: Encoder, counter: _Counter, progress: Progress, total: int
) -> Iterator[Rendered]:
    while batch := list(islice(examples, _TOGETHER)):
        for one in encoder.render_many(batch):
            yield from counter.add(one)
        progress(len(counter.lengths), total, "conversations")


class _Counter:
    """Applies the overlong policy, and counts."""

    def __init__(self, config: ModelConfig, positions: int | None = None) -> None:
        self.config = config
        self.most = min(config.max_length, positions or config.max_length)
        self.lengths: list[int] = []
        self.overlong = Overlong()
        self.tokens = self.trained = 0
        self.refused = 0
        self.first = ""

    def add(self, one: Rendered) -> list[Rendered]:
        self.lengths.append(len(one.ids))
        kept = self._kept(one)
        for part in kept:
            self.tokens += len(part.ids)
            self.trained += sum(1 for weight in part.weights if weight)
        return kept

    def _kept(self, one: Rendered) -> list[Rendered]:
        most, policy = self.most, self.config.overlong
        if len(one.ids) > most and policy == "split" and is_text(one):
            self.overlong = self.overlong.dividing(one)
            return blocks(one, most)
        whole: Rendered | None = None
        if len(one.ids) > most and policy in ("error", "split"):
            self.first = self.first or str(one.provenance)
            self.refused += 1  # all are counted before `check` stops
        else:
            whole = fit(one, most, "error" if policy == "split" else policy)
        self.overlong = self.overlong.counting(one, whole)
        return [] if whole is None else [whole]

    def check(self, split: str) -> None:
        """Stop if answers would have been cut without leave."""
        seen = self.overlong
        if self.refused:
            longer = f"model.max_length={seen.longest}, or " if self.most == self.config.max_length else ""
            raise DataError(
                f"{self.refused} of {seen.examples} {split} examples are longer than "
                f"{self.most} tokens (the longest has {seen.longest})",
                where=f"model.max_length; the first is {self.first}",
                fix=f"{longer}model.overlong=drop, truncate or (raw text) split",
            )

    def result(self) -> SplitTokens:
        seen = self.overlong
        return SplitTokens(
            examples=seen.examples - seen.dropped,
            tokens=self.tokens,
            trained_tokens=self.trained,
            longest=seen.longest,
            dropped=seen.dropped,
            truncated=seen.truncated,
            ends_lost=seen.ends_lost,
            divided=seen.divided,
            histogram=histogram(self.lengths),
        )


def histogram(lengths: Sequence[int], bins: int = 24) -> Json:
    """Count ``lengths`` (tokens) in ``bins`` equal bins from 0 to the longest."""
    width = max(1, -(-(max(lengths, default=1) + 1) // bins))
    counts = [0] * bins
    for length in lengths:
        counts[length // width] += 1
    return {"edges": [width * i for i in range(bins + 1)], "counts": counts}
