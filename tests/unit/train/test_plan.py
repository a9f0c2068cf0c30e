from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from tiny_train import documents, fit, lines, store, tiny_llama, tiny_lora
from transformers import GPT2Config, LlamaConfig

from tanzim.adapters.config import FullConfig, LoraConfig
from tanzim.core.errors import PlanError
from tanzim.train import machine as machine_module
from tanzim.train.config import TrainConfig
from tanzim.train.machine import Machine, free_memory, measure_flops, probe
from tanzim.train.plan import Plan, make_plan, measured
from tanzim.train.shapes import shapes

GB = 10**9
BIG = Machine(device="cpu", cores=2, memory=10**15, held=GB // 2, disk=10**15, flops=2e11)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_llama().config.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def plan(base: Path, machine: Machine = BIG, **settings: Any) -> Plan:
    lengths = np.random.default_rng(0).integers(20, 400, 500)
    return make_plan(
        base,
        TrainConfig.model_validate(settings),
        machine,
        lengths=lengths,
        trained=lengths // 2,
        validation_tokens=1000,
        seed=1,
        dtype=torch.float32,
    )


def large(folder: Path) -> Path:
    """Write the config of a model of 7 billion parameters: no weights are needed."""
    LlamaConfig().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_sizes_from_the_config_equal_the_models(base: Path, targets: Any) -> None:
    from tanzim.adapters.lora import attach

    model = tiny_llama()
    count = sum(p.numel() for p in model.parameters())
    config = LoraConfig(rank=4, target_modules=targets)
    found = shapes(base, config)
    adapted = attach(model, config, seed=1)
    assert found.parameters == count
    assert found.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert shapes(base, FullConfig()).trained == count
    assert (found.hidden, found.queries, found.keys, found.inner) == (32, 32, 16, 48)


def test_llama_2_has_its_published_size(tmp_path: Path) -> None:
    found = shapes(large(tmp_path), LoraConfig())
    assert found.parameters == 6_738_415_616
    assert found.linear == 6_738_415_616 - 2 * 32_000 * 4096 - 65 * 4096
    # r · (in + out) of q, k, v, o, gate, up and down in 32 layers.
    assert found.trained == 16 * 32 * (4 * 8192 + 3 * (4096 + 11008))


def test_gpt2_names_are_known(tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    found = shapes(tmp_path, LoraConfig())
    assert found.parameters == 124_439_808
    assert (found.layers, found.inner, found.keys) == (12, 3072, 768)


def test_tokens_and_steps_are_those_of_the_run(tmp_path: Path, base: Path) -> None:
    rows = documents(60)
    tokens = store(tmp_path / "t.arrow", rows)
    settings: dict[str, Any] = {"tokens_per_step": 256, "tokens_per_pass": 128, "epochs": 1.5}
    config = TrainConfig.model_validate({"method": {"rank": 4}, **settings})
    made = make_plan(
        base,
        config,
        BIG,
        lengths=tokens.lengths,
        trained=tokens.trained,
        validation_tokens=100,
        seed=5,
        dtype=torch.float32,
    )
    result = fit(tmp_path, model=tiny_lora(), train_documents=rows, **settings)
    took = measured(result)
    for key in ("tokens", "trained_tokens", "steps"):
        assert made.predicted()[key] == took[key]
    assert made.numbers["evaluations"] == len(lines(tmp_path, "eval"))
    # What is written stays within what was foreseen, but for headers and random states (under 100 kB).
    assert 0 < took["disk"] < sum(made.disk.values()) + 100_000
    assert set(took) <= set(made.predicted())


def test_parts_follow_their_formulas(tmp_path: Path) -> None:
    made = plan(large(tmp_path), method={"type": "full"}, gradient_checkpointing=True)
    count = 6_738_415_616
    assert made.memory["weights"] == made.memory["gradients"] == 4 * count
    assert made.memory["optimiser"] == 8 * count
    assert made.numbers["flops_per_token"] == pytest.approx(
        # 8 operations a weight with recomputation, the vocabulary at half of the tokens (3 products).
        8 * made.numbers["linear"] + 6 * 32_000 * 4096 * made.trained_tokens / made.tokens
    )
    lora = plan(large(tmp_path))
    assert lora.memory["optimiser"] == 2 * lora.memory["gradients"] == 8 * lora.numbers["trained"]
    half = plan(large(tmp_path), machine=replace(BIG, flops=1e11))
    assert half.seconds == pytest.approx(2 * lora.seconds)


def test_what_fits_is_not_refused(base: Path) -> None:
    plan(base).check()


def test_too_little_memory_names_what_would_fit(tmp_path: Path) -> None:
    machine = replace(BIG, memory=60 * GB)
    refused = plan(large(tmp_path), machine, method={"type": "full"})
    with pytest.raises(PlanError) as caught:
        refused.check()
    message = str(caught.value)
    assert "training needs about" in message
    assert "optimiser 53.9 GB" in message
    assert "train.method.type=lora" in message
    assert "train.gradient_checkpointing=true (" not in message  # alone it would not fit
    offered = [change.rpartition(" (")[0] for change in message.split("would fit: ")[1].split("; ")]
    assert offered == [change for change, took in refused.changes.items() if took <= 60.5 * GB * 0.9]
    # Following the advice is accepted, and takes what was said.
    followed = plan(large(tmp_path), machine, method={"type": "lora"})
    followed.check()
    assert followed.peak_memory == refused.changes["train.method.type=lora"]


def test_smaller_passes_are_offered_down_to_the_longest_document(tmp_path: Path) -> None:
    made = plan(large(tmp_path), tokens_per_step=4096, tokens_per_pass=4096)
    offered = [
        change for change in made.changes if change.startswith("train.tokens_per_pass") and " " not in change
    ]
    assert offered == [f"train.tokens_per_pass={size}" for size in (2048, 1024, 512, 398)]
    assert made.changes["train.tokens_per_pass=512"] == (
        plan(large(tmp_path), tokens_per_step=4096, tokens_per_pass=512).peak_memory
    )


def test_a_hopeless_case_says_so(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="take a smaller base model: even with every change"):
        plan(large(tmp_path), replace(BIG, memory=2 * GB)).check()


def test_too_little_disk_is_said(base: Path) -> None:
    with pytest.raises(PlanError, match="the run writes about"):
        plan(base, replace(BIG, disk=1000)).check()


def test_control_group_limits_are_honoured(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/job\n3:cpuset:/x\n0::/slice\n")
    (tmp_path / "fs/memory/job").mkdir(parents=True)
    (tmp_path / "fs/memory/job/memory.limit_in_bytes").write_text("5000\n")
    (tmp_path / "fs/memory/job/memory.usage_in_bytes").write_text("1000\n")
    (tmp_path / "fs/slice").mkdir()
    (tmp_path / "fs/slice/memory.max").write_text("max\n")
    (tmp_path / "fs/slice/memory.current").write_text("1\n")
    found = machine_module._cgroup_memory(tmp_path / "fs", membership)
    assert found == [(5000, 1000)]
    (tmp_path / "fs/slice/memory.max").write_text("800\n")
    assert (800, 1) in machine_module._cgroup_memory(tmp_path / "fs", membership)


def test_probe_sees_this_machine(tmp_path: Path) -> None:
    found = probe(tmp_path / "not" / "yet", device=torch.device("cpu"), dtype=torch.float32)
    assert 1 <= found.cores <= (psutil.cpu_count() or 1)
    assert 0 < free_memory() <= psutil.virtual_memory().total
    assert 0 < found.memory <= psutil.virtual_memory().total
    assert found.held > 50_000_000  # torch alone
    assert found.disk > 0
    assert 1e8 < found.flops < 1e16
    assert measure_flops(torch.device("cpu"), torch.float32) > 1e8
