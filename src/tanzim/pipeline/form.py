"""In which form a base is kept in memory: in 4 bits for QLoRA, in training and wherever its adapter is."""

from __future__ import annotations

from pathlib import Path

from tanzim.adapters.config import MethodConfig, QloraConfig
from tanzim.adapters.folder import RECORD
from tanzim.core.files import read_json
from tanzim.core.progress import Reporter
from tanzim.models.quantised import Quantised


def form_of(method: MethodConfig) -> Quantised | None:
    """Return the form that a method trains on; None for the weights as they are."""
    return Quantised(method.quant_type, method.double_quant) if isinstance(method, QloraConfig) else None


def recorded_form(adapter: Path) -> Quantised | None:
    """Return the form of the base that the adapter in a folder was trained on."""
    path = adapter / RECORD
    method = (read_json(path).get("method") or {}) if path.is_file() else {}
    return Quantised(method["quant_type"], method["double_quant"]) if method.get("type") == "qlora" else None


def say_form(form: Quantised | None, reporter: Reporter) -> None:
    """Say it where a base is not kept as it is."""
    if form is not None and form.integer is not None:
        reporter.say(f"the base is kept in {form}, adapters in full precision")
    elif form is not None:
        reporter.say(f"the base is kept in {form}: trained, proven, evaluated and served so")
