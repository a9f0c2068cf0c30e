"""Augmenters that need a model, out of a config file through ``tanzim data prepare``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.records import Example
from tanzim.data.store import ExampleStore

KEY = "TANZIM_COMPLETE_KEY"
ROWS = [
    ("The train to the coast leaves at nine.", "travel"),
    ("Please bring the tickets to the station.", "travel"),
    ("The bus was late and the station was cold.", "travel"),
    ("Cook the beans for an hour and add salt.", "food"),
    ("The bread was fresh and the soup was hot.", "food"),
    ("قطار ساعت نه به سوی دریا راه می‌افتد.", "travel"),
    ("نان تازه بود و سوپ گرم.", "food"),
    ("Add salt to the hot soup, then the bread.", "food"),
]


def _prepare(folder: Path, step: dict[str, Any], **env: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    rows = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in ROWS]
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = {
        "path": "rows.jsonl",
        "split": {"validation": 0, "test": 0},
        "steps": [{"share": 1.0, "even": False, **step}],
    }
    (folder / "tanzim.yaml").write_text(json.dumps({"name": "more", "data": data}), encoding="utf-8")
    command = [sys.executable, "-m", "tanzim", "data", "prepare", "--overwrite"]
    kept = {name: value for name, value in os.environ.items() if name != KEY}
    return subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**kept, "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        timeout=600,
    )


def _made(folder: Path) -> tuple[list[Example], dict[str, Any]]:
    out = folder / "runs" / "more" / "data"
    (step,) = json.loads((out / "report.json").read_text("utf-8"))["steps"]
    examples = list(ExampleStore(out / "train.arrow"))
    assert [(one.text, one.label) for one in examples if not one.provenance.derived] == ROWS
    return [one for one in examples if one.provenance.derived], step


class _Api(BaseHTTPRequestHandler):
    """Translates by putting a mark before a text, and back by other words; takes one key."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("authorization") != "Bearer open-sesame":
            return self._send(401, {"error": {"message": "no key"}})
        head, _, text = body["messages"][-1]["content"].partition("\n\n")
        if "into German" in head:
            said = f"DE {text}"
        else:
            said = text.removeprefix("DE ").replace("station", "terminal").replace("تازه", "نو")
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        self._send(200, {"choices": [choice]})

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_back_translation_through_an_endpoint(tmp_path: Path, api: str) -> None:
    step = {"type": "back_translate", "model": f"{api}#any", "through": ["German"]}
    refused = _prepare(tmp_path / "p", step, **{KEY: "wrong-key-1234"})
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1
    assert "refuses the key" in said
    assert KEY in said
    assert "Traceback" not in said
    assert "wrong-key-1234" not in said
    missing = _prepare(tmp_path / "p", step)
    assert missing.returncode == 1
    assert KEY in missing.stdout + missing.stderr
    # What failed has left nothing behind: with the key the same folder goes on.
    done = _prepare(tmp_path / "p", step, **{KEY: "open-sesame"})
    assert done.returncode == 0, done.stderr
    made, report = _made(tmp_path / "p")
    assert [(one.text, one.label, one.provenance.row) for one in made] == [
        ("Please bring the tickets to the terminal.", "travel", 2),
        ("The bus was late and the terminal was cold.", "travel", 3),
        ("نان نو بود و سوپ گرم.", "food", 7),
    ]
    assert report["findings"]["came out the same"] == len(ROWS) - 3
    files = [path for path in (tmp_path / "p").rglob("*") if path.is_file()]
    assert not [path for path in files if b"open-sesame" in path.read_bytes()]


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    step = {"type": "back_translate", "model": "http://127.0.0.1:1/v1#any"}
    found = _prepare(tmp_path / "p", step)
    said = found.stdout + found.stderr
    assert found.returncode == 1
    assert "does not answer" in said
    assert "http://127.0.0.1:1/v1" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_back_translation_through_a_local_model(tmp_path: Path) -> None:
    step = {"type": "back_translate", "model": "smollm2-135m-instruct", "through": ["French"]}
    done = _prepare(tmp_path / "p", {**step, "max_characters": 40})
    assert done.returncode == 0, done.stderr
    made, report = _made(tmp_path / "p")
    findings = dict(report["findings"])
    findings.pop("not taken", None)
    asked, taken = findings.pop("asked for"), findings.pop("made")
    # How well so small a model translates is not asked here: all it said is either taken or explained.
    assert asked == sum(len(text) <= 40 for text, _ in ROWS)
    assert asked == taken + sum(findings.values())
    assert taken == len(made)
    (answers,) = (tmp_path / "p" / "runs" / ".steps").rglob("answers.jsonl")
    assert len(answers.read_text("utf-8").splitlines()) >= asked


@pytest.mark.slow
def test_near_words_and_adversarial_edits_by_the_embedded_model(tmp_path: Path) -> None:
    near = {"type": "augment_words", "operations": ["neighbour"], "embedding": "all-minilm-l6-v2"}
    (tmp_path / "more.txt").write_text("railway railway bean soups soups broth broth\n", encoding="utf-8")
    more = {**near, "rate": 0.3, "min_similarity": 0.5, "more_texts": str(tmp_path / "more.txt")}
    done = _prepare(tmp_path / "near", more)
    assert done.returncode == 0, done.stderr
    made, _ = _made(tmp_path / "near")
    assert {"railway", "broth", "soups"} & {word.strip(".,") for one in made for word in one.text.split()}
    step = {"type": "adversarial", "embedding": "all-minilm-l6-v2"}
    done = _prepare(tmp_path / "adversarial", step)
    assert done.returncode == 0, done.stderr
    made, _ = _made(tmp_path / "adversarial")
    assert made
    assert all(0.8 <= one.about["adversarial_similarity"] < 1 for one in made)
    without = _prepare(tmp_path / "none", {"type": "augment_words", "operations": ["neighbour"]})
    assert without.returncode == 1
    assert "needs an embedding model" in without.stdout + without.stderr
