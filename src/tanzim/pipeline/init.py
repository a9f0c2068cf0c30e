"""``tanzim init``: look at a data file and write a commented ``tanzim.yaml`` for it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tanzim.core.errors import ConfigError
from tanzim.core.files import write_text
from tanzim.core.progress import Reporter
from tanzim.core.records import Json
from tanzim.data.config import DataConfig
from tanzim.data.inspect import Inspection, inspect
from tanzim.pipeline.config import Config


def init(
    file: str, *, output: str | Path = "tanzim.yaml", force: bool = False, reporter: Reporter | None = None
) -> Path:
    """Look at ``file`` and write a commented config for it.

    Args:
        file: data file, folder, glob or Hugging Face dataset id.
        output: where to write the config.
        force: replace an existing config.
        reporter: takes what was recognised, and why.

    Raises:
        DataError: the data cannot be read or recognised.
        ConfigError: ``output`` exists already.
    """
    reporter = reporter or Reporter()
    output = Path(output)
    if output.exists() and not force:
        raise ConfigError("the config exists already", where=str(output), fix="--force replaces it")
    found = inspect(file, DataConfig(path=file))
    for line in summary(found):
        reporter.say(line)
    write_text(output, render(file, found))
    return output


def summary(found: Inspection) -> list[str]:
    """Say what was found, a line each: shape, size, length, scripts, what is wrong, what would help."""
    rows = f"{found.rows:,}" if found.complete else f"about {found.rows:,} (looked at {found.rows_seen:,})"
    lengths = found.lengths
    shares = sorted(found.scripts.items(), key=lambda item: -item[1])
    scripts = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005)
    long = (
        f"; characters: median {lengths['median']:,.0f}, longest {lengths['max']:,}"
        if "median" in lengths  # not where no row can be used
        else ""
    )
    lines = [f"format: {found.format}. {found.reason}", f"rows: {rows}{long}"]
    if scripts:
        lines.append(f"letters: {scripts}")
    if found.zwnj:
        lines.append(f"half-spaces (ZWNJ) in {found.zwnj:.0%} of the rows")
    if found.labels:
        lines.append("labels: " + ", ".join(f"{name} × {count:,}" for name, count in found.labels.items()))
    if found.rejected:
        lines.append("cannot be used: " + "; ".join(f"{n:,} × {why}" for why, n in found.rejected.items()))
    lines += [f"problem: {text}" for text in found.problems]
    return lines + [f"advice: {text}" for text in found.advice]


def render(file: str, found: Inspection) -> str:
    """Return the text of a commented config for ``found``, only the keys a newcomer would change."""
    defaults = Config()
    stem = Path(file.removeprefix("hf:")).name.partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "run"
    why = "\n".join(f"# {line}" for line in summary(found))
    numbers = [name for name in found.labels if name.lstrip("-").isdigit()]
    pairs = ", ".join(f'"{name}": "name of {name}"' for name in numbers)
    labels = f"  # labels: {{{pairs}}}   # words are easier for a language model\n" if numbers else ""
    if found.format == "tagged":
        objective = "objective:\n    type: token_classification   # a tag for each word, by a new head\n  "
    elif found.labels:
        objective = _head(found)
    else:
        objective = ""
    train, model, split = defaults.train, defaults.model, defaults.data.split
    return f"""\
# Written by `tanzim init`. Every key: `tanzim schema`. Any key can be overridden: tanzim run train.epochs=2
#
{why}

name: {name}            # the run's folder is runs/{name}
seed: {defaults.seed}

data:
  path: {json.dumps(file, ensure_ascii=False)}
  format: {"auto" if found.format == "mixed" else found.format}       # auto looks again
{labels}  split:
    validation: {split.validation}    # share watched during training
    test: {split.test}          # share measured before and after
    leakage: repair     # duplicates across splits: repair | error | allow
{_divided(found)}{_steps(found)}  # max_train: 1000     # train on a seeded sample

model:
  name: {model.name}    # alias, hub id, local folder or GGUF file
  max_length: {model.max_length}      # tokens
  overlong: {model.overlong}       # error | drop | truncate | split
  train_on: {model.train_on}   # every assistant turn, or the last one

train:
  {objective}method:
    type: lora          # or full
    rank: 16
    alpha: 32
  epochs: {train.epochs:g}
  learning_rate: {train.learning_rate:g}
  tokens_per_step: {train.tokens_per_step}
  # patience: 3         # stop after so many evaluations without a better loss
  # trackers: [tensorboard]

evaluate:
{_metrics(found)}
  max_items: {defaults.evaluate.max_items}
"""


def _advised(found: Inspection, *fits: str) -> list[Json]:
    """Return what the inspection recommends for a head of labels, for answers in words, or for both."""
    advice = [one for one in found.balance.get("advice", ()) if one["fits"] in fits]
    return [{**one, "why": " ".join(one["why"].split())} for one in advice]  # a label may hold a line end


def _head(found: Inspection) -> str:
    """Return the comment that turns a head of labels on, with what uneven classes ask for."""
    lines = ["# objective: {type: classification}   # a new head on the base, instead of words"]
    advised = sorted(_advised(found, "head"), key=lambda one: not one["first"])
    if advised:
        lines = [
            "# A new head on the base, instead of words. The classes are uneven: one of these, and no",
            "# oversample in data.steps, or rare classes count twice.",
            "# objective:",
            "#   type: classification",
        ]
        inside = [one for one in advised if one["setting"].startswith("train.objective.")]
        for one in (*inside, *(one for one in advised if one not in inside)):
            key = one["setting"].removeprefix("train.objective.")
            indent = "  " if one in inside else ""
            mark = indent if one["first"] else f"{indent}# "
            lines.append(f"# {mark}{key.removeprefix('train.')}   # {one['technique']}: {one['why']}")
    return "".join(f"{line}\n  " for line in lines)


def _steps(found: Inspection) -> str:
    """Return ``data.steps`` as a comment: a step changes how much there is to train on."""
    advised = _advised(found, "words", "both")
    if not advised:
        return ""
    lines = ["  # steps:"]
    for one in sorted(advised, key=lambda one: one["fits"] != "both"):  # labels are judged before copies
        step = one["setting"].removeprefix("data.steps: [").removesuffix("]")
        lines.append(f"  #   - {step}   # {one['technique']}: {one['why']}")
    return "\n".join(lines) + "\n"


def _divided(found: Inspection) -> str:
    """Return the method of the split where labels are uneven: each in proportion in every split."""
    return "    method: stratified  # each label in proportion\n" if _advised(found, "report") else ""


def _metrics(found: Inspection) -> str:
    """Return ``evaluate.metrics``: with uneven classes by name, so that accuracy never stands alone."""
    for one in _advised(found, "report"):
        return f"  metrics: {one['setting'].partition(': ')[2]}   # {one['why']}"
    return "  metrics: auto         # or a list, such as [exact_match, rouge_l]"
