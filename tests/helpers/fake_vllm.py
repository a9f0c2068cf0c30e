"""A server that speaks as vLLM 0.32 does, and answers with transformers and peft.

Written from vLLM's source: ``vllm/entrypoints/openai/completion/{protocol,serving}.py`` (streams),
``openai/models/serving.py`` and ``lora/peft_helper.py`` (adapters), ``serve/middleware/authenticate.py`` (the
key), ``serve/instrumentator/health.py``; and from what a vLLM on the CPU was seen to send. Like vLLM it
leaves a process behind when it is killed.

Started as ``python fake_vllm.py MODEL --uds SOCKET ...``. Prompts that end with `DEADLY` kill it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import llguidance
import llguidance.hf
import numpy
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from peft import PeftModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response
from transformers import AutoModelForCausalLM, AutoTokenizer

DEADLY = [255, 255, 255]
KINDS = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}


def error(message: str, code: int, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": KINDS[code], "param": param, "code": code}}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--uds", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], required=True)
    parser.add_argument("--generation-config", choices=["vllm"], required=True)
    parser.add_argument("--max-num-seqs", type=int, required=True)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-loras", type=int, required=True)
    parser.add_argument("--max-lora-rank", type=int, required=True)
    parser.add_argument("--max-logprobs", type=int, default=20)
    parser.add_argument("--structured-outputs-config", type=json.loads, required=True)
    parser.add_argument("--disable-uvicorn-access-log", action="store_true")
    parser.add_argument("--version", default="0.32.0")  # of the vLLM that it seems to be
    return parser.parse_args()


class Model:
    """The base and its adapters; computes one token at a time, from all that came before it."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(asked.model)
        self.base: Any = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32).eval()
        self.context: int = self.base.config.max_position_embeddings
        self.adapted: Any = None
        self.lock = threading.Lock()
        self.grammar_tokens = llguidance.hf.from_tokenizer(self.tokenizer, self.base.config.vocab_size)

    def load(self, name: str, path: str) -> None:
        with self.lock:
            if self.adapted is None:
                self.adapted = PeftModel.from_pretrained(self.base, path, adapter_name=name)
            else:
                self.adapted.load_adapter(path, adapter_name=name)
            self.adapted.eval()

    @torch.inference_mode()
    def logits(self, ids: list[int], adapter: str | None) -> torch.Tensor:
        with self.lock:
            if self.adapted is None:
                return self.base(torch.tensor([ids])).logits[0, -1]
            if adapter is None:
                with self.adapted.disable_adapter():
                    return self.adapted(torch.tensor([ids])).logits[0, -1]
            self.adapted.set_adapter(adapter)
            return self.adapted(torch.tensor([ids])).logits[0, -1]


def grammar_of(asked: dict[str, Any]) -> str:
    """Return what vLLM's guidance backend makes of ``structured_outputs`` without flexible white space."""
    if "regex" in asked:
        return llguidance.LLMatcher.grammar_from_regex(asked["regex"])
    schema = asked.get("json") or '{"type": "object"}'
    return llguidance.LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})


def chosen(logits: torch.Tensor, body: dict[str, Any], generator: torch.Generator) -> int:
    if body["temperature"] == 0:
        return int(logits.argmax())
    shares, order = torch.softmax(logits / body["temperature"], -1).sort(descending=True)
    shares[shares.cumsum(0) - shares >= body["top_p"]] = 0
    return int(order[torch.multinomial(shares, 1, generator=generator)])


def logprobs_of(logits: torch.Tensor, token: int, top: int) -> dict[str, Any]:
    values = torch.log_softmax(logits, -1)
    best = [token, *(int(i) for i in values.topk(top).indices)]
    named = {f"token_id:{i}": float(values[i]) for i in best[: top + 1]}
    return {
        "text_offset": [0],
        "token_logprobs": [float(values[token])],
        "tokens": [f"token_id:{token}"],
        "top_logprobs": [named],
    }


