"""``tanzim init``: look at a data file and write a commented ``tanzim.yaml`` for it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tanzim.core.errors import ConfigError
from tanzim.core.files import write_text
from tanzim.core.progress import Reporter
from tanzim.data.config import DataConfig
from tanzim.data.inspect import Inspection, inspect
from tanzim.pipeline.config import Config

_QUIET = Reporter()


def init(
    file: str, *, output: str | Path = "tanzim.yaml", force: bool = False, reporter: Reporter = _QUIET
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
    output = Path(output)
    if output.exists() and not force:
        raise ConfigError("the config exists already", where=str(output), fix="--force replaces it")
    found = inspect(file, DataConfig(path=file))
    for line in found.summary():
        reporter.say(line)
    write_text(output, render(file, found))
    return output


def render(file: str, found: Inspection) -> str:
    """Return the text of a commented config for ``found``, only the keys a newcomer would change."""
    defaults = Config()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file.removeprefix("hf:")).name.split(".")[0]).strip("-.")
    name = re.sub(r"^[^A-Za-z0-9]+", "", stem) or "run"
    why = "\n".join(f"# {line}" for line in found.summary())
    train, model, split = defaults.train, defaults.model, defaults.data.split
    return f"""\
# Written by `tanzim init`. Every key: `tanzim schema`. Any key can be overridden: tanzim run train.epochs=2
#
{why}

name: {name}            # the run's folder is runs/{name}
seed: {defaults.seed}

data:
  path: {json.dumps(file, ensure_ascii=False)}
  format: {found.format}       # auto looks again
  split:
    validation: {split.validation}    # share watched during training
    test: {split.test}          # share measured before and after
    leakage: repair     # duplicates across splits: repair | error | allow
  # max_train: 1000     # train on a seeded sample

model:
  name: {model.name}    # alias, hub id, local folder or GGUF file
  max_length: {model.max_length}      # tokens
  overlong: {model.overlong}       # error | drop | truncate
  train_on: {model.train_on}   # every assistant turn, or the last one

train:
  adapter:
    type: lora          # or full
    rank: 16
    alpha: 32
  epochs: {train.epochs:g}
  learning_rate: {train.learning_rate:g}
  tokens_per_step: {train.tokens_per_step}
  # patience: 3         # stop after so many evaluations without a better loss
  # trackers: [tensorboard]

evaluate:
  metrics: auto         # or a list, such as [exact_match, rouge_l]
  max_items: {defaults.evaluate.max_items}
"""
