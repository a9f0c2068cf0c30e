"""Adapters of every kind that peft keeps: served by name beside one another as plain peft computes them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from pydantic import TypeAdapter
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from tanzim.adapters.attach import attach
from tanzim.adapters.config import MethodConfig
from tanzim.core.errors import ModelError
from tanzim.infer.engine import Engine, Request

HASH = "0" * 64
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "rslora": {"rank": 4},
    "dora": {"rank": 4},
    "adalora": {"rank": 2, "initial_rank": 4},
    "lora_fa": {"rank": 4},
    "vera": {"rank": 8},
    "ia3": {},
    "prefix": {"tokens": 5},
    "prompt": {"tokens": 7},
    "p_tuning": {"tokens": 4, "encoder_hidden": 16},
}
PROMPTS = [
    torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 11, 23)
]


def save(base: torch.nn.Module, folder: Path, kind: str) -> Path:
    """Save an adapter of a kind whose trained values are no longer those it starts with."""
    settings: Any = TypeAdapter(MethodConfig).validate_python({"type": kind, **KINDS[kind]})
    method = attach(copy.deepcopy(base), settings, seed=1, base_hash=HASH, base_name="tiny")
    generator = torch.Generator().manual_seed(len(kind))
    with torch.no_grad():
        for value in method.parameters.values():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.3)
    method.save(folder)
    return folder


def plain(base: torch.nn.Module, folder: Path) -> peft.PeftModel:
    """Load as anyone would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval()


@torch.no_grad()
def generated(model: peft.PeftModel, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    return whole[0, len(prompt) :].tolist()


@pytest.fixture
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(copy.deepcopy(model), tokenizer, stop_ids=[], base_hash=HASH)


def test_every_kind_answers_as_peft_generates(
    model: LlamaForCausalLM, engine: Engine, tmp_path: Path
) -> None:
    for kind in KINDS:
        engine.add_adapter(kind, save(model, tmp_path / kind, kind))
    names = [None, *KINDS]
    requests = [Request(prompt, name, max_new_tokens=12) for name in names for prompt in PROMPTS]
    answers = engine.generate(requests, max_batch=4)
    different = set()
    for request, answer in zip(requests, answers, strict=True):
        if request.adapter is None:
            ids = torch.tensor([request.prompt_ids])
            want = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
            assert list(answer.ids) == want[0, ids.shape[1] :].tolist()
        else:
            want = generated(plain(model, tmp_path / request.adapter), request.prompt_ids, 12)
            assert list(answer.ids) == want, request.adapter
        different.add(answer.ids)
    assert len(different) > len(KINDS)  # the adapters do something


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_lent_logits_are_those_of_peft(
    kind: str, model: LlamaForCausalLM, engine: Engine, tmp_path: Path
) -> None:
    engine.add_adapter("mine", save(model, tmp_path / "a", kind))
    reference = plain(model, tmp_path / "a")
    answers = [[5, 9, 12], [40]]
    shared = [PROMPTS[1][:4] + prompt for prompt in PROMPTS]  # a beginning that is computed once
    scores = engine.score_answers([(prompt, answers) for prompt in shared], "mine", max_batch=2)
    for prompt, found in zip(shared, scores, strict=True):
        for answer, score in zip(answers, found, strict=True):
            ids = torch.tensor([prompt + answer])
            with torch.no_grad():
                logits = reference(input_ids=ids).logits[0, -len(answer) - 1 : -1]
            want = logits.log_softmax(-1)[range(len(answer)), answer]
            torch.testing.assert_close(torch.tensor(score.logprobs), want, rtol=1e-4, atol=1e-4)
    with engine.lend("mine") as lent, torch.no_grad():
        ids = torch.tensor([PROMPTS[0]])
        torch.testing.assert_close(
            lent(input_ids=ids).logits, reference(input_ids=ids).logits, rtol=1e-4, atol=1e-4
        )


def test_the_base_is_left_as_it_was(model: LlamaForCausalLM, engine: Engine, tmp_path: Path) -> None:
    before = [engine.generate([Request(prompt, max_new_tokens=8)])[0].ids for prompt in PROMPTS]
    for kind in KINDS:
        engine.add_adapter(kind, save(model, tmp_path / kind, kind))
        engine.generate([Request(PROMPTS[0], kind, max_new_tokens=2)])
        after = [engine.generate([Request(prompt, max_new_tokens=8)])[0].ids for prompt in PROMPTS]
        assert after == before, kind


def test_many_prompts_share_a_beginning_after_the_learnt_vectors(
    model: LlamaForCausalLM, engine: Engine, tmp_path: Path
) -> None:
    engine.add_adapter("p", save(model, tmp_path / "p", "prefix"))
    prompts = [PROMPTS[2][:20] + [7 + index] * (1 + index) for index in range(5)]
    together = engine.generate([Request(prompt, "p", max_new_tokens=6) for prompt in prompts], max_batch=3)
    reference = plain(model, tmp_path / "p")
    assert [list(answer.ids) for answer in together] == [generated(reference, p, 6) for p in prompts]


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_learnt_vectors_under_a_sliding_window(
    kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = MistralForCausalLM(
        MistralConfig(
            vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=8, max_position_embeddings=128, attn_implementation="sdpa",
        )
    ).eval()  # fmt: skip
    engine = Engine(copy.deepcopy(base), tokenizer, stop_ids=[], base_hash=HASH)
    engine.add_adapter("p", save(base, tmp_path / "p", kind))
    answers = engine.generate([Request(prompt, "p", max_new_tokens=6) for prompt in PROMPTS])
    reference = plain(base, tmp_path / "p")
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = prompt[:]
        for _ in range(6):
            with torch.no_grad():  # the whole text each time: no cache whose window could differ
                ids.append(int(reference(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert list(answer.ids) == ids[len(prompt) :]


def test_the_context_counts_learnt_vectors(model: LlamaForCausalLM, engine: Engine, tmp_path: Path) -> None:
    engine.add_adapter("p", save(model, tmp_path / "p", "prompt"))
    prompt = list(range(3, 253))
    assert len(engine.generate([Request(prompt[:245], "p", max_new_tokens=50)])[0].ids) == 256 - 245 - 7
    with pytest.raises(ModelError, match="the prompt has 250 tokens and the adapter adds 7"):
        engine.generate([Request(prompt, "p")])


def test_an_adapter_that_does_not_fit_leaves_the_engine_whole(
    model: LlamaForCausalLM, engine: Engine, tmp_path: Path
) -> None:
    before = engine.generate([Request(PROMPTS[0], max_new_tokens=8)])[0].ids
    for kind in ("vera", "ia3", "prompt"):
        folder, other = save(model, tmp_path / kind, kind), tmp_path / f"{kind}-other"
        wide = copy.deepcopy(model.config)
        wide.hidden_size, wide.num_key_value_heads = 32, 1
        save(LlamaForCausalLM(wide), other, kind)
        name = "adapter_model.safetensors"
        (folder / name).write_bytes((other / name).read_bytes())
        with pytest.raises(ModelError, match="do not fit"):
            engine.add_adapter(kind, folder)
    assert engine.adapters == ()
    assert engine.generate([Request(PROMPTS[0], max_new_tokens=8)])[0].ids == before
