"""Tokens per second with drafted tokens over those without: the same engine, requests and answers.

    python bench/speculation.py [--streams 1 8 32] [--rounds 3] [--tokens 64]

The embedded 135M model on ``--threads`` threads answers four kinds of requests, so many at once: texts to be
copied or changed a little, JSON held to a schema, stories (greedily), and stories drawn at temperature 1,
which hardly repeat. With and without take turns in every round; prompts are in the cache before. For each
kind the median ratio of CPU time, the smallest and the largest, the median ratio by the clock, the passes of
each, the share of drafted tokens that came, and how many answers were equal. The last line is JSON with the
same. By the clock it needs an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from typing import Any

import torch

from tanzim.infer.engine import Engine, Grammar, Request
from tanzim.infer.paged_scheduler import PagedScheduler
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer
from tanzim.models.resolve import resolve

REPORT = (
    "The old lighthouse at Cape Verran was built in 1871 from grey granite that was carried by boat from the "
    "quarries of the northern islands. For ninety years its lamp was lit every evening by a keeper who lived "
    "with his family in the small house below the tower. In 1961 the light became automatic, and the last "
    "keeper, Tomas Hale, moved to the village. The house stood empty until 2004, when the council turned it "
    "into a museum."
)
CODE = '''def read_table(path, separator=","):
    """Read a table of numbers from a file."""
    rows = []
    with open(path) as lines:
        for line in lines:
            cells = line.strip().split(separator)
            rows.append([float(cell) for cell in cells])
    return rows
'''
ORDERS = (
    '[{"id": 1, "name": "Mina Rahimi", "city": "Shiraz", "orders": [{"item": "lamp", "price": 40}]}, '
    '{"id": 2, "name": "Jonas Berg", "city": "Oslo", "orders": [{"item": "table", "price": 310}]}]'
)
PERSIAN = (
    "شهر شیراز در جنوب ایران است و باغ‌های بسیاری دارد. حافظ و سعدی در این شهر زندگی می‌کردند. هر سال در بهار "
    "مردم زیادی به آنجا می‌روند و از بوی بهارنارنج لذت می‌برند."
)
COPYING = [
    f"Repeat the following text word for word:\n\n{REPORT}",
    f"Correct the spelling of this text:\n\n{REPORT.replace('granite', 'granit').replace('lit', 'litt')}",
    f"Summarise this text in three sentences, quoting it:\n\n{REPORT}",
    f"Rename read_table to load_table in this code and print all of it:\n\n```python\n{CODE}```",
    f"Write this JSON again with one object per line:\n\n{ORDERS}",
    f"متن زیر را بدون تغییر تکرار کن:\n\n{PERSIAN}",
    f"{REPORT}\n\nWhen was it built, and who was the last keeper? Answer in sentences of the text.",
    f"Add type hints to this code:\n\n```python\n{CODE}```",
]
STORIES = [
    f"Tell me the story of {thing}."
    for thing in ("a lighthouse", "two rivers", "the night train", "an old map", "a glass garden",
                  "the last winter", "a clockmaker", "the silent bell")
]  # fmt: skip
PEOPLE = ("Ada Lovelace", "Albert Einstein", "Hafez", "Marie Curie", "Avicenna", "Mozart", "Rumi", "Newton")
CARD = {
    "type": "object",
    "properties": {
        "full_name": {"type": "string", "maxLength": 30},
        "birth_year": {"type": "integer", "minimum": 900, "maximum": 2020},
        "occupation": {"enum": ["painter", "poet", "composer", "physicist", "physician"]},
        "known_for": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {"title": {"type": "string", "maxLength": 30}, "year": {"type": "integer"}},
                "required": ["title", "year"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["full_name", "birth_year", "occupation", "known_for"],
    "additionalProperties": False,
}
KINDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "copying": (COPYING, {}),
    "JSON by schema": (
        [f"Describe {name} as JSON." for name in PEOPLE],
        {"grammar": Grammar("json_schema", json.dumps(CARD))},
    ),
    "stories": (STORIES, {}),
    "stories, sampled": (STORIES, {"temperature": 1.0}),
}


class Side:
    """A scheduler, with what it did.

    Args:
        engine: the engine.
        streams: requests at once.
        speculate: whether tokens are drafted.

    """

    def __init__(self, engine: Engine, streams: int, speculate: bool) -> None:
        scheduler = engine.server(streams, cache_tokens=1 << 15, speculate=speculate)
        assert isinstance(scheduler, PagedScheduler)
        self._engine, self._scheduler = engine, scheduler
        self.cpu: list[float] = []
        self.clock: list[float] = []
        self.passes, self.drafted, self.came = 0, 0, 0
        self.answers: list[tuple[int, ...]] = []

    def run(self, requests: list[Request]) -> None:
        """Answer all, and note the time."""
        sequences = [self._engine.sequence(request) for request in requests]
        self.passes = self.drafted = self.came = 0
        start = time.process_time(), time.perf_counter()
        for sequence in sequences:
            self._scheduler.add(sequence)
        while self._scheduler.busy:
            rows = list(self._scheduler._rows)
            had = [len(row.ids) for row in rows]
            self._scheduler.step()
            self.passes += 1
            self.drafted += sum(len(row.draft.tokens) for row in rows)
            self.came += sum(max(0, len(row.ids) - n - 1) for row, n in zip(rows, had, strict=True))
        self.cpu.append(time.process_time() - start[0])
        self.clock.append(time.perf_counter() - start[1])
        self.answers = [sequence.completion().ids for sequence in sequences]


def measure(engine: Engine, kind: str, streams: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one kind of requests came to."""
    prompts, how = KINDS[kind]
    rows = [
        engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for prompt in prompts
    ]
    requests = [
        Request(list(rows[n % len(rows)]), max_new_tokens=options.tokens, seed=n, **how)
        for n in range(max(len(rows), 2 * streams))
    ]
    sides = {speculate: Side(engine, streams, speculate) for speculate in (False, True)}
    for side in sides.values():
        side.run([Request(list(row), max_new_tokens=2) for row in rows])
    for number in range(options.rounds):
        for speculate in (False, True) if number % 2 else (True, False):
            sides[speculate].run(requests)
    plain, drafted = sides[False], sides[True]
    ratios, by_clock = (
        [a / b for a, b in list(zip(before, after, strict=True))[1:]]  # the first filled the cache
        for before, after in ((plain.cpu, drafted.cpu), (plain.clock, drafted.clock))
    )
    tokens = sum(map(len, plain.answers))
    equal = sum(a == b for a, b in zip(plain.answers, drafted.answers, strict=True))
    return {
        "ratio": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "ratio_by_clock": round(statistics.median(by_clock), 3),
        "cpu_ms_per_token": [round(1e3 * statistics.median(x.cpu[1:]) / tokens, 2) for x in (plain, drafted)],
        "passes": [plain.passes, drafted.passes],
        "came": round(drafted.came / max(1, drafted.drafted), 3),
        "equal": f"{equal}/{len(requests)}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    base = resolve(ModelConfig())
    tokenizer = load_tokenizer(base)
    model = load_model(base, dtype=torch.float32, device=torch.device("cpu")).eval()
    engine = Engine(model, tokenizer, stop_ids=[tokenizer.eos_token_id], base_hash=base.hash)
    result: dict[str, dict[str, Any]] = {}
    for kind in options.kinds:
        for streams in options.streams:
            found = measure(engine, kind, streams, options)
            result.setdefault(kind, {})[str(streams)] = found
            print(f"{kind}, {streams} streams: {found}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
