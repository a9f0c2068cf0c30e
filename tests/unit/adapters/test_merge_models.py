"""Merging whole models, against closed forms and against transformers reading the result."""

import json
import math
import subprocess
import sys

import pytest
import torch
import transformers as tf
from adapter_folders import IDS, tiny
from safetensors.torch import load_file, save_file

from tanzim.adapters.merge_models import MergePlan, merge_models
from tanzim.core.errors import ConfigError, ModelError


def model(seed, **more):
    made = tiny(**more)
    generator = torch.Generator().manual_seed(seed)
    for value in made.parameters():
        value.data.normal_(0, 0.3, generator=generator)
    return made


def tokenizer(*more):
    vocabulary = {word: number for number, word in enumerate(["<s>", "a", "b", *more])}
    return json.dumps({"model": {"type": "WordLevel", "vocab": vocabulary}, "added_tokens": []})


@pytest.fixture
def folders(tmp_path):
    """Three models of one architecture, in shards that do not fall in the same places."""
    made = []
    for seed, size in enumerate(("5KB", "5KB", "1MB")):
        folder = tmp_path / f"model{seed}"
        model(seed).save_pretrained(folder, max_shard_size=size)
        (folder / "tokenizer.json").write_text(tokenizer())
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        made.append(folder)
    assert len(list(made[0].glob("*.safetensors"))) > 2
    assert len(list(made[2].glob("*.safetensors"))) == 1
    return made


def weights(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(load_file(file))
    return {name: tensor.double() for name, tensor in found.items()}


def expect(folder, want):
    got = weights(folder)
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value.float().double(), rtol=2e-7, atol=1e-9)


def test_linear(folders, tmp_path):
    a, b, c = map(weights, folders)
    count = merge_models(folders, tmp_path / "out", MergePlan("linear", (1, 2, 1)))
    assert count == len(a)
    expect(tmp_path / "out", {name: (a[name] + 2 * b[name] + c[name]) / 4 for name in a})
    merge_models(folders[:2], tmp_path / "out", MergePlan("linear", (3, 0)))
    expect(tmp_path / "out", a)


def test_task_arithmetic(folders, tmp_path):
    base, b, c = map(weights, folders)
    plan = MergePlan("task_arithmetic", (0.5, -1))
    merge_models(folders[1:], tmp_path / "out", plan, base=folders[0])
    want = {n: base[n] + 0.5 * (b[n] - base[n]) - (c[n] - base[n]) for n in base}
    expect(tmp_path / "out", want)
    merge_models([folders[1]], tmp_path / "out", MergePlan("task_arithmetic", (1,)), base=folders[0])
    expect(tmp_path / "out", b)


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_slerp(folders, tmp_path, t):
    a, b = map(weights, folders[:2])
    merge_models(folders[:2], tmp_path / "out", MergePlan("slerp", (t,)))

    def arc(one, two):
        # In the plane of the two: turn the first direction by t·Ω, lengths as the two coefficients give.
        angle = torch.arccos(torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), dim=0))
        return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)

    expect(tmp_path / "out", {name: arc(a[name], b[name]) for name in a})


