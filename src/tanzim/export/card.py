"""The model card: facts of this run, written from its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tanzim.core.records import Json
from tanzim.core.run import RunManifest

NAMES = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "qlora": "QLoRA",
    "adalora": "AdaLoRA",
    "lora_fa": "LoRA-FA",
    "dylora": "DyLoRA",
    "vera": "VeRA",
    "ia3": "(IA)³",
    "prefix": "prefix tuning",
    "prompt": "prompt tuning",
    "p_tuning": "p-tuning",
    "bitfit": "BitFit",
    "spiel": "SpIEL",
    "hft": "half fine-tuning",
    "full": "full fine-tuning",
}


# The class of transformers that opens what an objective trained, where it is no causal model.
CLASSES = {
    "seq2seq": "AutoModelForSeq2SeqLM",
    "contrastive": "AutoModel",
    "classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
}


def model_card(
    manifest: RunManifest,
    *,
    library: str,
    settings: Json,
    table: Sequence[Sequence[str]] = (),
    notes: Sequence[str] = (),
) -> str:
    """Write the card (README.md with a YAML header) of a run's adapter or model.

    Args:
        manifest: what the run was.
        library: peft, transformers for a whole model, tanzim for adapter kinds of our own.
        settings: what was set for the training: method, objective, learning rate, epochs…
        table: header and rows of the evaluation (`table_rows`); empty if there was none.
        notes: further limitations to name.

    """
    method = str(settings.get("method", {}).get("type", "full" if library == "transformers" else "lora"))
    objective = str(settings.get("objective", "language_model"))
    header = yaml.safe_dump(_header(manifest, library, method), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{header}---\n",
        f"# {manifest.name}\n",
        _what(manifest, library, NAMES.get(method, method)),
        "## Use\n\n" + _use(manifest, library, CLASSES.get(objective, "AutoModelForCausalLM")),
        "## Training\n\n" + _bullets(_training(manifest, settings)),
        "## Data\n\n" + _bullets(_data(manifest)),
        "## Evaluation\n\n" + (_markdown(table) if table else "It was not evaluated.\n"),
        "## Limitations\n\n" + _bullets([*_limitations(manifest, table), *notes]),
    ]
    return "\n".join(parts)


def _header(manifest: RunManifest, library: str, method: str) -> Json:
    base = manifest.base
    header: Json = {
        "base_model": base.get("name"),
        "library_name": library,
        "pipeline_tag": "text-generation",
    }
    if base.get("license"):
        header["license"] = base["license"]
    header["tags"] = ["tanzim", "full-fine-tuning" if method == "full" else method]
    header["tanzim"] = {
        "run": manifest.name,
        "seed": manifest.seed,
        "base_hash": base.get("hash"),
        "data_fingerprints": manifest.data.get("fingerprints", {}),
    }
    return header


def _what(manifest: RunManifest, library: str, method: str) -> str:
    kind = f"A model ({method}) made from" if library == "transformers" else f"An adapter ({method}) for"
    return (
        f"{kind} `{manifest.base.get('name')}` (weights {str(manifest.base.get('hash'))[:12]}…), "
        "made and checked with Tanzim. Every number on this page comes from the run itself.\n"
    )


def _use(manifest: RunManifest, library: str, auto: str) -> str:
    """Show how plain peft or transformers opens the folder, or that Tanzim does."""
    if library == "tanzim":
        return (
            "```sh\ntanzim chat path/of/this/folder\n```\n\nOther tools do not know this kind of adapter.\n"
        )
    if library == "peft":
        lines = [
            "from peft import PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")',
            f'base = {auto}.from_pretrained("path/of/the/base")',
            'model = PeftModel.from_pretrained(base, "path/of/this/folder")',
        ]
        after = (
            f"The base must have the weights with hash `{manifest.base.get('hash')}`; "
            "Tanzim refuses any other, peft does not check."
        )
    else:
        lines = [
            f"from transformers import {auto}, AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")',
            f'model = {auto}.from_pretrained("path/of/this/folder")',
        ]
        after = "The tokenizer in this folder, with its chat template if it has one, is that of the training."
    return "```python\n" + "\n".join(lines) + f"\n```\n\n{after}\n"


def _training(manifest: RunManifest, settings: Json) -> list[str]:
    facts = [f"{name.replace('_', ' ')}: {_value(value)}" for name, value in settings.items()]
    facts += [f"{name.replace('_', ' ')}: {_value(value)}" for name, value in manifest.result.items()]
    return [*facts, f"seed: {manifest.seed}"]


def _data(manifest: RunManifest) -> list[str]:
    facts = []
    for name, split in manifest.data.get("splits", {}).items():
        counts = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in split.items() if value)
        facts.append(f"{name}: {counts or 'empty'}")
    for name, fingerprint in manifest.data.get("fingerprints", {}).items():
        facts.append(f"fingerprint of {name}: `{fingerprint}`")
    return facts


def _limitations(manifest: RunManifest, table: Sequence[Sequence[str]]) -> list[str]:
    """Name what this run's own numbers say it cannot do, and what nobody looked at."""
    found = []
    splits = manifest.data.get("splits", {})
    examples = splits.get("train", {}).get("examples")
    if examples is not None:
        found.append(f"It has seen {examples:,} training examples; outside their kind it is untested.")
    rejected = manifest.data.get("rejected") or 0
    count = sum(rejected.values()) if isinstance(rejected, dict) else int(rejected)
    if count:
        found.append(f"{count:,} rows of the source could not be used and were left out.")
    for word in ("dropped", "truncated"):
        cut = sum(split.get(word, 0) for split in splits.values())
        if cut:
            found.append(f"{cut:,} overlong examples were {word}.")
    if table and table[0][-1] == "verdict":
        for verdict in ("worse", "no measurable change", "too few items to say"):
            named = [row[0].strip() for row in table[1:] if row[-1] == verdict]
            if named:
                found.append(f"{verdict.capitalize()} against the base: {', '.join(dict.fromkeys(named))}.")
    found.append(
        "Safety, bias and truthfulness were not measured; what the base gets wrong may still be wrong."
    )
    return found


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _bullets(facts: Sequence[str]) -> str:
    return "".join(f"- {fact}\n" for fact in facts)


def _markdown(table: Sequence[Sequence[str]]) -> str:
    """Return the table in Markdown, with what its numbers are."""
    rows = [[cell.strip().replace("|", "\\|") for cell in row] for row in table]
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    text = "".join(f"| {' | '.join(row)} |\n" for row in lines)
    return f"{text}\nMetrics in percent on held-out items, with 95 % bootstrap intervals.\n"
