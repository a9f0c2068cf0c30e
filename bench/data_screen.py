"""What screening finds and misses, on labels it did not see, beside the naive way; and how fast it is.

    OMP_NUM_THREADS=1 python bench/data_screen.py PATH [--part pii] [--documents 2000]

PATH is the folder of public data sets (``safety``, ``gsm8k``, ``persian``). Personal data and secrets are
planted in texts made here (`data_screen_texts`); the ``detect-secrets`` package stands beside ours where it
can be imported. The last line is JSON; the exit status is 1 where ours does not beat the naive way.
"""

import argparse
import csv
import gzip
import json
import random
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from data_screen_texts import ENGLISH, PARAPHRASES, PERSIAN, Makers, Planted, fill, secrets_texts
from tanzim.core.powers import Embed, Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.config import DataConfig
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.sources import find
from tanzim.data.screen.config import ContaminationConfig
from tanzim.data.screen.contamination import Contamination
from tanzim.data.screen.detect import ALL, Detector
from tanzim.data.screen.evaluation import turns_of
from tanzim.data.screen.overlap import Overlap
from tanzim.data.screen.secrets import find_secrets

Span = tuple[str, int, int]

# Entities of ours → the kinds that are planted.
KINDS = {
    "PERSON": "PERSON", "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "IR_MOBILE": "PHONE",
    "IR_LANDLINE": "PHONE", "CREDIT_CARD": "CARD", "IR_CARD": "CARD", "IBAN_CODE": "IBAN", "IR_SHEBA": "IBAN",
    "IR_NATIONAL_ID": "NATIONAL", "IR_POSTAL_CODE": "POSTAL", "IP_ADDRESS": "IP", "US_SSN": "SSN",
}  # fmt: skip
SAME = {"MOBILE": "PHONE", "LANDLINE": "PHONE", "SHEBA": "IBAN", "FAMILY": "PERSON"}
NAIVE = {
    "EMAIL": r"[\w.+-]+@[\w-]+\.[\w.-]+", "PHONE": r"\+?\(?\d[\d ()-]{8,16}\d",
    "NATIONAL": r"(?<!\d)\d{10}(?!\d)",
    "CARD": r"(?<!\d)(?:\d{4}[ -]?){3}\d{4}(?!\d)", "IBAN": r"[A-Z]{2}\d{2}[ \dA-Z]{14,32}",
    "IP": r"\d+\.\d+\.\d+\.\d+",
    "SSN": r"\d{3}-\d{2}-\d{4}", "PERSON": r"[A-Z][a-z]+ [A-Z][a-z]+|(?:آقای|خانم|دکتر) \w+(?: \w+)?",
}  # fmt: skip
NAIVE_SECRETS = re.compile(r"(?i)(?:password|passwd|secret|token|api_?key|رمز عبور)\W{1,4}(\S{6,})")
# Words that make a text toxic for a list of words.
WORDS = (
    "fuck fucking shit bitch bastard asshole dick cock pussy cunt whore slut damn crap idiot moron stupid "
    "dumb retard loser scum trash kill murder die dead shoot stab rape hate ugly disgusting faggot fag nazi "
    "jews terrorist suicide porn sex sexy naked nude cum horny"
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--documents", type=int, default=2000)
    given = parser.parse_args()
    results: dict[str, dict] = {}
    for name in given.part or PARTS:
        results[name] = PARTS[name](given.path, given.documents)
        print(f"\n{name}\n{json.dumps(results[name], indent=1, ensure_ascii=False)}")
    print(json.dumps(results, ensure_ascii=False))
    return 0 if all(part.get("beats_naive", True) for part in results.values()) else 1


def scored(truth: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]]) -> dict:
    """Return precision, recall and F1, in all and by kind; a find must cover half of what is there."""
    right, said, there, met = defaultdict(int), defaultdict(int), defaultdict(int), defaultdict(int)
    for wanted, got in zip(truth, found, strict=True):
        for kind, start, end in got:
            said[kind] += 1
            right[kind] += any(k == kind and overlap((start, end), (a, b)) for k, a, b in wanted)
        for kind, start, end in wanted:
            there[kind] += 1
            met[kind] += any(k == kind and overlap((a, b), (start, end)) for k, a, b in got)

    def rates(kinds: Sequence[str]) -> dict:
        precision = sum(right[k] for k in kinds) / max(sum(said[k] for k in kinds), 1)
        recall = sum(met[k] for k in kinds) / max(sum(there[k] for k in kinds), 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        return {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}

    kinds = sorted(set(said) | set(there))
    return {**rates(kinds), "by_kind": {kind: rates([kind]) for kind in kinds}}


def overlap(one: tuple[int, int], two: tuple[int, int]) -> bool:
    shared = min(one[1], two[1]) - max(one[0], two[0])
    return shared > 0 and shared * 2 >= two[1] - two[0]


def pii(path: Path, documents: int) -> dict:
    results: dict = {}
    for language, templates in (("en", ENGLISH), ("fa", PERSIAN)):
        made = Makers(20261121 if language == "en" else 20261122)
        makers = made.english() if language == "en" else made.persian()
        texts = [fill(templates[n % len(templates)], makers) for n in range(documents)]
        truth = [[(SAME.get(k, k), a, b) for k, a, b in one.spans] for one in texts]
        detector = Detector(ALL)
        detector.find([one.text for one in texts[:32]])  # open the models first
        started = time.process_time()
        found = detector.find([one.text for one in texts])
        spent = time.process_time() - started
        ours = [[(KINDS.get(f.entity, f.entity), f.start, f.end) for f in some] for some in found]
        naive = [naive_pii(one.text) for one in texts]
        results[language] = {"ours": scored(truth, ours), "naive": scored(truth, naive)}
        results[language]["documents_per_cpu_s"] = round(len(texts) / spent, 1)
    results["beats_naive"] = all(
        results[language]["ours"]["f1"] > results[language]["naive"]["f1"] for language in ("en", "fa")
    )
    return results


def naive_pii(text: str) -> list[Span]:
    return [(kind, *match.span()) for kind, regex in NAIVE.items() for match in re.finditer(regex, text)]


def secrets(path: Path, documents: int) -> dict:
    texts = secrets_texts(7, documents)
    truth = [[("secret", a, b) for kind, a, b in one.spans] for one in texts]
    started = time.process_time()
    found = [find_secrets(one.text) for one in texts]
    spent = time.process_time() - started
    ours = [[("secret", f.start, f.end) for f in some] for some in found]
    naive = [[("secret", *m.span(1)) for m in NAIVE_SECRETS.finditer(one.text)] for one in texts]
    results = {
        "ours": scored(truth, ours), "naive": scored(truth, naive),
        "documents_per_cpu_s": round(len(texts) / spent, 1),
    }  # fmt: skip
    peer = detect_secrets(texts)
    if peer is not None:
        results["detect_secrets"] = scored(truth, peer[0]) | {"documents_per_cpu_s": peer[1]}
    for name in ("ours", "naive", "detect_secrets"):
        results.get(name, {}).pop("by_kind", None)
    results["beats_naive"] = results["ours"]["f1"] > results["naive"]["f1"]
    return results


def detect_secrets(texts: Sequence[Planted]) -> tuple[list[list[Span]], float] | None:
    """Run the package of that name, without its questions to servers; None where it is not installed."""
    try:
        from detect_secrets.core.scan import scan_file
        from detect_secrets.settings import default_settings
    except ImportError:
        return None
    found, started = [], time.process_time()
    with default_settings(), tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(texts):
            file = Path(folder) / f"{number}.txt"
            file.write_text(one.text, encoding="utf-8")
            said = {secret.secret_value for secret in scan_file(str(file)) if secret.secret_value}
            places = [(one.text.find(value), len(value)) for value in said]
            found.append([("secret", at, at + length) for at, length in places if at >= 0])
    return found, round(len(texts) / (time.process_time() - started), 1)


def toxicity(path: Path, documents: int) -> dict:
    from sklearn.metrics import roc_auc_score

    from tanzim.pipeline.power_judge import open_judge

    rows = []
    packed = (path / "safety" / "openai_moderation_samples.jsonl.gz").read_bytes()
    for line in gzip.decompress(packed).decode().splitlines():
        row = json.loads(line)
        known = [row[key] for key in ("S", "H", "V", "HR", "H2", "V2") if key in row]
        if known:
            rows.append((row["prompt"], int(any(known)), int(any(row.get(k) for k in ("H", "H2", "HR")))))
    texts = [text for text, _, _ in rows]
    judge = open_judge("toxic-comment-classifier")
    started = time.process_time()
    scores = [max(one.values()) for one in judge(texts)]
    spent = time.process_time() - started
    listed = set(WORDS.split())
    hits = [sum(word in listed for word in re.findall(r"[a-z]+", text.lower())) for text in texts]
    results: dict = {"texts": len(rows), "documents_per_cpu_s": round(len(rows) / spent, 1)}
    for name, place in (("any_harm", 1), ("hate_and_harassment", 2)):
        labels = [row[place] for row in rows]
        listed_found = flags(labels, [h > 0 for h in hits])
        ranked = sorted(zip(scores, labels, strict=True), reverse=True)
        most = next(
            n for n in range(1, len(ranked) + 1)
            if sum(label for _, label in ranked[:n]) >= listed_found["recall"] * sum(labels)
        )  # fmt: skip
        results[name] = {
            "toxic": sum(labels),
            "ours": flags(labels, [score >= 0.5 for score in scores]),
            "word_list": listed_found,
            "ours_precision_at_its_recall": round(sum(label for _, label in ranked[:most]) / most, 3),
            "auc": {
                "ours": round(float(roc_auc_score(labels, scores)), 3),
                "word_list": round(float(roc_auc_score(labels, hits)), 3),
            },
        }
    with (path / "safety" / "xstest_prompts.csv").open(encoding="utf-8") as file:
        safe = [row["prompt"] for row in csv.DictReader(file) if row["label"] == "safe"]
    results["xstest_safe_prompts_flagged"] = {
        "of": len(safe),
        "ours": sum(max(one.values()) >= 0.5 for one in judge(safe)),
        "word_list": sum(any(w in listed for w in re.findall(r"[a-z]+", text.lower())) for text in safe),
    }
    results["beats_naive"] = all(
        results[name]["auc"]["ours"] > results[name]["auc"]["word_list"]
        for name in ("any_harm", "hate_and_harassment")
    )
    return results


def flags(labels: Sequence[int], said: Sequence[bool]) -> dict:
    right = sum(a and b for a, b in zip(labels, said, strict=True))
    precision, recall = right / max(sum(said), 1), right / max(sum(labels), 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}


def read(file: Path) -> list[Example]:
    config = DataConfig(path=str(file))
    return [
        one
        for source in find(str(file)).sources
        for one in ingest(source, config).items()
        if isinstance(one, Example)
    ]


def run_step(step: Contamination, examples: Sequence[Example]) -> dict[int, list[int]]:
    """Return the numbers of the examples that share items, each with the items."""
    return {number: [hit[0] for hit in hits] for number, _, hits in step.hits(examples)}


def contamination(path: Path, documents: int) -> dict:
    rng = random.Random(5)
    train, test = read(path / "gsm8k" / "train.jsonl"), read(path / "gsm8k" / "test.jsonl")
    step = Contamination(ContaminationConfig(against=str(path / "gsm8k" / "test.jsonl")), Powers(), 0)
    started = time.process_time()
    real = run_step(step, train)
    spent = time.process_time() - started
    asked = {turns_of(one)[0][1] for one in test}
    results: dict = {
        "gsm8k": {
            "train": len(train), "test": len(test), "examples_that_share": len(real),
            "test_items_shared": len({item for items in real.values() for item in items}),
            "exact_match": sum(turns_of(one)[0][1] in asked for one in train),
            "documents_per_cpu_s": round(len(train) / spent, 1),
        }
    }  # fmt: skip
    clean = [one for number, one in enumerate(train) if number not in real]
    results["planted_english"] = planted(step, test, clean, rng)
    file = path / "persian" / "parsinlu" / "mc_train.jsonl"
    questions = [json.loads(line)["question"] for line in file.read_text(encoding="utf-8").splitlines()]
    questions = list(dict.fromkeys(q.strip() for q in questions if len(q.split()) >= 6))
    rng.shuffle(questions)
    items, rest = questions[: len(questions) // 2], questions[len(questions) // 2 :]
    with tempfile.TemporaryDirectory() as folder:
        against = Path(folder) / "items.jsonl"
        lines = [json.dumps({"prompt": q, "completion": "پاسخ"}, ensure_ascii=False) for q in items]
        against.write_text("\n".join(lines) + "\n", encoding="utf-8")
        step = Contamination(ContaminationConfig(against=str(against)), Powers(), 0)
        results["planted_persian"] = planted(
            step, read(against), [asking(q, n) for n, q in enumerate(rest)], rng
        )
    results["parsinlu_questions"] = real_persian(path / "persian" / "parsinlu")
    results["beats_naive"] = all(
        results[name]["ours"]["f1"] > results[name]["exact_match"]["f1"]
        for name in ("planted_english", "planted_persian")
    )
    return results


def real_persian(folder: Path) -> dict:
    """Look for the validation questions of ParsiNLU among its training questions."""
    train, valid = (
        [
            json.loads(line)["question"]
            for line in (folder / f"mc_{name}.jsonl").read_text("utf-8").splitlines()
        ]
        for name in ("train", "valid")
    )
    overlap = Overlap([asking(text, n) for n, text in enumerate(valid)])
    hits = [{hit.item for hit in overlap.find(asking(text, n))} for n, text in enumerate(train)]
    return {
        "train": len(train), "valid": len(valid), "valid_shared": len(set().union(*hits)),
        "exact_match": len(set(train) & set(valid)),
    }  # fmt: skip


def asking(text: str, number: int) -> Example:
    turns = (Message("user", text), Message("assistant", "…"))
    return Example("messages", Provenance("planted", number + 1), messages=turns)


def planted(
    step: Contamination, items: Sequence[Example], clean: Sequence[Example], rng: random.Random
) -> dict:
    """Plant items as they are, edited, and buried in other text among clean examples; find them."""
    prompts = [turns_of(one)[0][1] for one in items]
    chosen = rng.sample(range(len(items)), min(300, len(items) // 2))
    ways: dict[str, Callable[[str], str]] = {
        "exact": lambda t: t, "edited": lambda t: edited(t, rng), "buried": lambda t: buried(t, clean, rng)
    }  # fmt: skip
    examples, truth, way = list(clean[:2000]), [-1] * len(clean[:2000]), ["clean"] * len(clean[:2000])
    for number, item in enumerate(chosen):
        name = list(ways)[number % len(ways)]
        examples.append(asking(ways[name](prompts[item]), number))
        truth.append(item)
        way.append(name)
    found = run_step(step, examples)
    known = {prompt: item for item, prompt in enumerate(prompts)}
    naive = {n: [known[text]] for n, one in enumerate(examples) if (text := turns_of(one)[0][1]) in known}
    result: dict = {"planted": len(chosen), "clean": len(examples) - len(chosen)}
    for name, got in (("ours", found), ("exact_match", naive)):
        right = [t >= 0 and t in got.get(n, ()) for n, t in enumerate(truth)]
        result[name] = flags([t >= 0 for t in truth], [n in got for n in range(len(truth))])
        result[name]["recall_by_way"] = {
            w: round(sum(r for r, x in zip(right, way, strict=True) if x == w) / way.count(w), 3)
            for w in ways
        }
    return result


def edited(text: str, rng: random.Random) -> str:
    """Change case, punctuation, digits' script, Arabic letters, half-spaces, and two words."""
    words = text.replace(",", " ,").replace("\u200c", " ").replace("ی", "ي").replace("ک", "ك").split()
    for _ in range(2 if len(words) > 30 else 0):
        words[rng.randrange(len(words))] = rng.choice(["about", "really", "حدود", "then"])
    persian = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
    out = " ".join(words).rstrip("?؟.") + " …"
    return out.translate(persian) if re.search("[\u0600-\u06ff]", out) else out.upper()


def buried(text: str, clean: Sequence[Example], rng: random.Random) -> str:
    before, after = (turns_of(rng.choice(clean))[0][1] for _ in range(2))
    return f"{before}\n\n{text}\n\n{after}"


def semantic(path: Path, documents: int) -> dict:
    """Paraphrases by our own hand, and Persian question pairs labelled by people, beside runs of words."""
    from tanzim.pipeline.power_embed import open_embed

    embed = open_embed("all-minilm-l6-v2")  # made for English: Persian shows what that costs
    english = [pair for pair in PARAPHRASES if pair[0].isascii()]
    file = path / "persian" / "parsinlu" / "qqp_train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()][: documents // 2]
    results = {
        "en": paired([(a, b, int(a == c)) for a, _ in english for c, b in english], embed),
        "fa": paired([(row["q1"], row["q2"], int(row["label"])) for row in rows], embed),
    }
    return {**results, "beats_naive": results["en"]["auc"] > results["en"]["auc_words_shared"]}


def paired(labelled: Sequence[tuple[str, str, int]], embed: Embed) -> dict:
    """Return how well likeness parts pairs that say the same from pairs that do not."""
    from sklearn.metrics import roc_auc_score

    one, two = embed([a for a, _, _ in labelled]), embed([b for _, b, _ in labelled])
    likeness = (one * two).sum(1)
    labels = [label for _, _, label in labelled]
    shared = [jaccard(a, b) for a, b, _ in labelled]
    return {
        "pairs": len(labels), "same": sum(labels),
        "auc": round(float(roc_auc_score(labels, likeness)), 3),
        "auc_words_shared": round(float(roc_auc_score(labels, shared)), 3),
        "recall_exact_match": round(sum(a == b for a, b, y in labelled if y) / sum(labels), 3),
        **{f"at_{limit}": flags(labels, list(likeness >= limit)) for limit in (0.6, 0.7, 0.8, 0.9, 0.95)},
    }  # fmt: skip


def jaccard(one: str, two: str) -> float:
    a, b = set(re.findall(r"\w+", one.lower())), set(re.findall(r"\w+", two.lower()))
    return len(a & b) / max(len(a | b), 1)


PARTS = {
    "pii": pii, "secrets": secrets, "toxicity": toxicity, "contamination": contamination, "semantic": semantic
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
