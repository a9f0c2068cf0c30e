"""How well the cleaning steps decide on text they were not set up on, beside naive ways.

Usage: data_clean.py PATH (a folder with the files below; rows that thresholds were chosen with are left out).
The last line is JSON.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, no_progress
from tanzim.data.clean import language
from tanzim.data.clean.boilerplate import Boilerplate
from tanzim.data.clean.config import (
    BoilerplateConfig,
    PersianRules,
    QualityRules,
    RepetitionConfig,
)
from tanzim.data.clean.missing import is_missing
from tanzim.data.clean.quality import poor_quality
from tanzim.data.clean.repetition import Repetition, repeats
from tanzim.data.clean.unicode import clean_unicode
from tanzim.data.step import Removed, Survey, WholeStep

Measured = dict[str, Any]


def texts(folder: Path) -> dict[str, list[str]]:
    """Return held-out documents: all but the first part of each file, which thresholds were chosen with."""
    news = [line.split(" ", 1)[1] for line in _lines(folder / "dedup/articles_1000.train.txt")]
    web = [json.loads(line)["text"] for line in _lines(folder / "text/c4_demo.jsonl")]
    hamshahri = [
        path.read_text(encoding="utf-8") for path in sorted((folder / "persian/hamshahri").glob("*.txt"))
    ]
    questions = json.loads((folder / "persian/persianqa_test.json").read_text(encoding="utf-8"))["data"]
    contexts = dict.fromkeys(part["context"] for one in questions for part in one["paragraphs"])
    return {"en": news[300:600] + web[150:], "fa": hamshahri[100:] + list(contexts)[50:]}


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def scores(truth: Sequence[bool], found: Sequence[bool]) -> Measured:
    """Return precision, recall and F1 of what is found."""
    hits = sum(a and b for a, b in zip(truth, found, strict=True))
    precision, recall = hits / max(1, sum(found)), hits / max(1, sum(truth))
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(f1, 3),
        "of": sum(truth),
    }


def compare(truth: Sequence[bool], items: Sequence[Any], **ways: Callable[[Any], bool]) -> Measured:
    """Score several ways to decide on the same items."""
    return {name: scores(truth, [way(item) for item in items]) for name, way in ways.items()}


def spoilt(text: str, rng: random.Random, code: str) -> dict[str, str]:
    """Return a document as the web or a PDF file would have spoilt it."""
    words = text.split()
    names = [word for word in words if len(word) > 5] or words
    digits = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹") if code == "fa" else {}
    prices = "\n".join(
        f"{rng.choice(names)} {rng.randrange(99)},{rng.randrange(999):03} {rng.randrange(9)}"
        for _ in range(40)
    )
    lorem = "Lorem ipsum dolor sit amet. " if code == "en" else "لورم ایپسوم متن ساختگی است. "
    return {
        "menu": "\n".join(" ".join(rng.sample(names, min(2, len(names)))) for _ in range(60)),
        "keywords": ", ".join(rng.choice(names) for _ in range(120)),
        "prices": prices.translate(digits),
        "letters apart": " ".join(text.replace(" ", "")[:600]),
        "words glued": "\n".join("".join(words[at : at + 4]) for at in range(0, min(len(words), 400), 4)),
        "words glued in pairs": "\n".join(
            " ".join("".join(words[at : at + 2]) for at in range(row, min(row + 12, len(words)), 2)) + "."
            for row in range(0, min(len(words), 400), 12)
        ),
        "teasers": "\n".join(
            " ".join(words[at : at + 6]) + " ..." for at in range(0, min(len(words), 180), 6)
        ),
        "stub": " ".join(words[: rng.randrange(5, 40)]),
        "hash tags": " ".join(f"#{rng.choice(names)}" for _ in range(80)),
        "one line again and again": "\n".join([" ".join(words[:12])] * 12 + [" ".join(words[12:80])]),
        "placeholder": text[:800] + "\n" + lorem * 3,
    }


def quality(documents: dict[str, list[str]]) -> Measured:
    """Spoilt documents against whole ones."""
    out: Measured = {}
    for code, rules in (("en", QualityRules()), ("fa", PersianRules())):
        rng = random.Random(11)
        items = [(text, "") for text in documents[code]]
        for text in documents[code]:
            name, bad = rng.choice(sorted(spoilt(text, rng, code).items()))
            items.append((bad, name))
        truth = [bool(name) for _, name in items]
        found = compare(
            truth,
            [text for text, _ in items],
            ours=lambda text, rules=rules, code=code: poor_quality(text, rules, code) is not None,
            fewer_than_50_words=lambda text: len(text.split()) < 50,
            english_thresholds=lambda text, code=code: poor_quality(text, QualityRules(), code) is not None,
        )
        missed = Counter(name for text, name in items if name and poor_quality(text, rules, code) is None)
        wrong = Counter((poor_quality(t, rules, code) or ("",))[0] for t, name in items if not name)
        del wrong[""]
        out[code] = {**found, "missed": dict(missed), "good ones removed": dict(wrong)}
    return out


def looped(text: str, rng: random.Random) -> str:
    """Return a text as a model in a loop, or a broken crawl, would have it."""
    words = text.split()
    start = rng.randrange(max(1, len(words) - 40))
    unit, before = words[start : start + rng.choice([1, 3, 7, 15])], " ".join(words[: rng.randrange(20, 120)])
    way = rng.randrange(3)
    if way == 0:
        return f"{before} {' '.join(unit * rng.randrange(10, 30))}"
    if way == 1:
        paragraph = " ".join(words[:60])
        return "\n".join([paragraph] * 3 + [" ".join(words[60:120])])
    phrase = " ".join(words[start : start + 5])
    return " ".join(f"{phrase} {' '.join(words[at : at + 8])}." for at in range(0, min(len(words), 200), 8))


def repetition(documents: dict[str, list[str]]) -> Measured:
    """Texts in a loop against whole ones."""
    out: Measured = {}
    for code in ("en", "fa"):
        rng = random.Random(12)
        items = documents[code] + [looped(text, rng) for text in documents[code]]
        truth = [False] * len(documents[code]) + [True] * len(documents[code])
        config = RepetitionConfig()
        out[code] = compare(
            truth,
            items,
            ours=lambda text, config=config: repeats(text, config) is not None,
            a_line_twice=lambda text: (
                max(Counter(line for line in text.split("\n") if line.strip()).values(), default=0) > 1
            ),
            compresses_to_a_third=lambda text: len(zlib.compress(text.encode())) * 3 < len(text.encode()),
        )
    return out


PHRASES = {
    "en": [
        "This article suggests that",
        "As a language model I",
        "It is worth noting that",
        "In conclusion we say",
    ],
    "fa": [
        "این مقاله نشان می‌دهد که",
        "به عنوان یک مدل زبانی",
        "لازم به ذکر است که",
        "در نتیجه می‌توان گفت که",
    ],
}


def judged(step: WholeStep[Any], examples: Sequence[Example], folder: Path) -> tuple[list[Any], Measured]:
    """Run a step that must see all examples."""
    survey = folder / "survey"
    step.survey(examples, survey)
    findings = step.decide([Survey(survey, len(examples), 0)], folder / "verdict", no_progress)
    return list(step.judge(examples, folder / "verdict", 0)), findings


def phrases(folder: Path, documents: dict[str, list[str]]) -> Measured:
    """Phrases planted in one of twenty answers: are they named, and are others?"""
    dolly = [
        row["output"] for row in json.loads((folder / "dolly/dolly_3k.json").read_text(encoding="utf-8"))
    ][1000:]
    with (folder / "persian/snappfood_test.csv").open(encoding="utf-8") as file:
        comments = [row["comment"] for row in csv.DictReader(file)][2000:4000]
    out: Measured = {}
    for code, answers in (("en", dolly), ("fa", comments)):
        rng = random.Random(13)
        said = list(answers)
        for phrase in PHRASES[code]:
            for at in rng.sample(range(len(said)), len(said) // 20):
                said[at] = (
                    f"{phrase} {said[at]}"
                    if rng.random() < 0.7
                    else f"{said[at].rstrip('.')}. {phrase} {said[at][:60]}"
                )
        examples = [
            Example(
                "messages", Provenance("a", n), messages=(Message("user", "?"), Message("assistant", text))
            )
            for n, text in enumerate(said)
        ]
        with tempfile.TemporaryDirectory() as work:
            step = Repetition(RepetitionConfig(), Powers(), 0)
            judged(step, examples, Path(work))
        named = [name.removeprefix("phrase: ").lstrip("^") for name in step.counts]
        grams = Counter()
        for text in said:
            words = re.findall(r"[\w\u200c]+", text.casefold())
            grams.update({" ".join(words[at : at + 3]) for at in range(len(words) - 2)})
        frequent = [gram for gram, number in grams.items() if number > 0.03 * len(said)]
        out[code] = {
            "ours": named_scores(named, PHRASES[code]),
            "frequent_3_grams": named_scores(frequent, PHRASES[code]),
        }
    return out


def named_scores(named: Iterable[str], planted: Sequence[str]) -> Measured:
    """Return the share of named phrases that overlap a planted one, and of planted ones that are named."""
    whole = [" ".join(re.findall(r"[\w\u200c]+", phrase.casefold())) for phrase in planted]
    names = list(named)
    right = [
        any(" ".join(name.split()[:3]) in phrase or phrase in name for phrase in whole) for name in names
    ]
    recall = sum(
        any(" ".join(name.split()[:3]) in phrase or phrase in name for name in names) for phrase in whole
    )
    return {
        "named": len(names),
        "first": names[:8],
        "precision": round(sum(right) / max(1, len(right)), 3),
        "recall": recall / len(whole),
    }


def languages(folder: Path) -> Measured:
    """Accuracy by file: ours, the library alone, and the script alone."""
    hamshahri = [
        path.read_text(encoding="utf-8")
        for path in sorted((folder / "persian/hamshahri").glob("*.txt"))[100:]
    ]
    questions = json.loads((folder / "persian/persianqa_test.json").read_text(encoding="utf-8"))["data"]
    with (folder / "persian/parsinlu/entailment_train.csv").open(encoding="utf-8") as file:
        entailment = [row["sent1"] for row in csv.DictReader(file)]
    with (folder / "sms_spam/SMSSpamCollection.tsv").open(encoding="utf-8") as file:
        sms = [line.split("\t", 1)[1].strip() for line in file][1000:3000]
    files = {
        "fa hamshahri, documents": hamshahri,
        "fa hamshahri, lines": [
            line.strip() for text in hamshahri for line in text.split("\n") if len(line) > 20
        ][:2000],
        "fa persianqa, questions": [
            q["question"] for one in questions for p in one["paragraphs"] for q in p["qas"]
        ],
        "fa parsinlu, sentences": entailment,
        "fa quran": _lines(folder / "persian/parsinlu/translation_quran_1500.fa.makarem.norm.txt"),
        "en quran": _lines(folder / "persian/parsinlu/translation_quran_1500.en.itani.txt"),
        "en c4": [json.loads(line)["text"] for line in _lines(folder / "text/c4_demo.jsonl")],
        "en gsm8k": [json.loads(line)["question"] for line in _lines(folder / "gsm8k/test.jsonl")],
        "en sms": sms,
    }
    files |= {
        f"{code} catalogues of the machine": many
        for code in ("ar", "ur", "ps", "ckb", "fa")
        if (many := catalogue(code))
    }
    out = {}
    for name, many in files.items():
        code = name[: name.index(" ")]
        many = [one for one in many if len(re.findall(r"[^\W\d_]", one)) >= 12]  # noqa: PLW2901
        if not many:
            continue
        guesses = [language.identify(one) for one in many]
        told = [guess for guess in guesses if guess[0] != "und"]
        library = [language._SAME.get(found := language._model().classify(one)[0], found) for one in many]
        arabic = ["fa" if 2 * len(re.findall("[\u0600-\u06ff]", one)) > len(one) else "en" for one in many]
        out[name] = {
            "texts": len(many),
            "ours": share(guess[0] == code for guess in guesses),
            "ours, of those told": share(guess[0] == code for guess in told),
            "undetermined": round(1 - len(told) / len(many), 3),
            "py3langid alone": share(one == code for one in library),
            "script alone": share(one == code for one in arabic),
        }
    return out


def share(right: Iterable[bool]) -> float:
    """Return the share that is true."""
    values = list(right)
    return round(sum(values) / max(1, len(values)), 4)


def catalogue(code: str) -> list[str]:
    """Return messages of this machine's translated programs, where it has them."""
    import gettext

    found: set[str] = set()
    for path in sorted(Path("/usr/share/locale").glob(f"{code}/LC_MESSAGES/*.mo")):
        if path.name.startswith("iso_"):
            continue
        with path.open("rb") as file:
            messages = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        found |= {
            text for key, text in messages.items()
            if key and isinstance(text, str) and 2 * len(re.findall("[\u0600-\u06ff]", text)) > len(text)
        }  # fmt: skip
    return random.Random(0).sample(sorted(found), min(600, len(found)))


