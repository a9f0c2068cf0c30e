"""Steps that clean."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tanzim.core.config import Section
from tanzim.core.records import Kind


class LengthConfig(Section):
    """Take out examples that are too short or too long."""

    type: Literal["length"] = "length"
    min_characters: int = Field(1, ge=0)
    """Fewest characters of all that an example says."""
    max_characters: int | None = Field(None, ge=1)
    """Most characters; unset for no limit."""


class RepairTextConfig(Section):
    """Repair text that was decoded in a wrong encoding (mojibake), such as Ø³Ù„Ø§Ù… or ط³ظ„ط§ظ… for سلام."""

    type: Literal["repair_text"] = "repair_text"
    lost: Literal["keep", "drop"] = "keep"
    """Examples in which letters were lost for good (U+FFFD stands in their place)."""


class HtmlConfig(Section):
    """Turn HTML left in texts into plain text: tags, comments, scripts, styles and entities."""

    type: Literal["html"] = "html"
    scripts: Literal["drop", "keep"] = "drop"
    """What stands inside <script>, <style> and the like; keep for texts about programs."""
    entities: bool = True
    """Whether &amp; becomes & in texts without tags, too."""
    conversations: Literal["keep", "clean"] = "keep"
    """HTML in conversations and pairs is often what was asked for: by default it is left as it is."""
    code: Literal["keep", "clean"] = "keep"
    """Markdown code (between back-ticks) is shown HTML, not markup: by default it is left as it is."""


class BoilerplateConfig(Section):
    """Take out lines that recur in many documents: navigation, cookie notices, copyright lines."""

    type: Literal["boilerplate"] = "boilerplate"
    min_documents: int = Field(5, ge=2)
    """A line in fewer documents is left: two authors may write the same line."""
    min_share: float = Field(0.01, ge=0, le=1)
    """It must also stand in this share of all documents: a corpus of millions has its proverbs."""
    max_words: int = Field(30, ge=1)
    """Longer lines are paragraphs, left to the removal of duplicates."""


class UnicodeConfig(Section):
    """Bring texts to one Unicode form, without characters that cannot be seen; half-spaces stay."""

    type: Literal["unicode"] = "unicode"
    form: Literal["NFC", "NFKC", "keep"] = "NFC"
    """NFC changes no meaning; NFKC also unifies look-alikes (ﬁ → fi, ２ → 2, ½ → 1⁄2, ﻻ → لا)."""
    control: bool = True
    """Drop control characters but tab and line feed; every line end becomes a line feed."""
    invisible: bool = True
    """Drop zero-width spaces, soft hyphens, byte-order marks, tags that hide text, and the like."""
    bidi: Literal["overrides", "all", "keep"] = "overrides"
    """Drop embeddings, overrides and isolates (they reorder what is seen), or direction marks as well."""
    spaces: bool = True
    """Make every kind of space the ordinary one."""


class MissingConfig(Section):
    """Find values that are missing: blank, or a placeholder such as N/A or ندارد."""

    type: Literal["missing"] = "missing"
    text: Literal["drop", "fill", "keep"] = "drop"
    """A text, question or preferred answer that is missing; keep leaves the example as it is."""
    label: Literal["drop", "fill", "keep"] = "drop"
    """A label that is missing."""
    context: Literal["cut", "keep"] = "cut"
    """A placeholder below a question, as Alpaca's "No input" is: cut it off, or keep it."""
    text_fill: str = ""
    """What stands for a missing text under text: fill."""
    label_fill: str = ""
    """What stands for a missing label under label: fill, such as "unknown"."""
    placeholders: list[str] = Field(default_factory=list)
    """More words that stand for nothing in your data, such as "tbd"; case and brackets do not matter."""
    real: list[str] = Field(default_factory=list)
    """Words that are no placeholders in your data, such as "none" where it is the name of a class."""

    @model_validator(mode="after")
    def _filled(self) -> MissingConfig:
        for name in ("text", "label"):
            if getattr(self, name) == "fill" and not getattr(self, f"{name}_fill").strip():
                raise ValueError(f"{name} is fill, and {name}_fill is empty: say what is filled in")
        return self


