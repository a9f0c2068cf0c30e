"""Adapters on disk, bound to the hash of the base weights they were made for: PEFT's layout, or our own."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tanzim.adapters.folder import CONFIG, RECORD, WEIGHTS, check_base, own_type, read_record
from tanzim.adapters.linear import fuse, wrap
from tanzim.core.errors import ModelError, WrongBaseError
from tanzim.core.files import new_folder, write_json
from tanzim.core.records import Json

if TYPE_CHECKING:
    from tanzim.adapters.own import OwnAdapter


def save_adapter(
    model: peft.PeftModel, folder: Path, *, base_hash: str, base_name: str, method: Json | None = None
) -> None:
    """Write the active adapter so that plain ``PeftModel.from_pretrained`` reads it, whole or not at all.

    Args:
        model: what `attach` returned.
        folder: replaced if it exists.
        base_hash: SHA-256 of the base model's weights, kept in ``tanzim.json`` beside the tensors.
        base_name: the base model's id.
        method: what ``tanzim.json`` says of how it was trained, where loading depends on it.

    """
    name = model.active_adapter
    tensors = {key: value.contiguous() for key, value in _state(model, name).items()}
    config: Any = copy.deepcopy(model.peft_config[name])  # as it is now: AdaLoRA's state changes it
    config.inference_mode = True
    config.base_model_name_or_path = base_name
    for key in ("target_modules", "feedforward_modules"):
        # peft keeps a set, whose order differs from run to run.
        if isinstance(names := getattr(config, key, None), set):
            setattr(config, key, sorted(names))
    with new_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        _write_record(temporary, base_hash, base_name, method)


def save_own(
    folder: Path, settings: Json, tensors: Mapping[str, Tensor], *, base_hash: str, base_name: str
) -> None:
    """Write an adapter of a kind that is ours (`own`), whole or not at all.

    Args:
        folder: replaced if it exists.
        settings: the method's section; its ``type`` tells the kind.
        tensors: what was trained, by its name in the model.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    """
    with new_folder(folder) as temporary:
        facts = {"format": "tanzim", "base_model_name_or_path": base_name, **settings}
        write_json(temporary / CONFIG, facts)
        kept = {name: value.contiguous() for name, value in tensors.items()}
        save_file(kept, temporary / WEIGHTS, metadata={"format": "pt"})
        _write_record(temporary, base_hash, base_name, settings)


def save_model(
    model: PreTrainedModel, folder: Path, *, base_hash: str, base_name: str, method: Json | None = None
) -> None:
    """Write a fully fine-tuned model (Hugging Face layout, safetensors), whole or not at all.

    Args:
        model: the model itself, no adapter around it.
        folder: replaced if it exists.
        base_hash: SHA-256 of the weights it started from.
        base_name: id of the model it started from.
        method: what ``tanzim.json`` says of how it was trained.

    """
    with new_folder(folder) as temporary:
        model.save_pretrained(str(temporary))
        _write_record(temporary, base_hash, base_name, method)


def load_adapter(
    model: PreTrainedModel | peft.PeftModel, folder: Path, *, name: str, base_hash: str
) -> PreTrainedModel | peft.PeftModel:
    """Put the adapter in ``folder`` on ``model``, frozen, under ``name``, and make it the active one.

    An adapter of our own kinds changes ``model`` itself, for good; it needs a model without adapters.

    Args:
        model: the base model, or one that carries adapters already.
        folder: what `save_adapter` or `save_own` wrote.
        name: the adapter's name; letters, digits, - and _.
        base_hash: SHA-256 of the weights ``model`` was loaded from.

    Returns:
        The model with its adapters.

    Raises:
        ModelError: this is no adapter, it is damaged, or the name is taken.
        WrongBaseError: it was made for other base weights, or does not say for which.

    """
    if own_type(folder) is not None:
        if isinstance(model, peft.PeftModel):
            raise ModelError("the model carries another adapter already", where=str(folder))
        for change in read_own(folder, base_hash=base_hash).changes(model):
            change.swap()
        return model
    check_base(folder, base_hash)
    check_form(model, folder)
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    # Which base it is has been checked by hash; peft would compare names.
    config.base_model_name_or_path = None
    tensors = read_tensors(folder / WEIGHTS)
    if isinstance(model, peft.PeftModel):
        if name in model.peft_config:
            raise ModelError(f"an adapter named '{name}' is loaded already", fix="choose another name")
        if config.peft_type != model.peft_type:
            raise ModelError(
                f"an adapter of the kind {config.peft_type} cannot stand beside one of the kind "
                f"{model.peft_type}",
                where=str(folder),
                fix="load it on the base alone",
            )
        model.add_adapter(name, config)
        adapted = model
    else:
        adapted = wrap(model, config, name)
    _fill(adapted, tensors, name, folder)
    if config.is_prompt_learning:
        adapted.prompt_encoder.requires_grad_(False)
    adapted.set_adapter(name, inference_mode=True)
    fuse(adapted)
    return adapted


def read_own(folder: Path, *, base_hash: str) -> OwnAdapter:
    """Read an adapter of our own kinds.

    Args:
        folder: what `save_own` wrote.
        base_hash: SHA-256 of the weights of the model that it is for.

    Raises:
        ModelError: it is damaged.
        WrongBaseError: it was made for other base weights.

    """
    from tanzim.adapters.own import OwnAdapter  # it builds on saving

    check_base(folder, base_hash)
    return OwnAdapter(read_record(folder)["method"], read_tensors(folder / WEIGHTS), folder)


def check_form(model: Any, folder: Path) -> None:  # noqa: ANN401 - any transformers model
    """Refuse an adapter that was trained on its base in 4 bits where the base is loaded in full.

    Raises:
        WrongBaseError: it belongs to the base in the other form.

    """
    method = read_record(folder).get("method") or {}
    if method.get("type") == "qlora" and not getattr(model, "is_loaded_in_4bit", False):
        raise WrongBaseError(
            "this adapter was trained on its base in 4 bits, and the base is loaded in full",
            where=str(folder),
            fix="open it alone: tanzim then loads the base in 4 bits",
        )


def _write_record(folder: Path, base_hash: str, base_name: str, method: Json | None = None) -> None:
    record: Json = {"base": base_name, "base_hash": base_hash}
    write_json(folder / RECORD, record | ({"method": method} if method else {}))


def _state(model: peft.PeftModel, name: str) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # AdaLoRA may leave a layer no rank at all, which peft takes for a broken shard.
        warnings.filterwarnings("ignore", message=r"Adapter .* LoRA tensor\(s\) have invalid shape")
        state: dict[str, Tensor] = get_peft_model_state_dict(
            model, adapter_name=name, save_embedding_layers=False
        )
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ModelError: it is damaged.

    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ModelError(f"the adapter's weights are damaged: {error}", where=str(path)) from error


def _fill(model: peft.PeftModel, tensors: dict[str, Tensor], name: str, folder: Path) -> None:
    """Copy the tensors into the model's adapter; every one must find its place, and none may lack."""
    expected = {key: tuple(value.shape) for key, value in _state(model, name).items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        key = wrong[0]
        raise ModelError(
            f"{len(wrong)} tensors do not fit, the first: {key} is {found.get(key)} in the file and "
            f"{expected.get(key)} in the model",
            where=str(folder),
        )
    set_peft_model_state_dict(model, tensors, adapter_name=name)