def test_slerp_keeps_the_length_and_halves_the_angle(tmp_path):
    """Of two unit vectors at a right angle, the middle is the unit vector between them."""
    for name, tensor in (("one", [1.0, 0.0]), ("two", [0.0, 1.0])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        tensors = {"x": torch.tensor(tensor), "same": torch.tensor([3.0, 4.0]), "zero": torch.zeros(3)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    merge_models([tmp_path / "one", tmp_path / "two"], tmp_path / "out", MergePlan("slerp", (0.5,)))
    got = load_file(tmp_path / "out" / "model.safetensors")
    torch.testing.assert_close(got["x"], torch.tensor([1, 1]) / math.sqrt(2))
    torch.testing.assert_close(got["same"], torch.tensor([3.0, 4.0]))
    assert not got["zero"].any()


def test_transformers_reads_the_result_and_everything_else_is_there(folders, tmp_path):
    merge_models(folders[:2], tmp_path / "out", MergePlan("linear", (1, 1)), record={"base_hash": "x"})
    merged = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    by_hand = model(0)
    for value, other in zip(by_hand.parameters(), model(1).parameters(), strict=True):
        value.data = (value.data + other.data) / 2
    with torch.no_grad():
        torch.testing.assert_close(merged(IDS).logits, by_hand(IDS).logits, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    record = json.loads((tmp_path / "out" / "tanzim.json").read_text())
    assert record == {"merged": "linear", "weights": [1, 1], "base_hash": "x"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(tmp_path, dtype):
    for seed in range(2):
        model(seed).to(dtype).save_pretrained(tmp_path / str(seed))
    merge_models([tmp_path / "0", tmp_path / "1"], tmp_path / "out", MergePlan("linear", (1, 3)))
    a, b, got = (load_file(tmp_path / name / "model.safetensors") for name in ("0", "1", "out"))
    for name, value in got.items():
        assert value.dtype == dtype
        assert torch.equal(value, ((a[name].double() + 3 * b[name].double()) / 4).to(dtype))


def test_memory_is_that_of_a_tensor_not_of_a_model(tmp_path):
    """Two models of 160 MB in forty tensors merge within what a few tensors take."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        tensors = {f"layer{n}": torch.full((1_000_000,), float(n)) for n in range(40)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    del tensors
    code = (
        "from pathlib import Path\n"
        "from tanzim.adapters.merge_models import MergePlan, merge_models\n"
        "def anonymous():\n"
        "    return int(next(l for l in open('/proc/self/status') if l.startswith('RssAnon')).split()[1])\n"
        "before, peak = anonymous(), 0\n"
        "def watch(done, total, name):\n"
        "    global peak; peak = max(peak, anonymous() - before)\n"
        f"merge_models([Path({str(tmp_path / 'one')!r}), Path({str(tmp_path / 'two')!r})],\n"
        f"             Path({str(tmp_path / 'out')!r}), MergePlan('linear', (1, 1)), progress=watch)\n"
        "print(peak)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) < 80_000  # KiB; the two models and the result are 480,000
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(got[f"layer{n}"], torch.full((1_000_000,), float(n))) for n in range(40))


def _dtype(folder):
    tf.AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)


def _config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))


def _shape(folder):
    model(2, vocab_size=62).save_pretrained(folder)


def _layers(folder):
    model(2, num_hidden_layers=3).save_pretrained(folder)


def _infinite(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_shape, r"differ in name, shape or precision, the first: .* F32 \(61, 16\) and F32 \(62, 16\)"),
        (_layers, r"model.layers.2.* is missing and F32"),
        (_dtype, "is F32 .* and BF16"),
        (_config, "'num_attention_heads' of config.json: 2 and 4"),
        (lambda f: (f / "tokenizer.json").write_text(tokenizer("c")), "vocabularies differ: .*'c'"),
        (_infinite, "holds NaN or infinity in float32"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "not a model folder"),
    ],
)
def test_models_that_do_not_fit_are_refused(folders, tmp_path, change, words):
    change(folders[2])
    with pytest.raises(ModelError, match=words):
        merge_models([folders[0], folders[2]], tmp_path / "out", MergePlan("linear", (1, 1)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("way", "weights", "words"),
    [
        ("average", (1, 1), "no way 'average'"),
        ("linear", (1, -1), "sum to zero"),
        ("linear", (), "finite numbers"),
        ("linear", (1, math.nan), "finite numbers"),
        ("slerp", (0.5, 0.5), "one weight from 0"),
        ("slerp", (1.5,), "one weight from 0"),
    ],
)
def test_settings_that_make_no_sense(way, weights, words):
    with pytest.raises(ConfigError, match=words):
        MergePlan(way, weights)


def test_the_number_of_models_must_fit(folders, tmp_path):
    for models, plan, base, words in (
        (folders, MergePlan("linear", (1, 1)), None, "3 models, but the weights"),
        (folders[:1], MergePlan("slerp", (0.5,)), None, "1 models, but the weights"),
        (folders[:1], MergePlan("linear", (1,)), None, "one model alone"),
        (folders[:1], MergePlan("task_arithmetic", (1,)), None, "needs the base"),
        (folders[:2], MergePlan("linear", (1, 1)), folders[2], "has no base"),
    ):
        with pytest.raises(ConfigError, match=words):
            merge_models(models, tmp_path / "out", plan, base=base)
