"""What each objective needs of the stages around training: which model, which examples, which tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tanzim.core.errors import ConfigError, DataError, RunError
from tanzim.core.records import Example, Json, Rendered
from tanzim.data.config import DataConfig
from tanzim.data.ingest.convert import conversation
from tanzim.models.config import ModelConfig
from tanzim.models.encode import LabelEncoder
from tanzim.models.encode_pairs import PairEncoder
from tanzim.models.load import HEADED, Kind
from tanzim.models.render import Renderer
from tanzim.models.source_target import SourceTarget
from tanzim.pipeline.config import Config

KEY = "train.objective.type"


class Encoder(Protocol):
    """Examples to tokens, as one objective learns them."""

    @property
    def template(self) -> Json:
        """What a manifest must say for others to render alike."""
        ...

    def render_many(self, examples: Iterable[Example]) -> list[Rendered]:
        """Turn examples into tokens, tokenised together."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """The sides of an objective that lie outside training.

    Args:
        model: the kind of model that learns it.
        example: makes of an example what is rendered (with the data section and all labels).
        encoder: makes what renders it, of a tokenizer, the model section and all labels.

    """

    model: Kind
    example: Callable[[Example, DataConfig, Sequence[str]], Example]
    encoder: Callable[[Any, ModelConfig, Sequence[str]], Encoder]

    @property
    def headed(self) -> bool:
        """Whether the model has a new head for labels, and so writes no text."""
        return self.model in HEADED

    @property
    def writes(self) -> bool:
        """Whether the model writes text: it neither labels nor only embeds."""
        return self.model in ("causal", "seq2seq")


def as_conversation(example: Example, config: DataConfig, labels: Sequence[str]) -> Example:
    """Return the conversation the model sees; a labelled text becomes question and label.

    Raises:
        DataError: the example is none and cannot become one.

    """
    return conversation(example, labels=list(labels), instruction=config.instruction, system=config.system)


def _renderer(tokenizer: Any, config: ModelConfig, labels: Sequence[str]) -> Encoder:  # noqa: ANN401
    return Renderer(tokenizer, train_on=config.train_on, thinking=config.thinking)


def _of_kind(
    kind: str, objective: str, shape: str
) -> Callable[[Example, DataConfig, Sequence[str]], Example]:
    """Return a function that lets examples of one kind through and refuses others."""

    def check(example: Example, config: DataConfig, labels: Sequence[str]) -> Example:
        if example.kind == kind:
            return example
        raise DataError(
            f"{objective} learns from {shape}, and this is of the kind '{example.kind}'",
            where=str(example.provenance),
            fix=f"give such data, map its columns in data.columns, or set another {KEY}",
        )

    return check


def _labels(tagged: bool) -> Callable[[Any, ModelConfig, Sequence[str]], Encoder]:
    def encoder(tokenizer: Any, config: ModelConfig, labels: Sequence[str]) -> Encoder:  # noqa: ANN401
        if len(labels) < 2:
            what = "tags" if tagged else "labels"
            raise DataError(
                f"there is nothing to tell apart: the data has {len(labels)} different {what}",
                where="data",
                fix=f"give data with at least two {what}",
            )
        return LabelEncoder(tokenizer, labels, tagged=tagged)

    return encoder


def _source_target(tokenizer: Any, config: ModelConfig, labels: Sequence[str]) -> Encoder:  # noqa: ANN401
    return SourceTarget(tokenizer)


def _as_pair(example: Example, config: DataConfig, labels: Sequence[str]) -> Example:
    if example.kind in ("messages", "pair"):
        return example
    return _of_kind("pair", "contrastive", "texts that belong together")(example, config, labels)


def _pairs(tokenizer: Any, config: ModelConfig, labels: Sequence[str]) -> Encoder:  # noqa: ANN401
    if config.overlong == "truncate":
        raise ConfigError(
            "a pair that is cut has lost one of its texts",
            where="model.overlong",
            fix="model.overlong=drop, or a higher model.max_length",
        )
    return PairEncoder(tokenizer)


_TEXT = Task("causal", as_conversation, _renderer)
TASKS: dict[str, Task] = {
    "language_model": _TEXT,
    "distillation": _TEXT,
    "sequence_distillation": _TEXT,
    "seq2seq": Task("seq2seq", as_conversation, _source_target),
    "contrastive": Task("encoder", _as_pair, _pairs),
    "classification": Task(
        "sequence_classification",
        _of_kind("labelled", "classification", "texts with one label each"),
        _labels(tagged=False),
    ),
    "token_classification": Task(
        "token_classification",
        _of_kind("tagged", "token_classification", "words with one tag each"),
        _labels(tagged=True),
    ),
}


def task_of(config: Config) -> Task:
    """Return the task of a project's objective."""
    return TASKS[config.train.objective.type]


def refuse_without_text(config: Config) -> None:
    """Refuse to chat with, or to serve, a model that has learnt to label or to embed.

    Raises:
        RunError: the run of ``config`` writes no text.

    """
    if task_of(config).model == "encoder":
        raise RunError(
            f"the run '{config.name}' gives texts vectors and writes none: there is nobody to talk with",
            where=KEY,
            fix="tanzim evaluate shows what it finds; transformers' AutoModel reads the exported model",
        )
    if task_of(config).headed:
        raise RunError(
            f"the run '{config.name}' labels texts and writes none: there is nobody to talk with",
            where=KEY,
            fix="tanzim evaluate shows its labels; transformers' pipeline reads the exported model",
        )
