"""Greedy answers of the engine on the embedded model, token by token those of ``transformers.generate``."""

from __future__ import annotations

import pytest
import torch

from tanzim.infer.engine import Engine, Request
from tanzim.models.load import load_model, load_tokenizer
from tanzim.models.resolve import Base

QUESTIONS = [
    "What is the capital of France?",
    "Write one sentence about tea.",
    "سلام! حال شما چطور است؟",
    "Count from one to ten in words, then stop. Do not add anything else after that, please.",
]
TOKENS = 24


@pytest.mark.slow
def test_greedy_answers(embedded_base: Base) -> None:
    tokenizer = load_tokenizer(embedded_base)
    model = load_model(embedded_base, dtype=torch.float32, device=torch.device("cpu")).eval()
    prompts = [
        list(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        )
        for question in QUESTIONS
    ]
    engine = Engine(model, tokenizer, stop_ids=[tokenizer.eos_token_id], base_hash=embedded_base.hash)
    found = engine.generate([Request(ids, max_new_tokens=TOKENS) for ids in prompts], max_batch=3)
    for ids, completion in zip(prompts, found, strict=True):
        tensor = torch.tensor([ids])
        output = model.generate(
            input_ids=tensor,
            attention_mask=torch.ones_like(tensor),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        )
        assert completion.ids == tuple(output[0, len(ids) :].tolist())
        assert completion.text == tokenizer.decode(completion.ids, skip_special_tokens=True)
    assert "Paris" in found[0].text
