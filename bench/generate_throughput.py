"""Tokens per second of the engine beside ``transformers.generate``: same model, prompts and tokens.

    python bench/generate_throughput.py [--tokens 64] [--rounds 3] [--batches 1 8 16] [--adapter]

Both decode greedily to the same length, in turns within one process. The last line is JSON with
``ratio.batch_1`` and so on: the engine's tokens per second over transformers'.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tanzim.adapters.config import LoraConfig
from tanzim.adapters.lora import attach
from tanzim.infer.engine import Engine, Request
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer
from tanzim.models.resolve import resolve

SYSTEM = "You are a support agent. Answer the customer in one short paragraph, politely and to the point."
QUESTIONS = [
    "My parcel has not arrived although the page says it was delivered on Monday. What now?",
    "How do I change my password?",
    "I was charged twice for order 1182, please return one of the payments to my card.",
    "The app closes as soon as I open the camera on my phone since the last update.",
]


def prompts(tokenizer: PreTrainedTokenizerBase, count: int) -> list[list[int]]:
    rows = []
    for index in range(count):
        text = f"{QUESTIONS[index % len(QUESTIONS)]} (case {index})"
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        made = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        rows.append(list(made["input_ids"]))
    return rows


def by_transformers(model: PreTrainedModel, rows: list[list[int]], tokens: int) -> list[tuple[int, ...]]:
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return [tuple(row[longest:].tolist()) for row in output]


def by_engine(
    engine: Engine, rows: list[list[int]], adapter: str | None, tokens: int
) -> list[tuple[int, ...]]:
    requests = [Request(row, adapter, max_new_tokens=tokens) for row in rows]
    return [completion.ids for completion in engine.generate(requests, max_batch=len(rows))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--adapter", action="store_true", help="a LoRA r=16 on all linear layers answers")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    base = resolve(ModelConfig())
    tokenizer = load_tokenizer(base)
    model = load_model(base, dtype=torch.float32, device=torch.device("cpu")).eval()
    adapter = None
    if options.adapter:
        adapter, model = "default", attach(model, LoraConfig(rank=16), seed=1).eval()
    engine = Engine(model, tokenizer, stop_ids=[], base_hash=base.hash)
    result: dict[str, dict[str, float]] = {"engine": {}, "transformers": {}, "ratio": {}, "equal": {}}
    for batch in options.batches:
        rows = prompts(tokenizer, batch)
        seconds: dict[str, list[float]] = {"engine": [], "transformers": []}
        for turn in range(options.rounds + 1):
            start = time.perf_counter()
            ours = by_engine(engine, rows, adapter, options.tokens)
            middle = time.perf_counter()
            theirs = by_transformers(model, rows, options.tokens)
            end = time.perf_counter()
            if turn:  # the first is a warm-up
                seconds["engine"].append(middle - start)
                seconds["transformers"].append(end - middle)
        name = f"batch_{batch}"
        for side, values in seconds.items():
            result[side][name] = round(batch * options.tokens / statistics.median(values), 2)
        result["ratio"][name] = round(result["engine"][name] / result["transformers"][name], 3)
        result["equal"][name] = sum(a == b for a, b in zip(ours, theirs, strict=True)) / batch
        print(name, {side: result[side][name] for side in result}, flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
