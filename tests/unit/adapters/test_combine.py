"""Combining LoRA adapters, against peft's own ``add_weighted_adapter`` in every mode, and closed forms."""

import json
import warnings

import peft
import pytest
import torch
from adapter_folders import IDS, fill, save, tiny, wrapped
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file

from tanzim.adapters.combine import combine
from tanzim.adapters.lora_files import read_lora
from tanzim.adapters.recipe import MODES, Recipe, make_recipes
from tanzim.core.errors import ConfigError, ModelError, WrongBaseError
from tanzim.core.seeds import derive

EQUAL_RANKS = [mode for mode in MODES if mode not in ("cat", "svd")]


def load(folders):
    """Load adapters a, b, c… side by side with plain peft."""
    model = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        for name, folder in zip("abc", folders, strict=False):
            if model is None:
                model = peft.PeftModel.from_pretrained(tiny(), str(folder), adapter_name=name)
            else:
                model.load_adapter(str(folder), adapter_name=name)
    return model.eval()


def deltas(model, name):
    """Return each layer's update, as peft computes it."""
    return {
        path.removeprefix("base_model.model."): layer.get_delta_weight(name)
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer) and name in layer.lora_A
    }


def by_peft(folders, recipe, monkeypatch=None):
    """Combine with peft; where it draws at random, from our seeds."""
    model = load(folders)
    lora = model.base_model
    if recipe.mode.startswith("dare"):
        paths = {id(layer): path for path, layer in lora.model.named_modules()}
        for method in (
            "_generalized_task_arithmetic_weighted_adapter",
            "_svd_generalized_task_arithmetic_weighted_adapter",
        ):
            original = getattr(lora, method)

            def seeded(*args, original=original, **more):
                target = next(arg for arg in args if isinstance(arg, LoraLayer))
                torch.manual_seed(derive(recipe.seed, "combine", paths[id(target)]))
                return original(*args, **more)

            monkeypatch.setattr(lora, method, seeded)
    model.add_weighted_adapter(
        list("abc"[: len(folders)]),
        list(recipe.weights),
        "all",
        combination_type=recipe.mode,
        density=recipe.density,
        svd_rank=recipe.rank,
    )
    return model


def check(folders, out, recipe, monkeypatch=None):
    """Our result, read by plain peft, is what peft makes: every layer's update, and the model's answers."""
    combine(folders, out, recipe)
    theirs, ours = by_peft(folders, recipe, monkeypatch), load([out])
    want, got = deltas(theirs, "all"), deltas(ours, "a")
    assert got.keys() == want.keys()
    for path, value in want.items():
        torch.testing.assert_close(got[path], value, rtol=1e-4, atol=1e-5)
        assert value.abs().max() > 0.01
    theirs.set_adapter("all")
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-4, atol=1e-4)
    assert read_lora(out).rank == theirs.peft_config["all"].r


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, -0.4, 1.3)])
def test_equal_ranks(mode, weights, tmp_path, monkeypatch):
    folders = [save(tmp_path / str(seed), seed=seed, alpha=4 + seed) for seed in range(3)]
    check(folders, tmp_path / "out", Recipe(mode, weights, density=0.6), monkeypatch)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode == "cat" or mode.endswith("svd")])
def test_other_ranks_alphas_and_layers(mode, tmp_path, monkeypatch):
    folders = [
        save(tmp_path / "1", seed=1, rank=4, targets=["q_proj", "down_proj"]),
        save(tmp_path / "2", seed=2, rank=2, alpha=3, targets=["down_proj", "v_proj"], use_rslora=True),
        save(
            tmp_path / "3",
            seed=3,
            rank=3,
            targets=["q_proj"],
            rank_pattern={"layers.1.self_attn.q_proj": 5},
            alpha_pattern={"layers.1.self_attn.q_proj": 7},
        ),
    ]
    # peft counts a rank of a pattern for every layer; scale and layers are what is compared here.
    recipe = Recipe(mode, (0.5, 1.0, 2.0), density=0.7, rank=None if mode == "cat" else 5)
    check(folders, tmp_path / "out", recipe, monkeypatch)


@pytest.mark.parametrize("mode", EQUAL_RANKS)
def test_other_layers(mode, tmp_path, monkeypatch):
    folders = [
        save(tmp_path / "1", seed=1, targets=["q_proj", "down_proj"]),
        save(tmp_path / "2", seed=2, targets=["down_proj", "v_proj"]),
    ]
    check(folders, tmp_path / "out", Recipe(mode, (0.5, 1.0)), monkeypatch)


def test_layers_chosen_by_number_or_pattern_are_named_one_by_one(tmp_path):
    folders = [
        save(tmp_path / "1", seed=1, layers_to_transform=[1]),
        save(tmp_path / "2", seed=2, targets=["q_proj"]),
    ]
    combine(folders, tmp_path / "out", Recipe("cat", (1, 1)))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]
    parts = load(folders)
    one, two = deltas(parts, "a"), deltas(parts, "b")
    for path, value in deltas(load([tmp_path / "out"]), "a").items():
        want = sum(some[path] for some in (one, two) if path in some)
        torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)