# Read one by one: what stands for nothing among the inputs and outputs of the second half of Alpaca.
MISSING_INPUTS = [
    "(no input)",
    "<n/a>",
    "<no input>",
    "<no input>.",
    "<none>",
    "n/a",
    "no input",
    "no input needed.",
    "no input required",
    "no input required.",
    "no input.",
    "noinput",
    "<noinput>",
    "<noinput>.",
    "< noinput >",
    "none",
    "<noinput>,",
    "<noinput >",
]
PANDAS = {"", "#N/A", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "<NA>"}
PERSIAN_MISSING = [
    "ندارد",
    "نامشخص",
    "نا معلوم",
    "«ندارد»",
    "ثبت نشده",
    "بدون مقدار",
    "موجود نیست",
    "—",
    "خالی",
    "ندارد.",
]


def missing(folder: Path) -> Measured:
    """Placeholders among Alpaca's inputs (read by eye), and planted ones among Persian comments."""
    rows = json.loads((folder / "alpaca/alpaca_10k.json").read_text(encoding="utf-8"))[5000:]
    inputs = [row["input"] for row in rows if row["input"]]
    with (folder / "persian/snappfood_test.csv").open(encoding="utf-8") as file:
        comments = [row["comment"] for row in csv.DictReader(file)][2000:4000]
    rng = random.Random(14)
    persian = comments + [rng.choice(PERSIAN_MISSING) for _ in range(200)]
    by_list = lambda text: text.strip() in PANDAS  # noqa: E731
    return {
        "en": compare(
            [one.strip().lower() in MISSING_INPUTS for one in inputs], inputs, ours=is_missing, pandas=by_list
        ),
        "fa": compare([False] * len(comments) + [True] * 200, persian, ours=is_missing, pandas=by_list),
    }


