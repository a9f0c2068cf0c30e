"""The engine: text, stops, seeds, log-probabilities, adapters, scores and streams."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tanzim.adapters.store import save_adapter
from tanzim.core.errors import ConfigError, ModelError, WrongBaseError
from tanzim.infer.engine import Completion, Engine, Request

HASH = "0" * 64
# PEFT reads a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(model, tokenizer, stop_ids=[2], base_hash=HASH)


def prompt(seed: int, length: int = 12) -> list[int]:
    return torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_text_is_the_decoded_ids(engine: Engine, tokenizer: PreTrainedTokenizerFast) -> None:
    for completion in engine.generate([Request(prompt(seed), max_new_tokens=20) for seed in range(6)]):
        ids = completion.ids[: completion.kept]
        assert completion.text.rstrip("\ufffd") == tokenizer.decode(ids, skip_special_tokens=True).rstrip(
            "\ufffd"
        )


def test_answers_keep_the_order_of_the_requests(engine: Engine) -> None:
    requests = [Request(prompt(seed, 3 + 7 * seed % 40), max_new_tokens=6) for seed in range(9)]
    together = engine.generate(requests, max_batch=4)
    assert together == [engine.generate([request])[0] for request in requests]


def test_progress_counts_every_answer(engine: Engine) -> None:
    seen: list[tuple[int, int | None]] = []
    engine.generate(
        [Request(prompt(s), max_new_tokens=1 + s) for s in range(5)],
        max_batch=2,
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert seen[-1] == (5, 5)


def test_stop_string_ends_the_text_before_it(engine: Engine) -> None:
    free = engine.generate([Request(prompt(4), max_new_tokens=30)])[0]
    stop = free.text[5:9]
    assert stop
    held = engine.generate([Request(prompt(4), max_new_tokens=30, stop=(stop, "never there"))])[0]
    assert held.text == free.text[: free.text.index(stop)]
    assert held.finish_reason == "stop"
    assert held.ids == free.ids[: len(held.ids)]
    assert len(held.ids) < len(free.ids)


@pytest.mark.parametrize("stop", [(), ("e",), ("the", "\n"), ("zz",)])
@pytest.mark.parametrize("seed", range(4))
def test_stream_says_what_generate_says(engine: Engine, seed: int, stop: tuple[str, ...]) -> None:
    request = Request(prompt(seed), max_new_tokens=40, temperature=1.3, seed=seed, stop=stop, logprobs=2)
    whole = engine.generate([request])[0]
    deltas = list(engine.stream(request))
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + [whole.finish_reason]
    assert tuple(token for delta in deltas for token in delta.ids) == whole.ids[: whole.kept]
    assert whole.logprobs is not None
    streamed = [entry.logprob for delta in deltas for entry in delta.logprobs]
    assert streamed == pytest.approx([entry.logprob for entry in whole.logprobs[: whole.kept]], abs=1e-5)


def test_closing_a_stream_ends_it(engine: Engine) -> None:
    stream = engine.stream(Request(prompt(1), max_new_tokens=50))
    next(stream)
    stream.close()
    assert list(stream) == []


def test_seed_decides_whatever_else_is_in_the_batch(engine: Engine) -> None:
    ask = Request(prompt(1), max_new_tokens=25, temperature=1.0, top_p=0.9, seed=42)
    others = [Request(prompt(s, 5 + s), max_new_tokens=9 + s, temperature=1.0) for s in range(2, 9)]
    alone = engine.generate([ask])[0]
    assert engine.generate([*others, ask], max_batch=3)[-1].ids == alone.ids
    other = Request(prompt(1), max_new_tokens=25, temperature=1.0, top_p=0.9, seed=43)
    assert engine.generate([other])[0].ids != alone.ids


def test_logprobs_equal_a_full_forward_pass(engine: Engine, model: LlamaForCausalLM) -> None:
    requests = [
        Request(prompt(s, 4 + 5 * s), max_new_tokens=8, logprobs=3, temperature=0.7, seed=1) for s in range(3)
    ]
    for request, found in zip(requests, engine.generate(requests), strict=True):
        expected_TV = full_logprobs(model, request.prompt_ids, list(found.ids))
        assert found.logprobs is not None
        for token, entry, expected_V in zip(found.ids, found.logprobs, expected_TV, strict=True):
            assert entry.id == token
            assert entry.logprob == pytest.approx(float(expected_V[token]), abs=1e-4)
            values, ids = expected_V.topk(3)
            assert [i for i, _ in entry.top] == ids.tolist()
            assert [v for _, v in entry.top] == pytest.approx(values.tolist(), abs=1e-4)


@torch.no_grad()
def full_logprobs(model: torch.nn.Module, prompt_ids: list[int], answer: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt_ids + answer])).logits[0]
    return logits[len(prompt_ids) - 1 : -1].log_softmax(-1)


def test_scores_equal_a_full_forward_pass(engine: Engine, model: LlamaForCausalLM) -> None:
    shared = prompt(0, 20)
    items = [
        (shared + prompt(s, 1 + 6 * s), [prompt(10 * s + a, 1 + (a * 3) % 5) for a in range(1 + s)])
        for s in range(5)
    ]
    for (question, answers), scores in zip(items, engine.score_answers(items, max_batch=3), strict=True):
        for answer, score in zip(answers, scores, strict=True):
            expected = full_logprobs(model, question, answer)[range(len(answer)), answer]
            assert score.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
            assert score.total == pytest.approx(float(expected.sum()), abs=1e-4)
            assert score.mean == pytest.approx(float(expected.mean()), abs=1e-4)
    assert engine.logprobs(*items[0][:1], items[0][1][0], None) == pytest.approx(
        list(engine.score_answers(items[:1])[0][0].logprobs), abs=1e-5
    )


def test_empty_answers_are_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="empty"):
        engine.score_answers([([1, 2], [[3], []])])


def adapter(folder: Path, model: LlamaForCausalLM, seed: int, *, base_hash: str = HASH) -> PeftModel:
    """Save a random adapter, and return the model that PEFT makes with it."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    torch.manual_seed(seed)
    adapted = get_peft_model(
        copy.eval(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.15)
    save_adapter(adapted, folder, base_hash=base_hash, base_name="tiny")
    return adapted.eval()


def expected(model: torch.nn.Module, request: Request) -> tuple[int, ...]:
    ids = torch.tensor([request.prompt_ids])
    output = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return tuple(output[0, ids.shape[1] :].tolist())


def test_adapters_side_by_side(engine: Engine, model: LlamaForCausalLM, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    base_answers = engine.generate([Request(prompt(s), max_new_tokens=10) for s in range(3)])
    base_scores = engine.score_answers([(prompt(1), [prompt(2)])])
    peers: dict[str | None, torch.nn.Module] = {
        "first": adapter(tmp_path / "first", model, 1),
        "second": adapter(tmp_path / "second", model, 2),
    }
    reference = LlamaForCausalLM(model.config)
    reference.load_state_dict(before)
    peers[None] = reference.eval()
    engine.add_adapter("first", tmp_path / "first")
    engine.add_adapter("second", tmp_path / "second")
    assert engine.adapters == ("first", "second")
    names = ["second", None, "first", "second", None, "first"]
    requests = [Request(prompt(s % 3), name, max_new_tokens=10) for s, name in enumerate(names)]
    found = engine.generate(requests, max_batch=4)
    for request, completion in zip(requests, found, strict=True):
        assert completion.ids == expected(peers[request.adapter], request)
    assert len({completion.ids for completion in found[:3]}) == 3
    # The base is what it was, its weights bit for bit (products may round by where a buffer lies).
    assert engine.generate([Request(prompt(s), max_new_tokens=10) for s in range(3)]) == base_answers
    [[again]], [[first]] = engine.score_answers([(prompt(1), [prompt(2)])]), base_scores
    assert again.logprobs == pytest.approx(first.logprobs, abs=1e-5)
    after = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_half_precision_keeps_the_adapter_apart(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    peer = adapter(tmp_path / "mine", model, 1)
    wide = {name: value.data for name, value in peer.named_parameters() if "lora_" in name}
    peer.to(torch.bfloat16)
    for name, value in wide.items():
        peer.get_parameter(name).data = value
    engine = Engine(model.to(torch.bfloat16), tokenizer, stop_ids=[2], base_hash=HASH)
    engine.add_adapter("mine", tmp_path / "mine")
    items = [(prompt(1), [prompt(2)])]
    found = engine.score_answers(items, "mine")[0][0].logprobs
    wanted = full_logprobs(peer, *items[0][:1], items[0][1][0])[range(12), items[0][1][0]]
    # The cache changes the order of sums, and bfloat16 has 8 bits.
    assert found == pytest.approx(wanted.float().tolist(), abs=0.25)
    assert engine.score_answers(items)[0][0].logprobs != found


def test_a_changed_adapter_is_merged_anew(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    adapted = adapter(tmp_path / "mine", model, 1)
    engine = Engine(adapted, tokenizer, stop_ids=[2], base_hash=HASH)
    ask = [Request(prompt(1), engine.adapters[0], max_new_tokens=10)]
    first = engine.generate(ask)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert engine.generate(ask) != first
    assert engine.generate(ask)[0].ids == engine.generate([Request(prompt(1), max_new_tokens=10)])[0].ids


def test_wrong_adapters_are_refused(engine: Engine, model: LlamaForCausalLM, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter 'ghost'"):
        engine.generate([Request(prompt(1), "ghost")])
    adapter(tmp_path / "foreign", model, 1, base_hash="f" * 64)
    with pytest.raises(WrongBaseError):
        engine.add_adapter("foreign", tmp_path / "foreign")
    assert engine.adapters == ()


def test_the_context_bounds_prompt_and_answer(engine: Engine) -> None:
    with pytest.raises(ModelError, match="256"):
        engine.generate([Request(prompt(1, 256))])
    found: Completion = engine.generate([Request(prompt(3, 250), max_new_tokens=50)])[0]
    assert (len(found.ids), found.finish_reason) == (6, "length")


@pytest.mark.parametrize(
    "wrong",
    [{"prompt_ids": []}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 1.5}, {"stop": ("",)}],
)
def test_wrong_requests_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Request(**({"prompt_ids": [1]} | wrong))  # type: ignore[arg-type]
