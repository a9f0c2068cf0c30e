"""The two training engines of `train_throughput.py`, each in a process of its own.

A child trains on the token file it is given; the parent says over stdin when to make how many steps,
and reads one JSON line per answer, so that two children can take turns on one machine.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from tanzim.adapters.config import LoraConfig
from tanzim.adapters.lora import attach
from tanzim.adapters.method import Method, trainable
from tanzim.adapters.store import save_adapter
from tanzim.core.records import Provenance, Rendered
from tanzim.core.run import RunFolder
from tanzim.models.config import ModelConfig
from tanzim.models.resolve import resolve
from tanzim.train.config import TrainConfig

LEARNING_RATE = 2e-4
PARITY_STEPS = 3
ENDLESS = 300  # more steps than the parent ever asks for
Documents = list[tuple[list[int], list[float]]]


def main() -> None:
    """Run one child: ``train_engines.py SETTINGS`` with settings as JSON."""
    settings = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    torch.set_num_threads(settings["threads"])
    documents = [tuple(json.loads(line)) for line in Path(settings["tokens"]).read_text().splitlines()]
    engine = tanzim if settings["engine"] == "tanzim" else trl
    engine(settings, documents)


def answer(value: dict[str, Any]) -> None:
    """Send one line to the parent."""
    sys.__stdout__.write(json.dumps(value) + "\n")
    sys.__stdout__.flush()


def peak_bytes() -> int:
    """Return this process's peak resident memory (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def rounds() -> Iterator[int]:
    """Yield how many steps to make, as often as the parent asks; ends when it closes the pipe."""
    for line in sys.stdin:
        yield int(line)


class Rounds:
    """Counts real tokens and time of the steps of a round; called after every step."""

    def __init__(self) -> None:
        self.orders = rounds()
        self.left = 0
        self.tokens = self.steps = 0
        self.cpu = self.start = 0.0

    def begin(self) -> None:
        """Wait for the next round; leave the process when there is none."""
        answer({"ready": True, "peak": peak_bytes()})
        order = next(self.orders, None)
        if order is None:
            sys.exit(0)
        self.left, self.tokens, self.steps = order, 0, order
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def step(self, tokens: int, loss: float) -> None:
        """Note one step; at the end of a round report it and wait."""
        self.tokens += tokens
        self.left -= 1
        if self.left:
            return
        seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        answer({"tokens": self.tokens, "steps": self.steps, "seconds": seconds, "cpu": cpu, "loss": loss})
        self.begin()


def model_of(settings: dict[str, Any], implementation: str) -> tuple[Any, Any]:
    """Load the base model with an attention implementation."""
    from tanzim.models.load import load_model

    base = resolve(ModelConfig())
    model = load_model(base, dtype=torch.float32, device=torch.device("cpu"))
    if implementation != "tanzim":
        model.set_attn_implementation(implementation)
    return base, model


def tanzim(settings: dict[str, Any], documents: Documents) -> None:
    """Train with Tanzim's own engine."""
    from tanzim.adapters.fast import accelerate
    from tanzim.train.batches import collate
    from tanzim.train.engine import train
    from tanzim.train.objectives.language_model import LanguageModel
    from tanzim.train.tokens import TokenStore, write_tokens

    base, model = model_of(settings, "tanzim")
    adapted = attach(model, LoraConfig(), seed=0)
    folder = Path(tempfile.mkdtemp(prefix="tanzim-bench-"))
    save_adapter(adapted, Path(settings["adapter"]), base_hash=base.hash, base_name=base.name)
    notes = accelerate(adapted)
    write_tokens(
        folder / "train.arrow",
        [
            Rendered(tuple(ids), tuple(weights), (), Provenance("bench", row))
            for row, (ids, weights) in enumerate(documents, 1)
        ],
    )
    store = TokenStore(folder / "train.arrow")
    objective = LanguageModel(adapted)
    sample = [store[index] for index in range(settings["parity"])]
    batch = collate(sample)
    count = float(batch.weights_T.sum())
    curve = losses(adapted.train(), lambda: objective.loss_sum(batch, scale=1 / count))
    answer({"engine": "tanzim", "notes": notes, "curve": curve})

    config = TrainConfig(
        max_steps=ENDLESS,
        epochs=4,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        tokens_per_step=settings["tokens_per_step"],
        tokens_per_pass=settings["tokens_per_step"],
        save_steps=ENDLESS,
    )
    turns = Rounds()
    turns.begin()

    def on_line(line: dict[str, Any]) -> None:
        if line["kind"] == "train":
            turns.step(line["tokens"], line["loss"])

    train(
        Method(adapted, base_hash=base.hash, base_name=base.name),
        store,
        None,
        config,
        RunFolder(folder / "run"),
        seed=0,
        on_line=on_line,
    )


def losses(model: torch.nn.Module, loss_of: Callable[[], torch.Tensor]) -> list[float]:
    """Make a few AdamW steps on one batch; return the loss before each."""
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    curve = []
    for _ in range(PARITY_STEPS):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        curve.append(float(loss.detach()))
    return curve


def trl(settings: dict[str, Any], documents: Documents) -> None:
    """Train with TRL's SFTTrainer under the given settings, from the same adapter."""
    import peft
    import transformers
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from tanzim.models.load import load_tokenizer

    transformers.utils.logging.set_verbosity_error()
    base = resolve(ModelConfig())
    plain = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32, attn_implementation="sdpa")
    model = peft.PeftModel.from_pretrained(plain, settings["adapter"], is_trainable=True)
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(prefix="tanzim-bench-"),
        max_steps=ENDLESS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        completion_only_loss=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=ENDLESS,
        seed=0,
        **settings["trl"],
    )
    turns = Rounds()

    class Counting(SFTTrainer):
        """Counts real tokens of each step and takes turns."""

        def training_step(self, model, inputs, *rest):  # noqa: ANN001, ANN002, ANN202 - TRL's signature
            mask = inputs.get("attention_mask")
            tokens = int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
            loss = super().training_step(model, inputs, *rest)
            turns.last = tokens, float(loss)
            return loss

    class Turn(transformers.TrainerCallback):
        """Ends a step after the optimiser has stepped too."""

        def on_step_end(self, *_: object, **__: object) -> None:
            turns.step(*turns.last)

    rows = [
        {"input_ids": ids, "completion_mask": [int(weight > 0) for weight in weights]}
        for ids, weights in documents
    ]
    tokenizer = load_tokenizer(base)
    trainer = Counting(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    trainer.add_callback(Turn())
    curve = []
    if settings["parity"]:
        one = trl_batch(documents[: settings["parity"]], tokenizer.pad_token_id)
        curve = losses(model.train(), lambda: trainer.compute_loss(model, dict(one)))
    answer({"engine": settings["engine"], "notes": [], "curve": curve})
    turns.begin()
    trainer.train()


def trl_batch(documents: Documents, pad: int) -> dict[str, torch.Tensor]:
    """Pad documents to the right, untrained tokens labelled -100: what TRL's collator makes."""
    length = max(len(ids) for ids, _ in documents)
    ids = [row + [pad] * (length - len(row)) for row, _ in documents]
    labels = [
        [token if weight else -100 for token, weight in zip(row, weights, strict=True)]
        + [-100] * (length - len(row))
        for row, weights in documents
    ]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row, _ in documents]
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
    }


if __name__ == "__main__":
    main()
