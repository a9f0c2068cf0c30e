"""Two Persian sets run through, with every half-space intact: Snappfood sentiment and PersianQA.

    python bench/real_persian.py PATH [--work FOLDER] [KEY=VALUE …]

PATH is the folder with snappfood_test.csv and persianqa_test.json. Each goes through `tanzim init` and a
short `tanzim run`. Then the texts are followed: source file → prepared example → tokens → decoded, and
must be the same characters at each station. The sources are read here by the standard library, not by
Tanzim. The last line is JSON.
"""

import csv
import json
import time
from pathlib import Path
from typing import Any

from real_common import arguments, find, finish, init_and_run, systems, work_folder

HALF_SPACE = "\u200c"
SHORT = [
    "data.max_train=40",
    "data.max_test=12",
    "model.max_length=2048",
    "model.overlong=drop",
    "train.max_steps=6",
    "train.tokens_per_step=2048",
    "train.tokens_per_pass=2048",
    "train.eval_steps=6",
    "evaluate.max_items=12",
    "evaluate.batch_size=6",
]
SETTINGS = {
    "snappfood": [
        *SHORT,
        "data.split.validation=0.001",
        "data.labels={0: happy, 1: sad}",
        "data.system=Is the customer happy or sad?",
        "data.instruction='{text}'",
        "evaluate.metrics=[macro_f1, accuracy]",
        "evaluate.max_new_tokens=4",
    ],
    "persianqa": [
        *SHORT,
        "data.split.validation=0.01",
        "evaluate.metrics=[exact_match, chrf]",
        "evaluate.max_new_tokens=48",
    ],
}


def snappfood_texts(file: Path) -> set[str]:
    """Return every comment."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return {row["comment"] for row in csv.DictReader(stream)}


def persianqa_texts(file: Path) -> set[str]:
    """Return every context, question and answer."""
    texts = set()
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            texts.add(paragraph["context"])
            for asked in paragraph["qas"]:
                texts |= {asked["question"], *(answer["text"] for answer in asked["answers"])}
    return texts


def strangers(text: str, sources: list[str]) -> str:
    """Return what stands in ``text`` besides whole texts of the source (longest first)."""
    for source in sources:
        if source in text:
            text = text.replace(source, "")
    return text.strip()


def follow(run: Path, sources: set[str]) -> dict[str, Any]:
    """Compare each prepared text with the source, and with what its tokens decode to."""
    from tanzim.core.config import load
    from tanzim.core.run import RunFolder
    from tanzim.data.ingest.convert import conversation
    from tanzim.data.store import ExampleStore
    from tanzim.models.load import load_tokenizer
    from tanzim.models.render import Renderer
    from tanzim.models.resolve import resolve
    from tanzim.pipeline.config import Config

    folder = RunFolder(run)
    config = load(Config, folder.config)
    tokenizer = load_tokenizer(resolve(config.model))
    renderer = Renderer(tokenizer)
    known = sorted((text for text in (source.strip() for source in sources) if text), key=len, reverse=True)
    ours = {config.data.system, config.data.no_answer, *config.data.labels.values()}
    texts = half_spaces = 0
    changed: list[str] = []
    for split in ("train", "validation", "test"):
        for example in ExampleStore(folder.data / f"{split}.arrow"):
            asked = conversation(
                example,
                labels=list(config.data.labels.values()),
                instruction=config.data.instruction,
                system=config.data.system,
            )
            decoded = tokenizer.decode(list(renderer.render(asked).ids))
            for message in asked.messages:
                texts += 1
                half_spaces += message.content.count(HALF_SPACE)
                whole = message.content in ours or not strangers(message.content, known)
                if not whole or message.content not in decoded:
                    changed.append(str(example.provenance))
    return {"texts": texts, "half_spaces": half_spaces, "changed": changed}


def main() -> None:
    options = arguments("Persian sets: run through, half-spaces intact")
    sets = {
        "snappfood": (find(options.path, "snappfood_test.csv"), snappfood_texts),
        "persianqa": (find(options.path, "persianqa_test.json"), persianqa_texts),
    }
    started = time.monotonic()
    result: dict[str, Any] = {}
    faults = []
    with work_folder(options.work) as folder:
        for name, (file, texts) in sets.items():
            run = init_and_run(file, name, [*SETTINGS[name], *options.overrides], folder)
            found = follow(run, texts(file))
            losses = {system: values["loss"] for system, values in systems(run).items()}
            result[name] = {**found, "changed": len(found["changed"]), "loss": losses}
            if found["changed"]:
                faults.append(f"{name}: {len(found['changed'])} texts changed, first {found['changed'][0]}")
            if not found["half_spaces"]:
                faults.append(f"{name}: no half-space in {found['texts']} texts, nothing is shown")
    finish({**result, "seconds": round(time.monotonic() - started, 1)}, *faults)


if __name__ == "__main__":
    main()
