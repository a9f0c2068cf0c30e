"""Is the memory plan right? Predicted and measured peaks of every method, on models of three sizes.

    python bench/memory_plan.py [--only METHOD …] [--sizes SIZE …] [--optimizers] [--full]

Each case trains a few steps on passes of varied lengths in a process of its own, whose peak resident
memory is what the plan foresaw, or not. Without flags: every method on the middle size and a few on the
others. The last line is JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from watched_run import until_measured

METHODS = [
    *("lora", "rslora", "dora", "qlora", "adalora", "lora_fa", "dylora", "vera", "ia3", "bottleneck"),
    *("prefix", "prompt", "p_tuning", "bitfit", "hft", "spiel", "full"),
]
OPTIMIZERS = ["sgd", "momentum", "adagrad", "rmsprop", "adadelta", "adam", "lomo", "mezo"]
FEW = ["lora", "dora", "prefix", "hft", "full"]
# hidden, inner, layers, query heads, key heads, vocabulary: shapes of SmolLM2 and of a smaller kin.
SIZES = {
    "42M": (384, 1024, 12, 6, 2, 49_152),
    "135M": (576, 1536, 30, 9, 3, 49_152),
    "362M": (960, 2560, 32, 15, 5, 49_152),
}
TOKENS, STEPS, GOAL = 768, 4, 0.15


def main() -> None:
    options = arguments()
    if options.worker:
        case = json.loads(options.worker)
        make_base(Path(case["base"]), case["size"]) if case["make"] else work(case)
        return
    cases = [(size, method, "adamw") for size in options.sizes for method in chosen(options, size)]
    if options.optimizers or options.full:
        cases += [("135M", "full", optimizer) for optimizer in OPTIMIZERS]
    results, worst = [], 0.0
    print(f"{'size':>5} {'method':<12} {'optimiser':<9} {'predicted':>10} {'measured':>10}  off by")
    bases = Path(tempfile.mkdtemp(prefix="tanzim-memory-"))
    for size, method, optimizer in cases:
        case = {"size": size, "method": method, "optimizer": optimizer, "base": str(bases / size)}
        if not (bases / size).is_dir():
            run(case, make=True)  # in a process of its own, whose memory is not the run's
        found = run(case)
        off = found["predicted"] / found["measured"] - 1
        worst = max(worst, abs(off))
        mark = "" if abs(off) <= GOAL else "  ← more than 15 %"
        print(
            f"{size:>5} {method:<12} {optimizer:<9} {found['predicted'] / 1e9:>8.2f} GB"
            f" {found['measured'] / 1e9:>8.2f} GB  {off:+.1%}{mark}",
            flush=True,
        )
        results.append(
            {"size": size, "method": method, "optimizer": optimizer, "off": round(off, 4), **found}
        )
    shutil.rmtree(bases)
    print(json.dumps({"worst": round(worst, 4), "goal": GOAL, "cases": results}))
    sys.exit(worst > GOAL)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="predicted and measured peak memory")
    parser.add_argument("--only", nargs="*", choices=METHODS, help="these methods")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES), help="these sizes")
    parser.add_argument("--optimizers", action="store_true", help="also every optimiser, in full tuning")
    parser.add_argument("--full", action="store_true", help="every method on every size, every optimiser")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(options: argparse.Namespace, size: str) -> list[str]:
    if options.only is not None:
        return options.only
    return METHODS if options.full or size == "135M" else FEW


def run(case: dict[str, str], *, make: bool = False) -> dict[str, Any]:
    """Run a case in a process of its own; once its training has ended, what would follow is cut short."""
    with tempfile.TemporaryDirectory(prefix="tanzim-memory-") as folder, tempfile.TemporaryFile("w+") as said:
        asked = json.dumps(case | {"make": make, "folder": folder})
        words = [sys.executable, __file__, "--worker", asked]
        if make and not subprocess.run(words, stdout=said, stderr=said, check=False).returncode:
            return {}
        plan = Path(folder) / "runs" / "run" / "plan.json"
        found = {} if make else until_measured(words, plan, stdout=said, stderr=said)
        if not found:
            said.seek(0)
            sys.exit(f"{case} failed:\n{said.read()[-3000:]}")
    return {
        "predicted": found["predicted"]["peak_memory"],
        "measured": found["measured"]["peak_memory"],
        "parts": found["predicted"]["memory_parts"],
    }


def work(case: dict[str, Any]) -> None:
    """Predict and train: the worker's whole life."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import numpy as np

    from tanzim.core.config import load
    from tanzim.pipeline.config import Config
    from tanzim.pipeline.finetune import finetune

    folder = Path(case["folder"])
    random = np.random.default_rng(0)
    rows = [" ".join(f"w{i}" for i in random.integers(0, 1000, random.integers(8, 60))) for _ in range(120)]
    lines = [json.dumps({"prompt": f"Say {row[:40]}", "completion": row}) for row in rows]
    (folder / "data.jsonl").write_text("\n".join(lines))
    settings = {
        "data.path": str(folder / "data.jsonl"),
        "model.name": case["base"],
        "runs_dir": str(folder / "runs"),
        "data.split.test": 0.01,
        "data.split.validation": 0.05,
        "train.method.type": case["method"],
        "train.optimizer.type": case["optimizer"],
        "train.max_steps": STEPS,
        "train.tokens_per_step": TOKENS,
        "train.tokens_per_pass": TOKENS,
        "train.learning_rate": 1e-6,
    }
    finetune(load(Config, None, [f"{key}={json.dumps(value)}" for key, value in settings.items()]))


def make_base(folder: Path, size: str) -> None:
    """Write a random Llama of that size, with the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tanzim.models.config import ModelConfig
    from tanzim.models.load import load_tokenizer
    from tanzim.models.resolve import resolve

    hidden, inner, layers, queries, keys, words = SIZES[size]
    tokenizer = load_tokenizer(resolve(ModelConfig()))
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=queries,
        num_key_value_heads=keys,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
