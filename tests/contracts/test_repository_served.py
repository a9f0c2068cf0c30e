"""The adapter repository by the ``openai`` client: names, versions, and updates under way."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.adapters import HASH, generated, save_changed
from helpers.serving import Lines, serving
from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_state import Facts
from tanzim.infer.engine import Engine
from tanzim.infer.text import Detokeniser
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import open_store

ASKED: Any = [{"role": "user", "content": "hello"}]
COUNT = 12


@dataclass
class House:
    """A repository, a base, and what plain peft answers with each adapter."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    root: Path
    engine: Engine = field(init=False)
    repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Engine(self.model, self.tokenizer, stop_ids=[2], base_hash=HASH)
        self.repository = Repository(self.root / "repository")

    def add(self, name: str, seed: int, task: str | None = None, **method: Any) -> str:
        """Keep a new version; return its text of the one prompt all tests ask."""
        folder = self.root / f"made-{name}-{seed}"
        save_changed(self.model, folder, seed, **{"type": "lora", "rank": 4, "alpha": 8, **method})
        self.repository.add(folder, Facts(name, task or name))
        return self.text(folder)

    def text(self, folder: Path | None) -> str:
        prompt = self.tokenizer.encode("user:hello\n>", add_special_tokens=False)
        ids = generated(self.model, folder, prompt, COUNT)
        ids = ids[: ids.index(2)] if 2 in ids else ids
        detokeniser = Detokeniser(self.tokenizer)  # broken UTF-8 comes out as in a stream
        return "".join(map(detokeniser.push, ids)) + detokeniser.finish()

    def taken(self, made: str) -> int:
        """Return the bytes that an adapter counts as: its numbers in float32, twice."""
        tensors = load_file(self.root / made / "adapter_model.safetensors")
        return 2 * sum(value.nbytes for value in tensors.values())

    @contextmanager
    def served(self, **settings: Any) -> Iterator[openai.OpenAI]:
        where = {"repository": str(self.root / "repository"), "max_batch": 3}
        with (
            serving(
                self.engine, Lines(self.tokenizer), {"tiny": None}, self.root / "server", **where | settings
            ) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        ):
            yield client


def ask(client: openai.OpenAI, model: str, count: int = COUNT) -> str:
    answer = client.chat.completions.create(model=model, messages=ASKED, temperature=0, max_tokens=count)
    return str(answer.choices[0].message.content)


def streamed(client: openai.OpenAI, model: str) -> str:
    parts = client.chat.completions.create(
        model=model, messages=ASKED, temperature=0, max_tokens=COUNT, stream=True
    )
    return "".join(part.choices[0].delta.content or "" for part in parts)


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def house(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> House:
    return House(tiny_model, tiny_tokenizer, tmp_path)


def test_a_task_is_what_is_promoted_for_it_and_a_version_is_itself(house: House) -> None:
    one, two = house.add("support", 1), house.add("support", 2)
    other = house.add("labels", 3, task="sorting")
    assert len({one, two, other, house.text(None)}) == 4
    house.repository.promote("support@2")
    foreign = save_changed(house.model, house.root / "foreign", 9, type="lora", rank=4)
    record = foreign / "tanzim.json"
    record.write_text(record.read_text().replace(HASH, "f" * 64))
    house.repository.add(foreign, Facts("foreign", "foreign"))
    house.repository.promote("foreign@1")
    with house.served() as client:
        listed = {model.id: model for model in client.models.list()}
        assert list(listed) == ["tiny", "support", "support@1", "support@2", "labels@1"]
        assert listed["support"].model_extra == {"root": "support@2"}
        assert client.models.retrieve("support@1").owned_by == "tanzim"
        assert ask(client, "support") == ask(client, "support@2") == streamed(client, "support") == two
        assert ask(client, "support@1") == one
        assert ask(client, "labels@1") == other
        assert ask(client, "tiny") == house.text(None)
        assert client.embeddings.create(model="support@1", input="hello").data[0].embedding
        for missing in ("sorting", "labels", "support@3", "foreign", "foreign@1"):
            with pytest.raises(openai.NotFoundError, match="does not exist"):
                ask(client, missing)
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve(missing)
        third = house.add("support", 4)  # a name that is new is found at once
        assert ask(client, "support@3") == third
        with pytest.raises(openai.PermissionDeniedError, match="adapter repository's"):
            client.models.delete("support")


def test_every_project_sees_the_repository(house: House) -> None:
    text = house.add("support", 1)
    house.repository.promote("support")
    store = open_store(ServeConfig(folder=str(house.root / "server")))
    keys = [store.keys.add(project, role="user", project=project) for project in ("a", "b")]
    with house.served(require_key=True) as client:
        for key in keys:
            mine = client.with_options(api_key=key)
            assert [model.id for model in mine.models.list()] == ["tiny", "support", "support@1"]
            assert ask(mine, "support") == text
        with pytest.raises(openai.AuthenticationError):
            ask(client, "support")
    store.close()


class Crowd:
    """Clients that ask one model for as long as they are let, some whole and some as streams."""

    def __init__(self, client: openai.OpenAI, model: str, number: int = 6) -> None:
        self._client, self._model = client, model
        self.answers: list[tuple[float, float, str]] = []  # when each began and ended, and what it was
        self.failed: list[Exception] = []
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._go, args=(place,)) for place in range(number)]

    def _go(self, place: int) -> None:
        while not self._enough.is_set():
            begun = time.monotonic()
            try:
                text = (streamed if place % 2 else ask)(self._client, self._model)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test fails by it
                self.failed.append(error)
                return
            self.answers.append((begun, time.monotonic(), text))

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def hears(self, text: str) -> None:
        """Wait until this is among the latest answers."""
        until(lambda: bool(self.failed) or any(latest[2] == text for latest in self.answers[-6:]))

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        wanted = len(self.answers) + count
        until(lambda: len(self.answers) >= wanted or bool(self.failed))


