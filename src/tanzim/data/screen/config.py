"""Steps that screen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tanzim.core.config import Section

Entity = Literal[
    "PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "MAC_ADDRESS",
    "CRYPTO", "US_SSN", "US_ITIN", "UK_NHS", "IR_NATIONAL_ID", "IR_MOBILE", "IR_LANDLINE", "IR_SHEBA",
    "IR_CARD", "IR_POSTAL_CODE", "LOCATION", "ORGANIZATION",
]  # fmt: skip
Action = Literal["redact", "pseudonym", "drop", "keep"]


class PiiConfig(Section):
    """Find personal data (Presidio, and recognisers for Iran), and hide it or take the example out."""

    type: Literal["pii"] = "pii"
    action: Literal["redact", "pseudonym", "drop"] = "redact"
    """redact puts a mask in its place, pseudonym another of its kind, drop takes the example out."""
    actions: dict[Entity, Action] = Field(default_factory=dict)
    """Another action for some entities; keep leaves them. LOCATION and ORGANIZATION are kept unless named."""
    language: Literal["auto", "en", "fa"] = "auto"
    """Of the texts; auto looks at their letters. Names are found in English and (by cues) in Persian."""
    threshold: float = Field(0.4, ge=0, le=1)
    """Least confidence (0 to 1); Presidio gives a phone number without a word such as "call" 0.4."""
    allow: list[str] = Field(default_factory=list)
    """Texts that are nobody's, such as the address of your own help desk; they stay."""
    mask: str = Field("[{entity}]", min_length=1)
    """What redact writes; {entity} is the name of the entity."""
    key: str = "TANZIM_PSEUDONYM_KEY"
    """Environment variable with the secret that pseudonyms hang on; unset: one is made for this machine."""


class SecretsConfig(Section):
    """Find keys, tokens, private keys and passwords by their known shapes, and by how random they are."""

    type: Literal["secrets"] = "secrets"
    action: Literal["redact", "drop"] = "redact"
    """redact puts a mask in its place, drop takes the example out."""
    entropy: float = Field(3.5, ge=0, le=6)
    """Least Shannon entropy (bits per character) of what stands after words such as api_key=."""
    allow: list[str] = Field(default_factory=list)
    """Texts that are no secrets, such as a public key that documentation shows; they stay."""
    mask: str = Field("[{entity}]", min_length=1)
    """What redact writes; {entity} is the name of the kind, such as GITHUB_TOKEN."""


class ToxicityConfig(Section):
    """Let a scorer judge texts, and take toxic ones out or note it."""

    type: Literal["toxicity"] = "toxicity"
    model: str = "toxic-comment-classifier"
    """The scorer; the default is a small one for English (Jigsaw's six categories), weak on threats."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Probability from which a text is toxic in a category."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """Another threshold for some categories, such as {threat: 0.2}; above 1 leaves a category out."""
    languages: list[str] = Field(default_factory=lambda: ["en"])
    """Languages that the scorer knows; other texts are not judged, and are counted. Empty: it knows all."""
    turns: Literal["all", "answers"] = "all"
    """What is judged: every turn, or only what the model is to say (a refusal of toxic words may stay)."""
    action: Literal["drop", "mark"] = "drop"
    """drop takes the example out; mark writes the highest probabilities to about.toxicity."""


class LicenceConfig(Section):
    """Keep what may be used by its licence (``about.licence``), written as SPDX names it."""

    type: Literal["licence"] = "licence"
    allow: list[str] = Field(default_factory=list)
    """Licences that are kept, SPDX names or patterns such as CC-BY-*; empty: all but the denied ones."""
    deny: list[str] = Field(default_factory=list)
    """Licences that are taken out, whatever allow says, such as *-NC-*."""
    unknown: Literal["keep", "drop"] = "keep"
    """What becomes of examples without a licence, or with one that SPDX does not know."""
    assume: str | None = None
    """The licence of examples that carry none."""


class _Against(Section):
    """What evaluation sets have in common with the training data."""

    against: str | list[str]
    """The evaluation set: file, folder, glob or Hugging Face dataset id, in any format of data.path."""
    action: Literal["drop", "report"] = "drop"
    """drop takes the training example out; report only tells of it."""

    @field_validator("against")
    @classmethod
    def _names_something(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("no evaluation set is named")
        return value


class ContaminationConfig(_Against):
    """Find evaluation items in training examples by runs of words in common (as for GPT-3)."""

    type: Literal["contamination"] = "contamination"
    words: int = Field(13, ge=2)
    """Length of a run; 13 as for GPT-3 (Brown et al., 2020, appendix C)."""
    shortest: int = Field(8, ge=2)
    """A turn of fewer words than a run counts by all of it from here on; a shorter one as a whole turn."""
    common: int = Field(3, ge=1)
    """A run that stands in more evaluation items than this is a form of words, and counts for none."""
    coverage: float = Field(0.0, ge=0, le=1)
    """Least share of the words of an item's turn that lie in shared runs; 0: one run is enough."""

    @model_validator(mode="after")
    def _in_order(self) -> ContaminationConfig:
        if self.shortest > self.words:
            raise ValueError(f"shortest ({self.shortest}) is above words ({self.words})")
        return self


class ContaminationSemanticConfig(_Against):
    """Find evaluation items that training examples say in other words, by the likeness of embeddings."""

    type: Literal["contamination_semantic"] = "contamination_semantic"
    model: str
    """The embedding model."""
    languages: list[str] | None = None
    """Languages that the model knows; others are not compared, and are counted: to a model that does not
    know a language, all its texts are alike. Unset: en for the embedded model, every one for another."""
    similarity: float = Field(0.9, gt=0, le=1)
    """Least cosine between the prompts of item and example; what is alike depends on the model."""
