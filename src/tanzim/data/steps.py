"""All steps by type."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.seeds import derive
from tanzim.data.config import StepConfig
from tanzim.data.step import Step

# Type → module and class. Modules are imported when a step is made: some need a library of an extra.
STEPS: dict[str, tuple[str, str]] = {
    "length": ("clean.length", "Length"),
    "repair_text": ("clean.repair", "RepairText"),
    "html": ("clean.html", "Html"),
    "boilerplate": ("clean.boilerplate", "Boilerplate"),
    "unicode": ("clean.unicode", "Unicode"),
    "missing": ("clean.missing", "Missing"),
    "repetition": ("clean.repetition", "Repetition"),
    "quality": ("clean.quality", "Quality"),
    "language": ("clean.language", "Language"),
    "linguistic": ("clean.linguistic", "Linguistic"),
    "sentences": ("clean.sentences", "Sentences"),
    "persian": ("clean.persian.step", "Persian"),
    "dedup_exact": ("dedup.exact", "DedupExact"),
    "dedup_fuzzy": ("dedup.fuzzy", "DedupFuzzy"),
    "dedup_semantic": ("dedup.semantic", "DedupSemantic"),
    "oversample": ("balance.sample", "Oversample"),
    "undersample": ("balance.sample", "Undersample"),
    "smote": ("balance.smote", "Smote"),
    "label_noise": ("balance.label_noise", "LabelNoise"),
    "select": ("select.step", "Select"),
    "augment_characters": ("augment.characters", "AugmentCharacters"),
    "augment_words": ("augment.words", "AugmentWords"),
    "augment_sentences": ("augment.sentences", "AugmentSentences"),
    "back_translate": ("augment.back_translate", "BackTranslate"),
    "adversarial": ("augment.adversarial", "Adversarial"),
    "demographic": ("augment.demographic", "Demographic"),
    "synthesise": ("synthesise.step", "Synthesise"),
    "pii": ("screen.pii", "Pii"),
    "secrets": ("screen.secrets", "Secrets"),
    "toxicity": ("screen.toxicity", "Toxicity"),
    "licence": ("screen.licence", "Licence"),
    "contamination": ("screen.contamination", "Contamination"),
    "contamination_semantic": ("screen.contamination", "ContaminationSemantic"),
    "weak_labels": ("label.weak", "WeakLabelling"),
}


def step_class(name: str) -> type[Step[Any]]:
    """Return the class of a type of step."""
    module, attribute = STEPS[name]
    found: type[Step[Any]] = getattr(importlib.import_module(f"tanzim.data.{module}"), attribute)
    return found


def make_step(config: StepConfig, powers: Powers, seed: int, turn: int = 1) -> Step[Any]:
    """Make a step.

    Args:
        config: an entry of ``data.steps``.
        powers: what it may need of higher rooms.
        seed: the run's seed; the step's own is derived from it.
        turn: which of the steps of its type it is, counted from 1: the second draws otherwise, and what it
            makes has another name.

    """
    again = (turn,) if turn > 1 else ()
    step = step_class(config.type)(config, powers, derive(seed, "data", config.type, *again))
    step.name = "#".join(map(str, (config.type, *again)))
    return step


def parted(configs: Sequence[StepConfig]) -> tuple[list[StepConfig], list[StepConfig]]:
    """Part the steps that run on all examples from those that run, after the split, on training data.

    Raises:
        ConfigError: a step on all examples stands after one on training data.

    """
    after = next((i for i, one in enumerate(configs) if step_class(one.type).training_only), len(configs))
    for index, one in enumerate(configs[after:], after):
        if not step_class(one.type).training_only:
            raise ConfigError(
                f"{one.type} looks at all examples, and stands after {configs[after].type}, which makes or "
                "picks training data once the held-out examples are set aside",
                where=f"data.steps.{index}",
                fix=f"put it before {configs[after].type}",
            )
    return list(configs[:after]), list(configs[after:])
