"""Texts of many lengths become vectors in passes of few shapes, for each costs a compiled kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tanzim.infer.embed import embed
from tanzim.infer.engine import Engine


def test_few_shapes_and_the_same_vectors(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    shapes: set[tuple[int, ...]] = set()

    def see(_: object, __: object, given: dict[str, Any]) -> None:
        shapes.add(tuple(given["input_ids"].shape))

    draw = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(3, 300, (size,), generator=draw).tolist() for size in (*range(1, 60), 200, 250, 256)
    ]
    hook = tiny_model.model.register_forward_pre_hook(see, with_kwargs=True)
    vectors = [embed(engine, [row], None)[0] for row in rows]
    hook.remove()
    assert shapes == {(1, size) for size in (16, 32, 48, 64, 256)}  # and never beyond the context
    with torch.inference_mode():
        for row, vector in zip(rows, vectors, strict=True):
            hidden_1TE = tiny_model.model(input_ids=torch.tensor([row])).last_hidden_state
            expected = functional.normalize(hidden_1TE[0].mean(0), dim=-1)
            torch.testing.assert_close(vector, expected, rtol=0, atol=1e-5)
