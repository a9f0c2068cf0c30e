"""Near-duplicate removal against the peers: documents per second, recall, precision and memory, in one run.

    python bench/dedup_throughput.py PATH [--documents 200000] [--full] [--env FOLDER]

PATH is a folder with the data sets (dedup/, dolly/, alpaca/, persian/). Documents are sentences of real
English and Persian texts put together anew; a fifth are copies with a known number of edited characters. Each
engine gets the same Parquet files, two cores, a first run that is not timed, and the fastest of a few
documented settings that finds as much as Tanzim does. Runs alternate. The peers run in a Python 3.12
environment that this script makes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
PEERS = ["datatrove==0.10.1", "datasketch==2.0.0", "rensa==0.5.0", "spacy", "nltk", "tokenizers", "orjson"]
PEERS += ["fasteners", "regex", "xxhash<4", "ftfy", "pyahocorasick", "tldextract", "inscriptis", "numpy>=2"]
# text-dedup's requirements bring Spark and TensorFlow; its MinHash needs these.
TEXT_DEDUP = [
    "datasets",
    "scipy",
    "click<9",
    "click-option-group<0.6",
    "rich",
    "tqdm",
    "psutil",
    "setuptools",
]
RATES = (0.0, 0.002, 0.005, 0.01, 0.015)  # edited characters of a copy
COPIES, PERSIAN, FILES = 0.2, 0.3, 8
SAME = 0.01  # recall that counts as the same
GRID = {
    "tanzim": [{"threshold": 0.8, "verify": "jaccard"}, {"threshold": 0.8, "verify": "signature"}],
    "rensa": [
        {"ngram": 1, "threshold": 0.8, "num_perm": 128, "num_bands": 16},
        {"ngram": 1, "threshold": 0.7, "num_perm": 128, "num_bands": 32},
    ],
    "rensa_stream": [
        {"ngram": 1, "threshold": 0.8, "num_perm": 128, "num_bands": 16},
        {"ngram": 1, "threshold": 0.7, "num_perm": 128, "num_bands": 32},
    ],
    "rensa_rho": [
        {"ngram": 1, "threshold": 0.8, "num_perm": 128, "num_bands": 8},
        {"ngram": 1, "threshold": 0.8, "num_perm": 128, "num_bands": 32},
    ],
    "datasketch": [
        {"ngram": 1, "threshold": 0.8, "num_perm": 128},
        {"ngram": 1, "threshold": 0.7, "num_perm": 128},
    ],
    "text_dedup": [
        {"ngram": 5, "threshold": 0.7, "num_perm": 250},
        {"ngram": 1, "threshold": 0.7, "num_perm": 128, "hash_func": "xxh3"},
    ],
    "datatrove": [
        {"n_grams": 5, "num_buckets": 14, "hashes_per_bucket": 8},
        {"n_grams": 1, "num_buckets": 14, "hashes_per_bucket": 8},
    ],
}
FLAGS_ONLY = {"rensa_rho"}  # flags every member of a group: what to keep is left open
Run = dict[str, Any]


def sentences(path: Path) -> tuple[list[str], list[str]]:
    """Return English and Persian sentences."""
    english: list[str] = []
    persian: list[str] = []
    for line in (path / "dedup/articles_1000.train.txt").read_text("utf-8").splitlines():
        english += re.split(r"(?<=[.!?]) +", line.partition(" ")[2])
    for file in ("dolly/dolly_3k.json", "alpaca/alpaca_10k.json"):
        for row in json.loads((path / file).read_text("utf-8")):
            english += re.split(r"(?<=[.!?]) +", str(row["output"]))
    for name in sorted(glob.glob(str(path / "persian/hamshahri/*.txt"))):
        text = " ".join(Path(name).read_text("utf-8", errors="replace").split())
        persian += re.split(r"(?<=[.!؟?]) +", text)
    usable = [sorted({one for one in many if 20 < len(one) < 400}) for many in (english, persian)]
    return usable[0], usable[1]


def edited(rng: random.Random, text: str, count: int) -> str:
    letters = list(text)
    for _ in range(count):
        place = rng.randrange(len(letters))
        way, letter = rng.randrange(3), rng.choice("abcdefghijklmnopاآبپتسشمن ")
        letters[place : place + (way != 1)] = [] if way == 0 else [letter]
    return "".join(letters)


def corpus(path: Path, count: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts, the group of each, and the rate of edits of each copy (-1: it is none)."""
    rng = random.Random(seed)
    pools = sentences(path)
    texts: list[str] = []
    for _ in range(count - int(count * COPIES)):
        pool, wanted, parts = pools[rng.random() < PERSIAN], rng.lognormvariate(6.8, 0.5), []
        while sum(map(len, parts)) < wanted:
            parts.append(rng.choice(pool))
        texts.append(" ".join(parts))
    groups, rates = list(range(len(texts))), [-1.0] * len(texts)
    for number in range(int(count * COPIES)):
        group, rate = rng.randrange(count - int(count * COPIES)), RATES[number % len(RATES)]
        texts.append(edited(rng, texts[group], round(rate * len(texts[group]))))
        groups.append(group)
        rates.append(rate)
    order = list(range(count))
    rng.shuffle(order)
    return [texts[i] for i in order], np.array(groups)[order], np.array(rates)[order]