def boilerplate(documents: dict[str, list[str]]) -> Measured:
    """Lines of a site's frame planted around documents: are they cut, and are others?"""
    frames = {
        "en": ["Home | News | About us", "Subscribe to our newsletter", "Share this on social media",
               "© 2019 All rights reserved", "Page {n} of {m}"],
        "fa": ["خانه | اخبار | درباره ما", "در خبرنامه‌ی ما عضو شوید", "این مطلب را هم‌رسانی کنید",
               "همه‌ی حقوق محفوظ است © ۱۳۹۸", "صفحه‌ی {n} از {m}"],
    }  # fmt: skip
    out: Measured = {}
    for code, frame in frames.items():
        rng = random.Random(15)
        pages, truth = [], []
        for text in documents[code]:
            body = [line for line in text.split("\n") if line.strip()]
            lines = [(line, False) for line in body]
            for line in frame:
                if rng.random() < 0.3:
                    shown = line.format(n=rng.randrange(1, 9), m=rng.randrange(9, 99))
                    lines.insert(rng.choice([0, len(lines)]), (shown, True))
            pages.append("\n".join(line for line, _ in lines))
            truth.append(lines)
        examples = [Example("text", Provenance("a", n), text=page) for n, page in enumerate(pages)]
        with tempfile.TemporaryDirectory() as work:
            outcomes, _ = judged(Boilerplate(BoilerplateConfig(), Powers(), 0), examples, Path(work))
        seen = Counter(line for lines in truth for line in {line for line, _ in lines})
        flat, ours, naive = [], [], []
        for lines, outcome in zip(truth, outcomes, strict=True):
            left = Counter() if isinstance(outcome, Removed) else Counter(outcome.text.split("\n"))
            for line, planted in lines:
                flat.append(planted)
                ours.append(left[line] == 0)
                naive.append(seen[line] > 1)
        out[code] = {"ours": scores(flat, ours), "any_line_in_two_documents": scores(flat, naive)}
    return out


