"""Every method the engine has, asked for through the ``openai`` client, trained, and chatted with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import openai
import pytest

from helpers.fine_tuning import client_of, create, losses_of, wait
from tanzim.adapters.config import MethodConfig
from tanzim.infer.request import Completion, Request
from tanzim.models.load import load_tokenizer
from tanzim.pipeline.opened import open_models

pytestmark = pytest.mark.slow
RATE = {"learning_rate": 1e-2}
METHODS: dict[str, dict[str, Any]] = {
    "lora": RATE,
    "rslora": RATE,
    "dora": RATE,
    "adalora": {"learning_rate": 0.1, "method.rank": 2, "method.initial_rank": 4},
    "lora_fa": RATE,
    "dylora": RATE | {"method.rank": 8, "method.saved_rank": 4},
    "vera": {"learning_rate": 0.1, "method.rank": 16},
    "ia3": {"learning_rate": 0.3},
    "bottleneck": RATE | {"method.size": 32},
    "prefix": {"learning_rate": 0.1, "method.tokens": 4},
    "prompt": {"learning_rate": 0.1, "method.tokens": 4, "method.text": "Which colour"},
    "p_tuning": RATE | {"method.tokens": 4, "method.encoder_hidden": 32},
    "bitfit": {"learning_rate": 0.1},
    "hft": {"learning_rate": 3e-3, "method.round_steps": 4},
    "spiel": RATE | {"method.density": 0.2, "method.regrow_steps": 5, "method.growth_steps": 2},
    "full": {"learning_rate": 3e-3},
}
REFUSED = {
    "routed": "tasks cannot be set through the API",
    "qlora": "this server keeps it in its own precision",
}
PROMPTS = ("7: Which colour has apple?", "Which colour has", "red", "زرد", "colour: ", "An apple")
HYPER = {"n_epochs": 20, "batch_size": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("methods") / "server"


@pytest.fixture(scope="module")
def client(tiny_model: Path, folder: Path) -> Iterator[openai.OpenAI]:
    with client_of(tiny_model, folder, max_jobs=2) as made:
        yield made


@pytest.fixture(scope="module")
def jobs(client: openai.OpenAI, fruit_rows: Path) -> dict[str, str]:
    """Return a queued job for every method."""
    file = client.files.create(file=fruit_rows, purpose="fine-tune")
    return {
        kind: create(
            client,
            file.id,
            hyper=HYPER,
            extra_body={"tanzim": {"train": {"method.type": kind, "max_steps": 12, **settings}}},
        ).id
        for kind, settings in METHODS.items()
    }


def test_no_method_is_left_out() -> None:
    tagged = get_args(get_args(MethodConfig)[0])
    kinds = {get_args(one)[0].model_fields["type"].default for one in tagged}
    assert kinds == METHODS.keys() | REFUSED.keys()


@pytest.mark.parametrize("kind", list(METHODS))
def test_it_is_trained_and_asked(
    kind: str, jobs: dict[str, str], client: openai.OpenAI, folder: Path, tiny_model: Path
) -> None:
    done = wait(client, jobs[kind], lambda job: job.status == "succeeded", 600)
    losses = losses_of(client, done.id)
    assert losses[12] < losses[1]
    found = client.completions.create(
        model=done.fine_tuned_model, prompt=list(PROMPTS), max_tokens=6, temperature=0, logprobs=0
    )
    # Opened anew, without the server: the same answers and probabilities, and others than the base's.
    place = next(folder.glob(f"jobs/{done.id}*"))
    trained = place / "whole" if kind in ("full", "hft") else next(place.glob("runs/*/adapter"))
    opened = open_models([str(tiny_model)])
    opened.engine.add_adapter("trained", trained)
    encode = load_tokenizer(opened.base)
    wanted, base = (
        opened.engine.generate(
            [
                Request(prompt_ids=encode(text)["input_ids"], adapter=name, max_new_tokens=6, logprobs=0)
                for text in PROMPTS
            ]
        )
        for name in ("trained", None)
    )
    assert [choice.text for choice in found.choices] == [one.text for one in wanted]
    told = [choice.logprobs.token_logprobs for choice in found.choices]
    assert any(told)
    for values, one in zip(told, wanted, strict=True):
        assert values == pytest.approx(logprobs(one)[: one.kept], abs=1e-3)
    assert [logprobs(one)[0] for one in wanted] != pytest.approx([logprobs(one)[0] for one in base], abs=1e-3)


def logprobs(answer: Completion) -> list[float]:
    assert answer.logprobs is not None
    return [token.logprob for token in answer.logprobs]


@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_could_not_be_asked_is_refused(kind: str, jobs: dict[str, str], client: openai.OpenAI) -> None:
    file = client.fine_tuning.jobs.retrieve(jobs["lora"]).training_file
    settings: dict[str, Any] = {"method.type": kind}
    if kind == "routed":
        settings["method.tasks"] = {"one": "a.jsonl", "two": "b.jsonl"}
    with pytest.raises(openai.BadRequestError, match=REFUSED[kind]) as caught:
        create(client, file, extra_body={"tanzim": {"train": settings}})
    assert caught.value.param == f"tanzim.train.method.{'tasks' if kind == 'routed' else 'type'}"
