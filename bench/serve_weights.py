"""Serving with weights in full, in 8 and in 4 bits: tokens per second, memory, and how far the logits move.

    python bench/serve_weights.py [--streams 1 8 32] [--tokens 64] [--rounds 3] [--threads 2]

The engine of `tanzim serve` in this process, without HTTP and drafted tokens, on the embedded 135M model. The
kinds take turns in every round; the median counts. Over a short text, ``distance`` is the norm of the logits'
difference over that of the logits, and ``nats`` what a token costs more on average. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tanzim.infer.engine import Engine, Request
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer
from tanzim.models.quantised import Quantised
from tanzim.models.resolve import resolve

KINDS: dict[str, Quantised | None] = {"full": None, "int8": Quantised("int8"), "int4": Quantised("int4")}
TEXT = """The library opened its doors in the spring, and within a year it held more books than the town had
people. Children came after school to read about ships and stars; their parents came on Saturdays and borrowed
novels, manuals and maps. When the river rose in the third winter, everybody carried the lower shelves
upstairs."""


def score(model: Any, ids: list[int]) -> tuple[Tensor, float]:  # noqa: ANN401 - a causal language model
    """Return the logits of a text and the mean log-probability of its words."""
    row = torch.tensor([ids])
    with torch.inference_mode():
        logits = model(input_ids=row).logits[0]
    return logits, float(logits[:-1].log_softmax(-1).gather(1, row[0, 1:, None]).mean())


def held(model: Any, lean: Any) -> int:  # noqa: ANN401 - a causal language model and its lean pass
    """Return the bytes of the weights, and of the copies that the lean pass keeps in oneDNN's layout."""
    products = [lean._head] + [p for x in lean._layers for p in (x.qkv, x.out, x.gate_up, x.down)]
    copies = [p._weight for p in products if getattr(p, "_packed", False)]
    kept = {value.data_ptr(): value.untyped_storage() for value in (*model.parameters(), *model.buffers())}
    storages = {storage.data_ptr(): storage.nbytes() for storage in kept.values()}
    return sum(storages.values()) + sum(copy.numel() * copy.element_size() for copy in copies)


def speed(engine: Engine, streams: int, tokens: int) -> float:
    """Return the decoded tokens per second of so many answers at once, prompts not counted."""
    draw, scheduler = random.Random(streams), engine.server(streams)
    sequences = [
        engine.sequence(Request([draw.randrange(100, 40000) for _ in range(40)], max_new_tokens=tokens))
        for _ in range(streams)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    while any(not sequence.ids for sequence in sequences):
        scheduler.step()
    before = sum(len(sequence.ids) for sequence in sequences)
    start = time.perf_counter()
    while scheduler.busy:
        scheduler.step()
    return (streams * tokens - before) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    base = resolve(ModelConfig())
    tokenizer = load_tokenizer(base)
    ids, engines, result = tokenizer.encode(TEXT), {}, {}
    wanted, likely = torch.empty(0), 0.0
    for kind, quantised in KINDS.items():
        model: Any = load_model(
            replace(base, quantised=quantised), dtype=torch.float32, device=torch.device("cpu")
        )
        logits, mean = score(model, ids)
        if quantised is None:
            wanted, likely = logits, mean
        engines[kind] = Engine(model, tokenizer, stop_ids=[], base_hash=base.hash)
        speed(engines[kind], 2, 4)  # compiles
        result[kind] = {
            "MB": held(model, engines[kind]._lean_model()) / 1e6,
            "distance": float((logits - wanted).norm() / wanted.norm()),
            "nats": likely - mean,
        }
    for streams in options.streams:
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(options.rounds):
            for kind, engine in engines.items():
                found[kind].append(speed(engine, streams, options.tokens))
        for kind, values in found.items():
            result[kind][f"tokens_per_s_{streams}"] = statistics.median(values)
            print(kind, streams, [round(value, 1) for value in values], flush=True)
    heads = [f"{streams} streams, tokens/s" for streams in options.streams]
    print(
        "\n| weights | " + " | ".join(heads) + " | MB | distance | nats |\n" + "|---" * (len(heads) + 4) + "|"
    )
    for kind, row in result.items():
        speeds = " | ".join(f"{row[f'tokens_per_s_{streams}']:.0f}" for streams in options.streams)
        print(f"| {kind} | {speeds} | {row['MB']:.0f} | {row['distance']:.3f} | {row['nats']:.3f} |")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
