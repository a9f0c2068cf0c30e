"""Adapters of our own kinds leave the house proven: as they are, and merged where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from helpers.own_adapters import KINDS, changed_by_hand, random_adapter
from tanzim.core.errors import DriftError, ModelError, WrongBaseError
from tanzim.export.adapter import plain_model, verify_adapter
from tanzim.export.config import ExportConfig
from tanzim.export.merge import merge
from tanzim.export.verify import observer
from tanzim.models.load import load_model

PROMPTS = [[1, 5, 9, 40, 7], [1, 77, 78], [1, *range(30, 130)]]
CONFIG = ExportConfig(prompts=3, new_tokens=8)


def trained(base: Any, kind: str, folder: Path, **more: Any) -> torch.nn.Module:
    model = load_model(base, dtype=torch.float32, device=torch.device("cpu"))
    return random_adapter(model, kind, folder, base.hash, **more).model.eval()


def settings(base: Any) -> dict[str, Any]:
    return {"base": base, "prompts": PROMPTS, "config": CONFIG, "stop_ids": [2], "decode": str}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_adapter_form_is_proven_and_faults_are_found(
    kind: str, base: Any, make_base: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    watched = observer(trained(base, kind, folder), stop_ids=[2], new_tokens=8)
    parity = verify_adapter(folder, reference=watched, **settings(base))
    assert parity.max_logprob_difference is not None
    assert parity.max_logprob_difference < 1e-3
    assert (parity.texts_equal, parity.top1_agreement) == (3, 1.0)
    with pytest.raises(WrongBaseError):
        verify_adapter(folder, reference=watched, **settings(make_base(tied=False)))
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for value in tensors.values():
        if value.is_floating_point():
            value.mul_(1.2)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DriftError, match="adapter form does not behave"):
        verify_adapter(folder, reference=watched, **settings(base))


@pytest.mark.parametrize("kind", ["bitfit", "spiel"])
def test_merged_weights_are_the_base_and_the_change(
    kind: str, base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    trained(base, kind, tmp_path / "a")
    parity = merge(
        base,
        tmp_path / "a",
        tmp_path / "merged",
        CONFIG,
        PROMPTS,
        tokenizer=tokenizer,
        stop_ids=[2],
        card="# card\n",
    )
    assert parity.texts_equal == 3
    assert parity.details["changed"] == (5 if kind == "bitfit" else 14)
    wanted = changed_by_hand(plain_model(base.path), kind, tmp_path / "a").state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_bottleneck_is_refused_by_name(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    trained(base, "bottleneck", tmp_path / "a")
    with pytest.raises(ModelError, match="a bottleneck adapter cannot be merged"):
        merge(
            base,
            tmp_path / "a",
            tmp_path / "merged",
            CONFIG,
            PROMPTS,
            tokenizer=tokenizer,
            stop_ids=[2],
            card="# card\n",
        )
    assert not (tmp_path / "merged").exists()