class Server:
    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.model = Model(asked)
        self.loras: dict[str, str] = {}
        self.loaded: set[str] = set()
        self.running = 0

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_middleware(BaseHTTPMiddleware, dispatch=self.authenticated)
        app.get("/health")(self.healthy)
        app.get("/version")(lambda: {"version": self.asked.version})
        app.get("/metrics")(lambda: PlainTextResponse(f"vllm:num_requests_running{{}} {self.running}.0\n"))
        app.get("/v1/models")(self.models)
        app.post("/v1/load_lora_adapter", response_model=None)(self.load)
        app.post("/v1/unload_lora_adapter", response_model=None)(self.unload)
        app.post("/v1/completions", response_model=None)(self.completions)
        return app

    def healthy(self) -> Response:
        return Response()

    async def authenticated(self, request: Request, go_on: Any) -> Response:
        key = f"Bearer {os.environ['VLLM_API_KEY']}"
        if request.url.path.startswith("/v1") and request.headers.get("authorization") != key:
            return JSONResponse({"error": "Unauthorized"}, 401)
        return await go_on(request)

    def models(self) -> dict[str, Any]:
        base = {"id": self.asked.served_model_name, "object": "model", "max_model_len": self.model.context}
        return {"object": "list", "data": [base, *({"id": n, "root": p} for n, p in self.loras.items())]}

    async def load(self, request: Request) -> Response:
        assert os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if name in self.loras:
            return JSONResponse(error(f"The lora adapter '{name}' has already been loaded.", 400), 400)
        config = json.loads(Path(path, "adapter_config.json").read_text())
        if isinstance(config["init_lora_weights"], str):
            message = f"vLLM does not support init_lora_weights={config['init_lora_weights']!r}."
            return JSONResponse(error(message, 500), 500)
        assert not config["use_dora"]
        assert config["r"] <= self.asked.max_lora_rank
        if name not in self.loaded:
            await asyncio.to_thread(self.model.load, name, path)
            self.loaded.add(name)
        self.loras[name] = path
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        name = (await request.json())["lora_name"]
        if self.loras.pop(name, None) is None:
            return JSONResponse(error(f"The lora adapter '{name}' cannot be found.", 404), 404)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        if body["model"] != self.asked.served_model_name and body["model"] not in self.loras:
            return JSONResponse(error(f"The model `{body['model']}` does not exist.", 404, "model"), 404)
        if not 0 <= body["temperature"] <= 2:
            return JSONResponse(error("temperature must be in [0, 2]", 400, "temperature"), 400)
        if len(body["prompt"]) + body["max_tokens"] > self.model.context:
            return JSONResponse(error("max_tokens is too large", 400, "max_tokens"), 400)
        assert body["stream"]
        assert body["return_token_ids"]
        assert body["ignore_eos"]
        return StreamingResponse(self.events(body), media_type="text/event-stream")

    async def events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self.running += 1
        try:
            async for chunk in self.chunks(body):
                yield f"data: {json.dumps(chunk)}\n\n"
        finally:
            self.running -= 1
        yield "data: [DONE]\n\n"

    async def chunks(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        prompt, top = body["prompt"], body.get("logprobs")
        if max(prompt) >= self.model.base.config.vocab_size:
            yield error(f"Token id {max(prompt)} is out of vocabulary", 400)
            return
        if top is not None and top > self.asked.max_logprobs:
            yield error(f"Requested sample logprobs of {top}", 400, "logprobs")
            return
        if prompt[-3:] == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        matcher = None
        if body.get("structured_outputs"):
            matcher = llguidance.LLMatcher(self.model.grammar_tokens, grammar_of(body["structured_outputs"]))
        adapter = body["model"] if body["model"] in self.loras else None
        generator = torch.Generator()
        generator.manual_seed(body["seed"]) if body["seed"] is not None else generator.seed()
        ids: list[int] = []
        reason = None
        while reason is None:
            raw = await asyncio.to_thread(self.model.logits, [*prompt, *ids], adapter)
            logits = raw.float()
            if matcher is not None:
                bits = numpy.unpackbits(
                    numpy.frombuffer(matcher.compute_bitmask(), numpy.uint8), bitorder="little"
                )
                logits = logits.masked_fill(~torch.from_numpy(bits[: len(raw)]).bool(), -torch.inf)
            token = chosen(logits, body, generator)
            ids.append(token)
            stopped = token in body["stop_token_ids"]
            reason = "stop" if stopped else "length" if len(ids) >= body["max_tokens"] else None
            if matcher is not None and not stopped:
                matcher.consume_token(token)
            choice = {
                "index": 0,
                "text": "",  # not what our server reads
                "logprobs": None if top is None else logprobs_of(raw.float(), token, top),
                "finish_reason": reason,
                "stop_reason": token if stopped else None,
                "prompt_token_ids": prompt if len(ids) == 1 else None,
                "token_ids": [token],
            }
            assert math.isfinite(float(logits.max()))
            yield {"id": "cmpl-0", "object": "text_completion", "model": body["model"], "choices": [choice]}


def main() -> None:
    torch.set_num_threads(1)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])  # as vLLM's engine
    asked = arguments()
    uvicorn.run(Server(asked).app(), uds=asked.uds, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