def test_concatenation_is_the_exact_sum_and_ranks_add(tmp_path):
    folders = [save(tmp_path / "1", seed=1, rank=3), save(tmp_path / "2", seed=2, rank=2)]
    assert combine(folders, tmp_path / "out", Recipe("cat", (2, 0.5))) == 5
    parts = load(folders)
    one, two = deltas(parts, "a"), deltas(parts, "b")
    for path, value in deltas(load([tmp_path / "out"]), "a").items():
        torch.testing.assert_close(value, 2 * one[path] + 0.5 * two[path], rtol=1e-5, atol=1e-6)


def test_svd_is_as_near_as_its_rank_allows(tmp_path):
    folders = [save(tmp_path / str(seed), seed=seed) for seed in range(2)]
    combine(folders, tmp_path / "whole", Recipe("cat", (1, 1)))
    combine(folders, tmp_path / "out", Recipe("svd", (1, 1), rank=3))
    whole, near = (deltas(load([tmp_path / name]), "a") for name in ("whole", "out"))
    for path, value in whole.items():
        rest = torch.linalg.svdvals(value)[3:]  # Eckart and Young: the error is what is left out
        torch.testing.assert_close((value - near[path]).norm(), rest.norm(), rtol=1e-4, atol=1e-5)
    combine(folders, tmp_path / "full", Recipe("svd", (1, 1), rank=12))
    for path, value in deltas(load([tmp_path / "full"]), "a").items():
        torch.testing.assert_close(value, whole[path], rtol=1e-4, atol=1e-5)


def test_dare_keeps_the_expectation_and_its_seed(tmp_path):
    folders = [save(tmp_path / str(seed), seed=seed, targets=["q_proj"]) for seed in range(2)]
    combine(folders, tmp_path / "sum", Recipe("cat", (1, 0.5)))
    layer = "model.layers.0.self_attn.q_proj"

    def drawn(seed, density=0.8):
        recipe = Recipe("dare_linear_svd", (1, 0.5), density=density, rank=16, seed=seed)
        combine(folders, tmp_path / "out", recipe)
        factors = read_lora(tmp_path / "out").layers[layer]
        return factors.b_OR @ factors.a_RI

    whole = read_lora(tmp_path / "sum").layers[layer]
    want = whole.b_OR @ whole.a_RI
    parts = [read_lora(folder).layers[layer] for folder in folders]
    several = torch.stack([drawn(seed) for seed in range(60)])
    # Each number is x/d with probability d: its variance is x²(1-d)/d, of a mean over n draws that / n.
    spread = sum((w * one.scale * (one.b_OR @ one.a_RI)) ** 2 for w, one in zip((1, 0.5), parts, strict=True))
    sigma = (spread * 0.2 / 0.8 / len(several)).sqrt() + 1e-6
    assert ((several.mean(0) - want) / sigma).abs().max() < 5
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    torch.testing.assert_close(drawn(3, density=1), want, rtol=1e-4, atol=1e-5)


def test_ties_by_hand(tmp_path):
    folders = [save(tmp_path / str(seed), rank=1, alpha=1, targets=["q_proj"]) for seed in range(2)]
    a_rows = ([5.0, -4.0, 3.0, 0.1] + [0.0] * 12, [-1.0, -6.0, 2.0, 9.0] + [0.0] * 12)
    for folder, row in zip(folders, a_rows, strict=True):
        tensors = load_file(folder / "adapter_model.safetensors")
        for key, value in tensors.items():
            value.copy_(torch.tensor(row)[None] if "lora_A" in key else torch.ones_like(value))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    combine(folders, tmp_path / "out", Recipe("ties", (1, 1), density=0.1875))
    factors = read_lora(tmp_path / "out").layers["model.layers.1.self_attn.q_proj"]
    # The 3 largest of 16 stay: (5, -4, 3, 0) and (0, -6, 2→3rd, 9); the mean is over those that agree.
    want = torch.tensor([5.0, -5.0, 2.5, 9.0])
    torch.testing.assert_close(factors.a_RI[0, :4], want)
    assert not factors.a_RI[0, 4:].any()


def test_the_result_says_what_it_was_made_of(tmp_path):
    folders = [save(tmp_path / str(seed), seed=seed) for seed in range(2)]
    combine(folders, tmp_path / "out", Recipe("dare_ties", (1, 0.5), density=0.3, seed=4))
    record = json.loads((tmp_path / "out" / "tanzim.json").read_text())
    assert record["base"] == "tiny/base"
    assert record["base_hash"] == "a" * 64
    assert record["made"] == {
        "combined": "dare_ties",
        "weights": [1, 0.5],
        "density": 0.3,
        "seed": 4,
        "adapters": [str(folder) for folder in folders],
    }


