from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from tiny_train import VOCABULARY, documents, fit, lines, store, tiny_llama, tiny_lora, tiny_method
from transformers import GPT2Config, LlamaConfig

from tanzim.core.errors import PlanError
from tanzim.core.records import Provenance, Rendered
from tanzim.core.units import size
from tanzim.train import machine as machine_module
from tanzim.train.config import TrainConfig
from tanzim.train.live import LiveMemory
from tanzim.train.machine import Machine, free_memory, measure_flops, probe
from tanzim.train.plan import SPREAD, Plan, make_plan, measured
from tanzim.train.rehearsal import Rehearsed, rehearse
from tanzim.train.shapes import Shapes, shapes
from tanzim.train.tokens import Document

GB = 10**9
BIG = Machine(device="cpu", cores=2, memory=10**15, held=GB // 2, disk=10**15, flops=2e11)
CPU = torch.device("cpu")
# Many narrow layers: as many weights as a large model has, and small steps are still quick.
LARGE = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 400, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("base"), tiny_llama().config)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the config of a model of half a billion parameters: no weights are needed."""
    return saved(tmp_path_factory.mktemp("large"), LlamaConfig(**LARGE))


def saved(folder: Path, config: Any) -> Path:
    config.save_pretrained(folder)
    return folder


SHAPES: dict[Path, Shapes] = {}


def plan(base: Path, machine: Machine = BIG, lengths: Any = None, **settings: Any) -> Plan:
    if lengths is None:
        lengths = np.random.default_rng(0).integers(20, 400, 500)
    SHAPES[base] = SHAPES.get(base) or shapes(base)
    return make_plan(
        SHAPES[base],
        lambda config, dtype: rehearsed_once(base, config, dtype),
        TrainConfig.model_validate(settings),
        machine,
        lengths=lengths,
        trained=lengths // 2,
        validation_tokens=1000,
        seed=1,
        dtype=torch.float32,
    )


REHEARSED: dict[str, Rehearsed] = {}


def rehearsed_once(base: Path, config: TrainConfig, dtype: torch.dtype) -> Rehearsed:
    key = f"{base} {config.model_dump_json(exclude={'tokens_per_pass', 'tokens_per_step'})} {dtype}"
    if key not in REHEARSED:
        REHEARSED[key] = rehearse(base, config, some_documents(), dtype=dtype, device=CPU)
    return REHEARSED[key]


def some_documents() -> list[Document]:
    return [Document(np.arange(50, dtype=np.int32), np.ones(50, np.float32), Provenance("a", 1))]


def test_llama_2_has_its_published_size(tmp_path: Path) -> None:
    found = shapes(saved(tmp_path, LlamaConfig()))
    assert found.parameters == 6_738_415_616
    assert found.linear == 6_738_415_616 - 2 * 32_000 * 4096 - 65 * 4096
    assert (found.layers, found.hidden, found.vocabulary) == (32, 4096, 32_000)


def test_gpt2_names_are_known(tmp_path: Path) -> None:
    found = shapes(saved(tmp_path, GPT2Config()))
    assert found.parameters == 124_439_808
    assert (found.layers, found.hidden, found.vocabulary) == (12, 768, 50_257)


@pytest.mark.parametrize(
    "method",
    [
        {"type": "lora", "rank": 4},
        {"type": "lora", "rank": 4, "target_modules": ["q_proj", "down_proj"]},
        {"type": "full"},
        {"type": "full", "last_layers": 3, "freeze": ["norm"]},
        {"type": "bottleneck", "size": 8},
        {"type": "prompt", "tokens": 5},
    ],
    ids=lambda method: method["type"],
)
def test_a_rehearsal_foresees_the_sizes_of_a_deeper_model(tmp_path: Path, method: Any) -> None:
    path = saved(tmp_path / "deep", tiny_llama(num_hidden_layers=7).config)
    config = TrainConfig.model_validate({"method": method})
    found = rehearse(path, config, some_documents(), dtype=torch.float32, device=CPU)
    model = tiny_method(tiny_llama(num_hidden_layers=7), **method)
    count = sum(p.numel() for p in model.parameters.values())
    assert found.trained.at(7, VOCABULARY) == count
    tensors = {p.data_ptr(): p.nbytes for p in (*model.model.parameters(), *model.model.buffers())}
    assert found.stored.at(7, VOCABULARY) == sum(tensors.values())
    # Trained weights and two moments of each, and less than 200 kB of names and random states.
    assert 0 <= found.checkpoint.at(7, VOCABULARY) - 12 * count < 200_000


@pytest.mark.parametrize(
    ("method", "within"),
    [({"type": "full"}, 0.1), ({"type": "full", "last_layers": 3}, 0.15)],
    ids=["all layers", "last layers"],
)
def test_a_rehearsal_foresees_the_peak_of_a_deeper_model(tmp_path: Path, method: Any, within: float) -> None:
    path = saved(tmp_path / "deep", tiny_llama(num_hidden_layers=9).config)
    settings: Any = {"tokens_per_step": 700, "tokens_per_pass": 700, "max_steps": 2, "warmup_steps": 0}
    config = TrainConfig.model_validate({"method": method, **settings})
    found = rehearse(path, config, some_documents(), dtype=torch.float32, device=CPU)
    rows = [Rendered(tuple(range(97)) * 7, (1.0,) * 679, (), Provenance("a", 1))]
    model = tiny_llama(num_hidden_layers=9)
    with LiveMemory(CPU) as live:
        fit(tmp_path, model=model, method=method, train_documents=rows, epochs=2, **settings)
    logits, rest = found.peak(9, 679, VOCABULARY, 1.0)
    assert logits + rest == pytest.approx(live.peak, rel=within)


def test_what_is_kept_for_the_backward_pass_is_what_autograd_saves() -> None:
    layers = torch.nn.Sequential(*(torch.nn.Linear(64, 64, bias=False) for _ in range(5)), torch.nn.Tanh())
    saved_bytes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved_bytes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    x = torch.randn(10, 64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layers(x).sum()
    weights = {p.data_ptr() for p in layers.parameters()}
    activations = sum(size for key, size in saved_bytes.items() if key not in weights | {x.data_ptr()})
    with LiveMemory(CPU) as live:
        layers(x).sum().backward()
    # Besides, the backward pass begins with the scalar loss and its gradient alive.
    assert live.kept == activations + 8
    assert live.peak >= live.kept + 64 * 64 * 4


def test_tokens_and_steps_are_those_of_the_run(tmp_path: Path, base: Path) -> None:
    rows = documents(60)
    tokens = store(tmp_path / "t.arrow", rows)
    settings: dict[str, Any] = {"tokens_per_step": 256, "tokens_per_pass": 128, "epochs": 1.5}
    made = make_plan(
        shapes(base),
        lambda config, dtype: rehearse(base, config, list(tokens)[:5], dtype=dtype, device=CPU),
        TrainConfig.model_validate({"method": {"rank": 4}, **settings}),
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
    assert 0 < took["disk"] < sum(made.disk.values())
    assert set(took) <= set(made.predicted())


def test_parts_follow_their_formulas(large: Path) -> None:
    made = plan(large, method={"type": "full"})
    count = made.numbers["parameters"]
    assert made.memory["weights"] == pytest.approx(4 * count)
    assert made.memory["gradients"] == pytest.approx(4 * count * SPREAD)
    assert made.memory["optimiser"] == pytest.approx(8 * count * SPREAD, rel=1e-3)
    checkpointed = plan(large, method={"type": "full"}, gradient_checkpointing=True)
    assert checkpointed.memory["activations"] < made.memory["activations"] / 2
    assert checkpointed.numbers["flops_per_token"] == pytest.approx(
        # 8 operations a weight with recomputation, the vocabulary at half of the tokens (3 products).
        8 * made.numbers["linear"] + 6 * 32_000 * 256 * made.trained_tokens / made.tokens
    )
    lora = plan(large)
    assert lora.memory["optimiser"] == pytest.approx(2 * lora.memory["gradients"], rel=0.1)
    assert lora.memory["gradients"] == pytest.approx(4 * lora.numbers["trained"] * SPREAD)
    half = plan(large, machine=replace(BIG, flops=1e11))
    assert half.seconds == pytest.approx(2 * lora.seconds)


def test_what_fits_is_not_refused(base: Path) -> None:
    made = plan(base)
    made.check()
    assert made.changes == {}


def test_too_little_memory_names_what_would_fit(large: Path) -> None:
    machine = replace(BIG, memory=6 * GB)
    short: Any = {"tokens_per_step": 256, "tokens_per_pass": 256, "lengths": np.full(500, 100)}
    refused = plan(large, machine, method={"type": "full"}, **short)
    with pytest.raises(PlanError) as caught:
        refused.check()
    message = str(caught.value)
    assert "training needs about" in message
    assert f"optimiser {size(refused.memory['optimiser'])}" in message
    assert "train.method.type=lora" in message
    room = int(6.5 * GB * 0.9)
    offered = [change.rpartition(" (")[0] for change in message.split("would fit: ")[1].split("; ")]
    assert offered == [change for change, took in refused.changes.items() if took <= room]
    # Following the advice is accepted, and takes what was said.
    followed = plan(large, machine, method={"type": "lora"}, **short)
    followed.check()
    assert followed.peak_memory == pytest.approx(refused.changes["train.method.type=lora"], rel=0.01)


def test_smaller_passes_are_offered_down_to_the_longest_document(large: Path) -> None:
    tight = replace(BIG, memory=GB, held=0)
    made = plan(large, tight, tokens_per_step=4096, tokens_per_pass=4096)
    offered = [
        change for change in made.changes if change.startswith("train.tokens_per_pass") and " " not in change
    ]
    assert offered == [f"train.tokens_per_pass={size}" for size in (2048, 1024, 512, 398)]
    assert made.changes["train.tokens_per_pass=512"] == pytest.approx(
        plan(large, tight, tokens_per_step=4096, tokens_per_pass=512).peak_memory, rel=0.01
    )


def test_learnt_keys_stand_before_one_document_alone(base: Path) -> None:
    """Prefix tuning does not pack: its largest pass is the longest document, whatever a pass may hold."""
    lengths = np.random.default_rng(0).integers(20, 400, 500)
    made = plan(base, lengths=lengths, method={"type": "prefix"}, tokens_per_step=4096, tokens_per_pass=4096)
    assert made.numbers["tokens_in_largest_pass"] == lengths.max()
    packed = plan(base, lengths=lengths, tokens_per_step=4096, tokens_per_pass=4096)
    assert packed.numbers["tokens_in_largest_pass"] == 4096


def test_a_hopeless_case_says_so(large: Path) -> None:
    with pytest.raises(PlanError, match="take a smaller base model: even with every change"):
        plan(large, replace(BIG, memory=GB)).check()


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
