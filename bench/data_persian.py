"""How well Persian half-spaces and letters are repaired: known damage to well-spaced text, undone.

    python bench/data_persian.py /path/to/shared/data/persian [--hazm PYTHON] [--part test] [--show 40]

Takes documents that use half-spaces throughout (verses of a translation of the Quran, Wikipedia paragraphs,
web articles, sentence pairs; none with می or ها set off by a space, or with glued plurals), damages them,
repairs them, and compares each boundary between two letters with the original: nothing, half-space, or space.
A half-space after a letter that does not join is not seen, and counts as nothing. Documents fall into dev
(used for tuning) and test by a hash of their text; figures are of test unless --part says otherwise. Beside
ours: doing nothing, one `str.translate` with two obvious regexes, and hazm's Normalizer in the Python given
(it needs 3.12). The originals are not spaced in one style, so nobody reaches 1. Seconds are of the CPU.

The guide in persian/guide lost its half-spaces in PDF extraction; before and after are printed to look at.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from pathlib import Path

from tanzim.data.clean.config import PersianConfig
from tanzim.data.clean.persian.lexicon import Lexicon, learn
from tanzim.data.clean.persian.normalise import Normaliser

ZWNJ = "\u200c"
LETTER = "[\u0621-\u063a\u0641-\u064a\u0671-\u06d3\u06d5]"
JOINED = re.compile(f"(?<!{LETTER})ن?می (?={LETTER})|(?<={LETTER}) ها(?:ی|یی)?(?!{LETTER})")
# A plural without its half-space (آسمانها), as many write it: such a document says nothing about plurals.
GLUED = re.compile(
    f"(?<!{LETTER})(?!(?:تن|آن|این|انت|اشت|گرانب|من|بی‌انت|همین|همان)ها){LETTER}+(?![اآأدذرزژوةء]){LETTER}ها(?:ی|یی|ی?(?:م|ت|ش|مان|تان|شان)|ست)?"
    f"(?![{LETTER[1:-1]}{ZWNJ}])"
)
NON_JOINING = frozenset("اآأإٱدذرزژوؤةء")
FOLD = str.maketrans("يىكہەھ٠١٢٣٤٥٦٧٨٩", "ییکههه۰۱۲۳۴۵۶۷۸۹")
SIMPLE = str.maketrans("يىك٠١٢٣٤٥٦٧٨٩", "ییک۰۱۲۳۴۵۶۷۸۹", "ـ")
HAZM = """
import json, sys, time
from hazm import Normalizer
texts = json.load(sys.stdin)
keep = dict(decrease_repeated_chars=False, remove_specials_chars=False, remove_diacritics=False)
normalizer = Normalizer(**(keep if "keep" in sys.argv else {}))
normalizer.normalize("می خواهم")
start = time.process_time()
done = [normalizer.normalize(text) for text in texts]
json.dump([time.process_time() - start, done], sys.stdout)
"""
Repair = Callable[[list[str]], tuple[float, list[str]]]


def documents(folder: Path) -> Iterable[str]:
    """Yield texts of some length that may be well spaced."""
    verses = (folder / "parsinlu/translation_quran_1500.fa.makarem.norm.txt").read_text("utf-8").splitlines()
    yield from verses
    articles = json.loads((folder / "persianqa_test.json").read_text("utf-8"))["data"]
    yield from (part["context"] for article in articles for part in article["paragraphs"])
    web = (folder / "hazm_samples/mirastext_sample.txt").read_text("utf-8").splitlines()
    yield from (field for line in web for field in line.split("***") if len(field) > 200)
    for name in ("entailment_train.csv", "entailment_dev.csv"):
        with (folder / "parsinlu" / name).open(encoding="utf-8", newline="") as file:
            yield from (row[key] for row in csv.DictReader(file) for key in ("sent1", "sent2"))


def well_spaced(text: str) -> bool:
    """Say whether a text uses half-spaces, and nowhere a space for one or glued plurals."""
    plain = text.translate(FOLD)
    return ZWNJ in text and not JOINED.search(plain) and not GLUED.search(plain)


def in_test(text: str) -> bool:
    """Say whether a document was kept from tuning."""
    return hashlib.sha1(text.encode()).digest()[0] % 2 == 1


def without_half_spaces(text: str, kind: str, rng: random.Random) -> str:
    """Damage the half-spaces: "space", "glued", or "mixed" (45 % spaces, 45 % nothing, 10 % whole)."""
    choose = {
        "space": lambda: " ",
        "glued": lambda: "",
        "mixed": lambda: rng.choices((" ", "", ZWNJ), (45, 45, 10))[0],
    }
    return re.sub(ZWNJ, lambda _: choose[kind](), text)


def other_letters(text: str, rng: random.Random) -> str:
    """Damage letters: most ی and ک as Arabic's, all digits as Arabic's, kashida in one word of thirty."""
    arabic = {"ی": "يى", "ک": "ك", "ه": "ہە"} | dict(zip("۰۱۲۳۴۵۶۷۸۹", "٠١٢٣٤٥٦٧٨٩", strict=True))
    share = {"ی": 0.7, "ک": 0.7, "ه": 0.05}
    out = "".join(
        rng.choice(arabic[c]) if c in arabic and rng.random() < share.get(c, 1) else c for c in text
    )
    return re.sub(
        f"(?<=[بتسشلم])(?={LETTER})", lambda _: "ـ" * rng.randint(1, 4) if rng.random() < 0.03 else "", out
    )


def broken_words(text: str, rng: random.Random) -> str:
    """Damage joins as PDF extraction does: one word of 40 cut, one space of 30 lost after ا د ر و."""
    cut = re.sub(
        f"(?<!{LETTER})({LETTER}{{4,}})(?!{LETTER})",
        lambda found: _cut(found[1], rng) if rng.random() < 1 / 40 else found[1],
        text,
    )
    return re.sub(f"(?<=[ادذرزژو]) (?={LETTER}{{2}})", lambda _: "" if rng.random() < 1 / 30 else " ", cut)


def _cut(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    return f"{word[:at]} {word[at:]}"


def boundaries(text: str) -> tuple[str, list[str]]:
    """Return the letters of a text, and what follows each: "" nothing, h half-space, s space, x sign."""
    plain = re.sub("[\u064b-\u065f\u0670ـ]", "", text.translate(FOLD))
    letters, after = [], []
    for found in re.finditer(f"({LETTER})((?:(?!{LETTER}).)*)", plain, re.DOTALL):
        between = found[2]
        letters.append(found[1])
        if not between.strip(ZWNJ):
            after.append("h" if between and found[1] not in NON_JOINING else "")
        else:
            after.append("s" if not between.strip(ZWNJ + " \n\t") else "x")
    return "".join(letters), after


class Tally:
    """Half-spaces found, missed and put in wrongly, over documents."""

    def __init__(self) -> None:
        self.right = self.wrong = self.missed = self.errors = self.all = 0
        self.wrongly: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    def add(self, gold: str, got: str) -> None:
        """Count one document."""
        letters, want = boundaries(gold)
        mine, have = boundaries(got)
        blocks = (
            [(0, 0, len(letters))]
            if letters == mine
            else SequenceMatcher(None, letters, mine, autojunk=False).get_matching_blocks()
        )
        for a, b, size in blocks:
            for i in range(size - 1):
                self._one(letters, want, a + i, have[b + i])

    def _one(self, letters: str, want: list[str], at: int, have: str) -> None:
        self.all += 1
        self.errors += want[at] != have
        place = f"{letters[max(0, at - 8) : at + 1]}|{letters[at + 1 : at + 9]}"
        if have == "h" and want[at] == "h":
            self.right += 1
        elif have == "h":
            self.wrong += 1
            self.wrongly[f"{place} ({want[at] or '-'})"] += 1
        elif want[at] == "h":
            self.missed += 1
            self.lost[f"{place} ({have or '-'})"] += 1

    def figures(self) -> dict[str, float]:
        """Return precision, recall and F1 of half-spaces, and wrong boundaries of any kind per 1000."""
        precision = self.right / max(1, self.right + self.wrong)
        recall = self.right / max(1, self.right + self.missed)
        return {
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "f1": round(2 * precision * recall / max(1e-9, precision + recall), 4),
            "errors_per_1000": round(1000 * self.errors / max(1, self.all), 2),
        }


def letter_figures(gold: list[str], damaged: list[str], got: list[str]) -> dict[str, float]:
    """Return precision and recall of letters (and digits) put right; half-spaces were not touched here."""
    right = changed = to_change = 0
    for texts in zip(gold, damaged, got, strict=True):
        want, bad, have = (re.sub(r"[\s\u200cـ،؛؟«».,:;?!…\"()'\[\]-]", "", text) for text in texts)
        if len(want) != len(bad) or len(bad) != len(have):
            to_change += sum(a != b for a, b in zip(want, bad, strict=False))
            continue  # letters were added or lost: nothing counts as put right
        for a, b, c in zip(want, bad, have, strict=True):
            to_change += a != b
            changed += b != c
            right += a == c and b != c
    precision, recall = right / max(1, changed), right / max(1, to_change)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}


def ours(config: PersianConfig, lexicon: Lexicon | None = None) -> Repair:
    def repair(texts: list[str]) -> tuple[float, list[str]]:
        normalise = Normaliser(config, lexicon)
        start = time.process_time()
        done = [normalise(text) for text in texts]
        return time.process_time() - start, done

    return repair


def simple(texts: list[str]) -> tuple[float, list[str]]:
    """Do what is done in two lines: letters by a table, می and ها joined over a space."""
    start = time.process_time()
    done = [
        re.sub(
            " (ها(?:ی|یی)?)(?=[\\s.،])",
            ZWNJ + r"\1",
            re.sub("(?<!\\w)(ن?می) ", r"\1" + ZWNJ, text.translate(SIMPLE)),
        )
        for text in texts
    ]
    return time.process_time() - start, done


def hazm(python: Path, *options: str) -> Repair:
    def repair(texts: list[str]) -> tuple[float, list[str]]:
        run = subprocess.run(
            [str(python), "-c", HAZM, *options],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, done = json.loads(run.stdout.splitlines()[-1])
        return seconds, done

    return repair


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="folder with the Persian files")
    parser.add_argument("--hazm", type=Path, help="a Python that has hazm")
    parser.add_argument("--part", choices=("dev", "test"), default="test")
    parser.add_argument("--show", type=int, default=0, help="how many of our errors to show, of each kind")
    parser.add_argument("--speed", type=int, default=600_000, help="characters the speed is measured on")
    arguments = parser.parse_args()
    found = list(dict.fromkeys(text for text in documents(arguments.path) if well_spaced(text)))
    gold = [text for text in found if in_test(text) == (arguments.part == "test")]
    rest = [text for text in found if in_test(text) != (arguments.part == "test")]
    print(
        f"{len(gold)} documents, {sum(map(len, gold)):,} characters, "
        f"{sum(text.count(ZWNJ) for text in gold):,} half-spaces"
    )
    result: dict[str, object] = {"documents": len(gold)}
    plain, asked = PersianConfig(), PersianConfig(lexicon="corpus")
    for kind in ("space", "glued", "mixed"):
        rng = random.Random(kind)
        damaged = [without_half_spaces(text, kind, rng) for text in gold]
        also = [without_half_spaces(text, kind, rng) for text in rest]
        systems: dict[str, Repair] = {
            "nothing": lambda texts: (0.0, texts),
            "two regexes": simple,
            "rules": ours(plain),
            "rules, phrases": ours(PersianConfig(phrases="join")),
            "corpus, all damaged": ours(asked, learn([*damaged, *also]).trimmed()),
            "corpus, half of it whole": ours(asked, learn([*damaged, *rest]).trimmed()),
        }
        if arguments.hazm:
            systems["hazm"] = hazm(arguments.hazm, "keep")
        print(f"\nhalf-spaces, {kind}")
        for name, repair in systems.items():
            tally = Tally()
            for want, have in zip(gold, repair(damaged)[1], strict=True):
                tally.add(want, have)
            result[f"{kind}: {name}"] = figures = tally.figures()
            print(f"  {name:26}" + "  ".join(f"{key} {value:7.4f}" for key, value in figures.items()))
            if arguments.show and name in ("rules", "corpus, half of it whole"):
                print(
                    "    wrongly:",
                    " · ".join(f"{k} {n}" for k, n in tally.wrongly.most_common(arguments.show)),
                )
                print(
                    "    missed: ", " · ".join(f"{k} {n}" for k, n in tally.lost.most_common(arguments.show))
                )
    result |= joins(gold, rest, arguments.show)
    result |= letters(gold, arguments.hazm)
    result |= speed(arguments.path, arguments.speed, arguments.hazm)
    guide(arguments.path)
    print(json.dumps(result, ensure_ascii=False))


def joins(gold: list[str], rest: list[str], show: int) -> dict[str, object]:
    """Damage joins of words; print how many are mended, and how many whole ones are broken."""
    rng = random.Random("joins")
    damaged, also = ([broken_words(text, rng) for text in part] for part in (gold, rest))
    lexicon = learn([*damaged, *also]).trimmed()
    print("\nwords cut and run together (half-spaces whole; the corpus as damaged as the rest)")
    result: dict[str, object] = {}
    for name, config in (("nothing", None), ("cut_words off", False), ("cut_words on", True)):
        repair = (
            ours(PersianConfig(lexicon="corpus", cut_words=config), lexicon) if config is not None else None
        )
        done = repair(damaged)[1] if repair else damaged
        right = wrong = broken = 0
        seen: Counter[str] = Counter()
        for want, bad, have in zip(gold, damaged, done, strict=True):
            letters, gaps = boundaries(want)
            for i, (a, b, c) in enumerate(zip(gaps, boundaries(bad)[1], boundaries(have)[1], strict=True)):
                broken += a != b
                right += a != b and a == c
                wrong += a == b and a != c and {a, c} == {"", "s"}
                if a == b and {a, c} == {"", "s"}:
                    seen[f"{letters[max(0, i - 8) : i + 1]}|{letters[i + 1 : i + 9]} ({c or '-'})"] += 1
        figures = {
            "precision": round(right / max(1, right + wrong), 4),
            "recall": round(right / max(1, broken), 4),
        }
        result[f"joins: {name}"] = figures
        print(f"  {name:26}{figures}, {broken} broken")
        if show and config:
            print("    wrongly:", " · ".join(seen))
    return result


def letters(gold: list[str], python: Path | None) -> dict[str, object]:
    """Damage letters alone; print precision and recall of putting them right."""
    rng = random.Random("letters")
    gold = [text.translate(SIMPLE) for text in gold]
    damaged = [other_letters(text, rng) for text in gold]
    keep = PersianConfig(half_spaces=False, spaces=False, punctuation="keep")
    systems: dict[str, Repair] = {
        "nothing": lambda texts: (0.0, texts),
        "str.translate": simple,
        "ours": ours(keep),
        "ours, lossless": ours(PersianConfig(lossless=True)),
    }
    if python:
        systems["hazm"] = hazm(python, "keep")
    print("\nletters and digits (hazm turns Latin digits as well, which counts against it here)")
    result: dict[str, object] = {}
    for name, repair in systems.items():
        result[f"letters: {name}"] = figures = letter_figures(gold, damaged, repair(damaged)[1])
        print(f"  {name:26}" + "  ".join(f"{key} {value:7.4f}" for key, value in figures.items()))
    return result


def speed(folder: Path, characters: int, python: Path | None) -> dict[str, object]:
    """Print characters a second on raw news, one core."""
    texts: list[str] = []
    for path in sorted((folder / "hamshahri").glob("*.txt")):
        texts.append(path.read_text("utf-8"))
        if sum(map(len, texts)) > characters:
            break
    size = sum(map(len, texts))
    result = {"ours": size / ours(PersianConfig())(texts)[0]}
    if python:
        result["hazm"] = size / hazm(python)(texts)[0]
        result["hazm, only what we do"] = size / hazm(python, "keep")(texts)[0]
        result["ratio"] = result["ours"] / result["hazm"]
    print(f"\ncharacters a second, {size:,} characters of news")
    for name, value in result.items():
        print(f"  {name:26} {value:12,.1f}")
    return {"characters_per_s": {name: round(value, 1) for name, value in result.items()}}


def guide(folder: Path) -> None:
    """Print paragraphs of the guide before and after, half-spaces shown as a bar."""
    text = (folder / "guide/finetuning_guide_fa.md").read_text("utf-8")
    normalise = Normaliser(PersianConfig(lexicon="corpus"), learn([text]).trimmed())
    paragraphs = [part for part in text.split("\n") if len(part) > 300]
    print("\nthe guide, before and after")
    for part in random.Random(4).sample(paragraphs, 3):
        print(f"  - {part}\n  + {normalise(part).replace(ZWNJ, '|')}")


if __name__ == "__main__":
    main()