def test_svd_above_rank_100_is_warned_of_before_it_begins(tmp_path):
    folders = [save(tmp_path / str(seed), seed=seed, rank=101, targets=["q_proj"]) for seed in range(2)]
    said = []
    combine(
        folders, tmp_path / "out", Recipe("svd", (1, 1), rank=4), say=said.append, progress=lambda *a: said
    )
    assert len(said) == 1
    assert "SVD above rank 100 (here 101, 101 → 4)" in said[0]
    combine(folders, tmp_path / "out", Recipe("linear", (1, 1)), say=said.append)
    combine([save(tmp_path / "low")] * 2, tmp_path / "out", Recipe("svd", (1, 1)), say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("mode", EQUAL_RANKS)
def test_ranks_that_cannot_be_added_are_refused(mode, tmp_path):
    folders = [save(tmp_path / "1", rank=4), save(tmp_path / "2", rank=2)]
    if mode.endswith("svd"):
        assert combine(folders, tmp_path / "out", Recipe(mode, (1, 1))) == 4
        return
    with pytest.raises(ModelError, match=r"ranks must be equal; .*q_proj' has 4 and 2"):
        combine(folders, tmp_path / "out", Recipe(mode, (1, 1)))
    assert not (tmp_path / "out").exists()


def _break_base(folder):
    (folder / "tanzim.json").write_text(json.dumps({"base": "other/base", "base_hash": "b" * 64}))


def _break_numbers(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, folder / "adapter_model.safetensors")


def _drop(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(next(key for key in tensors if "lora_B" in key))
    save_file(tensors, folder / "adapter_model.safetensors")


def _set(**values):
    def change(folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **values}))

    return change


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (_break_base, WrongBaseError, "'tiny/base' aaaaaaaaaaaa… and 'other/base' bbbbbbbbbbbb…"),
        (_break_numbers, ModelError, "NaN or infinity"),
        (_drop, ModelError, "has no factor B"),
        (_set(use_dora=True), ModelError, "use_dora=True"),
        (_set(bias="all"), ModelError, "bias=all"),
        (_set(modules_to_save=["lm_head"]), ModelError, "modules_to_save"),
        (_set(peft_type="IA3"), ModelError, "peft_type IA3"),
        (_set(init_lora_weights="pissa"), ModelError, "pissa, which changes the base's own weights"),
        (_set(r=7), ModelError, "have rank 4, adapter_config.json says 7"),
        (_set(lora_alpha=float("nan")), ModelError, "lora_alpha of .* is nan"),
        (_set(fan_in_fan_out=True), ModelError, "disagree on fan_in_fan_out"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x"), ModelError, "damaged"),
        (lambda f: (f / "tanzim.json").unlink(), WrongBaseError, "does not say which base"),
    ],
)
def test_what_cannot_be_combined_is_refused(change, error, words, tmp_path):
    folders = [save(tmp_path / str(seed), seed=seed) for seed in range(2)]
    change(folders[1])
    with pytest.raises(error, match=words):
        combine(folders, tmp_path / "out", Recipe("cat", (1, 1)))
    assert not (tmp_path / "out").exists()


def test_an_adapted_embedding_is_refused(tmp_path):
    model = wrapped(peft.LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]))
    fill(model, 0)
    model.save_pretrained(str(tmp_path / "one"), save_embedding_layers=False)
    (tmp_path / "one" / "tanzim.json").write_text(json.dumps({"base": "tiny/base", "base_hash": "a" * 64}))
    with pytest.raises(ModelError, match=r"lora_embedding_A.*no LoRA factor of a linear layer"):
        combine([tmp_path / "one"], tmp_path / "out", Recipe("cat", (1,)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "sum"}, "no way 'sum'"),
        ({"weights": ()}, "weights"),
        ({"weights": (0, 0)}, "not all zero"),
        ({"weights": (1, float("nan"))}, "finite"),
        ({"density": 0}, "density must be above 0"),
        ({"density": 1.5}, "at most 1"),
        ({"rank": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense(values, words):
    with pytest.raises(ConfigError, match=words):
        Recipe(**{"mode": "cat", "weights": (1, 1), **values})


def test_weights_and_rank_must_fit(tmp_path):
    folders = [save(tmp_path / str(seed), seed=seed) for seed in range(2)]
    with pytest.raises(ConfigError, match="1 weights for 2 adapters"):
        combine(folders, tmp_path / "out", Recipe("cat", (1,)))
    with pytest.raises(ConfigError, match="'cat' decides the rank itself"):
        combine(folders, tmp_path / "out", Recipe("cat", (1, 1), rank=3))


def test_every_mode_with_every_set_of_weights():
    recipes = make_recipes(["cat", "ties_svd"], [(1, 2), (3, 4)], density=0.2, rank=7, seed=5)
    assert recipes == [
        Recipe("cat", (1, 2), 0.2, None, 5),
        Recipe("cat", (3, 4), 0.2, None, 5),
        Recipe("ties_svd", (1, 2), 0.2, 7, 5),
        Recipe("ties_svd", (3, 4), 0.2, 7, 5),
    ]
