"""vLLM's routes for adapters: what may be opened, whose it is, and that it answers as plain peft does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.adapters import generated, save_changed
from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import open_store


@pytest.fixture
def open_to(tmp_path: Path, tiny_model: LlamaForCausalLM) -> Path:
    """A folder with an adapter, and links that lead out of it."""
    folder = tmp_path / "adapters"
    save_changed(tiny_model, folder / "good", 5, type="lora", rank=4, alpha=8)
    save_changed(tiny_model, tmp_path / "secret", 6, type="lora", rank=4, alpha=8)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner").symlink_to(folder / "good")
    (folder / "mixed").mkdir()
    for file in (tmp_path / "secret").iterdir():
        (folder / "mixed" / file.name).symlink_to(file)
    (folder / "junk").mkdir()
    (folder / "junk" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "junk" / "adapter_model.safetensors").write_bytes(b"\x08" + bytes(20))
    return folder


class Admin:
    """An admin of a project, over HTTP."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._headers = url, {"Authorization": f"Bearer {key}"}

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self._url}/v1/{path}", json=body, headers=self._headers, timeout=60)

    def load(self, name: str, path: Path | str) -> httpx.Response:
        return self.post("load_lora_adapter", lora_name=name, lora_path=str(path))

    def models(self) -> list[str]:
        listed = httpx.get(f"{self._url}/v1/models", headers=self._headers).json()["data"]
        return [model["id"] for model in listed]

    def chat(self, model: str) -> httpx.Response:
        asked = [{"role": "user", "content": "hello"}]
        return self.post("chat/completions", model=model, messages=asked, temperature=0, max_tokens=12)


@pytest.fixture
def admins(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, open_to: Path
) -> Iterator[list[Admin]]:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    folder = tmp_path / "server"
    store = open_store(ServeConfig(folder=str(folder)))
    keys = [store.keys.add(project, role="admin", project=project) for project in ("a", "b")]
    bounds: dict[str, Any] = {"require_key": True, "adapter_folders": [str(open_to)]}
    with serving(engine, Lines(tiny_tokenizer), {"tiny": None}, folder, **bounds) as url:
        yield [Admin(url, key) for key in keys]
    store.close()


def test_an_adapter_comes_answers_and_goes(
    admins: list[Admin], open_to: Path, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    one, other = admins
    loaded = one.load("fine", open_to / "good")
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'fine' added successfully.")
    prompt = tiny_tokenizer.encode("user:hello\n>", add_special_tokens=False)
    ids = generated(tiny_model, open_to / "good", prompt, 12)
    ids = ids[: ids.index(2)] if 2 in ids else ids
    text = tiny_tokenizer.decode(ids).rstrip("\ufffd")
    assert one.chat("fine").json()["choices"][0]["message"]["content"] == text
    assert one.chat("tiny").json()["choices"][0]["message"]["content"] != text
    # Another project neither sees it nor is in its way.
    assert (one.models(), other.models()) == (["tiny", "fine"], ["tiny"])
    assert other.chat("fine").status_code == 404
    assert other.post("unload_lora_adapter", lora_name="fine").status_code == 404
    assert other.load("fine", open_to / "inner").status_code == 200
    assert other.chat("fine").json()["choices"][0]["message"]["content"] == text
    assert one.post("unload_lora_adapter", lora_name="fine").status_code == 200
    assert one.chat("fine").status_code == 404
    assert one.models() == ["tiny"]
    assert other.chat("fine").status_code == 200
    assert one.post("unload_lora_adapter", lora_name="tiny").status_code == 404
    assert one.load("fine", open_to / "good").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("{folder}/link", 403),
        ("{folder}/mixed", 403),
        ("{folder}/../secret", 403),
        ("{folder}/good/../../secret", 403),
        ("{folder}", 403),
        ("{folder}s", 403),
        ("/etc", 403),
        ("good", 403),
        ("https://example.com/adapter", 403),
        ("s3://bucket/adapter", 403),
        ("x\x00y", 403),
        ("{folder}/" + "x" * 5000, 403),
        ("{folder}/none", 404),
        ("{folder}/good/adapter_config.json", 404),
        ("{folder}/junk", 400),
    ],
)
def test_what_lies_elsewhere_is_not_opened(
    admins: list[Admin], open_to: Path, path: str, status: int
) -> None:
    answer = admins[0].load("fine", path.replace("{folder}", str(open_to)))
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == "lora_path"
    assert admins[0].models() == ["tiny"]


def test_names_shadow_no_other(admins: list[Admin], open_to: Path) -> None:
    assert admins[0].load("fine", open_to / "good").status_code == 200
    for name in ("tiny", "fine", "ft:tiny:a::12345678"):
        refused = admins[0].load(name, open_to / "good")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora_name")
