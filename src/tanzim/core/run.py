"""One run, one directory: everything a run knows, under names that never change.

runs/<name>/
  config.yaml       the resolved config                  manifest.json   `RunManifest`
  data/             train|validation|test.arrow, rejected.jsonl, report.json
  tokens/           train|validation|test.arrow, report.json
  teacher/          answers.jsonl, left_out.jsonl, train.arrow (sequence distillation)
  plan.json         predicted, and after training measured
  metrics.jsonl     one line per step and per evaluation
  checkpoints/checkpoint-<step>/
  adapter/          the chosen checkpoint in the PEFT layout (model/ after full fine-tuning)
  epochs/step-<n>/  the adapter as it was after an epoch, where train.keep_epochs asks for it
  moved.json        how far each layer's weights moved
  evaluation/       report.json, items.jsonl
  report.html
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tanzim.core.errors import RunError
from tanzim.core.files import read_json, write_json
from tanzim.core.records import Json


@dataclass(frozen=True, slots=True)
class RunManifest:
    """What a run was: enough to understand and repeat it.

    Args:
        name: the run's name.
        status: created, trained, evaluated or failed.
        base: the base model: id, source, sha256 of its weights (``base_hash``).
        data: fingerprints and counts of each split, rejects, overlong samples.
        environment: Python, platform, package versions, threads, device.
        seed: the one seed everything random is derived from.
        template: chat template, default system prompt, stop strings, thinking mode.
        result: best step, losses, tokens, seconds, peak memory.

    """

    name: str
    status: str = "created"
    base: Json = field(default_factory=dict)
    data: Json = field(default_factory=dict)
    environment: Json = field(default_factory=dict)
    seed: int = 0
    template: Json = field(default_factory=dict)
    result: Json = field(default_factory=dict)


class RunFolder:
    """The paths of one run directory, and the reading and writing of its small files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def data(self) -> Path:
        """The folder of the prepared splits."""
        return self.path / "data"

    @property
    def tokens(self) -> Path:
        """The folder of the tokenised splits."""
        return self.path / "tokens"

    @property
    def plan(self) -> Path:
        """The plan, predicted and measured."""
        return self.path / "plan.json"

    @property
    def metrics(self) -> Path:
        """The metrics log."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The chosen adapter, PEFT layout."""
        return self.path / "adapter"

    @property
    def epochs(self) -> Path:
        """The folder of the adapters as they were after epochs (see `epoch_steps`)."""
        return self.path / "epochs"

    def epoch_steps(self) -> list[int]:
        """List the steps after which an epoch's adapter was kept, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.epochs.glob("step-*"))

    def epoch(self, step: int) -> Path:
        """Return the folder of the adapter as it was after ``step`` steps, an epoch's end."""
        return self.epochs / f"step-{step}"

    @property
    def model(self) -> Path:
        """The chosen model after full fine-tuning."""
        return self.path / "model"

    @property
    def moved(self) -> Path:
        """How far each layer's weights moved."""
        return self.path / "moved.json"

    @property
    def evaluation(self) -> Path:
        """The folder of evaluation results."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    def read_manifest(self) -> RunManifest:
        """Read ``manifest.json``.

        Raises:
            RunError: this is no run directory.

        """
        path = self.path / "manifest.json"
        if not path.is_file():
            raise RunError("this is not a run directory (no manifest.json)", where=str(self.path))
        return RunManifest(**read_json(path))

    def write_manifest(self, manifest: RunManifest) -> None:
        """Write ``manifest.json``, whole or not at all."""
        write_json(self.path / "manifest.json", asdict(manifest))

    def read_metrics(self) -> list[Json]:
        """Read every line of ``metrics.jsonl`` ([] if there is none)."""
        return list(read_lines(self.metrics)) if self.metrics.is_file() else []


def read_lines(path: Path) -> Iterator[Json]:
    """Yield the JSON objects of a ``.jsonl`` file we wrote; a last line cut off by a kill is left out."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


def append_line(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Append one JSON line to ``path`` in a single write; on a full disk, nothing of it.

    Raises:
        OSError: it could not be written whole.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(handle, line)
        if written < len(line):
            os.ftruncate(handle, os.fstat(handle).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(handle)