def write(folder: Path, texts: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(texts) // FILES)
    for number, start in enumerate(range(0, len(texts), size)):
        part = texts[start : start + size]
        # Counted from 1: datatrove loses an id of 0.
        table = pa.table({"id": pa.array(range(start + 1, start + len(part) + 1)), "text": part})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=4096)


def environment(folder: Path) -> Path:
    """Make the peers' environment, if it is not there; return its Python."""
    python = folder / "bin/python"
    if python.is_file():
        return python
    finder = subprocess.run(
        ["sh", "-c", "command -v python3.12 && python3.12 -c ''"], capture_output=True, text=True, check=False
    )
    found = (
        [finder.stdout.strip()]
        if not finder.returncode
        else glob.glob(str(Path.home() / ".pyenv/versions/3.12*/bin/python3.12"))
    )
    if not found:
        sys.exit("the peers need a Python 3.12 (text-dedup does not run on others)")
    subprocess.run([found[0], "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "text-dedup==0.4.0"], check=True)
    subprocess.run([*pip, *PEERS, *TEXT_DEDUP], check=True)
    return python


def tree_memory(pid: int) -> float:
    """Return the proportional set size of a process and its children, MB."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            with open(f"/proc/{one}/smaps_rollup") as file:
                total += sum(float(line.split()[1]) for line in file if line.startswith("Pss:")) / 1e3
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children") as file:
                    waiting += map(int, file.read().split())
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    return total


def run(engine: str, python: Path, folder: Path, settings: Run, limit: float) -> Run:
    """Run an engine once; return seconds, the ids kept, and the most memory it took."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        out = Path(work) / "kept.npy"
        command = [
            str(python),
            str(HERE / "dedup_peers.py"),
            engine,
            str(folder),
            str(out),
            json.dumps(settings),
        ]
        log = Path(work) / "log"
        started, most = time.monotonic(), 0.0
        with (
            log.open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as job,
        ):
            while job.poll() is None:
                most = max(most, tree_memory(job.pid))
                time.sleep(0.1)
                if time.monotonic() - started > limit:
                    job.kill()
                    return {"failed": f"stopped after {limit:.0f} s"}
            said = job.stdout.read() if job.stdout else ""
        if job.returncode:
            return {"failed": (log.read_text().strip().splitlines() or ["no message"])[-1][:200]}
        return {**json.loads(said.splitlines()[-1]), "kept": np.load(out) - 1, "memory_mb": most}


def quality(kept: np.ndarray, groups: np.ndarray, rates: np.ndarray) -> Run:
    """Return recall and precision of what was removed: of a text and its copies one should stay."""
    stays = np.zeros(len(groups), bool)
    stays[kept] = True
    sizes, left = np.bincount(groups), np.bincount(groups[stays], minlength=groups.max() + 1)
    extra = np.maximum(sizes - 1, 0)
    right = np.minimum(sizes - left, extra).sum()
    return {"recall": right / extra.sum(), "precision": right / max(1, (~stays).sum())}


def flag_quality(kept: np.ndarray, groups: np.ndarray) -> Run:
    """Return the same of flags that stand on all members of a group."""
    flagged = np.ones(len(groups), bool)
    flagged[kept] = False
    real = np.bincount(groups)[groups] > 1
    return {
        "recall": (flagged & real).sum() / real.sum(),
        "precision": (flagged & real).sum() / max(1, flagged.sum()),
    }


class Bench:
    """The documents of one size, and runs over them."""

    def __init__(self, path: Path, work: Path, count: int, pythons: dict[str, Path]) -> None:
        texts, self.groups, self.rates = corpus(path, count, seed=count)
        self.texts, self.folder, self.pythons = texts, work / str(count), pythons
        write(self.folder, texts)
        write(self.folder / "warm", corpus(path, 800, seed=1)[0])
        self.characters = sum(map(len, texts)) / len(texts)

    def once(self, engine: str, settings: Run, limit: float = 600) -> Run:
        """Run an engine, and judge what it kept."""
        python = self.pythons.get(engine, self.pythons["peers"])
        found = run(engine, python, self.folder, settings, limit)
        if "failed" not in found:
            judge = (
                flag_quality(found["kept"], self.groups)
                if engine in FLAGS_ONLY
                else quality(found["kept"], self.groups, self.rates)
            )
            found |= {**judge, "rate": len(self.texts) / found["seconds"]}
            found["cpu_rate"] = len(self.texts) / found["cpu_seconds"]
        return found


def line(engine: str, settings: Run, found: Run) -> str:
    if "failed" in found:
        return f"  {engine:13} {json.dumps(settings)}: {found['failed']}"
    return (
        f"  {engine:13} {found['rate']:9,.0f}/s  {found['cpu_rate']:9,.0f} per CPU s"
        f"  recall {found['recall']:.4f}"
        f"  precision {found['precision']:.4f}  {found['memory_mb']:6,.0f} MB  {json.dumps(settings)}"
    )


def choose(bench: Bench) -> dict[str, Run]:
    """Try every setting on a small set; return for each engine the fastest that finds as much as Tanzim."""
    chosen: dict[str, Run] = {}
    aim = 0.0
    for engine, grid in GRID.items():
        tried = []
        for settings in grid:
            found = bench.once(engine, settings, limit=120)
            print(line(engine, settings, found), flush=True)
            if "failed" not in found:
                tried.append((found, settings))
        if engine == "tanzim":
            tried = tried[:1]  # its default: what it finds is the aim
            aim = tried[0][0]["recall"] - SAME
        if tried:
            best = max(tried, key=lambda one: (min(one[0]["recall"], aim), one[0]["rate"]))
            chosen[engine] = {"settings": best[1], "rate": best[0]["rate"]}
    return chosen


def by_edits(bench: Bench, kept: np.ndarray) -> str:
    """Return recall by how much of a copy is edited, over texts that have one copy."""
    stays = np.zeros(len(bench.groups), bool)
    stays[kept] = True
    alone = np.bincount(bench.groups)[bench.groups] == 2
    left = np.bincount(bench.groups[stays], minlength=bench.groups.max() + 1)
    shares = []
    for rate in RATES:
        copies = alone & (bench.rates == rate)
        shares.append(f"{rate:.1%} {np.mean(left[bench.groups[copies]] == 1):.4f}")
    return ", ".join(shares)


def compare(bench: Bench, chosen: dict[str, Run], deadline: float, rounds: int = 3) -> dict[str, list[Run]]:
    """Run the fast engines in turn, a few times; then the slow ones once, while there is time."""
    runs: dict[str, list[Run]] = defaultdict(list)
    expected = {engine: len(bench.texts) / choice["rate"] for engine, choice in chosen.items()}
    fast = [engine for engine in chosen if expected[engine] < 25]
    slow = sorted(set(chosen) - set(fast), key=expected.__getitem__)
    for engine in [*fast * rounds, *slow]:
        left = deadline - time.monotonic()
        if left < 1.3 * expected[engine]:
            print(f"  {engine}: about {expected[engine]:.0f} s, for which there is no time left")
            continue
        found = bench.once(engine, chosen[engine]["settings"], limit=max(30.0, left))
        print(line(engine, chosen[engine]["settings"], found), flush=True)
        if "failed" not in found:
            runs[engine].append(found)
    return runs


def report(bench: Bench, runs: dict[str, list[Run]], chosen: dict[str, Run]) -> Run:
    result: Run = {"documents": len(bench.texts), "engines": {}}
    for engine, found in runs.items():
        rates = sorted(one["rate"] for one in found)
        result["engines"][engine] = {
            "documents_per_s": round(median(rates)),
            "best": round(rates[-1]),
            "per_cpu_s": round(max(one["cpu_rate"] for one in found)),
            "spread": round((rates[-1] - rates[0]) / median(rates), 3),
            "runs": len(rates),
            "recall": round(found[0]["recall"], 4),
            "precision": round(found[0]["precision"], 4),
            "memory_mb": round(max(one["memory_mb"] for one in found)),
            "settings": chosen[engine]["settings"],
        }
    own = result["engines"]["tanzim"]
    same = all(np.array_equal(one["kept"], runs["tanzim"][0]["kept"]) for one in runs["tanzim"])
    result["same_every_time"] = same
    # Best run against best run; beside it the CPU's time, which other work on the machine moves less.
    peers = {engine: found for engine, found in result["engines"].items() if engine != "tanzim"}
    ratios = {engine: round(own["best"] / found["best"], 2) for engine, found in peers.items()}
    cpu = {engine: round(own["per_cpu_s"] / found["per_cpu_s"], 2) for engine, found in peers.items()}
    fair = {
        engine: ratio
        for engine, ratio in ratios.items()
        if engine not in FLAGS_ONLY and result["engines"][engine]["recall"] >= own["recall"] - SAME
    }
    result["ratio"] = {
        "documents_per_s": min(fair.values(), default=None),
        "same_recall": fair,
        "all": ratios,
        "per_cpu_s": cpu,
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--full", action="store_true", help="also 10,000, 100,000 and 1,000,000 documents")
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "tanzim-dedup-peers")
    parser.add_argument("--minutes", type=float, default=9, help="for all runs but --full")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_OFFLINE": "1"}
    pythons = {"peers": environment(given.env), "tanzim": Path(sys.executable)}
    deadline = time.monotonic() + 60 * given.minutes
    work = Path(tempfile.mkdtemp(prefix="tanzim-dedup-"))
    try:
        small = Bench(given.path, work, min(20_000, given.documents // 4), pythons)
        print(f"{len(small.texts):,} documents of {small.characters:,.0f} characters, to choose settings:")
        chosen = choose(small)
        large = Bench(given.path, work, given.documents, pythons)
        print(f"\n{given.documents:,} documents of {large.characters:,.0f} characters:")
        runs = compare(large, chosen, deadline)
        result = report(large, runs, chosen)
        print(f"\nTanzim's recall by edited characters: {by_edits(large, runs['tanzim'][0]['kept'])}")
        if given.full:
            result["growth"] = growth(given.path, work, pythons, chosen)
        print(json.dumps(result))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def growth(path: Path, work: Path, pythons: dict[str, Path], chosen: dict[str, Run]) -> Run:
    """Return documents per second and memory by the number of documents."""
    found: Run = defaultdict(dict)
    for count in (10_000, 100_000, 1_000_000):
        bench = Bench(path, work, count, pythons)
        print(f"\n{count:,} documents:")
        for engine, choice in chosen.items():
            if count / choice["rate"] > 900:
                continue
            one = bench.once(engine, choice["settings"], limit=3600)
            print(line(engine, choice["settings"], one), flush=True)
            if "failed" not in one:
                found[engine][count] = [round(one["rate"]), round(one["memory_mb"])]
        shutil.rmtree(bench.folder)
    return found


if __name__ == "__main__":
    main()
