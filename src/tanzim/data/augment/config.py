"""Steps that make training examples by changing the words of others (companion guide, augmentation)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tanzim.core.config import Section


class _Augment(Section):
    """What all of them ask: how many examples, and how much of each."""

    share: float = Field(0.5, gt=0, le=1)
    """Share of the examples that get copies; drawn for each on its own."""
    copies: int = Field(1, ge=1, le=20)
    """Changed copies of an example; two that come out the same count once."""
    even: bool = True
    """An example with a label stands once more as it is for each copy that cannot be made: else classes whose
    texts can be changed (the longer ones) outgrow the others, which costs more than the copies bring."""


class AugmentCharactersConfig(_Augment):
    """Slips of the fingers and of a scanner, in English and Persian letters."""

    type: Literal["augment_characters"] = "augment_characters"
    operations: list[Literal["keyboard", "ocr", "swap", "delete", "insert"]] = Field(
        ["keyboard", "ocr", "swap", "delete", "insert"], min_length=1
    )
    """keyboard: a key beside the right one; ocr: a letter that looks alike; swap, delete, insert."""
    rate: float = Field(0.03, gt=0, le=0.5)
    """At most this share of a text's letters is touched (one letter at least)."""


class AugmentWordsConfig(_Augment):
    """Words swapped, left out, split, in other case, or replaced by near ones."""

    type: Literal["augment_words"] = "augment_words"
    operations: list[Literal["swap", "delete", "split", "case", "neighbour"]] = Field(
        ["swap", "delete", "split", "case"], min_length=1
    )
    """neighbour takes the nearest word of the training data by its embedding, and needs embedding."""
    rate: float = Field(0.1, gt=0, le=0.5)
    """At most this share of a text's words is touched (one word at least)."""
    embedding: str | None = None
    """The embedding model that says which words are near."""
    neighbours: int = Field(5, ge=1)
    """One of so many nearest words is taken."""
    min_similarity: float = Field(0.6, ge=-1, le=1)
    """Cosine below which a word is not near; single words are all somewhat alike."""
    more_texts: str | None = None
    """A text file, of texts without labels: its words may replace those of the examples too. Where few
    examples have labels, their own words are too few to gain by."""
    vocabulary: int = Field(20_000, ge=10)
    """Words that may be replaced and may replace, the most frequent ones: what bounds memory."""


class AugmentSentencesConfig(_Augment):
    """Sentences in another order, or left out."""

    type: Literal["augment_sentences"] = "augment_sentences"
    operations: list[Literal["shuffle", "drop"]] = Field(["shuffle", "drop"], min_length=1)
    """shuffle: two sentences change places; drop: one is left out."""
    rate: float = Field(0.2, gt=0, le=0.5)
    """At most this share of a text's sentences is touched (one at least)."""
    min_sentences: int = Field(3, ge=2)
    """Texts with fewer sentences are left alone."""


class BackTranslateConfig(_Augment):
    """Texts that a language model translated and translated back (Sennrich et al. 2016)."""

    type: Literal["back_translate"] = "back_translate"
    model: str = Field(min_length=1)
    """The language model, or URL of an OpenAI-compatible endpoint (…/v1#model)."""
    through: list[str] = Field(["German", "French"], min_length=1)
    """The languages in between, by name; the copies of an example take them in turn."""
    embedding: str | None = None
    """An embedding model to check the meaning with; unset, only words, length and numbers are checked."""
    min_similarity: float = Field(0.7, ge=-1, le=1)
    """Cosine to the text itself below which the meaning is lost."""
    max_characters: int = Field(4000, ge=1)
    """Longer texts (characters) are left alone: models lose parts of them."""


class AdversarialConfig(_Augment):
    """Small edits that change the embedding most and the meaning least."""

    type: Literal["adversarial"] = "adversarial"
    embedding: str = Field(min_length=1)
    """The embedding model that tells whether the meaning is kept."""
    rate: float = Field(0.05, gt=0, le=0.5)
    """Bound of the edit distance (insert, delete, replace, swap) as a share of the characters."""
    min_similarity: float = Field(0.8, ge=-1, le=1)
    """Cosine to the text itself below which the meaning counts as lost."""
    tries: int = Field(8, ge=1)
    """Changed texts that are looked at for each copy; the farthest that keeps the meaning is taken."""


class DemographicConfig(_Augment):
    """The same example about other people: names, pronouns and places exchanged."""

    type: Literal["demographic"] = "demographic"
    swap: list[Literal["names", "pronouns", "places"]] = Field(["names", "pronouns", "places"], min_length=1)
    """names: given names, of the other gender where pronouns are swapped; pronouns: titles and kin too."""


AugmentConfig = (
    AugmentCharactersConfig
    | AugmentWordsConfig
    | AugmentSentencesConfig
    | BackTranslateConfig
    | AdversarialConfig
    | DemographicConfig
)
"""Any of them."""