HIDDEN = [
    "\u200b",
    "\u00ad",
    "\ufeff",
    "\u2060",
    "\x07",
    "\x00",
    "\u202e",
    "\u2066",
    "\U000e0041",
    "\u180e",
]


def hidden(documents: dict[str, list[str]]) -> Measured:
    """Hidden characters planted in clean text: is the text as before, half-spaces and all?"""
    out: Measured = {}
    for code, many in documents.items():
        rng = random.Random(16)
        clean = [unicodedata.normalize("NFC", text)[:2000] for text in many]
        clean = [text for text in clean if clean_unicode(text) == text]
        dirty = []
        for text in clean:
            letters = list(text)
            for _ in range(8):
                letters.insert(rng.randrange(1, len(letters)), rng.choice(HIDDEN))
            dirty.append("".join(letters).replace(" ", "\u00a0", 3))
        ways = {
            "ours": clean_unicode,
            "nfkc": lambda text: unicodedata.normalize("NFKC", text),
            "printable_alone": lambda text: "".join(c for c in text if c.isprintable() or c == "\n"),
        }
        out[code] = {
            name: share(way(bad) == good for bad, good in zip(dirty, clean, strict=True))
            for name, way in ways.items()
        }
    return out


def main(folder: Path) -> None:
    documents = texts(folder)
    found = {
        "quality": quality(documents),
        "repetition": repetition(documents),
        "phrases": phrases(folder, documents),
        "language": languages(folder),
        "missing": missing(folder),
        "boilerplate": boilerplate(documents),
        "hidden characters": hidden(documents),
    }
    for name, what in found.items():
        print(f"\n{name}")
        for key, value in what.items():
            print(f"  {key}: {json.dumps(value, ensure_ascii=False)}")
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
