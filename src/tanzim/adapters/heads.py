"""A new head on a base: trained whole, and kept in the adapter, whatever the method."""

from __future__ import annotations

from typing import Any

import peft

_TASKS = {
    "ForSequenceClassification": peft.TaskType.SEQ_CLS,
    "ForTokenClassification": peft.TaskType.TOKEN_CLS,
    "ForConditionalGeneration": peft.TaskType.SEQ_2_SEQ_LM,
    "ForCausalLM": peft.TaskType.CAUSAL_LM,
    "LMHeadModel": peft.TaskType.CAUSAL_LM,
    "Model": peft.TaskType.FEATURE_EXTRACTION,
}


def task_settings(model: Any) -> dict[str, Any]:  # noqa: ANN401 - any transformers model
    """Return what a peft config says of the task: its type, and the modules trained and saved whole."""
    name = type(model).__name__
    task = next((task for ending, task in _TASKS.items() if name.endswith(ending)), peft.TaskType.CAUSAL_LM)
    return {"task_type": task, "modules_to_save": list(new_modules(model)) or None}


def new_modules(model: Any) -> tuple[str, ...]:  # noqa: ANN401 - any transformers model
    """Return the names of the modules that the base brought no weights for."""
    names: tuple[str, ...] = getattr(model, "new_modules", ())
    return names


def head_parameters(model: Any) -> set[str]:  # noqa: ANN401 - any transformers model
    """Return the names of the new modules' parameters, in a model without an adapter."""
    return {
        f"{module}.{name}"
        for module in new_modules(model)
        for name, _ in model.get_submodule(module).named_parameters()
    }
