"""Many clients at once: `tanzim serve` beside `transformers serve` and llama.cpp's `llama-server`.

    python bench/serve_throughput.py --env FOLDER [--streams 1 8 32] [--requests 3] [--tokens 64] [--rounds 2]

One base model (the embedded 135M) on two cores, over HTTP with streaming. Every client sends its requests
one after the other; each asks for up to ``--tokens`` tokens, greedily. Servers take turns, one at a time, in
every round; the first round of requests to each is a warm-up. Tokens are counted by one tokenizer over the
texts that came, so that nobody's own count matters. FOLDER takes the peers' environment, which is made there
at the first run (`serve_peers.prepare`; compiling llama.cpp takes half an hour on two cores).

The last line is JSON. ``ratio.tokens_per_s``: ours over `transformers serve`, at the most streams, both on
the base; ``ratio.tokens_per_s_llama_cpp``: ours over the faster of llama-server's two precisions;
``ratio.adapters_16_to_1``: 16 adapters' tokens per second over one's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import torch

from serve_peers import Server, prepare, running, servers
from tanzim.adapters.attach import attach
from tanzim.adapters.config import LoraConfig
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer
from tanzim.models.resolve import Base, resolve

SYSTEM = "You are a storyteller. Tell long stories with many details, and never stop early."
THINGS = ("a lighthouse", "two rivers", "the night train", "an old map", "a glass garden", "the last winter",
          "a clockmaker", "the silent bell")  # fmt: skip
CORES = 2


@dataclass(frozen=True)
class Result:
    """What a server did under one number of streams."""

    tokens_per_s: float
    requests_per_s: float
    first_token_ms: float
    p99_ms: float


async def ask(
    client: httpx.AsyncClient, url: str, model: str, number: int, tokens: int
) -> tuple[str, float, float]:
    """Send one request; return its text, the seconds to its first text, and to its end."""
    question = f"Tell me the story of {THINGS[number % len(THINGS)]}, part {number}."
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True}
    start, first, text = time.perf_counter(), 0.0, []
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        if answer.status_code != httpx.codes.OK:
            raise SystemExit(f"{url} answered {answer.status_code}: {(await answer.aread())[:300]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            for choice in json.loads(line[6:]).get("choices", ()):
                piece = choice.get("delta", {}).get("content")
                if piece:
                    first = first or time.perf_counter() - start
                    text.append(piece)
    return "".join(text), first, time.perf_counter() - start


async def load(
    url: str, models: list[str], streams: int, requests: int, tokens: int
) -> tuple[list[Any], float]:
    """Keep ``streams`` requests under way until each client has had its share; return answers and seconds."""
    # A connection for each request: llama-server closes those it thinks idle under a request on its way.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=1800, limits=limits) as client:

        async def one(place: int) -> list[Any]:
            numbers = range(place, streams * requests, streams)
            return [await ask(client, url, models[n % len(models)], n, tokens) for n in numbers]

        start = time.perf_counter()
        found = await asyncio.gather(*(one(place) for place in range(streams)))
        return [answer for answers in found for answer in answers], time.perf_counter() - start


def measure(url: str, server: Server, streams: int, options: argparse.Namespace, tokenizer: Any) -> Result:  # noqa: ANN401
    answers, seconds = asyncio.run(load(url, server.models, streams, options.requests, options.tokens))
    count = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text, _, _ in answers)
    ends = sorted(end for _, _, end in answers)
    return Result(
        count / seconds,
        len(answers) / seconds,
        1e3 * statistics.median(first for _, first, _ in answers),
        1e3 * ends[min(len(ends) - 1, int(0.99 * len(ends)))],
    )


def make_adapters(folder: Path, base: Base, count: int) -> list[Path]:
    """Return folders of random LoRA adapters, rank 16 on all linear layers."""
    paths = [folder / "adapters" / f"a{number}" for number in range(count)]
    if all(path.is_dir() for path in paths):
        return paths
    model = load_model(base, dtype=torch.float32, device=torch.device("cpu")).eval()
    method = attach(model, LoraConfig(rank=16), seed=0, base_hash=base.hash, base_name=base.name)
    for number, path in enumerate(paths):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for value in method.parameters.values():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.01)
        method.save(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", type=Path, required=True, help="folder for the peers' environment")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=3, help="of each client")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--only", nargs="+", help="beginnings of servers' names")
    parser.add_argument("--jobs", type=int, default=1, help="compilers at once")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # the servers inherit it
    base, folder = resolve(ModelConfig()), options.env.resolve()
    tokenizer = load_tokenizer(base)
    if options.only is None or any(not name.startswith("tanzim") for name in options.only):
        prepare(folder, base.path, options.jobs)
    folder.mkdir(parents=True, exist_ok=True)
    adapters = make_adapters(folder, base, options.adapters)
    chosen = [
        server
        for server in servers(folder, base.path, adapters, max(options.streams), CORES)
        if options.only is None or server.name.startswith(tuple(options.only))
    ]
    results: dict[str, dict[int, list[Result]]] = {s.name: {n: [] for n in options.streams} for s in chosen}
    for number in range(options.rounds):
        for server in chosen:
            with running(server, folder) as url:
                asyncio.run(load(url, server.models, min(4, max(options.streams)), 1, 8))
                for streams in options.streams:
                    result = measure(url, server, streams, options, tokenizer)
                    results[server.name][streams].append(result)
                    print(
                        f"round {number + 1}, {server.name}, {streams} streams: {asdict(result)}", flush=True
                    )
    report(results)


def report(results: dict[str, dict[int, list[Result]]]) -> None:
    """Print the table of medians, and the JSON line."""
    middle = {
        name: {
            streams: Result(
                *(statistics.median(v) for v in zip(*(asdict(r).values() for r in many), strict=True))
            )
            for streams, many in by_streams.items()
        }
        for name, by_streams in results.items()
    }
    print("\n| server | streams | tokens/s | requests/s | first token, ms | p99, ms |\n" + "|---" * 6 + "|")
    for name, by_streams in middle.items():
        for streams, r in by_streams.items():
            print(f"| {name} | {streams} | {r.tokens_per_s:.0f} | {r.requests_per_s:.2f} | "
                  f"{r.first_token_ms:.0f} | {r.p99_ms:.0f} |")  # fmt: skip
    most = max(max(by_streams) for by_streams in middle.values())
    speed = {name: by_streams[most].tokens_per_s for name, by_streams in middle.items()}
    ratio: dict[str, float] = {}
    ours = speed.get("tanzim, base")
    if ours is not None and "transformers serve" in speed:
        ratio["tokens_per_s"] = ours / speed["transformers serve"]
    llama = [value for name, value in speed.items() if name.startswith("llama-server")]
    if ours is not None and llama:
        ratio["tokens_per_s_llama_cpp"] = ours / max(llama)
    many = [value for name, value in speed.items() if name.endswith(" adapters")]
    if many and "tanzim, 1 adapter" in speed:
        ratio["adapters_16_to_1"] = many[0] / speed["tanzim, 1 adapter"]
    measured = {name: {n: asdict(r) for n, r in by_streams.items()} for name, by_streams in middle.items()}
    print(json.dumps({"ratio": ratio, "streams": most, "measured": measured}))


if __name__ == "__main__":
    main()
