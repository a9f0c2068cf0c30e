"""Examples written by the embedded model behind the project's own server, over a real socket."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from passages import ENGLISH, PERSIAN

from tanzim.core.records import Message
from tanzim.data.store import ExampleStore
from tanzim.models.config import ModelConfig
from tanzim.pipeline.power_complete import open_complete

pytestmark = pytest.mark.slow
MODEL = ModelConfig().name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run ``tanzim serve`` with the embedded model; yield the URL of its API."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tanzim", "serve", MODEL, "--port", "0"],
        cwd=tmp_path_factory.mktemp("served"),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert server.stdout is not None
    try:
        yield next(m[0] for line in server.stdout if (m := re.search(r"http://\S+", line)))
    finally:
        server.terminate()
        assert server.wait(timeout=30) in (0, -signal.SIGTERM)
        server.stdout.close()


def _prepare(folder: Path, url: str, documents: list[str]) -> tuple[dict[str, str], dict[str, str], bytes]:
    """Run ``tanzim data prepare``; return what was made, why the rest was not, and the file."""
    folder.mkdir()
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in documents]
    (folder / "texts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    step = {"type": "synthesise", "model": f"{url}#{MODEL}", "make": "questions", "style": "simple"}
    data = {"path": "texts.jsonl", "steps": [{**step, "count": 2 * len(documents)}]}
    data["split"] = {"validation": 0, "test": 0}
    (folder / "tanzim.yaml").write_text(json.dumps({"name": "written", "data": data}), encoding="utf-8")
    command = [sys.executable, "-m", "tanzim", "data", "prepare"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=900)
    out = folder / "runs" / "written" / "data"
    made = [one for one in ExampleStore(out / "train.arrow") if one.provenance.derived]
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text("utf-8").splitlines()]
    rejected = {f"{line['row']} {line['derived']}": line["reason"] for line in lines}
    assert all(line["step"] == "synthesise" and line["content"] for line in lines)
    report = json.loads((out / "report.json").read_text("utf-8"))["steps"][0]
    assert report["findings"]["tried"] == 2 * len(documents) == len(made) + len(rejected)
    assert all(one.about["written_by"] == f"{url}#{MODEL}" for one in made)
    found = {one.messages[-2].content: one.messages[-1].content for one in made}
    return found, rejected, (out / "train.arrow").read_bytes()


def test_the_served_model_answers_as_the_local_one(served: str) -> None:
    asked = [[Message("user", "What is the capital of France? One short sentence.")]]
    answer = open_complete(served)(asked)
    assert answer == open_complete(MODEL)(asked)
    assert "Paris" in answer[0]
    assert open_complete(served)(asked, longest=2) == [""]  # cut off


def test_examples_are_accepted_and_rejected_the_same_each_time(served: str, tmp_path: Path) -> None:
    documents = [ENGLISH[0]]  # two sentences: both are asked about
    made, rejected, file = _prepare(tmp_path / "one", served, documents)
    assert [question for question in made if question.startswith("Who built")]
    assert any("Arden" in answer for answer in made.values())
    assert [reason for reason in rejected.values() if reason.startswith("not accurate")]
    assert _prepare(tmp_path / "two", served, documents) == (made, rejected, file)


def test_what_the_model_cannot_write_is_rejected(served: str, tmp_path: Path) -> None:
    made, rejected, _ = _prepare(tmp_path / "fa", served, [PERSIAN[1]])
    assert not made  # so small a model writes no Persian question
    assert len(rejected) == 2
