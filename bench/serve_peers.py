"""The servers that `serve_throughput.py` compares, and how their environment is made.

`prepare` makes in a folder what is not there yet: a virtual environment with ``transformers[serving]`` beside
this environment's own torch and transformers; ``llama-server``, compiled from the source package
llama-cpp-python; and the model as GGUF in float32 and in 8 bits.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

LLAMA_CPP = "llama-cpp-python==0.3.36"
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF",
    "-DBUILD_SHARED_LIBS=OFF",
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A server to be measured.

    Args:
        name: in the table.
        command: with {port} where the port belongs.
        model: what requests call it.
        models: the names that requests take in turn; more than one: adapters.
        health: path that answers 200 when it is ready.
        environment: set besides this process's own.
        ours: whether it is Tanzim's.
        extra: whether it is measured only where time does not matter.

    """

    name: str
    command: list[str]
    models: list[str]
    health: str = "/health"
    environment: dict[str, str] = field(default_factory=dict)
    ours: bool = False
    extra: bool = False


def grid(server: Server) -> list[list[str]]:
    """Return the settings of a peer, by its documentation, that are tried before it is measured."""
    if server.name.startswith("llama-server"):
        return [[], ["--flash-attn", "off"], ["--kv-unified"]]
    return [
        [],
        ["--cb-max-batch-tokens", "512", "--cb-num-blocks", "512"],
        ["--attn-implementation", "eager"],
    ]


def prepare(folder: Path, model: Path, jobs: int) -> None:
    """Make the peers' environment in ``folder``, as far as it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv/bin/python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(folder / "venv")])
        ours = sysconfig.get_paths()["purelib"]
        theirs = next((folder / "venv/lib").glob("python3*/site-packages"))
        (theirs / "torch_of_the_project.pth").write_text(ours + "\n")  # torch once, not twice
        version = importlib.metadata.version("transformers")
        run([str(python), "-m", "pip", "install", "-q", f"transformers[serving]=={version}"])
    source = llama_source(folder)
    if not (folder / "llama/bin/llama-server").exists():
        build = str(folder / "llama")
        run(["cmake", "-S", str(source), "-B", build, *FLAGS])
        run(["cmake", "--build", build, "--target", "llama-server", f"-j{jobs}"])
    for kind in ("f32", "q8_0"):
        out = folder / f"model-{kind}.gguf"
        if not out.exists():
            script = str(source / "convert_hf_to_gguf.py")
            command = [sys.executable, script, str(model), "--outfile", str(out), "--outtype", kind]
            run(command, PYTHONPATH=str(source / "gguf-py"))


def llama_source(folder: Path) -> Path:
    """Return llama.cpp's sources, fetched with llama-cpp-python if need be."""
    found = list(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
    if not found:
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
             "-d", str(folder / "download"), LLAMA_CPP])  # fmt: skip
        with tarfile.open(next((folder / "download").glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        found = list(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
    return found[0]


def servers(folder: Path, model: Path, adapters: list[Path], streams: int, threads: int) -> list[Server]:
    """Return the servers in the order of the table; ours is there with the base, 1 and 16 adapters.

    The cache of `transformers serve` is bounded: it would take most of the memory, to no gain in speed.
    """
    tanzim = shutil.which("tanzim", path=sysconfig.get_path("scripts")) or "tanzim"
    limit = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    ours = [tanzim, "serve", *map(str, adapters), "serve.port={port}", f"serve.max_batch={streams}"]
    names = [path.name for path in adapters]
    llama = [
        str(folder / "llama/bin/llama-server"), "--host", "127.0.0.1", "--port", "{port}",
        "--threads", str(threads), "--threads-batch", str(threads), "--parallel", str(streams),
        "--ctx-size", str(streams * 512), "--no-webui",
    ]  # fmt: skip
    theirs = [
        str(folder / "venv/bin/python"), "-c", "from transformers.cli.transformers import main; main()",
        "serve", str(model), "--continuous-batching", "--cb-num-blocks", "256",
        "--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", "{port}",
    ]  # fmt: skip
    return [
        Server("tanzim, base", ours, ["smollm2-135m-instruct"], "/v1/models", limit, ours=True),
        Server("tanzim, 1 adapter", ours, names[:1], "/v1/models", limit, ours=True),
        Server(f"tanzim, {len(names)} adapters", ours, names, "/v1/models", limit, ours=True),
        *(
            Server(
                f"tanzim {kind}, base",
                [*ours, f"serve.engine.quantization={kind}"],
                ["smollm2-135m-instruct"],
                "/v1/models",
                limit,
                ours=True,
                extra=True,
            )
            for kind in ("int8", "int4")
        ),
        Server("transformers serve", theirs, [str(model)], "/health", limit | {"HF_HUB_OFFLINE": "1"}),
        Server("llama-server f32", [*llama, "-m", str(folder / "model-f32.gguf")], ["f32"]),
        Server("llama-server q8_0", [*llama, "-m", str(folder / "model-q8_0.gguf")], ["q8_0"]),
    ]


@contextmanager
def running(server: Server, folder: Path, wait: float = 600) -> Iterator[str]:
    """Run a server; yield its address when it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.format(port=port) for part in server.command]
    home = folder / "work"
    home.mkdir(exist_ok=True)
    with (folder / f"{server.name.replace(' ', '-')}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=home, env=os.environ | server.environment, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            address, until = f"http://127.0.0.1:{port}", time.monotonic() + wait
            while not _answers(address + server.health):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{server.name} did not start; see {log.name}")
                time.sleep(0.5)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def run(command: list[str], **environment: str) -> None:
    """Run a command, its output on the terminal; a failure ends the benchmark."""
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True, env=os.environ | environment)
