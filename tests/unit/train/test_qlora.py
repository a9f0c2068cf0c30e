"""QLoRA on the CPU: a base in 4 bits, against bitsandbytes' arithmetic and LoRA on those weights."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import peft
import pytest
import torch
from plain_steps import SETTINGS
from tiny_train import documents, fit, lines, tiny_llama, tiny_method
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tanzim.adapters.store import load_adapter, read_record
from tanzim.core.errors import MissingExtra, ModelError
from tanzim.models.load import load_model
from tanzim.models.quantised import Quantised, keep_exact
from tanzim.models.resolve import Base

METHOD: dict[str, Any] = {"type": "qlora", "rank": 4}
IDS = torch.arange(20)[None]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """A base whose values are so large that 4 bits show."""
    tiny_llama(initializer_range=0.15).save_pretrained(tmp_path / "base")
    return Base("tiny", "local", tmp_path / "base", "b" * 64, None, Quantised())


def quantised(base: Base) -> Any:
    return load_model(base, dtype=torch.float32, device=torch.device("cpu"))


def dequantised(base: Base) -> Any:
    """Make a plain model with the weights that the 4 bits stand for."""
    model: Any = tiny_llama(initializer_range=0.15)
    for path, module in quantised(base).named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight: Any = module.weight
            values = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
            model.get_submodule(path).weight = nn.Parameter(values)
    return model


@pytest.mark.parametrize(("kind", "double"), [("nf4", True), ("nf4", False), ("fp4", True)])
def test_the_base_computes_with_the_dequantised_weights(base: Base, kind: Any, double: bool) -> None:
    form = Base(base.name, base.source, base.path, base.hash, None, Quantised(kind, double))
    model, plain = quantised(form).eval(), dequantised(form).eval()
    weights = [m.weight for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(weights) == 14
    assert all(w.quant_type == kind and w.quant_state.nested == double for w in weights)
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=IDS).logits, plain(input_ids=IDS).logits, rtol=1e-4, atol=1e-4
        )
        one, two = (m(input_ids=IDS[:, :1]).logits for m in (model, plain))  # one row has a kernel of its own
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
        whole = tiny_llama(initializer_range=0.15).eval()(input_ids=IDS).logits
        assert float((model(input_ids=IDS).logits - whole).abs().max()) > 1e-2


def test_steps_equal_lora_on_the_dequantised_weights(base: Base, tmp_path: Path) -> None:
    rows = documents(12)
    model = quantised(base)
    frozen = {name: value.detach().clone() for name, value in model.named_parameters()}
    ours = tiny_method(model, **METHOD)
    theirs = tiny_method(dequantised(base), type="lora", rank=4)
    for place, method, settings in (
        (tmp_path / "q", ours, METHOD),
        (tmp_path / "l", theirs, {"type": "lora", "rank": 4}),
    ):
        fit(place, prepared=method, train_documents=rows, max_steps=3, method=settings, **SETTINGS)
    for name, value in theirs.parameters.items():
        torch.testing.assert_close(ours.parameters[name], value, rtol=1e-3, atol=1e-4)
    for name, value in ours.model.named_parameters():
        if name not in ours.parameters:
            plain = name.removeprefix("base_model.model.").replace("base_layer.", "")
            assert torch.equal(value, frozen[plain]), name


def test_it_learns_and_is_read_back_on_the_same_base(base: Base, tmp_path: Path) -> None:
    method = tiny_method(quantised(base), **METHOD)
    result = fit(tmp_path, prepared=method, method=METHOD, epochs=3)
    losses = [line["loss"] for line in lines(tmp_path, "train")]
    assert losses[-1] < losses[0] - 0.2
    assert read_record(result.output)["method"] == {
        "type": "qlora",
        "quant_type": "nf4",
        "double_quant": True,
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = method.model.eval()(input_ids=IDS).logits
        settings = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
        plain = AutoModelForCausalLM.from_pretrained(
            base.path, quantization_config=settings, device_map="cpu"
        )
        keep_exact(plain)
        peer = peft.PeftModel.from_pretrained(plain, str(result.output)).eval()
        torch.testing.assert_close(peer(input_ids=IDS).logits, want, rtol=1e-4, atol=1e-4)
        ours = load_adapter(quantised(base), result.output, name="x", base_hash=base.hash).eval()
        torch.testing.assert_close(ours(input_ids=IDS).logits, want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="trained on its base in 4 bits"):
        load_adapter(tiny_llama(initializer_range=0.15), result.output, name="x", base_hash=base.hash)


def test_without_bitsandbytes_one_line_says_so(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match="bitsandbytes") as caught:
        quantised(base)
    assert caught.value.fix == 'pip install "tanzim[quant]"'
