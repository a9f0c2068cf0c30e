"""Merge an adapter into a whole model, and prove on the files that it is the one that was trained.

Shown before the folder gets its name: exactly the adapted weights changed, the precision is the one
asked for, tied embeddings are tied or were untied for a reason, and plain transformers, reading the
files back, gives the logits and the greedy text of base + adapter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tanzim.adapters.effective import effective_weights
from tanzim.adapters.folder import CONFIG, RECORD, WEIGHTS, own_type
from tanzim.adapters.store import load_adapter, read_own
from tanzim.core.errors import DriftError, ModelError
from tanzim.core.files import new_folder, sha256, write_json
from tanzim.core.records import Json
from tanzim.export.adapter import complete, plain_adapter, plain_model
from tanzim.export.config import ExportConfig
from tanzim.export.verify import Observe, Parity, compare, observer
from tanzim.models.hashing import read_header, weight_files
from tanzim.models.load import base_kind, load_model
from tanzim.models.quiet import quiet
from tanzim.models.resolve import Base

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KINDS = {"PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt", "P_TUNING": "p_tuning"}
_STORED = {"F64": "float32", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def merge(
    base: Base,
    adapter: Path,
    out: Path,
    config: ExportConfig,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: Sequence[int],
    card: str,
) -> Parity:
    """Write base + adapter as one model folder (safetensors, config, tokenizer, template, generation config).

    Args:
        base: the base model.
        adapter: the adapter's folder, PEFT layout.
        out: the new model's folder; replaced if it exists, and only if the proof succeeds.
        config: how much is compared, what is tolerated, which precision is written.
        prompts: token ids of the prompts to compare on.
        tokenizer: as it was trained with.
        stop_ids: tokens that end an answer.
        card: the text of ``README.md``.

    Raises:
        DriftError: what was written does not behave as what was trained, or other weights changed.
        ModelError: this is no adapter, or it changes nothing.
        WrongBaseError: the adapter was made for other base weights.

    """
    _check_mergeable(base, adapter)
    reference = _recorded(base, adapter, config, prompts, stop_ids)
    tries = [config.dtype] if config.dtype != "auto" else list(dict.fromkeys([stored(base.path), "float32"]))
    rejected: Json = {}

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids)))

    def attempt(dtype: str) -> Parity:
        with new_folder(out) as folder:
            targets = _write(base, adapter, folder, DTYPES[dtype])
            complete(folder, base=base, tokenizer=tokenizer, stop_ids=stop_ids, card=card)
            merged = plain_model(folder)
            facts = _prove(plain_model(base.path), merged, folder, targets, dtype)
            exported = observer(merged, stop_ids=stop_ids, new_tokens=config.new_tokens)
            parity = compare(reference, exported, prompts, config=config, form="merged", decode=decode)
            parity = replace(parity, details={**facts, "rejected": rejected})
            record = {"base": base.name, "base_hash": base.hash, "adapter_sha256": sha256(adapter / WEIGHTS)}
            write_json(folder / RECORD, {**record, "merged": parity.details})
        return parity

    for dtype in tries[:-1]:
        try:
            return attempt(dtype)
        except DriftError as error:
            rejected[dtype] = error.what
    return attempt(tries[-1])


def stored(folder: Path) -> str:
    """Name the precision that most weights of a model folder are stored in."""
    bytes_by_dtype: Counter[str] = Counter()
    for file in weight_files(folder):
        for entry in read_header(file)[1].values():
            begin, end = entry["data_offsets"]
            bytes_by_dtype[entry["dtype"]] += end - begin
    return _STORED.get(bytes_by_dtype.most_common(1)[0][0], "float32")


def _recorded(
    base: Base,
    adapter: Path,
    config: ExportConfig,
    prompts: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
) -> Observe:
    """Observe base + adapter as this project runs them, then let go of the model."""
    model = load_model(base, dtype=torch.float32, device=torch.device("cpu"), kind=base_kind(base))
    adapted = load_adapter(model, adapter, name="trained", base_hash=base.hash)
    observe = observer(adapted, stop_ids=stop_ids, new_tokens=config.new_tokens)
    seen = {tuple(prompt): observe(prompt) for prompt in prompts[: config.prompts]}
    return lambda prompt: seen[tuple(prompt)]


def _write(base: Base, adapter: Path, folder: Path, dtype: torch.dtype) -> dict[str, bool]:
    """Merge in float32 and write in ``dtype``; return the adapted weights: is each moved at all?"""
    merged, targets = (_own if own_type(adapter) else _peft)(base, adapter)
    with quiet():
        merged.to(dtype).save_pretrained(str(folder))
    return targets


def _peft(base: Base, adapter: Path) -> tuple[Any, dict[str, bool]]:
    """Merge by peft; return the model and its adapted weights."""
    adapted: Any = plain_adapter(base, adapter)
    model: Any = adapted.get_base_model()
    _untie(model)
    targets: dict[str, bool] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            targets |= {f"{name}.{part}": moved for part, moved in _moved(layer).items()}
    if not any(targets.values()):
        raise ModelError(
            f"the adapter changes nothing: all its {len(targets)} weights are the base's",
            where=str(adapter),
            fix="train it first",
        )
    return adapted.merge_and_unload(safe_merge=True), targets


def _own(base: Base, adapter: Path) -> tuple[Any, dict[str, bool]]:
    """Give the weights the values that an adapter of our own kinds has for them."""
    model: Any = plain_model(base.path)
    paths = {id(module): name for name, module in model.named_modules()}
    targets = {}
    for change in read_own(adapter, base_hash=base.hash).changes(model):
        name = f"{paths[id(change.owner)]}.{change.name}".removeprefix(".")
        if isinstance(change.value, nn.Module):
            raise ModelError(
                f"a {own_type(adapter)} adapter cannot be merged: it is no change of weights",
                where=str(adapter),
                fix="export the adapter itself, without --merge",
            )
        before = change.swap().value
        targets[name] = not torch.equal(cast(Tensor, before), change.value)
    if not any(targets.values()):
        raise ModelError(
            f"the adapter changes nothing: all its {len(targets)} weights are the base's",
            where=str(adapter),
            fix="train it first",
        )
    return model, targets


def _moved(layer: Any) -> dict[str, bool]:  # noqa: ANN401 - untyped package
    """Tell of weight and bias of an adapted layer whether the adapter moves them at all."""
    base = layer.get_base_layer()
    weights = effective_weights(layer, layer.active_adapters[0])
    if weights is None:
        raise ModelError(f"layers of the kind {type(layer).__name__} cannot be merged")
    moved = {"weight": not torch.equal(weights[0], base.weight)}
    if weights[1] is not None and weights[1] is not base.bias:
        moved["bias"] = not torch.equal(weights[1], base.bias)
    return moved


def _check_mergeable(base: Base, adapter: Path) -> None:
    """Refuse adapters that are no change of the base's weights.

    Raises:
        ModelError: it is learnt vectors before the text, or belongs to a base in 4 bits.

    """
    if own_type(adapter) is not None or not (adapter / CONFIG).is_file():
        return
    kind = PeftConfig.from_pretrained(str(adapter))
    if kind.is_prompt_learning:
        raise ModelError(
            f"a {KINDS.get(kind.peft_type, kind.peft_type)} adapter cannot be merged: it changes no weight, "
            "it puts learnt vectors before the text",
            where=str(adapter),
            fix="export the adapter itself, without --merge",
        )
    if base.quantised is not None:
        raise ModelError(
            f"an adapter on a base in {base.quantised} cannot be merged: the sum would be rounded to 4 bits "
            "again, and on the full base it is another model",
            where=str(adapter),
            fix="export the adapter itself, without --merge",
        )


def _untie(model: Any) -> None:  # noqa: ANN401 - any causal language model
    """Give the output its own weight where only one of the two tied layers is adapted.

    Merged into the shared weight, the change would reach the other layer, too.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and any(
        isinstance(part, BaseTunerLayer) for part in (head, embedding)
    ):
        layer = getattr(head, "base_layer", head)
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _prove(
    before: PreTrainedModel,
    after: Any,  # noqa: ANN401 - any causal language model
    folder: Path,
    targets: Mapping[str, bool],
    dtype: str,
) -> Json:
    """Check what the files hold: changed weights, precision, tied embeddings.

    Raises:
        DriftError: other weights changed than the adapter's, or some of those did not; the precision
            or the tying is not what ``config.json`` says.

    """
    old, new = before.state_dict(), after.state_dict()
    changed = {name for name in new if not torch.equal(old[name].to(DTYPES[dtype]).float(), new[name])}
    tied = bool(after.config.tie_word_embeddings)
    wanted = {name for name, moved in targets.items() if moved}
    if changed - set(targets) or wanted - changed:
        raise DriftError(
            f"the merge changed {len(changed)} weights, the adapter has {len(wanted)}: "
            f"too many {sorted(changed - set(targets))[:2]}, unchanged {sorted(wanted - changed)[:2]}",
            where=str(folder),
            fix="an update that rounds to nothing needs export.dtype=float32",
        )
    kinds = {e["dtype"] for file in weight_files(folder) for e in read_header(file)[1].values()}
    if {_STORED.get(kind) for kind in kinds} != {dtype}:
        raise DriftError(f"the weights are stored as {sorted(kinds)}, not {dtype}", where=str(folder))
    head, embedding = after.get_output_embeddings(), after.get_input_embeddings()
    if tied != (head.weight is embedding.weight):
        raise DriftError(f"config.json says tie_word_embeddings={tied}, the model has it otherwise")
    return {"dtype": dtype, "weights": len(new), "changed": len(changed), "tied_embeddings": tied}
