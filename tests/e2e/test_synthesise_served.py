"""Examples written by the embedded model behind the project's own server, over a real socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.serving import serving
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.chain import run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.shards import write_shards
from tanzim.models.config import ModelConfig
from tanzim.pipeline.opened import open_models
from tanzim.pipeline.power_complete import open_complete
from tanzim.pipeline.powers import open_powers

pytestmark = pytest.mark.slow


def test_served_model_answers_as_the_local_one_and_every_draft_is_accounted_for(tmp_path: Path) -> None:
    name = ModelConfig().name
    opened = open_models([name])
    with serving(opened.engine, opened.renderer, {name: None}, tmp_path / "server", max_batch=2) as address:
        url = f"{address}/v1"
        asked = [[Message("user", "What is the capital of France? One short sentence.")]]
        served = open_complete(url)(asked)
        assert served == open_complete(name)(asked)
        assert "Paris" in served[0]

        step = {"type": "synthesise", "model": f"{url}#{name}", "make": "questions", "count": 1}
        configs = DataConfig.model_validate({"steps": [step]}).steps
        text = "Paris is the capital of France. It lies on the Seine."
        dataset = write_shards(tmp_path / "in", [Example("text", Provenance("t", 1), text=text)])
        (done,) = run_steps(
            configs, dataset, tmp_path / "cache", seed=1, powers=open_powers(), executor=Local(1)
        )
    found = done.report.findings
    rejected = [json.loads(line) for path in done.rejected for line in path.read_text("utf-8").splitlines()]
    assert found["tried"] == 1 == found["made"] + len(rejected)
    assert done.report.added == found["made"]
    answers = next(done.dataset.shards[0].path.parent.glob("answers.jsonl")).read_text("utf-8")
    assert json.loads(answers.splitlines()[0])["answer"]
