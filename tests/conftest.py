"""What every test may use: one thread, no network, a tiny random model, and the embedded one."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

from helpers.properties import examples
from tanzim.models.config import ModelConfig

# A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:  # torch is loaded only where a test asks for it
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

settings.register_profile("tests", examples())
settings.load_profile("tests")

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "hello hello world",
    "سلام دنیا، می‌روم و می‌آیم",
    "🙂👍🏽",
]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 300 tokens; most Persian letters and all emoji are several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture
def tiny_model() -> LlamaForCausalLM:
    """Two random layers, with weights large enough that answers differ."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="sdpa",
    )
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="session")
def embedded_base():
    """The embedded model smollm2-135m-instruct as a `Base`, from the cache folder (fetched once)."""
    from tanzim.models.resolve import resolve

    return resolve(ModelConfig())


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that speaks S3."""
    from helpers.s3 import serving

    with serving() as address:
        yield address


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """What a user sets for S3: endpoint and secrets; nothing of them stands in the URL."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path / "cache"))
    # fsspec keeps file systems, and with them the server and the secrets that an earlier test named.
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3_server
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3: str, request: pytest.FixtureRequest) -> str:
    """An empty bucket of its own for a test."""
    import s3fs

    name = "bucket-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    return name
