"""Training speed and memory beside TRL's SFTTrainer: same model, tokens, adapter, optimiser.

    python bench/train_throughput.py [PATH to gsm8k train.jsonl] [--full] [--threads N]

Every engine runs in a process of its own; they take turns, a few steps each, so that whatever else
the machine does falls on both. Tokens are real ones, without padding. Memory is the peak resident
memory of the engine's process (VmHWM). Needs the extra `bench`. The last line is JSON.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PADDED = {"per_device_train_batch_size": 8, "max_length": 512}
PACKED = {"per_device_train_batch_size": 2, "max_length": 1024, "packing": True}
# Documented settings of SFTTrainer that bear on speed; --full tries them all.
SWEEP = {
    "padded 8×512": PADDED,
    "padded 8×512, grouped by length": {**PADDED, "train_sampling_strategy": "group_by_length"},
    "padding-free 8×512": {**PADDED, "padding_free": True},
    "packed bfd 2×1024": PACKED,
    "packed bfd 1×2048": {**PACKED, "per_device_train_batch_size": 1, "max_length": 2048},
    "packed wrapped 2×1024": {**PACKED, "packing_strategy": "wrapped"},
    "packed bfd 4×512": {**PACKED, "per_device_train_batch_size": 4, "max_length": 512},
}
QUICK = ("padded 8×512", "packed bfd 2×1024")
TOKENS_PER_STEP = 2048
PARITY_DOCUMENTS = 3
NAMES = ("Ada", "Bijan", "Carla", "Darius", "Elena", "Farah", "Goran", "Hana", "Ivan", "Jamila")
THINGS = ("apples", "books", "candles", "pencils", "stickers", "eggs", "flowers", "tickets")


class Child:
    """One engine's process."""

    def __init__(self, engine: str, settings: dict[str, Any]) -> None:
        self.engine = engine
        self.rates: list[float] = []
        self.cpu_rates: list[float] = []
        self.peak = 0
        environment = os.environ | {
            "OMP_NUM_THREADS": str(settings["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "train_engines.py"), json.dumps(settings | {"engine": engine})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.curve = self.answer("curve")["curve"]
        self.answer("ready")

    def answer(self, key: str) -> dict[str, Any]:
        """Read lines until one answers ``key``; other libraries print too."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{") and key in (value := json.loads(line)):
                self.peak = max(self.peak, value.get("peak", 0))
                return value
        sys.exit(f"the engine '{self.engine}' ended early")

    def round(self, steps: int, keep: bool = True) -> None:
        """Make steps and note their rates."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        result = self.answer("tokens")
        self.answer("ready")
        rate = result["tokens"] / result["seconds"]
        print(f"  {self.engine:34s} {rate:7.1f} tokens/s   peak {self.peak / 1e9:.2f} GB", flush=True)
        if keep:
            self.rates.append(rate)
            self.cpu_rates.append(result["tokens"] / result["cpu"])

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def problems(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Write arithmetic word problems with worked answers, of about GSM8K's lengths."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        name, thing = draw.choice(NAMES), draw.choice(THINGS)
        total = draw.randint(20, 90)
        story, steps = [f"{name} starts the week with {total} {thing}."], []
        for day in range(draw.randint(2, 7)):
            change = draw.randint(2, 19)
            gain = draw.random() < 0.5 or total <= change
            after = total + change if gain else total - change
            verb = "buys another" if gain else "gives away"
            story.append(
                f"On day {day + 1} {name} {verb} {change} of them to make room for a plan of the month."
            )
            sign = "+" if gain else "-"
            worked = f"<<{total}{sign}{change}={after}>>{after}"
            steps.append(f"After day {day + 1} there are {total} {sign} {change} = {worked}.")
            total = after
        story.append(f"How many {thing} does {name} have at the end?")
        rows.append((" ".join(story), "\n".join([*steps, f"#### {total}"])))
    return rows


def write_tokens(path: Path | None, out: Path, count: int) -> None:
    """Render rows with the model's own template, loss on the answer, one JSON line per document."""
    from tanzim.core.records import Example, Message, Provenance
    from tanzim.models.config import ModelConfig
    from tanzim.models.load import load_tokenizer
    from tanzim.models.render import Renderer
    from tanzim.models.resolve import resolve

    if path:
        values = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
        rows = [(value["question"], value["answer"]) for value in values]
    else:
        rows = problems(count)
    renderer = Renderer(load_tokenizer(resolve(ModelConfig())))
    with out.open("w") as stream:
        for index, (question, reply) in enumerate(rows, 1):
            turns = (Message("user", question), Message("assistant", reply))
            rendered = renderer.render(Example("messages", Provenance("bench", index), messages=turns))
            stream.write(json.dumps([rendered.ids, rendered.weights]) + "\n")


def compare(ours: Child, others: list[Child], rounds: int, steps: int) -> None:
    """Warm up, then let everyone take turns."""
    children = [ours, *others]
    print("warm-up")
    for child in children:
        child.round(1, keep=False)
    for index in range(rounds):
        print(f"round {index + 1} of {rounds}")
        for child in children if index % 2 == 0 else reversed(children):
            child.round(steps)


def summary(ours: Child, others: list[Child]) -> dict[str, Any]:
    """Return the ratios, with the spread over rounds."""
    fastest = max(others, key=lambda child: statistics.median(child.rates))
    padded = next(child for child in others if child.engine.startswith("padded"))
    packed = min((child for child in others if "packed" in child.engine), key=lambda child: child.peak)
    pairs = [mine / theirs for mine, theirs in zip(ours.rates, fastest.rates, strict=True)]
    cpu = [mine / theirs for mine, theirs in zip(ours.cpu_rates, fastest.cpu_rates, strict=True)]
    curves = [abs(a - b) / b for a, b in zip(ours.curve, padded.curve, strict=True)]
    return {
        "ratio": {
            "tokens_per_s": statistics.median(pairs),
            "tokens_per_s_low": min(pairs),
            "tokens_per_s_high": max(pairs),
            "tokens_per_cpu_s": statistics.median(cpu),
            "peak_memory_padded": ours.peak / padded.peak,
            "peak_memory_packed": ours.peak / packed.peak,
        },
        "tokens_per_s": {child.engine: statistics.median(child.rates) for child in [ours, *others]},
        "tokens_per_cpu_s": {child.engine: statistics.median(child.cpu_rates) for child in [ours, *others]},
        "peak_bytes": {child.engine: child.peak for child in [ours, *others]},
        "fastest_other": fastest.engine,
        "loss": {
            "tanzim": ours.curve,
            padded.engine: padded.curve,
            "first_relative": curves[0],
            "worst": max(curves),
        },
        "parity": curves[0] <= 1e-4,
    }


def main() -> None:
    """Compare the engines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?", help="GSM8K's train.jsonl; else problems are made up")
    parser.add_argument("--full", action="store_true", help="try every setting of TRL, more rounds")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="steps of each engine per round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tanzim-bench-") as work:
        settings = {
            "threads": arguments.threads,
            "tokens": str(Path(work) / "tokens.jsonl"),
            "adapter": str(Path(work) / "adapter"),
            "tokens_per_step": TOKENS_PER_STEP,
        }
        write_tokens(arguments.path, Path(settings["tokens"]), 1000)
        # Ours first: it writes the adapter from which all start.
        ours = Child("tanzim", settings | {"parity": PARITY_DOCUMENTS})
        names = SWEEP if arguments.full else QUICK
        others = [
            Child(
                name, settings | {"trl": SWEEP[name], "parity": PARITY_DOCUMENTS if name == QUICK[0] else 0}
            )
            for name in names
        ]
        compare(ours, others, arguments.rounds * (2 if arguments.full else 1), arguments.steps)
        result = summary(ours, others)
        for child in (ours, *others):
            child.close()
    result |= {"threads": arguments.threads, "data": "gsm8k" if arguments.path else "synthetic"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
