"""``tanzim serve`` with vLLM behind it, in real processes: jobs' models are asked, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tiny_projects import write_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.adapters import generated
from helpers.backends import REAL, vllm_settings
from helpers.fine_tuning import FAST, wait
from helpers.processes import group_of_vllm, members, wait_until
from helpers.served import served

pytestmark = pytest.mark.slow
ASKED: Any = [{"role": "user", "content": "77: Which colour has apple?"}]


def said(base: Path, adapter: Path | None) -> str:
    """Return what transformers and peft answer."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True)["input_ids"]
    ids = generated(AutoModelForCausalLM.from_pretrained(base).eval(), adapter, prompt, 8)
    ids = ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids
    return str(tokenizer.decode(ids, skip_special_tokens=True)).rstrip("\ufffd")


@pytest.mark.parametrize(
    "kind",
    [
        "fake",
        pytest.param(
            "real", marks=pytest.mark.skipif(REAL is None, reason="TANZIM_VLLM_PYTHON names no environment")
        ),
    ],
)
def test_a_job_is_asked_before_and_after_a_kill(kind: str, fruit_rows: Path, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny", heads=2)  # as wide as vLLM's attention on the CPU takes them
    settings = {"engine": json.dumps(vllm_settings(kind)), "max_new_tokens": 8}
    with served(tmp_path, ["tiny"], **settings) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            file = client.files.create(file=fruit_rows, purpose="fine-tune")
            method: Any = {"type": "supervised", "supervised": {"hyperparameters": FAST}}
            job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, method=method, seed=5)
            name = wait(client, job.id, lambda one: one.status == "succeeded").fine_tuned_model

            def answer(model: str) -> str | None:
                made = client.chat.completions.create(model=model, messages=ASKED, temperature=0)
                return made.choices[0].message.content

            (adapter,) = (tmp_path / "server" / "jobs" / job.id).glob("runs/*/adapter")
            expected = said(tmp_path / "tiny", adapter)
            assert expected != said(tmp_path / "tiny", None)
            assert answer(name) == expected
            assert answer("tiny") == said(tmp_path / "tiny", None)
            before = group_of_vllm(tmp_path / "server")
            server.kill()
            wait_until(lambda: not members(before))
            server.start(600)
            after = group_of_vllm(tmp_path / "server")
            assert after != before
            assert answer(name) == expected
        assert server.stop() == 0
        assert not members(after)
        assert "vLLM is starting" in server.log.read_text()
