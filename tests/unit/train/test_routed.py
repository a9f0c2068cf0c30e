"""One adapter per task in the same rows: against each adapter trained alone, and read back by plain peft."""

import json
from dataclasses import replace

import peft
import pytest
import torch
from tiny_train import documents, fit, lines, store, tiny_llama, tiny_method

from tanzim.adapters.routed import task_of_source
from tanzim.core.records import Provenance
from tanzim.train.batches import collate
from tanzim.train.objectives.language_model import LanguageModel

TASKS = {"up": "up.jsonl", "down": "data/down-*.jsonl"}
METHOD = {"type": "routed", "rank": 4, "tasks": TASKS}
SOURCES = {"up": "up.jsonl", "down": "data/down-1.jsonl"}


def rows(task, count, seed=0):
    """Number rows that go up in one task, and the same rows backwards in the other."""
    made = []
    for row, one in enumerate(documents(count, seed=seed), 1):
        ids = one.ids if task == "up" else tuple(reversed(one.ids))
        made.append(replace(one, ids=ids, provenance=Provenance(SOURCES[task], row)))
    return made


def mixed(count, seed=0):
    pairs = zip(rows("up", count, seed), rows("down", count, seed + 1), strict=True)
    return [one for pair in pairs for one in pair]


def fill(method, tasks):
    """Give every B small values, the same for an adapter wherever it stands."""
    with torch.no_grad():
        for number, task in enumerate(tasks):
            draw = torch.Generator().manual_seed(number)
            for name, value in method.parameters.items():
                if "lora_B" in name and f".{task}." in name:
                    value.copy_(torch.randn(value.shape, generator=draw, dtype=value.dtype) * 0.1)


def test_gradients_are_those_of_each_adapter_alone(tmp_path):
    mixed_documents = list(store(tmp_path / "t.arrow", mixed(5)))
    routed = tiny_method(tiny_llama(torch.float64), **METHOD)
    fill(routed, TASKS)
    objective = LanguageModel(routed.model)
    objective.choose(mixed_documents)
    assert objective.layout == "packed"
    routed.before_pass(mixed_documents)
    loss = objective.loss_sum(collate(mixed_documents))
    ours = dict(
        zip(routed.parameters, torch.autograd.grad(loss, list(routed.parameters.values())), strict=True)
    )
    total = 0.0
    for number, task in enumerate(TASKS):
        alone = tiny_method(tiny_llama(torch.float64), type="lora", rank=4)
        with torch.no_grad():
            draw = torch.Generator().manual_seed(number)
            for name, value in alone.parameters.items():
                if "lora_B" in name:
                    value.copy_(torch.randn(value.shape, generator=draw, dtype=value.dtype) * 0.1)
        own = [d for d in mixed_documents if task_of_source(d.provenance.source, TASKS) == task]
        plain = LanguageModel(alone.model)
        plain.choose(own)
        own_loss = plain.loss_sum(collate(own))
        total += own_loss.item()
        grads = torch.autograd.grad(own_loss, list(alone.parameters.values()))
        for (name, value), theirs in zip(alone.parameters.items(), grads, strict=True):
            there = name.replace(".default.", f".{task}.")
            torch.testing.assert_close(routed.parameters[there], value, rtol=0, atol=0)  # the same start
            torch.testing.assert_close(ours[there], theirs, rtol=1e-9, atol=1e-12)
    assert loss.item() == pytest.approx(total, rel=1e-12)


def loss_of(model, rendered):
    with torch.no_grad():
        parts = [model(input_ids=(ids := torch.tensor([one.ids])), labels=ids).loss for one in rendered]
    return float(torch.stack(parts).mean())


def test_each_adapter_learns_its_own_task_and_plain_peft_reads_them(tmp_path):
    def wide():
        return tiny_llama(initializer_range=0.3)  # wide enough for an adapter to be sure of a token

    fit(
        tmp_path,
        prepared=tiny_method(wide(), **METHOD),
        method=METHOD,
        train_documents=mixed(40),
        validation_documents=mixed(4, seed=3),
        epochs=4,
        eval_steps=1000,
        learning_rate=2e-2,
    )
    folder = tmp_path / "run" / "adapter"
    record = json.loads((folder / "tanzim.json").read_text())
    assert record["tasks"] == TASKS
    held_out = {task: rows(task, 8, seed=5) for task in TASKS}
    losses = {}
    for task in TASKS:
        tuned = peft.PeftModel.from_pretrained(wide(), folder / task).eval()
        losses[task] = {other: loss_of(tuned, held_out[other]) for other in TASKS}
    base = {task: loss_of(wide().eval(), held_out[task]) for task in TASKS}
    for task, other in (("up", "down"), ("down", "up")):
        assert losses[task][task] < 0.9 * base[task]
        assert losses[task][task] < losses[other][task] - 0.2


def test_what_was_trained_is_what_was_saved_and_a_resumed_run_ends_bit_equal(tmp_path):
    settings = {
        "method": METHOD,
        "train_documents": mixed(20),
        "validation_documents": mixed(3, seed=3),
        "epochs": 4,
        "max_steps": 6,
        "save_steps": 2,
    }
    whole = tiny_method(**METHOD)
    fit(tmp_path / "whole", prepared=whole, **settings)
    ids = torch.tensor([[3, 5, 7, 9, 11]])
    for task in TASKS:
        whole.route.only = task
        saved = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path / "whole" / "run" / "adapter" / task)
        torch.testing.assert_close(whole.model(ids).logits, saved.eval()(ids).logits, rtol=1e-5, atol=1e-6)

    class Stopped(Exception):
        pass

    def stop(line):
        if line["kind"] == "train" and line["step"] == 5:
            raise Stopped

    with pytest.raises(Stopped):
        fit(tmp_path / "cut", prepared=tiny_method(**METHOD), on_line=stop, **settings)
    resumed = tiny_method(**METHOD)
    fit(tmp_path / "cut", prepared=resumed, **settings)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "whole", "train")
    for name, value in whole.parameters.items():
        assert torch.equal(resumed.parameters[name], value)


def test_objectives_without_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="documents packed in rows"):
        fit(tmp_path, method=METHOD, objective={"type": "seq2seq"})
