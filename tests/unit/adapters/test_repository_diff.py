"""Distances between adapters, against the matrices peft makes of them."""

import peft
import pytest
import torch
from adapter_folders import HASH, fill, save, wrapped
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file

from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_diff import compare
from tanzim.adapters.repository_state import Facts


@pytest.fixture
def diff(tmp_path):
    repository = Repository(tmp_path / "repository")

    def between(one, two, *facts):
        facts = facts or (Facts("a", "t"), Facts("a", "t"))
        entries = [repository.add(folder, fact) for folder, fact in zip((one, two), facts, strict=True)]
        return compare(entries[0], one, entries[1], two)

    return between


def updates(folder):
    model = peft.PeftModel.from_pretrained(wrapped(peft.LoraConfig(r=1)).unload(), str(folder))
    return {
        path.removeprefix("base_model.model."): layer.get_delta_weight("default").double()
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_plain_lora_is_compared_by_what_it_does(tmp_path, diff):
    one = save(tmp_path / "1", seed=1, rank=4, targets=["q_proj", "v_proj"])
    two = save(tmp_path / "2", seed=2, rank=3, alpha=5, targets=["q_proj", "down_proj"], use_rslora=True)
    left, right = updates(one), updates(two)
    found = {module.module: module for module in diff(one, two).modules}
    assert found.keys() == left.keys() | right.keys()
    for path, module in found.items():
        a, b = left.get(path), right.get(path)
        assert module.one == (None if a is None else pytest.approx(a.norm().item(), rel=1e-5))
        assert module.two == (None if b is None else pytest.approx(b.norm().item(), rel=1e-5))
        if a is None or b is None:
            assert module.distance is module.cosine is None
            continue
        want = (a - b).norm() / max(a.norm(), b.norm())
        assert module.distance == pytest.approx(want.item(), rel=1e-5)
        cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
        assert module.cosine == pytest.approx(cosine.item(), abs=1e-6)


def test_other_factors_of_the_same_update_are_no_distance(tmp_path, diff):
    from safetensors.torch import save_file

    one, two = save(tmp_path / "1", seed=1), save(tmp_path / "2", seed=1)
    tensors = load_file(two / "adapter_model.safetensors")
    for key, value in tensors.items():
        value.mul_(4.0 if "lora_A" in key else 0.25)
    save_file(tensors, two / "adapter_model.safetensors")
    for module in diff(one, two).modules:
        assert module.distance == pytest.approx(0, abs=1e-6)
        assert module.cosine == pytest.approx(1)


def test_other_kinds_are_compared_tensor_by_tensor(tmp_path, diff):
    folders = []
    for seed in range(2):
        model = wrapped(
            peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
        )
        fill(model, seed)
        folder = tmp_path / str(seed)
        model.save_pretrained(str(folder))
        (folder / "tanzim.json").write_text(f'{{"base": "tiny", "base_hash": "{HASH}"}}')
        folders.append(folder)
    left, right = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    found = diff(*folders).modules
    assert [module.module for module in found] == sorted(left)
    for module in found:
        a, b = left[module.module].double(), right[module.module].double()
        assert module.distance == pytest.approx(((a - b).norm() / max(a.norm(), b.norm())).item(), rel=1e-6)
    dora = save(tmp_path / "dora", use_dora=True), save(tmp_path / "dora2", seed=4, use_dora=True)
    assert any("magnitude" in module.module for module in diff(*dora).modules)


def test_settings_facts_and_scores(tmp_path, diff):
    one, two = save(tmp_path / "1", rank=4), save(tmp_path / "2", rank=2, base_hash="b" * 64)
    found = diff(
        one,
        two,
        Facts("a", "t", data={"train": "1" * 64}, scores={"t": {"loss": 1.5, "chrf": 0.4}}),
        Facts("b", "u", data={"train": "2" * 64}, scores={"t": {"loss": 1.25}, "u": {"loss": 2.0}}),
    )
    assert found.config == {"r": (4, 2)}
    assert found.facts == {
        "base": ("tiny/base aaaaaaaaaaaa", "tiny/base bbbbbbbbbbbb"),
        "task": ("t", "u"),
        "data.train": ("1" * 12, "2" * 12),
    }
    assert found.scores == {"t": {"loss": (1.5, 1.25), "chrf": (0.4, None)}, "u": {"loss": (None, 2.0)}}