def test_promotion_and_rollback_drop_no_request(house: House) -> None:
    texts = [house.add("support", seed) for seed in (1, 2, 3)]
    assert len(set(texts)) == 3
    house.repository.promote("support@1")
    room = 1.5 * house.taken("made-support-1") / 1e6  # for one at a time
    with house.served(adapter_memory_mb=room) as client:
        with Crowd(client, "support") as crowd:
            for ref in ("support@2", "support@1", "support@3", None, "support@2", "support@3"):
                crowd.more(10)
                if ref is None:
                    house.repository.roll_back("support")
                else:
                    house.repository.promote(ref)
                crowd.hears(texts[house.repository.fetch("support")[0].version - 1])
            known = time.monotonic()  # somebody has been answered by the last version
            crowd.more(20)
        assert not crowd.failed
        assert {text for _, _, text in crowd.answers} == set(texts)
        assert {text for begun, _, text in crowd.answers if begun > known} == {texts[2]}
        entry = house.repository.get("support@3")
        until(lambda: house.engine.adapters == (f"repository/{entry.id}",))  # the others are let go


def test_an_adapter_loaded_in_place_of_another_drops_no_request(house: House) -> None:
    texts = [house.add("mine", seed) for seed in (1, 2)]
    folders = [house.root / f"made-mine-{seed}" for seed in (1, 2)]

    def load(client: openai.OpenAI, version: int, *, in_place: bool = True) -> None:
        path = str(folders[version])
        body = {"lora_name": "mine", "lora_path": path, "load_inplace": in_place}
        told = client.post("/load_lora_adapter", body=body, cast_to=str)
        assert told == "Success: LoRA adapter 'mine' added successfully."

    with house.served(adapter_folders=[str(house.root)], repository=None) as client:
        load(client, 0)
        with pytest.raises(openai.BadRequestError, match="load_inplace"):
            load(client, 1, in_place=False)
        with Crowd(client, "mine") as crowd:
            for turn in range(1, 8):
                crowd.more(5)
                before = time.monotonic()
                load(client, turn % 2)
                after = time.monotonic()
                crowd.more(8)
                begun_after = [a for a in crowd.answers if a[0] > after]
                assert {text for _, _, text in begun_after} <= {texts[turn % 2]}
                ended_before = [a for a in crowd.answers if a[1] < before][-1]
                assert ended_before[2] == texts[(turn + 1) % 2]
        assert not crowd.failed
        assert {text for _, _, text in crowd.answers} == set(texts)
        until(lambda: house.engine.adapters == ("loaded/default/mine/8",))
        client.post("/unload_lora_adapter", body={"lora_name": "mine"}, cast_to=str)
        until(lambda: house.engine.adapters == ())
        assert house.engine._residents.size == 0


