"""Open a resolved base: its tokenizer, and its model with our attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto import modeling_auto as auto

from tanzim.core.errors import MissingExtra, ModelError
from tanzim.core.files import read_json
from tanzim.core.seeds import derive
from tanzim.models.config import ModelConfig
from tanzim.models.integers import quantise
from tanzim.models.kernels.attention import ATTENTION, register
from tanzim.models.quantised import keep_exact, loading, spare_memory
from tanzim.models.quiet import quiet
from tanzim.models.resolve import Base

# The first CUDA compute capability that computes in bfloat16 (Ampere).
BF16_CAPABILITY = (8, 0)

Kind = Literal["causal", "sequence_classification", "token_classification", "encoder", "seq2seq"]
# The class that loads each kind, the architectures it knows, and what the kind is called.
_KINDS: dict[Kind, tuple[Any, Any, str]] = {
    "causal": (AutoModelForCausalLM, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "a causal language model"),
    "sequence_classification": (
        AutoModelForSequenceClassification,
        auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "a model that can classify texts",
    ),
    "token_classification": (
        AutoModelForTokenClassification,
        auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        "a model that can classify tokens",
    ),
    "encoder": (AutoModel, auto.MODEL_MAPPING_NAMES, "a model that transformers knows"),
    "seq2seq": (
        AutoModelForSeq2SeqLM,
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "an encoder-decoder model",
    ),
}
HEADED = ("sequence_classification", "token_classification")
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)


def pick_device(config: ModelConfig) -> torch.device:
    """Return the device to compute on; ``auto`` takes CUDA if it is there, else the CPU.

    Raises:
        ModelError: the config asks for a device that is not there.

    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if config.device == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[config.device]:
        raise ModelError(
            f"model.device is {config.device}, but PyTorch finds no such device",
            fix="set model.device to auto; `tanzim doctor` says why",
        )
    return torch.device(config.device)


def pick_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """Return the precision of the base weights; ``auto`` takes bfloat16 where CUDA computes in it."""
    if config.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[config.dtype]
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY:
        return torch.bfloat16
    return torch.float32


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base.

    Raises:
        ModelError: there is none, it needs code of its own, or it cannot say which characters a
            token covers (a slow tokenizer).

    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                base.path, local_files_only=True, trust_remote_code=False
            )
    except _UNREADABLE as error:
        raise _unreadable("tokenizer", base, error) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer ({type(tokenizer).__name__}) cannot say which characters a token covers",
            where=str(base.path),
            fix="the model needs a tokenizer.json",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_model(
    base: Base,
    *,
    dtype: torch.dtype,
    device: torch.device,
    kind: Kind = "causal",
    labels: Sequence[str] = (),
    seed: int = 0,
) -> PreTrainedModel:
    """Load a base with our attention, in evaluation mode.

    The names of modules that the base has no weights for (a new head) stand in the model's
    ``new_modules``; they are kept in float32, since they are trained.

    Args:
        base: what `resolve` returned; its ``quantised`` says in which form the weights are kept.
        dtype: precision of the weights.
        device: where they go.
        kind: what the model is to do.
        labels: the classes of a classification head, in order.
        seed: a new head is drawn from the seed derived as "head".

    Raises:
        ModelError: it is not of that kind, weights are missing, damaged or of the wrong shape, or they
            do not fit into the device's memory.

    """
    register()
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "head"))
            config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
            _check_kind(config, base, kind)
            if kind in HEADED:
                config.id2label = dict(enumerate(labels))
                config.label2id = {label: index for index, label in enumerate(labels)}
                config.problem_type = "single_label_classification"
            loaded: Any = _KINDS[kind][0].from_pretrained(
                base.path,
                config=config,
                dtype=dtype,
                attn_implementation=_attention(kind),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they come back in the report, with their names
                **loading(base.quantised, dtype=dtype, device=device),
            )
    except (ModelError, MissingExtra):
        raise
    except _UNREADABLE as error:
        raise _unreadable("model", base, error) from error
    model: Any = loaded[0]
    poolers = _missing_poolers(loaded[1]) if kind != "causal" else ()
    model.new_modules = (*_head(model), *poolers) if kind in HEADED else ()
    _check_complete(loaded[1], base, (*model.new_modules, *poolers))
    for name in model.new_modules:
        model.get_submodule(name).float()
    try:
        if base.quantised is not None and base.quantised.integer is not None:
            quantise(model, base.quantised.integer)
        elif base.quantised is not None:
            keep_exact(model)
        if base.quantised is None or base.quantised.integer is not None:
            model.to(device)
        if base.quantised is not None:
            spare_memory(model)
    except torch.OutOfMemoryError as error:
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        raise ModelError(
            f"the weights ({size / 2**30:.1f} GiB) do not fit into the memory of {device}",
            where=base.name,
            fix="use a smaller model, or model.dtype: bfloat16",
        ) from error
    model.eval()
    return cast("PreTrainedModel", model)


def base_kind(base: Base) -> Kind:
    """Tell which kind of model writes text with a base: an encoder-decoder or a causal one."""
    config = base.path / "config.json"
    return "seq2seq" if config.is_file() and read_json(config).get("is_encoder_decoder") else "causal"


