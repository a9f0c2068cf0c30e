"""Training throughput of the packed path on a CUDA device, and its share of the device's peak.

    python bench/train_cuda.py [--size 1b|8b] [--peak-tflops 989]

A randomly initialised Llama of 1 or 8 billion parameters in bfloat16, LoRA r=16 on all linear layers,
packed rows of 16,384 tokens, loss on every token. Model FLOPs: 4 per frozen parameter and token
(forward and input gradient), 12·layers·hidden·length/2 for causal attention. The last line is JSON.
"""

import argparse
import json
import sys
import time

import torch
import transformers

from tanzim.adapters.config import LoraConfig
from tanzim.adapters.lora import attach
from tanzim.adapters.method import trainable
from tanzim.models.kernels.attention import ATTENTION, register
from tanzim.models.kernels.loss import trained_token_loss

SIZES = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
LENGTHS = [2048] * 8
WARM_UP, STEPS = 3, 10


def measure(
    config: transformers.LlamaConfig, lengths: list[int], device: str, dtype: torch.dtype
) -> dict[str, float]:
    """Make steps; return tokens and model FLOPs per second, and the peak memory."""
    register()
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=ATTENTION
        )
    frozen = sum(value.numel() for value in model.parameters()) - model.get_input_embeddings().weight.numel()
    adapted = attach(model, LoraConfig(), seed=0).train()
    optimizer = torch.optim.AdamW(list(trainable(adapted).values()), lr=1e-4)
    total = sum(lengths)
    borders = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=device)
    packed = {
        "input_ids": torch.randint(0, config.vocab_size, (1, total), device=device),
        "position_ids": torch.cat([torch.arange(length, device=device) for length in lengths])[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "use_cache": False,
    }
    targets, weights = packed["input_ids"][0].roll(-1), torch.ones(total, device=device)

    def step() -> None:
        hidden = model.get_decoder()(**packed).last_hidden_state[0]
        head = model.get_output_embeddings().weight
        trained_token_loss(hidden, head, targets, weights, scale=1 / total, chunk=1024).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = timed(step, device)
    attention = 12 * config.num_hidden_layers * config.hidden_size * max(lengths) / 2
    return {
        "tokens_per_s": total / seconds,
        "model_tflops": total * (4 * frozen + attention) / seconds / 1e12,
        "peak_bytes": float(torch.cuda.max_memory_allocated()) if device == "cuda" else 0.0,
    }


def timed(step, device: str) -> float:  # noqa: ANN001 - a function without arguments
    """Return the seconds of one step after a warm-up."""
    for _ in range(WARM_UP):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    """Measure on the first CUDA device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="dense bf16 peak (H100 and H200: 989)"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; on the CPU run bench/train_throughput.py")
    config = transformers.LlamaConfig(**SIZES[arguments.size], num_key_value_heads=8, vocab_size=128_256)
    result = measure(config, LENGTHS, "cuda", torch.bfloat16)
    result |= {"mfu": result["model_tflops"] / arguments.peak_tflops, "size": arguments.size}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
