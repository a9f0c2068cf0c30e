"""The methods that rest on peft through the pipeline: trained, proven, evaluated, exported, chatted with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tanzim.core.errors import ModelError
from tanzim.core.files import read_json
from tanzim.core.progress import Reporter
from tanzim.pipeline.chat import chat
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.export import export_run
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.workspace import load_config

pytestmark = pytest.mark.slow
# Of each family one; the others share its code.
METHODS = {
    "dora": ["train.method.rank=4"],
    "adalora": ["train.method.rank=2", "train.method.initial_rank=4", "train.learning_rate=0.1"],
    "vera": ["train.method.rank=16", "train.learning_rate=0.1"],
    "ia3": ["train.learning_rate=0.3"],
    "qlora": ["train.method.rank=4"],
    "prefix": ["train.method.tokens=4", "train.learning_rate=0.1"],
    "prompt": ["train.method.tokens=4", "train.method.text=Which colour", "train.learning_rate=0.1"],
    "p_tuning": ["train.method.tokens=4", "train.method.encoder_hidden=32"],
}


class Said(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def config_of(kind: str, tiny_model: Path, rows: Path, root: Path) -> Any:
    return load_config(
        None,
        [
            f"name={kind}",
            f"runs_dir={root}",
            f"data.path={rows}",
            f"model.name={tiny_model}",
            "train.max_steps=8",
            "train.tokens_per_step=512",
            "train.tokens_per_pass=512",
            "train.learning_rate=1e-2",
            "export.prompts=2",
            "export.new_tokens=6",
            "evaluate.max_items=6",
            "evaluate.max_new_tokens=6",
            f"train.method.type={kind}",
            *METHODS[kind],
        ],
    )


@pytest.mark.parametrize("kind", METHODS)
def test_a_run_from_data_to_export(kind: str, tiny_model: Path, fruit_rows: Path, tmp_path: Path) -> None:
    config, said = config_of(kind, tiny_model, fruit_rows, tmp_path), Said()
    done = finetune(config, reporter=said)
    assert any("2 of 2 greedy texts equal" in line for line in said.lines), said.lines
    losses = [line["loss"] for line in done.folder.read_metrics() if line["kind"] == "train"]
    assert losses[-1] < losses[0]

    report = evaluate_run(config, reporter=said)
    assert {system.name for system in report.systems} == {"base", "tuned"}
    kept = [line for line in said.lines if "4 bits (nf4, double quantisation)" in line]
    assert len(kept) == (2 if kind == "qlora" else 0)  # said in training and in evaluation

    moved = read_json(done.folder.moved)["layers"]
    assert bool(moved) == (kind not in ("prefix", "prompt", "p_tuning"))
    assert all(layer["magnitude"] > 0 for layer in moved) or kind == "adalora"
    if moved:
        assert moved[0]["layer"] in done.folder.report.read_text()

    exported = export_run(config, reporter=said)
    assert exported.proof[0].startswith("adapter form: 2 of 2 greedy texts equal")
    assert "".join(chat(str(done.folder.path), "Which colour has pear?")) is not None
    if kind in ("prefix", "prompt", "p_tuning", "qlora"):
        name = "4 bits" if kind == "qlora" else kind
        with pytest.raises(ModelError, match=f"{name}.* cannot be merged"):
            export_run(config, merge=True)
    else:
        merged = export_run(config, merge=True)
        assert merged.proof[0].startswith("merged form: 2 of 2 greedy texts equal")
        assert (merged.path / "model.safetensors").is_file()
    if kind == "adalora":
        kept = read_json(done.output / "adapter_config.json")["rank_pattern"].values()
        assert sum(map(sum, kept)) <= 4 * len(kept)