def check_kind(base: Base, kind: Kind) -> None:
    """Refuse a base that cannot do what is wanted, by its config alone.

    Raises:
        ModelError: it is not of that kind, or its config cannot be read.

    """
    try:
        config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    except _UNREADABLE as error:
        raise _unreadable("model", base, error) from error
    _check_kind(config, base, kind)


def _attention(kind: Kind) -> str:
    """Return the attention to compute with: T5 adds a bias to its scores, which ours does not know."""
    return "sdpa" if kind == "seq2seq" else ATTENTION


def _check_kind(config: PreTrainedConfig, base: Base, kind: Kind) -> None:
    """Refuse an architecture without such a class, and what would become a generator of random words."""
    _, names, wanted = _KINDS[kind]
    named = config.architectures or []
    if not (is_causal(config) if kind == "causal" else config.model_type in names):
        fix = {
            "causal": "use a model that generates text, such as smollm2-135m-instruct"
            if not config.is_encoder_decoder
            else "train.objective.type=seq2seq trains models of this shape",
            "seq2seq": "use a T5- or BART-shaped model",
        }
        raise ModelError(
            f"this is not {wanted} (it is {', '.join(named) or config.model_type})",
            where=base.name,
            fix=fix.get(kind, "use a model of the BERT or Llama family"),
        )


def positions(base: Base, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return how many tokens the positions of a base reach, by its config and its tokenizer, if they say."""
    config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    reach = getattr(config.get_text_config(), "max_position_embeddings", None)
    if reach and "roberta" in config.model_type:  # whose positions begin after the padding's
        reach -= config.pad_token_id + 1
    known = [int(limit) for limit in (reach, tokenizer.model_max_length) if limit]
    return min(known, default=None)


def is_causal(config: PreTrainedConfig) -> bool:
    """Tell a causal language model, whose head has weights, by its config."""
    names, named = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, config.architectures or []
    known = not named or bool(set(names.values()).intersection(named))
    return config.model_type in names and known


def _head(model: Any) -> tuple[str, ...]:  # noqa: ANN401 - any transformers model
    """Name the modules with weights that stand beside the base."""
    children = [(name, child) for name, child in model.named_children() if name != model.base_model_prefix]
    return tuple(name for name, child in children if next(child.parameters(), None) is not None)


def _missing_poolers(report: dict[str, Any]) -> tuple[str, ...]:
    """Name the poolers without weights: a model trained on masked words alone has none."""
    missing = [f".{name}" for name in report.get("missing_keys") or () if "pooler." in str(name)]
    return tuple(dict.fromkeys(f"{name.partition('.pooler.')[0]}.pooler"[1:] for name in missing))


def _check_complete(report: dict[str, Any], base: Base, new: Sequence[str] = ()) -> None:
    """Refuse weights that transformers would have filled up with random numbers, but for ``new`` modules."""
    for key, word in (("missing_keys", "missing"), ("mismatched_keys", "of another shape")):
        found = report.get(key) or ()
        names = sorted(name if isinstance(name, str) else str(name[0]) for name in found)
        names = [name for name in names if not name.startswith(tuple(f"{module}." for module in new))]
        if names:
            raise ModelError(
                f"{len(names)} weights are {word}, such as {names[0]}",
                where=str(base.path),
                fix="the files do not belong to this config.json; download the model again",
            )


def _unreadable(part: str, base: Base, error: BaseException) -> ModelError:
    text = str(error)
    line = (text.strip().splitlines() or [type(error).__name__])[0]
    if "trust_remote_code" in text:
        return ModelError(
            f"the {part} brings code of its own, which is never run here (trust_remote_code is off)",
            where=str(base.path),
            fix="use a model that is part of transformers",
        )
    return ModelError(f"the {part} cannot be loaded: {line}", where=str(base.path))


def blank_model(
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    kind: Kind = "causal",
    labels: int = 0,
    layers: int | None = None,
    vocabulary: int | None = None,
) -> PreTrainedModel:
    """Make a model of the architecture in ``path`` with random weights, and fewer layers and words if asked.

    Args:
        path: folder with ``config.json``; weights are not read.
        dtype: precision of the weights.
        device: where they go; ``meta`` takes no memory.
        kind: what the model is to do.
        labels: classes of a classification head.
        layers: how many (of an encoder-decoder: in each half); None for all.
        vocabulary: how many tokens; None for all.

    """
    register()
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        _shrink(part, layers, vocabulary)
    if kind in HEADED:
        config.num_labels = labels
    with quiet(), torch.random.fork_rng(devices=[]), torch.device(device):
        model: Any = _KINDS[kind][0].from_config(config, dtype=dtype, attn_implementation=_attention(kind))
    model.new_modules = _head(model) if kind in HEADED else ()
    return cast("PreTrainedModel", model.eval())


def _shrink(config: Any, layers: int | None, vocabulary: int | None) -> None:  # noqa: ANN401
    if layers is not None:
        for name in ("num_hidden_layers", "num_layers", "num_decoder_layers"):
            if getattr(config, name, None):
                setattr(config, name, layers)
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    if vocabulary is not None:
        config.vocab_size = vocabulary
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            if getattr(config, name, None) is not None:
                setattr(config, name, 0)
