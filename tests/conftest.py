"""What every test may use: one thread, no network, and the embedded model where a test asks for it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from tanzim.models.config import ModelConfig


@pytest.fixture(scope="session")
def embedded_base():
    """The embedded model smollm2-135m-instruct as a `Base`, from the cache folder (fetched once)."""
    from tanzim.models.resolve import resolve

    return resolve(ModelConfig())
