"""vLLM that dies, does not start, or loses its server: what clients see, and that no process is left."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import PreTrainedTokenizerFast

from helpers.adapters import generated
from helpers.backends import REAL, Tiny, make_tiny, make_vllm
from helpers.fake_vllm import DEADLY
from helpers.processes import group_of_vllm, members, wait_until
from helpers.serving import Lines, running
from tanzim.core.errors import ConfigError, ModelError
from tanzim.infer.request import Request
from tanzim.pipeline.config import Config
from tanzim.pipeline.workshop import Workshop
from tanzim.serve.app import create_app
from tanzim.serve.backend import Unavailable
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import open_store
from tanzim.serve.vllm.backend import VllmBackend
from tanzim.serve.vllm.process import Process

PROMPT = [5, 6, 7, 8]
KINDS = [
    pytest.param("fake", marks=pytest.mark.slow),
    pytest.param(
        "real",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(REAL is None, reason="TANZIM_VLLM_PYTHON names no environment with vLLM"),
        ],
    ),
]


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tiny_tokenizer, tmp_path_factory.mktemp("tiny"))


def web_server(folder: Path) -> int:
    """Return the process that answers: the tether's child."""
    processes = members(group_of_vllm(folder))
    return next(
        number for number, command in processes.items() if "--uds" in command and "tether" not in command
    )


def content(line: str) -> str:
    """Return the text that a line of a stream adds."""
    return json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "") if line else ""


def ids(backend: VllmBackend, request: Request) -> list[int]:
    async def collect() -> list[int]:
        return [token async for delta in backend.stream(request) for token in delta.ids]

    return asyncio.run(collect())


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_killed_under_a_stream(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    """The client is told, all of it is ended, health says so, and it comes back with its adapters."""
    said: list[str] = []
    backend = make_vllm(kind, tiny, tmp_path, said.append)
    backend.launch(tiny.adapters)
    config = ServeConfig(folder=str(tmp_path))
    names = {"tiny": None, "first": "first"}
    app = create_app(
        backend, Lines(tiny.tokenizer), config, names, open_store(config), Workshop(Config()), None
    )
    body: dict[str, Any] = {
        "model": "first",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0,
    }
    with running(app) as url:
        before = group_of_vllm(tmp_path)
        assert len(members(before)) > 2  # the tether, the web server, and what that has started
        asked = body | {"stream": True, "max_tokens": 200, "temperature": 1.5, "seed": 3}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, timeout=300) as answer:
            lines = answer.iter_lines()
            assert next(filter(None, map(content, lines)))
            os.kill(web_server(tmp_path), signal.SIGKILL)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "engine_unavailable"
        missing = {"status": "not ready", "missing": ["generation"]}
        wait_until(lambda: httpx.get(f"{url}/health/ready").json() == missing)
        assert httpx.get(f"{url}/health").status_code == 200  # nobody need start the server again
        wait_until(lambda: not members(before))
        # Who comes now waits for it.
        whole = httpx.post(f"{url}/v1/chat/completions", json=body | {"max_tokens": 12}, timeout=300)
        assert httpx.get(f"{url}/health/ready").status_code == 200
        expected = generated(
            tiny.model,
            tiny.adapters["first"],
            tiny.tokenizer.encode("user:hello\n>", add_special_tokens=False),
            12,
        )
        expected = expected[: expected.index(2)] if 2 in expected else expected
        text = tiny.tokenizer.decode(expected, skip_special_tokens=True).rstrip("\ufffd")
        assert whole.json()["choices"][0]["message"]["content"] == text
        after = group_of_vllm(tmp_path)
        assert 'tanzim_engine_starts{of="vllm"} 2.0' in httpx.get(f"{url}/metrics").text
    assert not members(after)
    assert "vLLM answers again" in said


@pytest.fixture
def backend(tiny: Tiny, tmp_path: Path) -> Iterator[VllmBackend]:
    backend = make_vllm("fake", tiny, tmp_path, restarts=1)
    backend.launch({})
    backend.start()
    yield backend
    backend.stop()


@pytest.mark.slow
def test_what_kills_it_is_not_asked_again(backend: VllmBackend) -> None:
    """One restart is allowed: it is used up by the first death alone; the second is the last."""
    whole = ids(backend, Request(PROMPT, max_new_tokens=5))
    for _ in range(2):
        with pytest.raises(Unavailable, match="ended before it had answered"):
            ids(backend, Request([*PROMPT, *DEADLY]))
        wait_until(lambda: not backend.ready)
        if backend.now["engine_starts"]["vllm"] == 1:
            assert ids(backend, Request(PROMPT, max_new_tokens=5)) == whole
    with pytest.raises(Unavailable, match="died 2 times within an hour"):
        ids(backend, Request(PROMPT))
    assert backend.now["engine_starts"]["vllm"] == 2
    assert not backend.alive


