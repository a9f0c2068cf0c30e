"""The adapter repository in a local folder: what is kept, found, promoted, and never lost."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from repository_race import HASH, add_many, check_race, content, race, small

from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_state import Facts, lineage
from tanzim.core.errors import ModelError, RunError, WrongBaseError


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


def add(repository, folder, seed=0, **facts):
    return repository.add(small(folder, seed=seed), Facts(**{"name": "fa", "task": "persian", **facts}))


def test_everything_said_is_read_back_by_another_process_s_eyes(repository, tmp_path):
    entry = add(
        repository,
        tmp_path / "one",
        text="دستیار فارسی",
        tags=("fa", "support"),
        data={"train": "b" * 64},
        scores={"persian": {"loss": 1.25}},
        parents=({"run": "/runs/fa"},),
        made={"method": {"type": "lora", "target_modules": ["q", "v"]}},
    )
    again = Repository(repository.url).get("fa@1")
    assert again == entry
    assert (again.base, again.base_hash, again.kind) == ("tiny/base", HASH, "LORA")
    assert content(repository.folder(again)) == content(tmp_path / "one")


def test_any_kind_is_taken(repository, tmp_path):
    for kind in ("PREFIX_TUNING", "IA3", "KIND_OF_NEXT_YEAR"):
        entry = repository.add(small(tmp_path / kind, kind=kind), Facts(kind, "task"))
        assert (entry.kind, content(repository.folder(entry))) == (kind, content(tmp_path / kind))
    ours = small(tmp_path / "ours")
    (ours / "adapter_config.json").write_text('{"density": 0.01}')
    record = {"base": "tiny", "base_hash": HASH, "method": {"type": "spiel"}}
    (ours / "tanzim.json").write_text(json.dumps(record))
    assert repository.add(ours, Facts("ours", "task")).kind == "spiel"


def test_versions_count_by_name_and_the_same_is_kept_once(repository, tmp_path):
    first = add(repository, tmp_path / "one")
    assert add(repository, tmp_path / "same").ref == first.ref
    assert add(repository, tmp_path / "scored", scores={"persian": {"loss": 1.0}}).ref == "fa@2"
    assert add(repository, tmp_path / "other", seed=1).ref == "fa@3"
    assert add(repository, tmp_path / "named", name="en", task="english").ref == "en@1"
    assert [entry.ref for entry in repository.entries()] == ["fa@1", "fa@2", "fa@3", "en@1"]
    assert repository.get("fa").ref == "fa@3"


def test_search(repository, tmp_path):
    add(repository, tmp_path / "one", text="Support tickets", tags=("fast",))
    repository.add(
        small(tmp_path / "two", base="Qwen/Qwen3-0.6B", base_hash="b" * 64, kind="PREFIX_TUNING"),
        Facts("en", "english", text="support in English"),
    )

    def found(*args, **by):
        return [entry.ref for entry in repository.search(*args, **by)]

    assert found() == found("SUPPORT") == ["fa@1", "en@1"]
    assert found("tickets support") == found(tag="fast") == found(task="persian") == found(base="aaaa")
    assert found("tickets support") == ["fa@1"]
    assert found(base="qwen3") == found("prefix_tuning") == ["en@1"]
    assert found(task="persian", base="qwen3") == found(tag="fas") == []


def test_promote_fetch_and_roll_back(repository, tmp_path):
    for seed in range(3):
        add(repository, tmp_path / str(seed), seed=seed)
    with pytest.raises(RunError, match="no adapter is promoted for the task 'persian'"):
        repository.fetch("persian")
    with pytest.raises(RunError, match="nothing is promoted"):
        repository.roll_back("persian")
    repository.promote("fa@1")
    with pytest.raises(RunError, match="only 'fa@1'"):
        repository.roll_back("persian")
    repository.promote("fa")
    repository.promote("fa@2")
    entry, folder = repository.fetch("persian")
    assert entry.ref == "fa@2"
    assert content(folder) == content(tmp_path / "1")
    assert repository.roll_back("persian").ref == "fa@3"
    assert repository.roll_back("persian").ref == "fa@1"
    assert repository.fetch("persian")[0].ref == "fa@1"
    with pytest.raises(RunError, match="promoted for 'persian' already"):
        repository.promote("fa@1")
    repository.promote("fa@1", "another task")
    assert repository.fetch("another task")[0].ref == "fa@1"


def test_a_promoted_adapter_is_not_deleted_and_a_deleted_one_is_not_forgotten(repository, tmp_path):
    for seed in range(3):
        add(repository, tmp_path / str(seed), seed=seed)
    mixed = add(
        repository, tmp_path / "mix", seed=9, name="mix", parents=({"adapter": "fa@1", "weight": 0.5},)
    )
    repository.promote("fa@1")
    repository.promote("fa@2")
    with pytest.raises(RunError, match="'fa@2' is promoted for persian"):
        repository.delete("fa@2")
    with pytest.raises(RunError, match="which version of 'fa'"):
        repository.delete("fa")
    files = repository.folder(repository.get("fa@1"))
    gone = repository.delete("fa@1")
    assert (gone.entry.ref, gone.history, gone.children) == ("fa@1", ("persian",), ("mix@1",))
    assert not files.exists()
    for act in (repository.get, repository.promote, repository.delete):
        with pytest.raises(RunError, match="'fa@1' was deleted"):
            act("fa@1")
    with pytest.raises(RunError, match="only 'fa@2'"):
        repository.roll_back("persian")
    assert [event["event"] for event in repository.log()] == [*["add"] * 4, "promote", "promote", "delete"]
    assert repository.state().entries["fa@1"].facts.name == "fa"
    assert lineage(repository.state(), mixed) == ["fa@1 × 0.5 (deleted)"]
    assert add(repository, tmp_path / "new", seed=5).ref == "fa@4"


def test_the_indexes_are_only_a_shortcut(repository, tmp_path):
    add(repository, tmp_path / "one")
    repository.promote("fa")
    old = {name: (Path(repository.url) / name).read_bytes() for name in ("index.json", "tasks.json")}
    add(repository, tmp_path / "two", seed=1)
    repository.promote("fa@2")
    want = repository.state()
    for damage in (old, dict.fromkeys(old, b"{"), dict.fromkeys(old, b'{"format": 99}'), dict.fromkeys(old)):
        for name, data in damage.items():
            path = Path(repository.url) / name
            path.unlink() if data is None else path.write_bytes(data)
        assert repository.fetch("persian")[0].ref == "fa@2"
        assert repository.state() == want


def test_fetch_reads_two_small_files_however_many_adapters_there_are(repository, tmp_path, monkeypatch):
    for seed in range(20):
        add(repository, tmp_path / str(seed), seed=seed)
    repository.promote("fa@7")
    read = []
    store = repository._store
    original = store.read
    monkeypatch.setattr(store, "read", lambda key: read.append(key) or original(key))
    assert repository.fetch("persian")[0].ref == "fa@7"
    assert read == ["tasks.json", "log/00000022.json"]
    assert (Path(repository.url) / "tasks.json").stat().st_size < 2500


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda f: (f / "tanzim.json").unlink(), WrongBaseError, "does not say which base"),
        (lambda f: (f / "tanzim.json").write_text("{}"), ModelError, "names no base_hash"),
        (lambda f: (f / "adapter_config.json").unlink(), ModelError, "not an adapter folder"),
        (lambda f: (f / "adapter_config.json").write_text("{"), ModelError, "not JSON"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), ModelError, "not an adapter folder"),
    ],
)
def test_what_is_no_adapter_is_refused_and_leaves_nothing(repository, tmp_path, change, error, words):
    folder = small(tmp_path / "one")
    change(folder)
    with pytest.raises(error, match=words):
        repository.add(folder, Facts("fa", "persian"))
    assert not Path(repository.url).exists()


@pytest.mark.parametrize("name", ["", "a@2", "a/b", " a", "a\n", "a,b", ".."])
def test_names_that_would_confuse_are_refused(repository, tmp_path, name):
    with pytest.raises(ModelError, match="cannot be the name"):
        add(repository, tmp_path / "one", name=name)
    with pytest.raises(ModelError, match="cannot be the task"):
        add(repository, tmp_path / "two", task=name)


def test_lost_files_and_damaged_events_are_named(repository, tmp_path):
    entry = add(repository, tmp_path / "one")
    (repository.folder(entry) / "adapter_config.json").unlink()
    with pytest.raises(RunError, match=r"lost 1 of 3 files, such as adapter_config\.json"):
        repository.folder(entry)
    (Path(repository.url) / "log" / "00000002.json").write_text("{")
    with pytest.raises(RunError, match="event 2 of the repository is damaged"):
        repository.entries()


def test_a_repository_from_the_future_is_refused(repository, tmp_path):
    add(repository, tmp_path / "one")
    (Path(repository.url) / "log" / "00000002.json").write_text('{"event": "teleport"}')
    with pytest.raises(RunError, match="'teleport'"):
        repository.entries()


@pytest.mark.parametrize("where", ["id", "content", "files"])
@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", ""])
def test_an_entry_that_points_outside_is_refused(repository, tmp_path, where, name):
    add(repository, tmp_path / "one")
    event = json.loads((Path(repository.url) / "log" / "00000001.json").read_text())
    event["entry"] |= {where: {name: "0" * 64} if where == "files" else name}
    (Path(repository.url) / "log" / "00000002.json").write_text(json.dumps(event))
    with pytest.raises(RunError, match="names files outside its folder"):
        repository.entries()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the repository cannot be used"):
        add(Repository(tmp_path / "file"), tmp_path / "one")


def test_processes_at_once_lose_nothing(repository, tmp_path):
    folder = small(tmp_path / "one")
    check_race(race(repository.url, folder, 3, 6), 3, 6)


def test_a_kill_at_any_moment_leaves_whole_adapters(repository, tmp_path):
    folder = small(tmp_path / "one")
    context = multiprocessing.get_context("spawn")
    for turn in range(3):
        process = context.Process(target=add_many, args=(repository.url, folder))
        before = len(repository.log())
        process.start()
        while len(repository.log()) < before + 3 + turn:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        entries = repository.entries()
        assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
        for entry in entries:
            assert content(repository.folder(entry)) == content(folder)
        added = repository.add(folder, Facts("many", "task", text=f"after {turn}"))
        assert added.version == len(entries) + 1
        json.loads((Path(repository.url) / "index.json").read_text())
