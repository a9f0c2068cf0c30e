"""The methods that are ours through the pipeline: train, evaluate, export, ask."""

from __future__ import annotations

from pathlib import Path

import pytest

import tanzim
from tanzim.core.errors import ModelError, RunError
from tanzim.core.files import read_json
from tanzim.pipeline.config import Config

pytestmark = pytest.mark.slow
METHODS = {
    "bottleneck": ["train.method.size=32", "train.learning_rate=1e-2"],
    "spiel": ["train.method.density=0.2", "train.method.growth_steps=2", "train.learning_rate=1e-2"],
    "bitfit": ["train.learning_rate=0.1"],
    "dylora": ["train.method.rank=8", "train.method.saved_rank=4", "train.learning_rate=1e-2"],
    "hft": ["train.method.round_steps=10", "train.learning_rate=3e-3"],
}


@pytest.fixture(params=list(METHODS))
def trained(
    request: pytest.FixtureRequest,
    tiny_model: Path,
    fruit_rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Config]:
    monkeypatch.chdir(tmp_path)
    kind: str = request.param
    config = tanzim.load_config(
        None,
        [
            "name=fruit",
            f"data.path={fruit_rows}",
            f"model.name={tiny_model}",
            f"train.method.type={kind}",
            "train.max_steps=30",
            "train.epochs=20",
            "train.tokens_per_step=512",
            "train.tokens_per_pass=512",
            "evaluate.max_new_tokens=8",
            *METHODS[kind],
        ],
    )
    tanzim.finetune(config)
    return kind, config


def test_from_data_to_a_proven_export(trained: tuple[str, Config]) -> None:
    kind, config = trained
    run = Path("runs") / "fruit"
    report = tanzim.evaluate_run(config)
    systems = {system.name: system for system in report.systems}
    assert systems["tuned"].loss < systems["base"].loss - 0.5
    record = read_json(run / ("model" if kind == "hft" else "adapter") / "tanzim.json")
    assert record["method"]["type"] == kind
    if kind == "hft":
        assert len(record["method"]["frozen"]) == 3
        with pytest.raises(RunError, match="no adapter to export"):
            tanzim.export_run(config)
        return
    assert "greedy texts equal" in tanzim.export_run(config).proof[0]
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert ("tanzim chat" in card) == (kind != "dylora")
    answer = tanzim.chat(str(run), "77: Which colour has apple?")
    assert answer
    if kind == "bottleneck":
        with pytest.raises(ModelError, match="cannot be merged"):
            tanzim.export_run(config, merge=True)
    else:
        assert "greedy texts equal" in tanzim.export_run(config, merge=True).proof[0]
