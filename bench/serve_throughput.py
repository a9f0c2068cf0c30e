"""Many clients at once: `tanzim serve` beside `transformers serve` and llama.cpp's `llama-server`.

    python bench/serve_throughput.py --env FOLDER [--full]

One base model (the embedded 135M) on two cores, over HTTP with streaming. Every client sends its requests
one after the other; each asks for up to ``--tokens`` tokens, greedily. First each peer's settings are tried
(`serve_peers.grid`) and the fastest taken. Then servers take turns, one at a time, in every round, in turned
order in every second one; a round of short requests to each is its warm-up. Tokens are counted by one
tokenizer over the texts that came, so that nobody's own count matters. Answers to the same question are
compared: ours must equal those of `transformers serve`, but for ties of rounding. FOLDER takes the peers'
environment, which is made there at the first run (`serve_peers.prepare`; compiling llama.cpp takes half an
hour on two cores). A run takes some nine minutes, ``--full`` (three rounds, more requests, our weights
in 8 and 4 bits besides) three quarters of one.

The last line is JSON. ``ratio.tokens_per_s``: ours over `transformers serve`, at the most streams, both on
the base; ``ratio.tokens_per_s_llama_cpp``: ours over the faster of llama-server's two precisions, all by
medians; ``ratio.adapters_16_to_1``: 16 adapters' tokens per second over one's. ``spread`` has each ratio's
least and greatest value over the rounds, ``equal`` the share of answers that equal ours.
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
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import PreTrainedTokenizerBase

from serve_peers import Server, grid, prepare, running, servers
from tanzim.adapters.attach import attach
from tanzim.adapters.config import LoraConfig
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer
from tanzim.models.resolve import Base, resolve

SYSTEM = "You are a storyteller. Tell long stories with many details, and never stop early."
THINGS = ("a lighthouse", "two rivers", "the night train", "an old map", "a glass garden", "the last winter",
          "a clockmaker", "the silent bell")  # fmt: skip
CORES = 2
OURS, THEIRS = "tanzim, base", "transformers serve"
MANY = 32  # streams from which a client sends one request less
EQUAL = 0.9  # of our answers must equal those of transformers, token ties apart

Texts = dict[str, dict[int, str]]  # server → question → its last answer


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
    """Keep ``streams`` requests under way until each client has had its share.

    Returns:
        The answers, each with the number of its question, and the seconds they took together.

    """
    # A connection for each request: llama-server closes those it thinks idle under a request on its way.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=1800, limits=limits) as client:

        async def one(place: int) -> list[Any]:
            numbers = range(place, streams * requests, streams)
            return [(n, await ask(client, url, models[n % len(models)], n, tokens)) for n in numbers]

        start = time.perf_counter()
        found = await asyncio.gather(*(one(place) for place in range(streams)))
        return [answer for answers in found for answer in answers], time.perf_counter() - start


def measure(
    url: str,
    server: Server,
    streams: int,
    options: argparse.Namespace,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
) -> Result:
    """Measure a server under one number of streams; its answers by question go to ``texts``."""
    requests = options.requests if streams < MANY else max(1, options.requests - 1)
    answers, seconds = asyncio.run(load(url, server.models, streams, requests, options.tokens))
    texts[server.name] |= {number: text for number, (text, _, _) in answers}
    answers = [answer for _, answer in answers]
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
    parser.add_argument("--requests", type=int, help="of each client; one less from 32 streams on (3)")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, help="(2)")
    parser.add_argument("--full", action="store_true", help="three rounds of 5 requests")
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--only", nargs="+", help="beginnings of servers' names")
    parser.add_argument("--jobs", type=int, default=1, help="compilers at once")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.full else 2)
    options.requests = options.requests or (5 if options.full else 3)
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
        server if server.ours else fastest(server, folder, options)
        for server in servers(folder, base.path, adapters, max(options.streams), CORES)
        if (
            options.full or not server.extra
            if options.only is None
            else server.name.startswith(tuple(options.only))
        )
    ]
    results: dict[str, dict[int, list[Result]]] = {s.name: {n: [] for n in options.streams} for s in chosen}
    texts: Texts = {server.name: {} for server in chosen}
    for number in range(options.rounds):
        turn = chosen if number % 2 == 0 else chosen[::-1]
        for _, same in groupby(turn, key=lambda server: server.command):  # ours is started once for all three
            group = list(same)
            with running(group[0], folder) as url:
                for server in group:
                    asyncio.run(load(url, server.models, min(4, max(options.streams)), 1, 8))
                    for streams in options.streams:
                        result = measure(url, server, streams, options, tokenizer, texts)
                        results[server.name][streams].append(result)
                        print(f"{number + 1}: {server.name}, {streams} streams: {asdict(result)}", flush=True)
    report(results, texts)


def fastest(server: Server, folder: Path, options: argparse.Namespace) -> Server:
    """Return a peer with those of its settings that are fastest at the most streams, short answers."""
    found = []
    for flags in grid(server):
        tried = replace(server, command=[*server.command, *flags])
        with running(tried, folder) as url:
            asyncio.run(load(url, server.models, min(4, max(options.streams)), 1, 8))
            _, seconds = asyncio.run(load(url, server.models, max(options.streams), 1, 16))
        print(f"{server.name} {' '.join(flags) or '(defaults)'}: {seconds:.1f} s", flush=True)
        found.append((seconds, tried))
    return min(found, key=lambda one: one[0])[1]


def report(results: dict[str, dict[int, list[Result]]], texts: Texts) -> None:
    """Print the table of medians with the tokens' spread, and the JSON line."""
    print(
        "\n| server | streams | tokens/s | least to most | requests/s | first token, ms | p99, ms |\n"
        + "|---" * 7
        + "|"
    )
    middle = {
        name: {streams: _median(many) for streams, many in by_streams.items()}
        for name, by_streams in results.items()
    }
    for name, by_streams in middle.items():
        for streams, r in by_streams.items():
            speeds = [one.tokens_per_s for one in results[name][streams]]
            print(f"| {name} | {streams} | {r.tokens_per_s:.0f} | {min(speeds):.0f} to {max(speeds):.0f} | "
                  f"{r.requests_per_s:.2f} | {r.first_token_ms:.0f} | {r.p99_ms:.0f} |")  # fmt: skip
    most = max(max(by_streams) for by_streams in middle.values())
    ratio = ratios({name: by_streams[most].tokens_per_s for name, by_streams in middle.items()})
    rounds = zip(
        *([one.tokens_per_s for one in by_streams[most]] for by_streams in results.values()), strict=True
    )
    each = [ratios(dict(zip(results, speeds, strict=True))) for speeds in rounds]
    spread = {key: [min(one[key] for one in each), max(one[key] for one in each)] for key in ratio}
    equal = {
        name: _equal(texts[OURS], theirs)
        for name, theirs in texts.items()
        if OURS in texts and "adapter" not in name
    }
    measured = {name: {n: asdict(r) for n, r in by_streams.items()} for name, by_streams in middle.items()}
    found = {"ratio": ratio, "spread": spread, "equal": equal, "streams": most, "measured": measured}
    print(json.dumps(found))
    if equal.get(THEIRS, 1.0) < EQUAL:
        raise SystemExit(f"only {equal[THEIRS]:.0%} of our answers equal those of {THEIRS}")


def _median(many: list[Result]) -> Result:
    return Result(*(statistics.median(v) for v in zip(*(asdict(r).values() for r in many), strict=True)))


def ratios(speed: dict[str, float]) -> dict[str, float]:
    """Return what ours does over each of the others, from tokens per second by server."""
    ratio: dict[str, float] = {}
    if OURS in speed and THEIRS in speed:
        ratio["tokens_per_s"] = speed[OURS] / speed[THEIRS]
    llama = [value for name, value in speed.items() if name.startswith("llama-server")]
    if OURS in speed and llama:
        ratio["tokens_per_s_llama_cpp"] = speed[OURS] / max(llama)
    many = [value for name, value in speed.items() if name.endswith(" adapters")]
    if many and "tanzim, 1 adapter" in speed:
        ratio["adapters_16_to_1"] = many[0] / speed["tanzim, 1 adapter"]
    return ratio


def _equal(ours: dict[int, str], theirs: dict[int, str]) -> float:
    """Return the share of the questions asked of both to which both say the same."""
    both = ours.keys() & theirs.keys()
    return sum(ours[number] == theirs[number] for number in both) / max(len(both), 1)


if __name__ == "__main__":
    main()
