"""Whatever is sent to whichever route, the server answers and never fails by itself (schemathesis)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine

pytestmark = pytest.mark.slow

SECONDS = 60.0  # for all routes together
ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def aimed(case: Any, known: dict[str, str], aim: bool) -> None:
    """Let a request name things that are there, so that it comes further than to their absence."""
    if not aim:
        return
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = "tiny"
    if isinstance(case.path_parameters, dict):
        kind = next((kind for kind in known if kind in case.path), None)
        for name in case.path_parameters:
            if kind is not None:
                case.path_parameters[name] = known[kind]


def fuzz(operation: Any, url: str, known: dict[str, str], seen: dict[int, int], until: float) -> None:
    """Send requests to one route, in order and out of order, until its time is over."""
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(modes), st.booleans())
    def ask(case: Any, aim: bool) -> None:
        if time.monotonic() > until:
            return
        aimed(case, known, aim)
        answer = case.call(base_url=url, timeout=120)  # a busy machine takes its time
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)
        if answer.status_code >= 400 and case.method != "HEAD":
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    ask()


def test_no_route_ever_fails_by_itself(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    seen: dict[int, int] = {}
    with (
        serving(engine, Lines(tiny_tokenizer), {"tiny": None}, tmp_path, max_new_tokens=4) as url,
        httpx.Client(timeout=60) as client,
    ):
        sent = {"file": ("x.jsonl", ROW)}
        file = client.post(f"{url}/v1/files", files=sent, data={"purpose": "fine-tune"}).json()["id"]
        begun = {"filename": "x", "purpose": "fine-tune", "bytes": 1 << 20, "mime_type": "text/jsonl"}
        upload = client.post(f"{url}/v1/uploads", json=begun).json()["id"]
        known = {"/v1/files": file, "/v1/uploads": upload, "/v1/models": "tiny"}
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) > 25
        end = time.monotonic() + SECONDS
        for number, operation in enumerate(operations):
            until = time.monotonic() + (end - time.monotonic()) / (len(operations) - number)
            fuzz(operation, url, known, seen, until)
        assert client.get(f"{url}/health").json() == {"status": "ok"}
    assert seen.get(200, 0) > 20, seen
    assert seen.get(400, 0) > 100, seen