def test_unloading_lets_an_answer_under_way_end(house: House) -> None:
    text = house.add("mine", 1)
    with house.served(adapter_folders=[str(house.root)], repository=None) as client:
        body = {"lora_name": "mine", "lora_path": str(house.root / "made-mine-1")}
        client.post("/load_lora_adapter", body=body, cast_to=str)
        parts = client.chat.completions.create(
            model="mine", messages=ASKED, temperature=0, max_tokens=200, stream=True, stop=["never there"]
        )
        begun = next(parts).choices[0].delta.content or ""
        client.post("/unload_lora_adapter", body={"lora_name": "mine"}, cast_to=str)
        with pytest.raises(openai.NotFoundError):
            ask(client, "mine")
        whole = begun + "".join(part.choices[0].delta.content or "" for part in parts)
        assert whole.startswith(text)
        until(lambda: house.engine.adapters == ())


@pytest.mark.slow
def test_many_adapters_in_little_memory(house: House) -> None:
    texts = {f"a{number}@1": house.add(f"a{number}", number) for number in range(40)}
    bound = 4.5 * house.taken("made-a0-0")
    seen: list[int] = []
    with house.served(adapter_memory_mb=bound / 1e6, max_batch=8) as client:
        draw, wrong = random.Random(3), []

        def some(names: list[str]) -> None:
            for name in names:
                if ask(client, name) != texts[name]:
                    wrong.append(name)
                seen.append(house.engine._residents.size)

        turns = [draw.sample(list(texts), 40) for _ in range(4)]
        threads = [threading.Thread(target=some, args=(turn,)) for turn in turns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(seen), wrong) == (160, [])
    assert 0 < max(seen) <= bound
    assert len(house.engine._residents.loaded) <= 4


def test_what_cannot_be_asked_says_why(house: House) -> None:
    house.add("large", 1, rank=64)
    small = house.add("small", 2, rank=2)
    damaged = ("gone", "broken", "unknown", "labels")
    for name in damaged:
        house.add(name, 3, rank=2)
    gone, broken, unknown_kind, labels = (
        house.repository.folder(house.repository.get(name)) for name in damaged
    )
    shutil.rmtree(gone)
    (broken / "adapter_model.safetensors").write_bytes(b"\x08" + bytes(20))
    config = unknown_kind / "adapter_config.json"
    config.write_text(config.read_text().replace('"LORA"', '"NOSUCH"'))
    config = labels / "adapter_config.json"
    config.write_text(config.read_text().replace("CAUSAL_LM", "SEQ_CLS"))
    with house.served(adapter_memory_mb=0.1) as client:
        with pytest.raises(openai.BadRequestError, match="MB for all") as caught:
            ask(client, "large@1")
        assert (caught.value.code, caught.value.param) == ("model_too_large", "model")
        with pytest.raises(openai.InternalServerError, match="repository") as away:
            ask(client, "gone@1")
        assert (away.value.status_code, away.value.response.headers["retry-after"]) == (503, "5")
        for name in ("broken@1", "unknown@1"):
            with pytest.raises(openai.InternalServerError) as faulty:
                ask(client, name)
            assert faulty.value.status_code == 500
            assert str(house.root) not in faulty.value.message
        with pytest.raises(openai.BadRequestError, match="labels texts"):
            ask(client, "labels@1")
        assert ask(client, "small@1") == small


def test_what_was_known_stands_while_the_repository_is_away(house: House) -> None:
    text = house.add("support", 1)
    house.repository.promote("support")
    log = house.root / "repository" / "log"
    with house.served() as client, ExitStack() as later:
        assert ask(client, "support") == text
        moved = log.rename(log.with_name("away"))
        later.callback(lambda: moved.rename(log))
        log.write_text("no folder")  # reading an event fails as a disk does
        later.callback(log.unlink)
        time.sleep(1.1)  # what was read is no longer fresh
        assert ask(client, "support") == text
