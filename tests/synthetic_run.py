"""A run directory as a finished run leaves it, made of invented numbers: no model is needed."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from pathlib import Path

from tanzim.core.files import write_json, write_text
from tanzim.core.records import Json
from tanzim.core.run import RunFolder, RunManifest
from tanzim.data.prepare import DataReport
from tanzim.evaluate.report import Comparison, EvalReport, SystemResult
from tanzim.evaluate.stats import Estimate

HOSTILE = "<script>alert(1)</script> \"'& </svg> \u202egnp.exe"
ENGLISH = [
    ("My parcel {n} has not arrived, it was promised for Monday.\nCan you look into it?", "delivery"),
    ("You charged me twice for order {n}. I want the second payment back.", "payment"),
    ("The zip of the jacket I bought (order {n}) broke after two days.", "return"),
]
PERSIAN = [
    ("سلام، بستهٔ {n} هنوز نرسیده است؛ قرار بود دوشنبه برسد.\nلطفاً پیگیری می‌کنید؟", "delivery"),
    ("برای سفارش {n} دو بار از حسابم برداشت شده؛ می‌خواهم مبلغ دوم را برگردانید.", "payment"),
    ("زیپ کاپشنی که با شمارهٔ INV-{n} خریده بودم پس از دو روز خراب شد. چه‌کار کنم؟", "return"),
]
REASON = "the answers are JSON objects"


def make_run(path: Path, steps: int = 120) -> RunFolder:
    """Write the run directory ``path`` and return it."""
    folder = RunFolder(path)
    draw = random.Random(7)
    folder.write_manifest(_manifest(path.name, steps))
    write_text(folder.config, f"name: {path.name}\nseed: 13\ndata:\n  path: tickets.jsonl  # {HOSTILE}\n")
    write_json(folder.data / "report.json", asdict(_data()))
    write_json(folder.tokens / "report.json", _tokens(draw))
    write_json(folder.plan, _plan())
    write_json(folder.moved, _moved())
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _metrics(draw, steps))
    write_text(folder.metrics, lines)
    items = [_item(draw, index) for index in range(60)]
    write_text(
        folder.evaluation / "items.jsonl", "".join(json.dumps(i, ensure_ascii=False) + "\n" for i in items)
    )
    write_json(folder.evaluation / "report.json", _evaluation().to_json())
    return folder


def _manifest(name: str, steps: int) -> RunManifest:
    return RunManifest(
        name=name,
        status="evaluated",
        base={"name": "smollm2-135m-instruct", "source": "alias", "hash": "5f" * 32, "license": "apache-2.0"},
        data={"format": "messages", "fingerprints": {"train": "ab" * 32}, "rejected": {}},
        environment={
            "python": "3.11.7",
            "platform": "Linux-6.1-x86_64",
            "packages": {"torch": "2.13.0", "tanzim": "0.1.0", "transformers": "5.23.0"},
            "choices": [
                {"key": "model.device", "value": "cpu", "why": "no GPU found"},
                {"key": "data.format", "value": "messages", "why": "each row has a list of role and content"},
            ],
        },
        seed=13,
        template={"text": "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}" * 3,
                  "stop": ["<|im_end|>"]},
        result={
            "output": "adapter", "step": steps, "total_steps": steps, "stopped": "all steps done",
            "best_step": 96, "best_loss": 0.3124, "loss": 0.281, "tokens": 245760, "trained_tokens": 61233,
            "seconds": 254.7, "tokens_per_s": 964.9, "peak_memory": 2_912_000_000,
            "checkpoint_bytes": 29_000_000, "tokens_per_pass": 2048,
        },
    )  # fmt: skip


def _data() -> DataReport:
    return DataReport(
        format="messages",
        reason="each row has 'messages', a list of objects with role and content",
        columns={"messages": "messages"},
        files=[{"path": "داده/tickets.jsonl", "sha256": "c0" * 32, "bytes": 812_331, "container": "jsonl",
                "encoding": "utf-8", "note": "", "format": "messages", "reason": "", "columns": {},
                "rows": 2_412, "kept": 2_408, "rejected": 4}],
        rows_read=2_412,
        splits={"train": 1_980, "validation": 120, "test": 300},
        rejected={"the row is not valid JSON": 3, f"unknown role {HOSTILE}": 1},
        leakage={"mode": "repair", "near_duplicate": 0.85, "exact": 5, "near": 3, "same_prompt_pairs": [],
                 "dropped": {"train": 8, "validation": 0}, "same_prompt_other_answer": 0,
                 "pairs": [{"train_side": "داده/tickets.jsonl, row 7", "similarity": 0.912,
                            "held_out": "داده/tickets.jsonl, row 9", "text": PERSIAN[0][0],
                            "other_text": HOSTILE}]},
        unused={"train": 0, "test": 0},
        labels={"delivery": {"train": 700, "validation": 40, "test": 100},
                "بازگشت کالا": {"train": 640, "validation": 40, "test": 100}},
        lengths={"unit": "characters", "edges": [0, 50, 100, 200, 400, 800, 1600],
                 "counts": [12, 310, 1_240, 702, 131, 5, 0], "mean": 178.2, "median": 161.0, "p95": 391.0,
                 "max": 1_204},
        fingerprints={"train": "ab" * 32, "validation": "cd" * 32, "test": "ef" * 32},
        notes=["8 examples were dropped: the same or nearly the same stand in a held-out split"],
    )  # fmt: skip


def _tokens(draw: random.Random) -> Json:
    lengths = [min(311, max(24, round(draw.lognormvariate(4.6, 0.45)))) for _ in range(1_980)]
    counts = [sum(width * 13 <= n < width * 13 + 13 for n in lengths) for width in range(24)]
    histogram = {"edges": [13 * i for i in range(25)], "counts": counts}
    train = {"examples": 1_980, "tokens": sum(lengths), "trained_tokens": 61_233, "longest": 311,
             "dropped": 0, "truncated": 0, "histogram": histogram}  # fmt: skip
    return {
        "max_length": 512,
        "overlong": "error",
        "splits": {
            name: {**train, "examples": n}
            for name, n in (("train", 1_980), ("validation", 120), ("test", 300))
        },
    }


def _moved() -> Json:
    layers = [
        {
            "layer": f"model.layers.{at}.self_attn.q_proj",
            "magnitude": 0.001 * (at + 1),
            "direction": 2e-5 * (9 - at),
        }
        for at in range(4)
    ]
    return {"layers": layers, "correlation": -1.0}


def _plan() -> Json:
    memory = {"weights": 538_000_000, "gradients": 19_600_000, "optimiser": 39_100_000,
              "activations": 1_610_000_000, "logits": 403_000_000}  # fmt: skip
    machine = {"device": "2 CPU cores", "cores": 2, "memory": 14_000_000_000, "held": 612_000_000,
               "disk": 40_000_000_000, "flops": 1.1e11}  # fmt: skip
    return {
        "predicted": {"peak_memory": 2_780_000_000, "disk": 61_000_000, "tokens": 245_760,
                      "trained_tokens": 61_233, "steps": 120, "seconds": 231.0, "tokens_per_s": 1_064.0,
                      "memory_parts": memory, "disk_parts": {"checkpoints": 58_000_000},
                      "numbers": {"layers": 30, "bytes_per_weight": 4}, "machine": machine},
        "measured": {"peak_memory": 2_912_000_000, "disk": 63_100_000, "tokens": 245_760,
                     "trained_tokens": 61_233, "steps": 120, "seconds": 254.7, "tokens_per_s": 964.9},
    }  # fmt: skip


def _metrics(draw: random.Random, steps: int) -> list[Json]:
    lines: list[Json] = [{"step": 0, "kind": "event", "message": "packed documents, isolated"}]
    for step in range(1, steps + 1):
        loss = 0.25 + 2.6 * math.exp(-step / 18) + draw.gauss(0, 0.04)
        lines.append({"step": step, "steps": steps, "epoch": step / steps, "kind": "train", "loss": loss,
                      "learning_rate": 2e-4 * (1 - step / steps), "grad_norm": 1.0, "tokens": 2048,
                      "trained_tokens": 510, "tokens_per_s": 965.0, "seconds": 2.1})  # fmt: skip
        if step % 12 == 0:
            loss = 0.3 + 2.5 * math.exp(-step / 17) + max(0, step - 96) * 0.0006
            lines.append({"step": step, "steps": steps, "epoch": step / steps, "kind": "eval", "loss": loss,
                          "perplexity": math.exp(loss), "tokens": 11_000, "trained_tokens": 3_700,
                          "seconds": 3.0, "best": step <= 96})  # fmt: skip
    return lines


def _item(draw: random.Random, index: int) -> Json:
    persian = index % 2 == 1
    text, kind = (PERSIAN if persian else ENGLISH)[index // 2 % 3]
    number = draw.randrange(1000, 9999)
    shown = str(number).translate({48 + i: 0x6F0 + i for i in range(10)}) if persian else str(number)
    ticket = {"kind": kind, "order": str(number), "summary": "پیگیری" if persian else "look into"}
    reference = json.dumps(ticket, ensure_ascii=False)
    wrong = index % 6 == 0
    tuned = reference.replace(kind, "other") if wrong else reference
    sorry = "متأسفم که این را می‌شنوم! شمارهٔ سفارش را بفرستید." if persian else "I'm sorry to hear that!"
    base = f"{sorry} {HOSTILE}"
    question = text.format(n=shown) + (f" {HOSTILE}" if index == 6 else "")
    messages: list[Json] = []
    if index % 4 == 0:
        messages.append({"role": "system", "content": "Answer with one JSON object."})
    if index == 12:
        call = {"name": "find_order", "arguments": {"number": HOSTILE}, "id": "1"}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})

    def entry(answer: str, finish: str, fields: float) -> Json:
        return {"answer": answer, "finish_reason": finish,
                "scores": {"json_valid": float(answer.startswith("{")), "json_fields": fields,
                           "exact_match": float(answer == reference)}}  # fmt: skip

    return {
        "index": index,
        "provenance": {"source": "داده/tickets.jsonl", "row": 100 + index},
        "group": "Arabic" if persian else "Latin",
        "messages": [*messages, {"role": "user", "content": question}],
        "reference": reference,
        "systems": {
            "base": entry("" if index % 10 == 0 else base, "length", 0.0),
            "tuned": entry(tuned, "stop", 0.67 if wrong else 1.0),
            "کلیدواژه": entry(reference if index % 3 else "{}", "file", 1.0 if index % 3 else 0.0),
        },
    }


def _evaluation() -> EvalReport:
    def metric(value: float, wide: float, items: int = 60) -> dict[str, Estimate]:
        def at(v: float, n: int, w: float) -> Estimate:
            return Estimate(v, max(0, v - w), min(1, v + w), n)

        return {"all": at(value, items, wide), "Latin": at(min(1, value + 0.03), items // 2, wide * 1.4),
                "Arabic": at(max(0, value - 0.03), items // 2, wide * 1.4)}  # fmt: skip

    names = ("json_fields", "json_valid", "exact_match", "json_fields.kind")
    rows = {
        "base": ((0.02, 0.02), (0.05, 0.04), (0.0, 0.0), (0.04, 0.03)),
        "tuned": ((0.944, 0.04), (0.99, 0.01), (0.83, 0.09), (0.84, 0.09)),
        "کلیدواژه": ((0.67, 0.1), (0.99, 0.01), (0.41, 0.1), (0.6, 0.1)),
    }
    values = {system: dict(zip(names, row, strict=True)) for system, row in rows.items()}
    losses: dict[str, tuple[float | None, float | None]] = {"base": (2.6121, 13.63), "tuned": (0.3131, 1.37)}
    systems = tuple(
        SystemResult(name, "aa" * 32, *losses.get(name, (None, None)), 9_000,
                     {m: metric(*v) for m, v in given.items()}, cut_off=58 if name == "base" else 0)
        for name, given in values.items()
    )  # fmt: skip
    comparisons = tuple(
        Comparison("tuned", other, name, group, Estimate(values["tuned"][name][0] - values[other][name][0],
                   values["tuned"][name][0] - values[other][name][0] - 0.06,
                   values["tuned"][name][0] - values[other][name][0] + 0.05, 60), "better")
        for other in ("base", "کلیدواژه") for name in values["tuned"] for group in ("all", "Latin", "Arabic")
    )  # fmt: skip
    return EvalReport(
        items=60, examples=300, skipped={"its last turn is not an answer": 2},
        metrics=("json_fields", "json_valid", "exact_match", "json_fields.kind"), reason=REASON,
        groups={"Latin": 30, "Arabic": 30}, labels=(), systems=systems, comparisons=comparisons,
        settings={"seed": 13, "max_new_tokens": 256, "resamples": 1000},
    )  # fmt: skip
