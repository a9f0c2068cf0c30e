"""Drafted tokens: the same answers in fewer passes, and nothing of a wrong guess left behind."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from helpers.adapters import generated, save_changed
from helpers.passes import count_tokens
from helpers.properties import examples
from tanzim.infer import speculation
from tanzim.infer.engine import Completion, Engine, Grammar, Request
from tanzim.infer.paged_scheduler import PagedScheduler
from tanzim.infer.sequence import Sequence
from tanzim.infer.speculation import Cost

HASH = "0" * 64
EAGER = Cost(1.0, 0.0, 0.0)  # tokens cost nothing: all that can be guessed is
SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
PERSIAN = "سلام دنیا، می‌روم و می‌آیم. سلام دنیا، می‌روم و می‌آیم. سلام دنیا، "


def make_model(*, repeats: bool) -> Any:
    """Return a random model; one that repeats sees hardly more than its last token."""
    torch.manual_seed(4)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.002 if repeats and "o_proj" in name else 0.2)
    return model


@pytest.fixture(scope="module")
def repeating() -> Any:
    return make_model(repeats=True)


@pytest.fixture(scope="module")
def wild() -> Any:
    return make_model(repeats=False)


def make_engine(model: Any, tokenizer: PreTrainedTokenizerFast, stop_ids: tuple[int, ...] = ()) -> Engine:
    return Engine(copy.deepcopy(model), tokenizer, stop_ids=stop_ids, base_hash=HASH)


def server(engine: Engine, max_batch: int, cost: Cost | None, **options: Any) -> PagedScheduler:
    scheduler = engine.server(max_batch, **options)
    assert isinstance(scheduler, PagedScheduler)
    scheduler._cost = cost
    return scheduler


def answer(scheduler: PagedScheduler, sequences: list[Sequence], draw: random.Random) -> list[Completion]:
    """Run all to their ends, some arriving while others are under way."""
    arrivals = list(sequences)
    while scheduler.busy or arrivals:
        for _ in range(draw.choice([0, 0, 1, 3])):
            if arrivals:
                scheduler.add(arrivals.pop(0))
        scheduler.step()
    return [sequence.completion() for sequence in sequences]


def both(engine: Engine, requests: list[Request], max_batch: int = 4) -> tuple[list[Completion], list[int]]:
    """Return the answers with drafts, which equal those without, and the passes of each."""
    found, passes = [], []
    for cost in (None, EAGER):
        scheduler = server(engine, max_batch, cost)
        seen = count_tokens(scheduler)
        found.append(answer(scheduler, [engine.sequence(r) for r in requests], random.Random(0)))
        passes.append(len(seen))
        assert scheduler._pages.available == scheduler._pages.count
    for plain, drafted in zip(*found, strict=True):
        assert (plain.ids, plain.text, plain.kept) == (drafted.ids, drafted.text, drafted.kept)
        assert plain.finish_reason == drafted.finish_reason
    return found[1], passes


def repeated(seed: int, length: int, times: int) -> list[int]:
    part = torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return part * times


@torch.no_grad()
def assert_greedy(model: Any, sequence: Sequence) -> None:
    """Each token is the likeliest after those before it, by one pass of transformers' own over all."""
    prompt, ids = sequence.request.prompt_ids, sequence.completion().ids
    logits_LV = model(input_ids=torch.tensor([prompt + list(ids)])).logits[0]
    assert logits_LV[len(prompt) - 1 : -1].argmax(-1).tolist() == list(ids)
    assert len(ids) == sequence.request.max_new_tokens


@pytest.mark.parametrize("kind", ["repeating", "wild", "qwen 3"])
def test_greedy_answers_equal_transformers_generate(
    kind: str, repeating: Any, wild: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    others = {"qwen 3": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32)).eval()}
    model = others.get(kind) or {"repeating": repeating, "wild": wild}[kind]
    kinds = {"one": {"type": "lora", "rank": 4}, "two": {"type": "dora", "rank": 9}}
    folders = {name: save_changed(model, tmp_path / name, len(name), **how) for name, how in kinds.items()}
    engine = make_engine(model, tokenizer)
    for name, folder in folders.items():
        engine.add_adapter(name, folder)
    draw = random.Random(kind)
    prompts = [repeated(i, draw.choice([1, 3, 8]), draw.choice([1, 5, 9])) for i in range(6)]
    prompts += [tokenizer.encode(PERSIAN)]
    requests = [
        Request(ids, draw.choice([None, *folders]), max_new_tokens=draw.randint(1, 40)) for ids in prompts
    ]
    for request, found in zip(requests, both(engine, requests)[0], strict=True):
        folder = None if request.adapter is None else folders[request.adapter]
        assert found.ids == generated(model, folder, request.prompt_ids, request.max_new_tokens)


