"""A forward pass of our own for decoders of the Llama family, over tokens of many sequences side by side.

No padding, few operations: queries, keys and values in one product, gate and up in one, matrices laid out
for oneDNN where that is the faster library. Everything else about the model is transformers'; at the start
its logits are compared with the model's own.

Legend: N tokens of a pass, D hidden size, F feed-forward size, L positions, C head size, W wanted tokens,
V vocabulary, I inputs and O outputs of a product.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tanzim.adapters import rows
from tanzim.infer.kernels import PAGE, compiles, normalise
from tanzim.infer.mixed import Mix
from tanzim.infer.paged_cache import Chunk, PagedCache, Pass, pages_of
from tanzim.infer.products import AnyProduct, product_of, unjoinable
from tanzim.models.integers import IntLinear, device_of, precision

KNOWN = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
STATIC_ROTARY = ("default", "linear", "llama3", "yarn")
TOLERANCE = 1e-4  # of the largest logit
FEW = 64  # rows up to which one compiled loop beats torch's six operations


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: AnyProduct
    out: AnyProduct
    gate_up: AnyProduct
    down: AnyProduct
    norms: tuple[tuple[Tensor, float], tuple[Tensor, float]]
    head_norms: tuple[tuple[Tensor, float], tuple[Tensor, float]] | None
    # Paths of the layers behind each product, and where their outputs begin.
    paths: tuple[tuple[tuple[str, int], ...], ...]


class LeanModel:
    """The model as matrices.

    Args:
        model: one for which `unfit` has nothing to say.
        mix: the adapters that may stand beside one another.

    """

    def __init__(self, model: Any, mix: Mix) -> None:  # noqa: ANN401 - a causal language model
        self.config = model.config
        self._model, self._mix = model, mix
        self.dtype, self.device = precision(model.lm_head), model.device
        decoder = model.model
        self._layers = [_read(layer, f"model.layers.{i}") for i, layer in enumerate(decoder.layers)]
        attention = decoder.layers[0].self_attn
        first = attention.q_proj.out_features // attention.head_dim
        self.heads = first, attention.k_proj.out_features // attention.head_dim, attention.head_dim
        self._scale = attention.scaling
        self._norm = _norm(decoder.norm)
        self._embedding = decoder.embed_tokens
        self._head = product_of([model.lm_head])
        self._cosine_LC, self._sine_LC = self._rotations(1024)

    def cache(self, tokens: int) -> PagedCache:
        """Return an empty cache for this many tokens."""
        pages = -(-tokens // PAGE)
        return PagedCache(len(self._layers), pages, self.heads, self.dtype, self.device, self._scale)

    @property
    def bytes_per_token(self) -> int:
        """What a cached token takes in all layers together."""
        return 2 * len(self._layers) * int(self.heads[1] * self.heads[2]) * int(self.dtype.itemsize)

    @torch.inference_mode()
    def __call__(self, step: Pass, cache: PagedCache) -> Tensor:
        """Compute a pass whose adapters `Mix.set_plan` knows; returns logits of its wanted tokens, [W, V].

        Args:
            step: the pass; its adapters' plan counts its tokens without filling.
            cache: takes the new keys and values.

        """
        longest = int(step.position_N.max()) + 1
        if longest > self._cosine_LC.shape[0]:
            self._cosine_LC, self._sine_LC = self._rotations(2 * longest)
        count = step.ids_N.shape[0]
        ids_N = functional.pad(step.ids_N, (0, filled(count) - count))
        hidden_ND: Tensor = self._embedding(ids_N)
        for number, layer in enumerate(self._layers):
            normed_ND = _normalised(hidden_ND, *layer.norms[0])
            qkv_NO = self._product(layer.qkv, layer.paths[0], normed_ND, count)
            if layer.head_norms is not None:
                self._norm_heads(qkv_NO, layer.head_norms)
            mixed_NO = cache.attend(number, qkv_NO, self._cosine_LC, self._sine_LC, step)
            hidden_ND += self._product(layer.out, layer.paths[1], mixed_NO, count)
            normed_ND = _normalised(hidden_ND, *layer.norms[1])
            gate_NF, up_NF = self._product(layer.gate_up, layer.paths[2], normed_ND, count).chunk(2, dim=1)
            inner_NF = functional.silu(gate_NF) * up_NF
            hidden_ND += self._product(layer.down, layer.paths[3], inner_NF, count)
        wanted_WD = hidden_ND[step.wanted]
        wanted = wanted_WD.shape[0]
        wanted_WD = functional.pad(wanted_WD, (0, 0, 0, filled(wanted) - wanted))
        return self._head(_normalised(wanted_WD, *self._norm))[:wanted]

    def _product(
        self, product: AnyProduct, paths: tuple[tuple[str, int], ...], x_NI: Tensor, count: int
    ) -> Tensor:
        y_NO = product(x_NI)
        if self._mix.plan.groups:
            places = [(self._mix.places[path], start) for path, start in paths if path in self._mix.places]
            self._mix.add_to(places, y_NO[:count], x_NI[:count])
        return y_NO

    def _norm_heads(self, qkv_NO: Tensor, norms: tuple[tuple[Tensor, float], tuple[Tensor, float]]) -> None:
        heads, key_heads, size = self.heads
        start = 0
        for (weight_C, epsilon), number in zip(norms, (heads, key_heads), strict=True):
            x_NHC = qkv_NO[:, start : start + number * size].view(qkv_NO.shape[0], -1, size)
            x_NHC.copy_(_normalised(x_NHC, weight_C, epsilon))
            start += number * size

    @torch.inference_mode(False)
    @torch.no_grad()
    def _rotations(self, positions: int) -> tuple[Tensor, Tensor]:
        rotary = self._model.model.rotary_emb
        position_1L = torch.arange(positions, device=self.device)[None]
        cosine, sine = rotary(torch.empty(0, dtype=torch.float32, device=self.device), position_1L)
        return cosine[0].to(self.dtype).contiguous(), sine[0].to(self.dtype).contiguous()


def filled(count: int) -> int:
    """Return the number of rows that a pass of ``count`` tokens computes: oneDNN makes a kernel for each."""
    if count <= 4:
        return count
    step = 8 if count <= 64 else 32
    return -(-count // step) * step


def unfit(model: Any) -> str | None:  # noqa: ANN401 - any transformers model
    """Say why a model cannot take the lean forward pass; None if it can."""
    if type(model).__name__ not in KNOWN:
        return f"{type(model).__name__} has no lean forward pass"
    config = model.config
    kinds = getattr(config, "layer_types", None)
    windowed = getattr(config, "sliding_window", None) if kinds is None else {*kinds} != {"full_attention"}
    rotary = getattr(model.model.rotary_emb, "rope_type", "default")
    groups = [group for layer in model.model.layers for group in _groups(layer)]
    linears = [*itertools.chain(*groups), model.lm_head]
    plain = {type(linear) for linear in linears} in ({nn.Linear}, {IntLinear})
    held = {(precision(linear), device_of(linear)) for linear in linears} if plain else set()
    reasons = (
        (config.hidden_act != "silu", f"its activation is {config.hidden_act}"),
        (bool(windowed), "its attention has a window"),
        (rotary not in STATIC_ROTARY, "its rotary angles depend on the length"),
        (not plain, "its linear layers are no plain ones"),
        (len(held) > 1, "its weights lie in several places or precisions"),
        (
            any(map(unjoinable, groups)),
            "outputs of its integer layers are no multiples of 32",
        ),
        (any(device.type not in ("cpu", "cuda") for _, device in held), "it lies on no CPU or CUDA device"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def differs(lean: LeanModel, model: Any) -> str | None:  # noqa: ANN401 - a causal language model
    """Say by how much logits of a small trial differ from the model's own; None if they are equal enough."""
    ids = torch.randint(0, model.config.vocab_size, (23,), generator=torch.Generator().manual_seed(0))
    lean._mix.set_plan([], lean.device)
    cache, found = lean.cache(32), []
    for start, stop in ((0, 7), (7, 20), (20, 21), (21, 22), (22, 23)):
        decodes = stop == start + 1
        position_N = torch.arange(start, stop)
        chunk = () if decodes else (Chunk(0, stop - start, (0, 1)[: -(-stop // PAGE)], stop),)
        step = Pass(
            ids[start:stop], position_N, position_N // PAGE, pages_of([[0, 1]] * decodes),
            torch.tensor([stop] * decodes, dtype=torch.int64), chunk, torch.arange(stop - start),
        )  # fmt: skip
        found.append(lean(moved(step, lean.device), cache))
    with torch.inference_mode():
        wanted = model(input_ids=ids[None].to(lean.device), use_cache=False).logits[0]
    distance = float((torch.cat(found) - wanted).abs().max() / wanted.abs().max())
    tolerance = TOLERANCE if lean.dtype == torch.float32 else 500 * TOLERANCE
    return None if distance <= tolerance else f"its logits differ by {distance:.1e} of the largest"


def moved(step: Pass, device: torch.device) -> Pass:
    """Return the pass with its numbers where the model computes."""
    if device.type == "cpu":
        return step
    return Pass(
        step.ids_N.to(device),
        step.position_N.to(device),
        step.page_N.to(device),
        step.pages_BL.to(device),
        step.length_B.to(device),
        step.chunks,
        step.wanted.to(device),
    )


_TOGETHER = (
    ("self_attn", ("q_proj", "k_proj", "v_proj")),
    ("self_attn", ("o_proj",)),
    ("mlp", ("gate_proj", "up_proj")),
    ("mlp", ("down_proj",)),
)  # layers that read the same numbers


def _groups(layer: Any) -> list[list[nn.Linear]]:  # noqa: ANN401 - any decoder layer
    return [[getattr(getattr(layer, part), name) for name in names] for part, names in _TOGETHER]


def _read(layer: Any, path: str) -> _Layer:  # noqa: ANN401 - any decoder layer
    attention, products, paths = layer.self_attn, [], []
    for (part, names), linears in zip(_TOGETHER, _groups(layer), strict=True):
        products.append(product_of(linears))
        starts = [sum(linear.out_features for linear in linears[:index]) for index in range(len(linears))]
        paths.append(
            tuple((f"{path}.{part}.{name}", start) for name, start in zip(names, starts, strict=True))
        )
    head_norms = None
    if getattr(attention, "q_norm", None) is not None:
        head_norms = _norm(attention.q_norm), _norm(attention.k_norm)
    norms = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
    return _Layer(products[0], products[1], products[2], products[3], norms, head_norms, tuple(paths))


def _norm(module: Any) -> tuple[Tensor, float]:  # noqa: ANN401 - any RMSNorm
    return module.weight.detach(), module.variance_epsilon


def _normalised(x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    if x.dtype != torch.float32:
        wide = x.float()
        return (wide * rows.inverse_rms(wide, epsilon)).to(x.dtype) * weight_D
    if x.device.type == "cpu" and x.dim() == 2 and x.shape[0] <= FEW and compiles():
        out = torch.empty_like(x)
        normalise()(x.numpy(), weight_D.numpy(), epsilon, out.numpy())
        return out
    return rows.normalise(x, weight_D, epsilon)
