"""Weights in 8 and 4 bits: what they stand for, products with them, and what is served over them."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from helpers.adapters import HASH, generated, save_changed
from tanzim.core.errors import ModelError
from tanzim.infer import integer_kernels, products
from tanzim.infer.embed import embed
from tanzim.infer.engine import Engine, Request
from tanzim.infer.lean import LeanModel, differs, unfit
from tanzim.infer.mixed import Mix
from tanzim.infer.paged_scheduler import PagedScheduler
from tanzim.infer.products import IntProduct, UnpackedProduct
from tanzim.models.integers import Integer, IntEmbedding, IntLinear, IntMatrix, encode, quantise

TEXT = """A river carries what the rain washes from the hills: sand, clay and leaves. Where it slows down,
the heaviest grains sink first and the finest travel on to the sea. Over thousands of years these layers build
a flat, fertile plain. People settled on such plains early, because the soil was easy to plough and the water
was near. They also learnt to fear the floods, and built their houses on mounds. When engineers later
straightened the rivers, the floods became rarer but higher, since the water could no longer spread over the
meadows."""
KINDS: tuple[Integer, ...] = ("int8", "int4")
SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "qwen 2, biases": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen 3, head norms": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32)),
}


def make_model(family: str = "llama, tied") -> Any:
    torch.manual_seed(3)
    model = FAMILIES[family]().eval()
    for parameter in model.parameters():
        mean, std = (0.0, 0.2) if parameter.dim() > 1 else (1.0, 0.2)
        nn.init.normal_(parameter, mean, std)
    return model


def weights(seed: int, outputs: int, inputs: int) -> Tensor:
    """Return a matrix with what rounding may stumble over."""
    made = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    made[1], made[2], made[3, :40] = 0, made[2].abs() + 3, -1e-3
    made[4] *= torch.logspace(-6, 3, inputs)
    return made


def read_codes(matrix: IntMatrix) -> Tensor:
    """Read a matrix number by number, as `IntMatrix` describes it, in float64."""
    codes = matrix.codes_TIB.numpy()
    steps = matrix.step_TGL.double().numpy()
    lows = None if matrix.low_TGL is None else matrix.low_TGL.double().numpy()
    full = np.zeros((matrix.outputs, matrix.inputs))
    for o in range(matrix.outputs):
        tile, lane = divmod(o, 32)
        for i in range(matrix.inputs):
            if lows is None:
                full[o, i] = float(codes[tile, i, lane]) * steps[tile, i // 32, lane]
            else:
                byte = int(codes[tile, i, lane % 16])
                code = byte & 15 if lane < 16 else byte >> 4
                full[o, i] = code * steps[tile, i // 32, lane] + lows[tile, i // 32, lane]
    return torch.from_numpy(full)


def steps_of(matrix: IntMatrix) -> Tensor:
    """Return the step of each weight, [O, I]."""
    step = matrix.step_TGL.double().repeat_interleave(32, 1)
    return step.transpose(1, 2).flatten(0, 1)[: matrix.outputs]


def unpacked(model: Any) -> Any:
    """Return the model as transformers made it, its weights those that the integers stand for."""
    plain: Any = type(model)(copy.deepcopy(model.config)).eval()
    own = dict(model.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, IntLinear | IntEmbedding):
            own[f"{name}.weight"] = read_codes(module.matrix).float()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(own[name])
    return plain


def make_engine(model: Any, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(model, tokenizer, stop_ids=[], base_hash=HASH)


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def answers(scheduler: Any, engine: Engine, requests: list[Request]) -> list[tuple[int, ...]]:
    """Answer requests that arrive one after the other."""
    sequences = [engine.sequence(request) for request in requests]
    arrivals, draw = list(sequences), random.Random(1)
    while scheduler.busy or arrivals:
        for _ in range(draw.choice([0, 1, 2])):
            if arrivals:
                scheduler.add(arrivals.pop(0))
        if scheduler.busy:
            scheduler.step()
    return [sequence.completion().ids for sequence in sequences]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_moves_by_more_than_half_a_step(kind: Integer, dtype: torch.dtype) -> None:
    weight_OI = weights(0, 70, 96).to(dtype)
    matrix = encode(weight_OI, kind)
    moved = (read_codes(matrix) - weight_OI.double()).abs()
    span = weight_OI.double().unflatten(1, (-1, 32))
    assert float((moved - 0.5 * steps_of(matrix) * (1 + 1e-5)).max()) <= 0
    # The step is no larger than it must be, but for bfloat16's rounding of itself and of the least weight.
    if kind == "int8":
        fair = span.abs().amax(2) / 127 * (1 + 1 / 64)
    else:
        fair = (span.amax(2) - span.amin(2) + span.abs().amax(2) / 128) / 15 * (1 + 1 / 64)
    fair_OI = fair.repeat_interleave(32, 1)
    taken = steps_of(matrix)
    assert bool(((taken <= fair_OI * (1 + 1e-6)) | (taken == 1)).all())


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_read_as_they_are_described(kind: Integer) -> None:
    matrix = encode(weights(1, 70, 64), kind)
    full_OI = read_codes(matrix).float()
    torch.testing.assert_close(matrix.decode(), full_OI, rtol=1e-6, atol=1e-6)
    if kind == "int8":
        numbers = torch.tensor([69, 0, 31, 32, 5])
        torch.testing.assert_close(matrix.rows(numbers), full_OI[numbers], rtol=1e-6, atol=0)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 12, 31, 200])
@pytest.mark.parametrize("way", ["team", "threads", "narrow", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_product_equals_that_in_float64(
    kind: Integer, way: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In torch's team of threads, without it, with few registers, and in torch's operations."""
    if way == "threads":
        monkeypatch.setattr(products, "has_team", lambda: False)
    if way == "narrow":
        narrow = integer_kernels.multiply.__wrapped__
        monkeypatch.setattr(integer_kernels, "_has_wide_registers", lambda: False)
        monkeypatch.setattr(products, "multiply", _once(narrow))
        monkeypatch.setattr(products, "has_team", lambda: False)
    linears = []
    for seed, outputs, biased in ((0, 64, True), (1, 32, False), (2, 44, True)):
        linear = nn.Linear(96, outputs, bias=biased)
        linears.append(IntLinear(encode(weights(seed, outputs, 96), kind), linear.bias, torch.float32))
    full_OI = torch.cat([read_codes(linear.matrix) for linear in linears])
    bias_O = torch.cat([torch.zeros(x.out_features) if x.bias is None else x.bias.detach() for x in linears])
    x_NI = torch.randn(tokens, 96, generator=torch.Generator().manual_seed(tokens))
    made = UnpackedProduct(linears) if way == "torch" else IntProduct(linears)
    with torch.inference_mode():
        found_NO = made(x_NI).double()
    wanted_NO = x_NI.double() @ full_OI.T + bias_O
    # Each of 96 sums is rounded once, and each weight twice.
    bound_NO = 100 * 2.0**-24 * (x_NI.double().abs() @ full_OI.abs().T + bias_O.abs())
    assert bool(((found_NO - wanted_NO).abs() <= bound_NO).all())
    for linear in linears:  # whose matrices are parts of the joined one now
        start = sum(other.out_features for other in linears[: linears.index(linear)])
        part_OI = full_OI[start : start + linear.out_features]
        torch.testing.assert_close(linear.weight.double(), part_OI, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_the_embedded_model_stays_what_it_is() -> None:
    """Against the weights in full: how likely each next word of a text is, and how far the logits move."""
    from tanzim.models.config import ModelConfig
    from tanzim.models.load import load_model, load_tokenizer
    from tanzim.models.quantised import Quantised
    from tanzim.models.resolve import resolve

    base = resolve(ModelConfig())
    tokenizer = load_tokenizer(base)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    cpu = {"dtype": torch.float32, "device": torch.device("cpu")}
    with torch.inference_mode():
        full_TV = load_model(base, **cpu)(input_ids=ids).logits[0]
    likely_T = full_TV[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])
    for kind, most_nats, most_distance, most_size in (("int8", 0.03, 0.03, 0.27), ("int4", 0.06, 0.06, 0.19)):
        model: Any = load_model(replace(base, quantised=Quantised(kind)), **cpu)  # type: ignore[arg-type]
        with torch.inference_mode():
            found_TV = model(input_ids=ids).logits[0]
        found_T = found_TV[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        distance = float((found_TV - full_TV).norm() / full_TV.norm())
        size = sum({x.data_ptr(): x.nbytes for x in (*model.parameters(), *model.buffers())}.values())
        nats = float(likely_T.mean() - found_T.mean())
        assert abs(nats) < most_nats
        assert distance < most_distance
        assert size < most_size * 4 * 134_515_008
        assert differs(LeanModel(model, Mix(model)), model) is None


_NARROW: dict[int, Any] = {}


def _once(make: Any) -> Any:
    return lambda bits: _NARROW.setdefault(bits, make(bits)) if bits not in _NARROW else _NARROW[bits]


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_the_unpacked_model(family: str, kind: Integer) -> None:
    model = make_model(family)
    quantise(model, kind)
    plain = unpacked(model)
    ids = torch.tensor([prompt(1, 40)])
    with torch.inference_mode():
        torch.testing.assert_close(
            model(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=0, atol=2e-4
        )
    assert unfit(model) is None
    assert differs(LeanModel(model, Mix(model)), plain) is None


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("kind", KINDS)
def test_answers_equal_plain_peft_over_the_unpacked_base(
    family: str, kind: Integer, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model(family)
    methods: dict[str, Any] = {
        "lora": {"type": "lora", "rank": 4}, "dora": {"type": "dora", "rank": 2},
        "adalora": {"type": "adalora"}, "vera": {"type": "vera", "rank": 8},
    }  # fmt: skip
    folders = {name: save_changed(model, tmp_path / name, len(name), **m) for name, m in methods.items()}
    quantise(model, kind)
    plain = unpacked(model)
    engine = make_engine(model, tokenizer)
    for name, folder in folders.items():
        engine.add_adapter(name, folder)
    names = [None, *folders, None]
    requests = [Request(prompt(i, 9 + 7 * i), name, max_new_tokens=12) for i, name in enumerate(names)]
    wanted = [
        generated(plain, None if r.adapter is None else folders[r.adapter], r.prompt_ids, 12)
        for r in requests
    ]
    scheduler = engine.server(4)
    assert isinstance(scheduler, PagedScheduler)
    assert answers(scheduler, engine, requests) == wanted
    assert answers(engine.scheduler(4), engine, requests) == wanted  # through transformers' forward pass


def test_nothing_is_kept_in_full() -> None:
    model = make_model()
    full = sum(parameter.nbytes for parameter in model.parameters())
    lean_bytes = {}
    for kind in KINDS:
        made = copy.deepcopy(model)
        quantise(made, kind)
        lean = LeanModel(made, Mix(made))
        held = {}  # by the memory that it lies in
        for value in (*made.parameters(), *made.buffers()):
            held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        rotary = sum(value.nbytes for value in made.model.rotary_emb.buffers())
        lean_bytes[kind] = sum(held.values()) - rotary
        first = made.model.layers[0].self_attn
        joined = lean._layers[0].qkv._matrix  # type: ignore[union-attr]
        assert first.q_proj.matrix.codes_TIB.data_ptr() == joined.codes_TIB.data_ptr()
        assert made.lm_head.matrix is made.model.embed_tokens.matrix
        held_there = {x.untyped_storage().data_ptr() for x in joined.buffers()}
        assert held_there <= set(held)
    assert lean_bytes["int8"] < 0.30 * full
    assert lean_bytes["int4"] < lean_bytes["int8"]


def test_widths_that_fit_no_tiles_are_served_by_transformers(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=24)).eval()
    quantise(model, "int8")
    plain = unpacked(model)
    engine = make_engine(model, tokenizer)
    scheduler = engine.server(2)
    assert "multiples of 32" in str(unfit(model))
    assert not isinstance(scheduler, PagedScheduler)
    requests = [Request(prompt(i, 9), max_new_tokens=8) for i in range(3)]
    wanted = [generated(plain, None, request.prompt_ids, 8) for request in requests]
    assert answers(scheduler, engine, requests) == wanted


def test_embeddings_of_texts_come_from_the_same_weights(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model()
    folder = save_changed(model, tmp_path / "a", 1, type="lora", rank=4)
    quantise(model, "int4")
    plain = unpacked(model)
    found, wanted = make_engine(model, tokenizer), make_engine(plain, tokenizer)
    for engine in (found, wanted):
        engine.add_adapter("a", folder)
    rows = [prompt(1, 12), prompt(2, 5)]
    for name in (None, "a"):
        torch.testing.assert_close(embed(found, rows, name), embed(wanted, rows, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ({"type": "ia3"}, "ia3"), ({"type": "bottleneck"}, "bottleneck"), ({"type": "spiel"}, "spiel"),
        ({"type": "prefix"}, "prefix_tuning"), ({"type": "lora", "rank": 130}, "another kind"),
    ],
)  # fmt: skip
def test_adapters_that_compute_alone_are_refused(
    method: dict[str, Any], what: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model("qwen 3, head norms")
    folder = save_changed(model, tmp_path / "a", 1, **method)
    quantise(model, "int8")
    engine = make_engine(model, tokenizer)
    with pytest.raises(ModelError, match=what):
        engine.add_adapter("a", folder)
    assert engine.adapters == ()
    request = Request(prompt(1, 9), max_new_tokens=5)
    assert answers(engine.server(2), engine, [request]) == [generated(unpacked(model), None, prompt(1, 9), 5)]