def test_text_that_repeats_takes_fewer_passes(repeating: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode(PERSIAN)
    found, (plain, drafted) = both(make_engine(repeating, tokenizer), [Request(ids, max_new_tokens=120)])
    assert found[0].ids == generated(repeating, None, ids, 120)
    assert plain == 120
    cycle = next(n for n in range(1, 60) if found[0].ids[-60:-n] == found[0].ids[n - 60 :])
    # Drafts of eight and one of the model's own once the text has come round, one token at a time until then.
    assert drafted <= 120 - 60 + 60 / 9 + cycle


def test_seeds_and_logprobs_are_those_without_drafts(
    repeating: Any, wild: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    for model in (repeating, wild):
        requests = [
            Request(repeated(i, 4, 6), max_new_tokens=70, temperature=0.05 + 0.15 * (i % 3), seed=i,
                    top_p=1.0 if i % 2 else 0.9, logprobs=2)
            for i in range(6)
        ]  # fmt: skip
        answers, (plain, drafted) = both(make_engine(model, tokenizer), requests, 6)
        assert model is wild or drafted < 0.9 * plain
        for request, found in zip(requests, answers, strict=True):
            ids = torch.tensor([request.prompt_ids + list(found.ids)])
            with torch.no_grad():
                wanted_TV = model(input_ids=ids).logits[0, -len(found.ids) - 1 : -1].log_softmax(-1)
            assert found.logprobs is not None
            assert [entry.id for entry in found.logprobs] == list(found.ids)
            values = torch.tensor([entry.logprob for entry in found.logprobs])
            wanted = wanted_TV[range(len(found.ids)), found.ids]
            torch.testing.assert_close(values, wanted, rtol=0, atol=1e-4)
            best = torch.tensor([[value for _, value in entry.top] for entry in found.logprobs])
            torch.testing.assert_close(best, wanted_TV.topk(2).values, rtol=0, atol=1e-4)


def test_answers_end_in_the_middle_of_a_draft(repeating: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode(PERSIAN)
    whole = generated(repeating, None, ids, 80)
    lengths = [Request(ids, max_new_tokens=n) for n in range(40, 60)]
    for request, found in zip(lengths, both(make_engine(repeating, tokenizer), lengths)[0], strict=True):
        assert found.ids == whole[: request.max_new_tokens]
        assert found.finish_reason == "length"
    late = max(whole.index(token) for token in set(whole))  # the token that comes first the latest
    engine = make_engine(repeating, tokenizer, (whole[late],))
    ended = both(engine, [Request(ids, max_new_tokens=80)])[0][0]
    assert (ended.ids, ended.finish_reason) == (whole[: late + 1], "stop")
    text = tokenizer.decode(whole)
    stops = [text[n : n + 6] for n in range(len(text) // 2, len(text) // 2 + 12)]
    requests = [Request(ids, max_new_tokens=80, stop=(stop,)) for stop in stops]
    for stop, found in zip(stops, both(make_engine(repeating, tokenizer), requests)[0], strict=True):
        assert found.text == text[: text.index(stop)]


def test_what_a_grammar_forces_is_drafted(wild: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    schema = {
        "type": "object",
        "properties": {"occupation": {"enum": ["گربه", "physicist"]}, "is_at_home": {"type": "boolean"}},
        "required": ["occupation", "is_at_home"],
        "additionalProperties": False,
    }
    grammar = Grammar("json_schema", json.dumps(schema))
    engine = make_engine(wild, tokenizer, (2,))
    requests = [
        Request(repeated(i, 9, 1), max_new_tokens=100, temperature=i / 2, seed=i, grammar=grammar)
        for i in range(3)
    ]
    found, (plain, drafted) = both(engine, requests)
    for completion in found:
        assert completion.finish_reason == "stop"
        jsonschema.validate(json.loads(completion.text), schema)
    assert drafted < plain / 2


def test_drafts_need_no_more_pages_than_were_promised(wild: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    engine = make_engine(wild, tokenizer)
    for length, limit in ((16, 16), (17, 15), (31, 33), (30, 2), (16, 1)):
        ids = repeated(1, 2, 20)[:length]
        scheduler = server(engine, 1, EAGER, cache_tokens=-(-(length + limit) // 16) * 16)
        sequence = engine.sequence(Request(ids, max_new_tokens=limit))
        answer(scheduler, [sequence], random.Random(0))
        assert_greedy(wild, sequence)


def test_no_tokens_are_drafted_where_they_cost_as_much_as_others(
    repeating: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = make_engine(repeating, tokenizer)
    passes = []
    for cost in (None, Cost(0.0, 1.0, 0.0)):
        scheduler = server(engine, 4, cost)
        seen = count_tokens(scheduler)
        answer(scheduler, [engine.sequence(Request(repeated(1, 3, 9), max_new_tokens=60))], random.Random(0))
        passes.append(seen)
    assert passes[0] == passes[1]


def test_32_streams_over_16_adapters_take_80_passes(
    wild: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    engine = make_engine(wild, tokenizer)
    for i in range(16):
        engine.add_adapter(f"a{i}", save_changed(wild, tmp_path / f"a{i}", i, type="lora", rank=2))
    scheduler = server(engine, 32, EAGER)
    seen = count_tokens(scheduler)
    sequences = [
        engine.sequence(Request(repeated(i, 5 + i, 1), f"a{i % 16}", max_new_tokens=64)) for i in range(32)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.busy:
        scheduler.step()
    assert len(seen) <= 80
    assert all(len(sequence.completion().ids) == 64 for sequence in sequences)


def test_a_prompt_like_a_wrong_guess_is_computed(repeating: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    engine = make_engine(repeating, tokenizer)
    scheduler = server(engine, 1, EAGER)
    wrong = 0
    for seed in range(4):
        end, lure = repeated(seed, 18, 1), repeated(100 + seed, 8, 1)
        ids = [*generated(repeating, None, end, 2), *lure, *end]  # its answer, which goes on otherwise there
        first = engine.sequence(Request(ids, max_new_tokens=20))
        scheduler.add(first)
        for _ in range(3):
            scheduler.step()
        row = scheduler._rows[0]
        wrong += row.draft.tokens == lure and first.ids[2] != lure[0]
        scheduler.cancel(first)
        # 28 tokens and two of the answer: with two of the guess they fill two pages.
        second = engine.sequence(Request([*ids, *first.ids[:2], *lure[:2], 7], max_new_tokens=5))
        answer(scheduler, [second], random.Random(0))
        assert_greedy(repeating, second)
        assert second.times.known == 16
    assert wrong >= 3


@examples(40)
@given(data=st.data())
def test_nothing_of_a_wrong_guess_stays(
    data: st.DataObject, wild: Any, repeating: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Any order of arrivals and departures; later prompts begin as earlier answers did."""
    model = data.draw(st.sampled_from([wild, repeating]))
    engine = make_engine(model, tiny_tokenizer)
    scheduler = server(engine, 3, EAGER, cache_tokens=data.draw(st.sampled_from([112, 160, 640])))
    known: list[list[int]] = [repeated(seed, length, 8) for seed, length in ((1, 2), (1, 5), (2, 3))]
    running: list[Sequence] = []
    ended: list[Sequence] = []
    for _ in range(data.draw(st.integers(3, 25))):
        what = data.draw(st.sampled_from(["ask", "step", "step", "step", "leave"]))
        if what == "ask":
            ids = data.draw(st.sampled_from(known))
            ids = ids[: data.draw(st.integers(1, min(len(ids), 70)))]
            sequence = engine.sequence(Request(ids, max_new_tokens=data.draw(st.integers(1, 40))))
            scheduler.add(sequence)
            running.append(sequence)
        elif what == "leave" and running:
            scheduler.cancel(running.pop(data.draw(st.integers(0, len(running) - 1))))
        elif scheduler.busy:
            scheduler.step()
        for sequence in [s for s in running if s.finish_reason is not None]:
            running.remove(sequence)
            ended.append(sequence)
            known.append(sequence.request.prompt_ids + sequence.ids)
    while scheduler.busy:
        scheduler.step()
    for sequence in ended + running:
        assert_greedy(model, sequence)
    assert scheduler._pages.available == scheduler._pages.count


def test_costs_are_told_apart(
    wild: Any, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by a known formula: the three costs come out of it."""
    engine = make_engine(wild, tokenizer)
    lean, clock = engine._lean_model(), [0.0]
    assert lean is not None

    class Timed:
        calls = 0

        def __call__(self, step: Any, cache: Any) -> torch.Tensor:
            self.calls += 1
            clock[0] += 3.0 + 0.25 * len(step.ids_N) + 0.001 * float(step.length_B.sum())
            clock[0] += 7.0 if self.calls % 5 == 4 else 0.0  # other work on the machine, now and then
            return lean(step, cache)

        def __getattr__(self, name: str) -> Any:
            return getattr(lean, name)

    monkeypatch.setattr("tanzim.infer.speculation.PATIENCE", 1e9)
    monkeypatch.setattr("tanzim.infer.speculation.time.process_time", lambda: clock[0])
    cost = speculation.measure(Timed(), engine._weights)  # type: ignore[arg-type]
    assert cost.cached == pytest.approx(0.001)
    assert cost.token == pytest.approx(0.25 + 0.001)  # each sees itself
    assert cost.fixed == pytest.approx(3.0)
