"""A quick look at data before anything is trained: what it is, how much, how long, in which script."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from itertools import islice

import numpy as np

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json
from tanzim.core.seeds import derive
from tanzim.data.balance.advise import Balance, weigh
from tanzim.data.clean.html import strip_html
from tanzim.data.clean.persian.normalise import normalise
from tanzim.data.clean.repair import repair_text
from tanzim.data.config import DataConfig
from tanzim.data.ingest.encoding import text_size
from tanzim.data.ingest.read import Ingest, ingest
from tanzim.data.ingest.rows import Rejected
from tanzim.data.ingest.sources import find
from tanzim.data.ingest.tables import parquet_rows
from tanzim.data.prepare import histogram
from tanzim.data.split.spill import characters
from tanzim.data.texts import words_of

LOOK = 5000  # rows of each source that are looked at
FILES = 50  # sources that are looked at
FEW = 1000  # examples below which the guide advises against fine-tuning on its own (its chapter 2)
STEP = 2048  # tokens of an optimiser step, where nothing else is set: what a class's share of it is told by
_SCRIPTS = 1000  # examples whose letters are counted
_TRIED, _CUT = 200, 4000  # examples that cleaning is tried on, and characters of each
_ZWNJ = "\u200c"
_LETTERS_PERSIAN = frozenset("پچژگکی")
_LETTERS_ARABIC = frozenset("ةىإأ")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look at the data showed.

    Args:
        format: the detected format, or "mixed".
        reason: why, one sentence per format.
        columns: which column plays which part.
        files: each source that was looked at.
        rows_seen: rows that were looked at.
        rows: rows in all; an estimate from the sizes of the files where ``complete`` is false.
        complete: whether every row was looked at.
        rejected: rows that cannot be used, by reason.
        lengths: histogram in characters (see `DataReport`).
        scripts: share of the letters by script: latin, persian, arabic, cyrillic, cjk, other.
        zwnj: share of the examples with a half-space (U+200C).
        labels: rows per label, for labelled data; words per tag, for tagged.
        balance: how uneven the labels are and what to do about it (see `Balance`); empty for other data.
        samples: a few examples as plain JSON.
        problems: what would go wrong.
        advice: what would make it better.

    """

    format: str
    reason: str
    columns: dict[str, str]
    files: list[Json]
    rows_seen: int
    rows: int
    complete: bool
    rejected: dict[str, int]
    lengths: Json
    scripts: dict[str, float]
    zwnj: float
    labels: dict[str, int]
    samples: list[Json]
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    balance: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the inspection as plain JSON values."""
        return asdict(self)


@dataclass(slots=True)
class _Tally:
    """Counts over the rows looked at."""

    lengths: list[int] = field(default_factory=list)
    letters: Counter[str] = field(default_factory=Counter)
    zwnj: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    repeats: int = 0
    texts: set[int] = field(default_factory=set)

    def add(self, example: Example) -> None:
        text = words_of(example)
        self.lengths.append(characters(example))
        if len(self.examples) < _SCRIPTS:
            self.letters += scripts(text)
        self.zwnj += _ZWNJ in text
        self.kinds[example.kind] += 1
        if example.kind == "labelled":
            self.labels[example.label] += 1
        self.tags.update(example.tags)
        self.repeats += hash(text) in self.texts
        self.texts.add(hash(text))
        self.examples.append(example)


def scripts(text: str) -> Counter[str]:
    """Count the letters of a text by script.

    Arabic-script letters count as Persian where the letters that only Persian has (pe, che, zhe,
    gaf, its own yeh and kaf) are as many as those that only Arabic has.
    """
    counts: Counter[str] = Counter()
    arabic_script = own = foreign = 0
    for letter in text[:4000]:
        code = ord(letter)
        if code < 0x250:
            counts["latin"] += letter.isalpha()
        elif 0x600 <= code < 0x780 or 0xFB50 <= code < 0xFF00:
            arabic_script += letter.isalpha()
            own += letter in _LETTERS_PERSIAN
            foreign += letter in _LETTERS_ARABIC
        elif 0x400 <= code < 0x530:
            counts["cyrillic"] += 1
        elif 0x3040 <= code < 0xA000 or 0xAC00 <= code < 0xD7B0:
            counts["cjk"] += 1
        else:
            counts["other"] += letter.isalpha()
    counts["persian" if own >= foreign and own else "arabic"] += arabic_script
    return +counts


def inspect(paths: str | list[str], config: DataConfig) -> Inspection:
    """Look at the first rows of the data.

    Args:
        paths: file, folder, glob or hub id, or a list of them.
        config: how to read it; its ``path`` is not used.

    Raises:
        DataError: nothing there can be read, or it is of no known format.

    """
    found = find(paths, allow=config.allow_hosts)
    looked: list[Ingest] = []
    tally = _Tally()
    rows, complete = 0, len(found.sources) <= FILES
    for source in found.sources[:FILES]:
        one = ingest(source, config)
        looked.append(one)
        items = one.items()
        for item in islice(items, LOOK):
            if isinstance(item, Rejected):
                tally.rejected[item.reason] += 1
            else:
                tally.add(item)
        whole = one.read < LOOK or next(items, None) is None
        complete = complete and whole
        rows += one.read if whole else _estimate(one)
    if not looked or not sum(one.read for one in looked):
        where = paths if isinstance(paths, str) else ", ".join(paths)
        raise DataError("the data holds no rows", where=where, fix="give a file with a few examples")
    if len(found.sources) > FILES:
        rows = round(rows * len(found.sources) / FILES)
    return _inspection(looked, tally, rows, complete, config)


def _estimate(one: Ingest) -> int:
    """Estimate the rows of a source from its size and the size of those that were read."""
    path = one.source.path
    if path is None:
        return one.read
    if one.opened.container == "parquet":
        return parquet_rows(path)
    meter = one.opened.meter
    if not meter.size_before:  # all of it is one chunk, already in memory
        return one.read + sum(1 for _ in one.opened.rows)
    return round(meter.rows_before * text_size(path) / meter.size_before)


def _inspection(
    looked: list[Ingest], tally: _Tally, rows: int, complete: bool, config: DataConfig
) -> Inspection:
    found = [one.detection for one in looked if one.detection]
    formats = list(dict.fromkeys(one.format for one in found))
    letters = tally.letters.total() or 1
    picked = random.Random(derive(0, "inspect")).sample(tally.examples, min(3, len(tally.examples)))
    balance = weigh(tally.labels, characters=float(np.mean(tally.lengths or [0])), tokens_per_step=STEP)
    problems, advice = _verdict(tally, rows, config, balance)
    return Inspection(
        format=formats[0] if len(formats) == 1 else "mixed" if formats else "unknown",
        reason="; ".join(dict.fromkeys(one.reason for one in found)) or "no row could be read",
        columns={part: name for one in reversed(found) for part, name in one.columns.items()},
        files=[one.describe() for one in looked],
        rows_seen=len(tally.examples) + tally.rejected.total(),
        rows=rows,
        complete=complete,
        rejected=dict(tally.rejected.most_common()),
        lengths=histogram(lambda: [np.array(tally.lengths, np.uint32)]),
        scripts={name: round(count / letters, 4) for name, count in tally.letters.most_common()},
        zwnj=round(tally.zwnj / max(1, len(tally.examples)), 4),
        labels=dict((tally.labels or tally.tags).most_common()),
        samples=[example.to_json() for example in picked],
        problems=problems,
        advice=advice,
        balance=balance.to_json() if balance else {},
    )


def _verdict(
    tally: _Tally, rows: int, config: DataConfig, balance: Balance | None
) -> tuple[list[str], list[str]]:
    problems = list(_problems(tally, config))
    return problems, list(_advice(tally, rows, config, balance))


def _problems(tally: _Tally, config: DataConfig) -> Iterator[str]:
    seen = len(tally.examples) + tally.rejected.total()
    if tally.rejected.total() > config.max_rejected * seen:
        top = "; ".join(f"{reason} ({count})" for reason, count in tally.rejected.most_common(3))
        yield (
            f"{tally.rejected.total()} of {seen} rows cannot be used, above data.max_rejected "
            f"({config.max_rejected:.0%}): {top}"
        )
    if tally.kinds["pair"]:
        yield "preference pairs need preference training (DPO), which is not there yet"
    if len(tally.kinds) > 1:
        kinds = ", ".join(f"{count} {kind}" for kind, count in tally.kinds.most_common())
        yield f"the files hold different kinds of examples: {kinds}"


def _advice(tally: _Tally, rows: int, config: DataConfig, balance: Balance | None) -> Iterator[str]:
    seen = len(tally.examples)
    if rows < FEW:
        yield f"about {rows} examples: from {FEW:,} on, fine-tuning is more likely to hold (guide)"
    if balance and balance.advice:
        yield from _balancing(tally, balance)
    numeric = tally.labels and all(label.lstrip("-").isdigit() for label in tally.labels)
    if numeric and not config.labels:
        yield "the labels are numbers: name them in data.labels, words are easier for a language model"
    yield from _cleaning(tally.examples[:_TRIED])
    if tally.repeats > 0.02 * seen:
        yield f"{tally.repeats} of {seen} examples repeat an earlier one"
    if seen and np.percentile(tally.lengths, 95) > 8000:
        yield "one example in twenty is above 8,000 characters: see model.overlong and the context length"


def _cleaning(examples: Sequence[Example]) -> Iterator[str]:
    """Say which steps of cleaning would change many of the texts, by trying them."""
    texts = [words_of(example)[:_CUT] for example in examples]
    plain = [text for text, one in zip(texts, examples, strict=True) if one.kind in ("text", "labelled")]
    persian = [text for text in texts if {*scripts(text)} & {"persian", "arabic"}]
    tries: tuple[tuple[str, list[str], Callable[[str], str], str], ...] = (
        ("repair_text", texts if find_spec("ftfy") else [], repair_text, "were decoded wrongly"),
        ("html", plain, strip_html, "hold HTML"),
        ("persian", persian, normalise, "have other letters, half-spaces or marks than Persian should"),
    )
    for step, among, clean, said in tries:
        changed = sum(clean(text) != text for text in among)
        if changed > 0.02 * len(among):
            yield f"{changed} of {len(among)} texts {said}: put the step {step} into data.steps"


def _balancing(tally: _Tally, balance: Balance) -> Iterator[str]:
    """Say how uneven the classes are, and what to begin with."""
    (most, _), (least, low) = tally.labels.most_common()[0], tally.labels.most_common()[-1]
    yield (
        f"the classes are unbalanced: '{most}' stands {balance.ratio:.3g} times as often as '{least}' "
        f"({low:,} examples, worth {balance.effective[least]:,.0f} without overlap; "
        f"{balance.per_step:.3g} in a step of {STEP:,} tokens); evenness {balance.evenness:.2f} of 1"
    )
    for one in balance.advice:
        if one.first or one.fits == "report":
            kind = {"head": " (a head of labels)", "words": " (answers in words)"}.get(one.fits, "")
            yield f"{one.technique}{kind}, {one.setting}: {one.why}"
    others = [one.technique for one in balance.advice if not one.first and one.fits != "report"]
    if others:
        yield f"also to be tried, as comments in a config of `tanzim init`: {', '.join(others)}"
