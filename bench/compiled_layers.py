"""What torch.compile brings on the CPU: one step of LoRA by plain, compiled and fast layers.

    python bench/compiled_layers.py [--tokens 512] [--steps 3] [--threads 2]

The embedded model, packed rows of documents of 128 tokens, loss on every token, forward and backward. What
counts is the CPU time of a step, which other work on the machine hardly moves (with one thread), and the
seconds until the layers are ready. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from tanzim.adapters.attach import attach
from tanzim.adapters.compiled import compile_layers
from tanzim.adapters.config import LoraConfig
from tanzim.adapters.fast import accelerate
from tanzim.core.records import Provenance
from tanzim.models.config import ModelConfig
from tanzim.models.kernels.attention import hide_from_compiler
from tanzim.models.load import load_model
from tanzim.models.resolve import resolve
from tanzim.train.batches import Batch, collate
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.tokens import Document

DOCUMENT = 128  # tokens
WAYS: dict[str, Callable[[torch.nn.Module], object]] = {
    "plain": lambda model: "the model's own layers",
    "compiled": compile_layers,
    "fast": accelerate,
}


def main() -> None:
    """Measure each way."""
    hide_from_compiler()
    parser = argparse.ArgumentParser(description="plain, compiled and fast layers")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=3, help="steps that are measured")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = np.random.default_rng(0)
    rows = [
        Document(
            draw.integers(0, 49_152, DOCUMENT, np.int32), np.ones(DOCUMENT, np.float32), Provenance("x", i)
        )
        for i in range(options.tokens // DOCUMENT)
    ]
    results = {}
    for name, prepare in WAYS.items():
        results[name] = measure(prepare, collate(rows), options.steps)
        shown = " · ".join(f"{key} {value:.4g}" for key, value in results[name].items())
        print(f"{name:>9}: {shown}", flush=True)
    ratio = results["plain"]["cpu_s"] / results["compiled"]["cpu_s"]
    print(json.dumps({"compiled_to_plain": round(ratio, 3), **vars(options), "ways": results}))


def measure(prepare: Callable[[torch.nn.Module], object], batch: Batch, steps: int) -> dict[str, float]:
    """Return CPU seconds and seconds of a step, its loss, and the seconds of preparing."""
    base = load_model(resolve(ModelConfig()), dtype=torch.float32, device=torch.device("cpu"))
    method = attach(base, LoraConfig(rank=16), seed=0, base_hash="", base_name="")
    begun = time.perf_counter()
    print(prepare(method.model), flush=True)
    objective = LanguageModel(method.model.train())

    def step() -> float:
        loss = objective.loss_sum(batch, scale=1 / batch.tokens)
        loss.backward()
        method.model.zero_grad()
        return float(loss.detach())

    loss = step()  # also compiles what the trial did not
    ready = time.perf_counter() - begun
    cpu, wall = [], []
    for _ in range(steps):
        starts = time.process_time(), time.perf_counter()
        step()
        cpu.append(time.process_time() - starts[0])
        wall.append(time.perf_counter() - starts[1])
    return {"cpu_s": min(cpu), "wall_s": min(wall), "loss": loss, "ready_s": ready}


if __name__ == "__main__":
    main()