@pytest.mark.slow
def test_the_disk_is_full_when_it_is_started_again(
    backend: VllmBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    before = group_of_vllm(tmp_path)
    monkeypatch.setattr("tanzim.serve.vllm.process.write_json", full)
    os.kill(web_server(tmp_path), signal.SIGKILL)
    wait_until(lambda: not backend.alive)
    with pytest.raises(Unavailable, match="died 2 times within an hour"):
        ids(backend, Request(PROMPT))
    assert not members(before)


@pytest.mark.slow
def test_requests_under_way_end_with_it(backend: VllmBackend) -> None:
    async def interrupted() -> None:
        stream = backend.stream(Request(PROMPT, max_new_tokens=200, temperature=1.5, seed=4))
        await anext(stream)
        await asyncio.to_thread(backend.stop)
        with pytest.raises(Unavailable):
            async for _ in stream:
                pass

    asyncio.run(interrupted())
    assert backend.running == 0
    with pytest.raises(Unavailable):
        ids(backend, Request(PROMPT))


SERVE = """
import sys
from pathlib import Path
from helpers.backends import Tiny, make_vllm
from transformers import PreTrainedTokenizerFast
model, folder = sys.argv[1:]
tiny = Tiny(None, PreTrainedTokenizerFast.from_pretrained(model), Path(model), {})
backend = make_vllm("KIND", tiny, Path(folder))
backend.launch({})
backend.start()
print("ready", flush=True)
sys.stdin.read()
"""


def other_server(kind: str, tiny: Tiny, folder: Path) -> subprocess.Popen[str]:
    """Start a server of its own, which is there to be killed; return it when vLLM answers."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", SERVE.replace("KIND", kind), str(tiny.folder), str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_with_a_server_that_is_killed(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    server = other_server(kind, tiny, tmp_path)
    left = group_of_vllm(tmp_path)
    assert len(members(left)) > 2
    kill(server)
    wait_until(lambda: not members(left))


@pytest.mark.slow
def test_a_new_server_ends_what_the_tether_could_not(tiny: Tiny, tmp_path: Path) -> None:
    server = other_server("fake", tiny, tmp_path)
    left = group_of_vllm(tmp_path)
    os.kill(left, signal.SIGKILL)  # the tether
    kill(server)
    assert len(members(left)) > 1
    backend = make_vllm("fake", tiny, tmp_path)
    backend.launch({})
    try:
        assert not members(left)
        assert group_of_vllm(tmp_path) != left
    finally:
        backend.stop()
    assert not (tmp_path / "vllm" / "group.json").exists()


def test_a_number_that_another_process_has_by_now_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "vllm"
    folder.mkdir()
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (folder / "group.json").write_text(json.dumps({"group": bystander.pid, "began": 1, "boot": boot}))
    process = Process(["sleep", "600"], {}, folder)
    process.start()
    assert process.alive
    process.stop()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_folder_belongs_to_one_server(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Process(["sleep", "600"], {}, tmp_path) for _ in range(2))
    one.start()
    monkeypatch.setattr("tanzim.serve.vllm.process.GRACE", -4.0)
    with pytest.raises(ConfigError, match="another server"):
        two.start()
    assert one.alive
    monkeypatch.undo()
    one.stop()
    assert not one.alive


def test_it_is_told_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "pg-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "openai-secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere/of/ours")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    process = Process(["env"], {"VLLM_API_KEY": "its own"}, tmp_path)
    process.start()
    wait_until(lambda: not process.alive)
    process.stop()
    told = process.log.read_text()
    assert "VLLM_API_KEY=its own" in told
    assert "OMP_NUM_THREADS=7" in told
    assert "-secret" not in told
    assert "/nowhere/of/ours" not in told


FAILS = "import sys; sys.exit('ValueError: no room on the device')"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"command": ["no-such-program-of-vllm"]}, "no program"),
        ({"command": [sys.executable, "-c", FAILS]}, "no room on the device"),
        ({"command": ["sleep", "600"], "start_seconds": 0.5}, "not ready after 0.5 s|ended before"),
        pytest.param({"arguments": ["--version", "0.31.2"]}, "this is vLLM 0.31.2", marks=pytest.mark.slow),
    ],
)
def test_it_does_not_start(tiny: Tiny, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    backend = make_vllm("fake", tiny, tmp_path, **settings)
    with pytest.raises((ConfigError, ModelError)) as raised:
        backend.launch({})
    backend.stop()
    assert re.search(said, str(raised.value))
    assert not (tmp_path / "vllm" / "group.json").exists()


@pytest.mark.parametrize(
    "argument",
    ["--trust-remote-code", "--trust_remote_code", "--trust-remote", "--api-key=x", "--host", "--uds"],
)
def test_arguments_that_are_ours(argument: str) -> None:
    with pytest.raises(ValueError, match="not yours"):
        ServeConfig.model_validate({"engine": {"type": "vllm", "arguments": [argument]}})


def test_arguments_that_are_yours() -> None:
    engine = {"type": "vllm", "arguments": ["--max-model-len", "4096", "--tensor-parallel-size=2", "-O3"]}
    assert ServeConfig.model_validate({"engine": engine}).engine.type == "vllm"