class RepetitionConfig(Section):
    """Take out texts that repeat themselves, and find phrases that too many examples share.

    Shares are of a text's characters, unless said otherwise (Gopher: Rae et al., 2021, arXiv:2112.11446,
    table A1). Unset switches a rule off.
    """

    type: Literal["repetition"] = "repetition"
    min_words: int = Field(100, ge=1)
    """Shorter texts are held to the runs alone: one phrase said thrice is much of a short text."""
    duplicate_lines: float | None = Field(0.30, gt=0, le=1)
    """Most lines, as a share of all lines, that repeat an earlier one."""
    duplicate_paragraphs: float | None = Field(0.30, gt=0, le=1)
    """Most paragraphs, as a share of all paragraphs, that repeat an earlier one."""
    duplicate_line_characters: float | None = Field(0.20, gt=0, le=1)
    """Most characters in lines that repeat an earlier one."""
    duplicate_paragraph_characters: float | None = Field(0.20, gt=0, le=1)
    """Most characters in paragraphs that repeat an earlier one."""
    top_ngrams: dict[int, float] = Field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    """Words in a run → most characters in the most frequent run of that many words."""
    duplicate_ngrams: dict[int, float] = Field(
        default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )
    """Words in a run → most characters in runs that repeat an earlier one."""
    max_word_run: int | None = Field(8, ge=2)
    """Most times that the same word may follow itself: a loop of a model, or a stuck key."""
    max_phrase_run: int | None = Field(4, ge=2)
    """Most times that the same 2 to 20 words may follow themselves."""
    max_character_run: int | None = Field(30, ge=2)
    """Most times that the same letter or digit may follow itself."""
    phrases: Literal["report", "thin", "off"] = "report"
    """Phrases that recur over examples, such as "This article suggests": name them, or thin them out."""
    phrase_words: tuple[int, int] = (3, 6)
    """Words of such a phrase: at the beginning of a sentence, and anywhere (where speech has more idioms)."""
    phrase_share: float = Field(0.03, gt=0, le=1)
    """The share of examples from which a phrase counts as recurring; thin brings it down to this."""
    phrase_examples: int = Field(10, ge=2)
    """The least number of examples that make a phrase recurring, in small sets."""


class QualityRules(Section):
    """Thresholds of the rules; unset switches one off. Each removes under a reason of its own."""

    min_words: int | None = Field(50, ge=1)
    """Gopher: fewest words of a document."""
    max_words: int | None = Field(100_000, ge=1)
    """Gopher: most words of a document."""
    min_word_characters: float | None = Field(3.0, gt=0)
    """Gopher: shortest mean length of a word."""
    max_word_characters: float | None = Field(10.0, gt=0)
    """Gopher: longest mean length of a word."""
    max_hashes: float | None = Field(0.1, ge=0)
    """Gopher: most # signs for each word."""
    max_ellipses: float | None = Field(0.1, ge=0)
    """Gopher: most ellipses for each word."""
    max_bullet_lines: float | None = Field(0.9, ge=0, le=1)
    """Gopher: most lines, as a share, that begin with a bullet."""
    max_ellipsis_lines: float | None = Field(0.3, ge=0, le=1)
    """Gopher: most lines, as a share, that end with an ellipsis."""
    min_alphabetic_words: float | None = Field(0.8, ge=0, le=1)
    """Gopher: fewest words, as a share, with a letter in them."""
    min_stop_words: int | None = Field(2, ge=1)
    """Gopher: fewest of eight very frequent words that must occur."""
    min_sentences: int | None = Field(None, ge=1)
    """C4: fewest sentences of a document (there 5)."""
    lorem_ipsum: bool = True
    """C4: take out documents with placeholder text."""
    curly_bracket: bool = False
    """C4: take out documents with a curly bracket; off, as it takes every text about programs."""
    min_lines: int = Field(4, ge=1)
    """The next two rules hold from so many lines on: a document of one line may end without a mark."""
    min_punctuated_lines: float | None = Field(0.12, ge=0, le=1)
    """FineWeb: fewest lines, as a share, that end with a mark that ends a sentence."""
    short_line_characters: int = Field(30, ge=1)
    """FineWeb: the length up to which a line is short."""
    max_short_lines: float | None = Field(0.67, ge=0, le=1)
    """FineWeb: most lines, as a share, that are short."""
    max_duplicate_characters: float | None = Field(0.1, ge=0, le=1)
    """FineWeb: most characters in repeated lines, as a share (0.1 in the paper, 0.01 in its program)."""
    max_newlines: float | None = Field(0.3, ge=0)
    """FineWeb: most line ends for each word: a list, not a text."""


class PersianRules(QualityRules):
    """What differs for Persian: it writes few vowels, so words are shorter."""

    min_word_characters: float | None = Field(2.5, gt=0)
    """Running Persian text has a mean of 3.3 to 4.7; letters apart, as broken PDF files have them, near 1."""
    max_word_characters: float | None = Field(6.0, gt=0)
    """Words glued together in pairs have a mean near 7, which English thresholds let pass."""


class QualityConfig(Section):
    """Keep documents of fair quality, by rules of Gopher, C4 and FineWeb.

    Gopher: Rae et al., 2021 (arXiv:2112.11446). C4: Raffel et al., 2020 (arXiv:1910.10683).
    FineWeb: Penedo et al., 2024 (arXiv:2406.17557).
    """

    type: Literal["quality"] = "quality"
    kinds: tuple[Kind, ...] = ("text",)
    """What is judged. The rules were made for web documents: a short answer breaks many, and is good."""
    rules: QualityRules = QualityRules()
    """Thresholds for text in any language but Persian; stop words are looked for in English alone."""
    persian: PersianRules = PersianRules()
    """Thresholds for Persian text."""
    policy_lines: bool = True
    """C4: cut lines about cookies, privacy policy and terms of use."""
    javascript_lines: bool = True
    """C4: cut lines that ask for JavaScript."""
    citations: bool = False
    """C4: cut Wikipedia's marks such as [3] and [citation needed]; off, as it would cut x[3] in programs."""
    unpunctuated_lines: bool = False
    """C4: cut lines that end without punctuation; off, as FineWeb found it to cost a third of all text."""
    min_line_words: int | None = Field(None, ge=1)
    """C4: cut lines with fewer words (there 3)."""
    max_token_characters: int | None = Field(1000, ge=10)
    """C4: cut lines with a longer run of characters without a space."""


