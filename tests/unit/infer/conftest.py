"""Short names for the shared tiny model."""

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture
def tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return tiny_tokenizer


@pytest.fixture
def model(tiny_model: LlamaForCausalLM) -> LlamaForCausalLM:
    return tiny_model
