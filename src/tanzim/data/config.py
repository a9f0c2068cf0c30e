"""The ``data`` section of ``tanzim.yaml``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from tanzim.core.config import Section
from tanzim.data.augment.config import (
    AdversarialConfig,
    AugmentCharactersConfig,
    AugmentSentencesConfig,
    AugmentWordsConfig,
    BackTranslateConfig,
    DemographicConfig,
)
from tanzim.data.balance.config import LabelNoiseConfig, OversampleConfig, SmoteConfig, UndersampleConfig
from tanzim.data.clean.config import (
    BoilerplateConfig,
    HtmlConfig,
    LanguageConfig,
    LengthConfig,
    LinguisticConfig,
    MissingConfig,
    PersianConfig,
    QualityConfig,
    RepairTextConfig,
    RepetitionConfig,
    SentencesConfig,
    UnicodeConfig,
)
from tanzim.data.dedup.config import DedupExactConfig, DedupFuzzyConfig, DedupSemanticConfig
from tanzim.data.describe.config import CardConfig
from tanzim.data.ingest.config import SourceConfig, check_host, without_password
from tanzim.data.ingest.documents.config import ChunksConfig
from tanzim.data.label.config import WeakLabelsConfig
from tanzim.data.screen.config import (
    ContaminationConfig,
    ContaminationSemanticConfig,
    LicenceConfig,
    PiiConfig,
    SecretsConfig,
    ToxicityConfig,
)
from tanzim.data.select.config import SelectConfig
from tanzim.data.synthesise.config import SynthesiseConfig

Format = Literal[
    "auto", "alpaca", "sharegpt", "messages", "prompt_completion", "labelled", "tagged", "preference", "text"
]


class Columns(Section):
    """Which column of the source plays which part; an unset one is detected."""

    messages: str | None = None
    """A list of turns (OpenAI messages or ShareGPT conversations)."""
    system: str | None = None
    """The system prompt."""
    prompt: str | None = None
    """What the user says (Alpaca: instruction)."""
    context: str | None = None
    """More of what the user says, put after the prompt (Alpaca: input)."""
    completion: str | None = None
    """What the model is to answer."""
    text: str | None = None
    """Raw text, or the text to classify."""
    label: str | None = None
    """The class of the text."""
    words: str | None = None
    """The words of a text whose words have tags, a list."""
    tags: str | None = None
    """A tag for each word, a list of the same length."""
    tools: str | None = None
    """Function definitions, a list or the same as a JSON string."""
    chosen: str | None = None
    """The preferred answer of a pair."""
    rejected: str | None = None
    """The other answer of a pair."""
    group: str | None = None
    """What examples share that must not stand in two splits, such as a speaker, a patient, a document."""
    time: str | None = None
    """When it was written, for data.split.method=time: ISO 8601, an Iranian date, or Unix time."""
    licence: str | None = None
    """Under which licence it may be used; kept with the example. A column licence or license is found."""


class Splits(Section):
    """How examples are divided, when the sources are not divided already."""

    method: Literal["random", "stratified", "k_fold", "leave_one_out", "group", "time"] = "random"
    """By chance; each label in proportion; one fold held out; one example; whole groups; the latest.

    Kin (near duplicates, the same prompt, one about.group) are never parted; kin that make more than one in
    fifty are, unless they are a group and the method is not random.
    """
    folds: int = Field(5, ge=2)
    """How many folds of k_fold there are; labels are dealt evenly."""
    fold: int = Field(1, ge=1)
    """Which fold (k_fold) or which example (leave_one_out) is the test set; run once for each."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of examples kept to watch the training with."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share of examples kept for the evaluation before and after; k_fold and leave_one_out take the fold."""
    near_duplicate: float = Field(0.85, gt=0, le=1)
    """Jaccard similarity of character 5-grams from which two examples count as the same."""
    leakage: Literal["repair", "error", "allow"] = "repair"
    """A duplicate on both sides of a split: repair drops it from the training side, error stops."""

    @property
    def by_fold(self) -> bool:
        """Whether the test set is a fold."""
        return self.method in ("k_fold", "leave_one_out")

    @model_validator(mode="after")
    def _fold_is_there(self) -> Splits:
        if self.method == "k_fold" and self.fold > self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds} folds: they are counted from 1")
        return self

    @model_validator(mode="after")
    def _leave_training_data(self) -> Splits:
        if self.validation + self.test >= 0.95:
            raise ValueError(
                f"validation + test is {self.validation + self.test:.2f}: nothing is left to train on"
            )
        return self


# One step of the chain; a new one is added here, and to `tanzim.data.steps.STEPS`.
StepConfig = Annotated[
    LengthConfig
    | RepairTextConfig
    | HtmlConfig
    | BoilerplateConfig
    | UnicodeConfig
    | MissingConfig
    | RepetitionConfig
    | QualityConfig
    | LanguageConfig
    | LinguisticConfig
    | SentencesConfig
    | PersianConfig
    | DedupExactConfig
    | DedupFuzzyConfig
    | DedupSemanticConfig
    | OversampleConfig
    | UndersampleConfig
    | SmoteConfig
    | LabelNoiseConfig
    | AugmentCharactersConfig
    | AugmentWordsConfig
    | AugmentSentencesConfig
    | BackTranslateConfig
    | AdversarialConfig
    | DemographicConfig
    | SynthesiseConfig
    | SelectConfig
    | PiiConfig
    | SecretsConfig
    | ToxicityConfig
    | LicenceConfig
    | ContaminationConfig
    | ContaminationSemanticConfig
    | WeakLabelsConfig,
    Field(discriminator="type"),
]


def step_configs() -> dict[str, type[Section]]:
    """Return the config of every step by its type."""
    models: tuple[type[Section], ...] = get_args(get_args(StepConfig)[0])
    return {model.model_fields["type"].default: model for model in models}


class DataConfig(Section):
    """Where the examples come from and how they become training, validation and test sets."""

    path: str | list[str] = Field(default_factory=list)
    """File, folder, glob, URL (s3://bucket/*.jsonl, https://host/file.csv, or any other that fsspec reads),
    or Hugging Face dataset id (hf:owner/name); or a list of them."""
    sources: list[SourceConfig] = Field(default_factory=list)
    """What is fetched before it is read: queries (sql), web pages (web), Airbyte connectors (airbyte)."""
    refresh: bool = False
    """Fetch the sources again; unset, what was fetched once is read from the cache folder."""
    allow_hosts: list[str] = Field(default_factory=list)
    """Hosts, addresses or networks (10.0.0.0/8) that may be asked although they are not public."""
    validation_path: str | list[str] | None = None
    """Examples to watch the training with, where they are files of their own."""
    test_path: str | list[str] | None = None
    """Examples for the evaluation, where they are files of their own."""
    format: Format = "auto"
    """The shape of the rows; auto looks at the first rows and says what it found and why."""
    columns: Columns = Columns()
    """Columns whose names are not the usual ones."""
    header: bool | None = None
    """Whether a CSV or TSV file starts with column names; unset looks at the file."""
    documents: Literal["auto", "line", "file"] = "auto"
    """What one document of a plain-text file is; auto looks at its lines and says why."""
    chunks: ChunksConfig = ChunksConfig()
    """What one example of a document (PDF, Word, HTML, Markdown) is."""
    html: Literal["main", "all"] = "main"
    """Of a saved web page its main text, or all that it shows, navigation included."""
    sheets: list[str] = Field(default_factory=list)
    """Sheets of a workbook that are read, by name; empty reads all that have the columns of the first."""
    max_document_mb: float = Field(200.0, gt=0)
    """A larger document (MB, once unpacked) is rejected: archives can hold a thousand times their size."""
    max_document_seconds: float = Field(300.0, gt=0)
    """A document whose parser takes longer (s) is rejected: some are made to hang it."""
    encoding: str = "auto"
    """Text encoding; auto takes UTF-8 (or UTF-16 with its mark) and refuses others by name, detect takes
    those it is sure of."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Names for label values, such as {0: happy, 1: sad}."""
    instruction: str = "Classify the text. Answer with one of: {labels}.\n\n{text}"
    """How a labelled text is put to the model; {text} and {labels} are filled in."""
    system: str | None = None
    """A system prompt for conversations that have none."""
    no_answer: str = Field("The text does not answer this.", min_length=1)
    """What a question marked as unanswerable (SQuAD format) is answered with."""
    steps: list[StepConfig] = Field(default_factory=list)
    """What is done with the examples, one step after another: each has a type, and settings of its own."""
    workers: int | None = Field(None, ge=1)
    """Processes that steps run in; unset takes one for each core."""
    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: Ray Data, on the cluster of RAY_ADDRESS or on this machine."""
    kept_preparations: int = Field(3, ge=1)
    """What the newest of so many preparations read and made is kept for the next one; older results go."""
    split: Splits = Splits()
    card: CardConfig = CardConfig()
    """What only people know of the data, for its data sheet and metadata (tanzim data publish)."""
    baseline: bool = False
    """Train small models on labelled data (words; bagging, boosting) and report them: the mark to beat."""
    max_train: int | None = Field(None, ge=1)
    """Keep at most this many training examples (a seeded sample)."""
    max_test: int | None = Field(None, ge=1)
    """Keep at most this many test examples (a seeded sample)."""
    max_rejected: float = Field(0.05, ge=0, le=1)
    """Stop when more than this share of the rows cannot be used."""
    max_line_mb: float = Field(32.0, gt=0)
    """A longer line (MB) is rejected instead of read into memory."""

    @field_validator("path", "validation_path", "test_path")
    @classmethod
    def _no_passwords(cls, value: str | list[str] | None) -> str | list[str] | None:
        for path in [value] if isinstance(value, str) else value or []:
            without_password(path)
        return value

    @field_validator("allow_hosts")
    @classmethod
    def _hosts(cls, value: list[str]) -> list[str]:
        return [check_host(entry) for entry in value]

    def divided(self, use: Literal["validation", "test"]) -> bool:
        """Tell whether examples for this use have sources of their own."""
        path = self.validation_path if use == "validation" else self.test_path
        return path is not None or any(source.use == use for source in self.sources)

    @model_validator(mode="after")
    def _one_test_set(self) -> DataConfig:
        if self.split.by_fold and self.test_path:
            raise ValueError(
                f"split.method={self.split.method} takes the test set out of path, test_path names another"
            )
        return self

    @field_validator("labels", mode="before")
    @classmethod
    def _label_names(cls, value: Any) -> Any:  # noqa: ANN401 - any YAML value
        """Take {0: happy, true: sad} as YAML reads it: with keys that are numbers or booleans."""
        if not isinstance(value, dict):
            return value
        return {str(k).lower() if isinstance(k, bool) else str(k): str(v) for k, v in value.items()}

    @field_validator("instruction")
    @classmethod
    def _holds_text(cls, value: str) -> str:
        if "{text}" not in value:
            raise ValueError("the instruction has no {text} in it: the text to classify would be lost")
        return value
