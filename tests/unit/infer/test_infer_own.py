"""The engine serves adapters of our own kinds beside the base and LoRA, and leaves the model as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.own_adapters import KINDS, changed_by_hand, random_adapter
from tanzim.adapters.store import save_adapter
from tanzim.core.errors import ModelError, WrongBaseError
from tanzim.infer.engine import Engine, Request

HASH = "0" * 64
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


def prompt(seed: int, length: int = 12) -> list[int]:
    return torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def copied(model: LlamaForCausalLM) -> LlamaForCausalLM:
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def greedy(model: torch.nn.Module, request: Request) -> tuple[int, ...]:
    ids = torch.tensor([request.prompt_ids])
    output = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return tuple(output[0, ids.shape[1] :].tolist())


@pytest.fixture
def peers(model: LlamaForCausalLM, tmp_path: Path) -> dict[str | None, torch.nn.Module]:
    """Save an adapter of every kind; return the models with their changes made by hand or by peft."""
    found: dict[str | None, torch.nn.Module] = {None: copied(model)}
    for kind in KINDS:
        random_adapter(copied(model), kind, tmp_path / kind, HASH)
        found[kind] = changed_by_hand(copied(model), kind, tmp_path / kind)
    torch.manual_seed(3)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    lora = get_peft_model(copied(model), settings).eval()
    for name, parameter in lora.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.15)
    save_adapter(lora, tmp_path / "lora", base_hash=HASH, base_name="tiny")
    found["lora"] = lora
    return found


@pytest.mark.parametrize("lora_at", [0, 2, 3])
def test_all_kinds_side_by_side(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    peers: dict[str | None, torch.nn.Module],
    tmp_path: Path,
    lora_at: int,
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    engine = Engine(model, tokenizer, stop_ids=[2], base_hash=HASH)
    names = list(KINDS)
    names.insert(lora_at, "lora")
    for name in names:
        engine.add_adapter(name, tmp_path / name)
    assert set(engine.adapters) == set(names)
    wanted = [None, *names, *reversed(names), None]
    requests = [Request(prompt(s % 3), name, max_new_tokens=8) for s, name in enumerate(wanted)]
    found = engine.generate(requests, max_batch=4)
    for request, completion in zip(requests, found, strict=True):
        assert completion.ids == greedy(peers[request.adapter], request), request.adapter
    alone = engine.generate([Request(prompt(1), name, max_new_tokens=8) for name in wanted[:5]])
    assert len({completion.ids for completion in alone}) == 5
    after = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_lent_models_give_the_logits_of_the_changed_one(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    peers: dict[str | None, torch.nn.Module],
    tmp_path: Path,
) -> None:
    engine = Engine(model, tokenizer, stop_ids=[2], base_hash=HASH)
    for name in KINDS:
        engine.add_adapter(name, tmp_path / name)
    ids = torch.tensor([prompt(5, 30)])
    with torch.no_grad():
        for name in (*KINDS, None, *KINDS):
            with engine.lend(name) as lent:
                torch.testing.assert_close(
                    lent(input_ids=ids).logits, peers[name](input_ids=ids).logits, rtol=0, atol=1e-4
                )


@pytest.mark.parametrize("kind", list(KINDS))
def test_half_precision(
    kind: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    random_adapter(copied(model), kind, tmp_path / "a", HASH)
    peer = changed_by_hand(copied(model), kind, tmp_path / "a")
    engine = Engine(model.to(torch.bfloat16), tokenizer, stop_ids=[2], base_hash=HASH)
    engine.add_adapter("a", tmp_path / "a")
    ids = torch.tensor([prompt(5, 30)])
    with torch.no_grad():
        wanted = peer(input_ids=ids).logits.log_softmax(-1)
        with engine.lend("a") as lent:
            found = lent(input_ids=ids).logits.float().log_softmax(-1)
        with engine.lend(None) as lent:
            base = lent(input_ids=ids).logits.float().log_softmax(-1)
    assert float((found - wanted).abs().mean()) < 0.1 * float((base - wanted).abs().mean())


def test_wrong_ones_are_refused_and_leave_nothing(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    random_adapter(copied(model), "spiel", tmp_path / "a", "1" * 64)
    engine = Engine(model, tokenizer, stop_ids=[2], base_hash=HASH)
    with pytest.raises(WrongBaseError):
        engine.add_adapter("a", tmp_path / "a")
    assert engine.adapters == ()
    random_adapter(copied(model), "spiel", tmp_path / "b", HASH)
    engine.add_adapter("b", tmp_path / "b")
    with pytest.raises(ModelError, match="already loaded"):
        engine.add_adapter("b", tmp_path / "b")