class LanguageConfig(Section):
    """Tell which language an example is in; keep some, or only write it down as about.language."""

    type: Literal["language"] = "language"
    keep: list[str] = Field(default_factory=list)
    """Languages that are kept, as ISO 639-1 codes such as [en, fa]; empty keeps all."""
    among: list[str] = Field(default_factory=list)
    """Languages that may occur at all; naming them makes short texts surer. Empty: all that are known."""
    min_confidence: float = Field(0.3, ge=0, le=1)
    """Below this probability, shared among some 140 languages, the language is und (undetermined)."""
    sure: float = Field(0.5, ge=0, le=1)
    """Where keep names languages: below this probability another language is und, too, and not taken out."""
    min_letters: int = Field(12, ge=1)
    """A text with fewer letters is und: "no" and "sí" are words of many languages."""
    undetermined: Literal["keep", "drop"] = "keep"
    """What becomes of und where keep names languages: short answers such as 42 are of every language."""


class LinguisticConfig(Section):
    """Reduce words of texts and labelled texts, for classic models: lemmas, stems, no stop words.

    Conversations, pairs and tagged words stay as they are: a language model needs its words whole.
    """

    type: Literal["linguistic"] = "linguistic"
    words: Literal["keep", "lemma", "stem"] = "keep"
    """What is left of a word: all, its dictionary form, or its stem."""
    stop_words: Literal["keep", "drop"] = "keep"
    """Frequent words that tell little, such as "the" and «از»."""
    punctuation: Literal["keep", "drop"] = "keep"
    """Punctuation marks."""
    lower: bool = False
    """Write all letters small."""
    language: Literal["auto", "en", "fa"] = "auto"
    """Auto takes about.language, or else the script."""


class SentencesConfig(Section):
    """Cut long documents at the ends of sentences into parts of a given size, as full as they go."""

    type: Literal["sentences"] = "sentences"
    max_characters: int = Field(4000, ge=50)
    """Most characters of a part (some 1,000 tokens of English); a longer sentence is cut between words."""
    language: Literal["auto", "en", "fa"] = "auto"
    """Auto takes about.language, or else the script."""


class PersianConfig(Section):
    """Write Persian texts as they should be written: letters, half-spaces, punctuation, joins.

    Texts that are not Persian stay as they are, and so do Latin words, code, addresses, tags and JSON.
    """

    type: Literal["persian"] = "persian"
    lossless: bool = False
    """Only letters and digits for their equals, as letters and digits say; nothing else is touched."""
    letters: bool = True
    """Arabic ي and ك, other look-alikes and presentation forms become Persian letters."""
    digits: Literal["keep", "unify", "persian", "latin", "arabic"] = "unify"
    """unify turns Arabic ٤ into Persian ۴ alone: which of ۴ and 4 is better is the model's affair."""
    punctuation: Literal["keep", "persian", "latin"] = "persian"
    """persian writes ؟ ، ؛ after Persian words and «» around them."""
    spaces: bool = True
    """Set the spaces around signs right, and make several spaces one."""
    diacritics: Literal["keep", "vowels", "remove"] = "keep"
    """vowels takes the short vowels out and leaves ً and ّ, which are spelling; remove takes all."""
    change_marked: bool = False
    """Change Quranic and fully vowelled passages as well; off, as their marks are part of the text."""
    kashida: Literal["keep", "remove"] = "remove"
    """The stroke that stretches words (ســلام)."""
    half_spaces: bool = True
    """Put missing half-spaces in (می‌خواهم, کتاب‌ها), and take misplaced ones out."""
    phrases: Literal["keep", "join"] = "keep"
    """به عنوان and its like with a half-space; off, as writers differ. A corpus that does it has its way."""
    reversed_lines: bool = True
    """Turn lines round that PDF extraction has put in reverse."""
    line_wraps: Literal["keep", "join"] = "keep"
    """Join the lines of paragraphs that were cut to one width; off, as verse must stay."""
    lexicon: Literal["rules", "corpus"] = "rules"
    """corpus counts the words of all examples first; they decide doubtful cases. cut_words needs it."""
    cut_words: bool = False
    """With lexicon corpus: join words that were cut, part words that were run together, as PDF extraction
    leaves them. Off, as one change in thirteen was wrong when measured: it pays where words are broken."""
