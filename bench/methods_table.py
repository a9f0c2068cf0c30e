"""The table of methods: each one on the embedded model, the same data, steps and held-out items.

    python bench/methods_table.py [METHOD …] [--again] [--speed] [--write]

Every method gets one short run of at most three minutes on two quiet cores, with a learning rate that is
usual for it and was not searched for: the table says what a method costs and that it learns, not which
one is best. A finished row is kept in bench/results/methods.json and not run again, so an interrupted
table goes on. ``--speed`` measures the tokens per second of finished rows again, over SPEED_STEPS steps
and without the evaluation, for a table made while the cores had other work. ``--write`` puts the table
into README.md and docs/methods.md. The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from watched_run import until_measured

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "methods.json"
EXAMPLE = ROOT / "examples" / "support_tickets"
SETTINGS: dict[str, Any] = {
    "data.max_train": 600,
    "data.format": "messages",
    "model.max_length": 512,
    "train.max_steps": 60,
    "train.tokens_per_step": 256,
    "train.tokens_per_pass": 256,
    "train.eval_steps": 1000,
    "evaluate.metrics": ["json_fields"],
    "evaluate.max_items": 40,
    "evaluate.max_new_tokens": 40,
    "evaluate.batch_size": 20,
}
# Method → what it is called, its paper, and its settings under ``train``.
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lora": ("LoRA, r = 16", "2106.09685", {"method.type": "lora", "learning_rate": 1e-3}),
    "rslora": ("rsLoRA", "2312.03732", {"method.type": "rslora", "learning_rate": 5e-4}),
    "dora": ("DoRA", "2402.09353", {"method.type": "dora", "learning_rate": 1e-3}),
    "qlora": ("QLoRA, NF4", "2305.14314", {"method.type": "qlora", "learning_rate": 1e-3}),
    "adalora": ("AdaLoRA", "2303.10512", {"method.type": "adalora", "learning_rate": 3e-3}),
    "lora_fa": ("LoRA-FA", "2308.03303", {"method.type": "lora_fa", "learning_rate": 1e-3}),
    "dylora": ("DyLoRA", "2210.07558", {"method.type": "dylora", "learning_rate": 1e-3}),
    "vera": ("VeRA", "2310.11454", {"method.type": "vera", "learning_rate": 1e-2}),
    "ia3": ("(IA)³", "2205.05638", {"method.type": "ia3", "learning_rate": 1e-2}),
    "bottleneck": ("bottleneck adapters", "1902.00751", {"method.type": "bottleneck", "learning_rate": 1e-3}),
    "prefix": ("prefix tuning", "2101.00190", {"method.type": "prefix", "learning_rate": 1e-2}),
    "prompt": ("prompt tuning", "2104.08691", {"method.type": "prompt", "learning_rate": 3e-2}),
    "p_tuning": ("p-tuning", "2103.10385", {"method.type": "p_tuning", "learning_rate": 1e-3}),
    "bitfit": ("BitFit", "2106.10199", {"method.type": "bitfit", "learning_rate": 3e-3}),
    "spiel": ("SpIEL, 1 %", "2401.16405", {"method.type": "spiel", "learning_rate": 1e-3}),
    "hft": ("half fine-tuning", "2404.18466", {"method.type": "hft", "learning_rate": 1e-4}),
    "hft_reset": (
        "half reset",
        "2404.18466",
        {"method.type": "hft", "method.form": "reset", "learning_rate": 1e-4},
    ),
    "last_layers": (
        "last 4 layers",
        "",
        {"method.type": "full", "method.last_layers": 4, "learning_rate": 2e-4},
    ),
    "full": ("full", "", {"method.type": "full", "learning_rate": 1e-4}),
    "lomo": ("full, LOMO", "2306.09782", {"method.type": "full", "optimizer.type": "lomo"}),
    "mezo": ("full, MeZO", "2305.17333", {"method.type": "full", "optimizer.type": "mezo"}),
}
SPEED_STEPS = 20
COLUMNS = ("method", "trained", "of all", "memory", "planned", "tokens/s", "held-out loss", "fields right")


def main() -> None:
    options = arguments()
    done: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in options.methods:
        if options.again or name not in done or done[name]["settings"] != asked(name):
            done[name] = measure(name)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(done, indent=1) + "\n")
    for name in options.methods if options.speed else ():
        done[name]["tokens_per_s"] = speed(name)
        RESULTS.write_text(json.dumps(done, indent=1) + "\n")
    lines = table({name: done[name] for name in METHODS if name in done})
    print("\n".join(lines))
    if options.write:
        for path in (ROOT / "README.md", ROOT / "docs" / "methods.md"):
            put(path, lines)
    print(json.dumps({"methods": len(done), "slowest_s": max(row["seconds"] for row in done.values())}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="what every method costs, and that it learns")
    parser.add_argument("methods", nargs="*", default=list(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--again", action="store_true", help="measure again what is measured already")
    parser.add_argument("--speed", action="store_true", help="measure tokens per second again, alone")
    parser.add_argument(
        "--write", action="store_true", help="put the table into README.md and docs/methods.md"
    )
    options = parser.parse_args()
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def asked(name: str) -> dict[str, Any]:
    return SETTINGS | {f"train.{key}": value for key, value in METHODS[name][2].items()}


def command(name: str, folder: str, verb: str, **changes: object) -> list[str]:
    """Return the command that runs a verb on one method."""
    data = {
        f"data.{key}": str(EXAMPLE / "data" / f"{split}.jsonl")
        for key, split in (("path", "train"), ("validation_path", "validation"), ("test_path", "test"))
    }
    if not Path(data["data.path"]).is_file():
        subprocess.run([sys.executable, str(EXAMPLE / "generate.py")], check=True, stdout=sys.stderr)
    settings = {"name": name, "runs_dir": folder, **data, **asked(name), **changes}
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    print(f"{name}: {verb}", file=sys.stderr, flush=True)
    return [sys.executable, "-m", "tanzim", verb, *words]


def speed(name: str) -> float:
    """Train for a few steps on quiet cores; return tokens per second. What follows is cut short."""
    with tempfile.TemporaryDirectory(prefix="tanzim-methods-") as folder:
        words = command(name, folder, "train", **{"train.max_steps": SPEED_STEPS})
        found = until_measured(words, Path(folder) / name / "plan.json", stdout=sys.stderr)
    if not found:
        sys.exit(f"{name}: the training ended before it was measured")
    return round(found["measured"]["tokens_per_s"], 1)


def measure(name: str) -> dict[str, Any]:
    """Train and evaluate one method."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tanzim-methods-") as folder:
        for verb in ("train", "evaluate"):
            subprocess.run(command(name, folder, verb), check=True, stdout=sys.stderr)
        place = Path(folder) / name
        plan, manifest = (json.loads((place / f).read_text()) for f in ("plan.json", "manifest.json"))
        report = json.loads((place / "evaluation" / "report.json").read_text())
    systems = {system["name"]: system for system in report["systems"]}
    result = manifest["result"]
    return {
        "settings": asked(name),
        "trained": plan["predicted"]["numbers"]["trained"],
        "parameters": plan["predicted"]["numbers"]["parameters"],
        "planned_memory": plan["predicted"]["peak_memory"],
        "memory": result["peak_memory"],
        "tokens_per_s": round(result["tokens_per_s"], 1),
        "loss": {name: round(system["loss"], 4) for name, system in systems.items() if system.get("loss")},
        "fields": {
            name: round(system["metrics"]["json_fields"]["all"]["value"], 4)
            for name, system in systems.items()
        },
        "seconds": round(time.monotonic() - started, 1),
    }


def table(done: dict[str, Any]) -> list[str]:
    """Return the table in Markdown, the base first."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        f"|{'|'.join(['---'] + ['---:'] * (len(COLUMNS) - 1))}|",
    ]
    if done:
        first = next(iter(done.values()))
        lines.append(
            f"| base, untrained | – | – | – | – | – | {first['loss']['base']:.3f} |"
            f" {first['fields']['base']:.0%} |"
        )
    for name, row in done.items():
        title, paper, _ = METHODS[name]
        linked = f"[{title}](https://arxiv.org/abs/{paper})" if paper else title
        cells = (
            linked,
            f"{row['trained']:,}",
            f"{row['trained'] / row['parameters']:.2%}",
            f"{row['memory'] / 1e9:.2f} GB",
            f"{row['planned_memory'] / 1e9:.2f} GB",
            f"{row['tokens_per_s']:.0f}",
            f"{row['loss']['tuned']:.3f}",
            f"{row['fields']['tuned']:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def put(path: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks in ``path``."""
    text = path.read_text(encoding="utf-8")
    begin, end = "<!-- methods: begin -->", "<!-- methods: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{chr(10).join(lines)}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
