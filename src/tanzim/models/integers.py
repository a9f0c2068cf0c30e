"""Weights in 8 or 4 bits beside activations in full precision, for serving.

Each weight is rounded to the nearest of evenly spaced numbers, whose spacing 32 inputs of an output share: in
8 bits 255 of them around zero, in 4 bits 16 between the least and the largest of these weights. That is how
llama.cpp's Q8_0 and Q4_1 round.

Legend: O outputs, I inputs, T tiles of 32 outputs, L the 32 outputs of a tile, G groups of inputs, B bytes
for an input of a tile (32 in 8 bits, 16 in 4), N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

TILE = 32  # outputs side by side: two vector registers of float32
GROUP = 32  # inputs that share a spacing
SLICE = 4096  # outputs that are rounded at once
Integer = Literal["int8", "int4"]


class IntMatrix(nn.Module):
    """A matrix [O, I] as integers: code · step in 8 bits, code · step + low in 4.

    Args:
        codes_TIB: in 8 bits a signed byte for each output of a tile; in 4 the lower halves of 16 bytes are
            its first outputs, the upper halves the others.
        step_TGL: the spacing, bfloat16.
        low_TGL: the number that code 0 stands for, bfloat16; None in 8 bits, where it is 0.
        outputs: O; the last tile may be filled up.

    """

    codes_TIB: Tensor
    step_TGL: Tensor
    low_TGL: Tensor | None

    def __init__(self, codes_TIB: Tensor, step_TGL: Tensor, low_TGL: Tensor | None, outputs: int) -> None:
        super().__init__()
        self.register_buffer("codes_TIB", codes_TIB)
        self.register_buffer("step_TGL", step_TGL)
        self.register_buffer("low_TGL", low_TGL)
        self.outputs, self.inputs = outputs, codes_TIB.shape[1]

    @property
    def bits(self) -> int:
        """8 or 4."""
        return 8 if self.low_TGL is None else 4

    def decode(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the matrix in full, [O, I]."""
        value_TIL = _unpacked(self.codes_TIB) if self.bits == 4 else self.codes_TIB
        value_TGIL = _in_groups(value_TIL.to(torch.float32)).mul_(self.step_TGL[:, :, None])
        if self.low_TGL is not None:
            value_TGIL += self.low_TGL[:, :, None]
        full_OI: Tensor = value_TGIL.flatten(1, 2).transpose(1, 2).flatten(0, 1)[: self.outputs]
        return full_OI.to(dtype)

    def rows(self, number_N: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return some outputs' weights in full, [N, I]; in 8 bits only."""
        tile_N, lane_N = number_N // TILE, number_N % TILE
        step_NI = self.step_TGL[tile_N, :, lane_N].float().repeat_interleave(GROUP, 1)
        return step_NI.mul_(self.codes_TIB[tile_N, :, lane_N]).to(dtype)


class IntLinear(nn.Linear):
    """A linear layer whose weights are integers; in its own ``forward`` they are unpacked each time.

    Args:
        matrix: the weights.
        bias: as it was, or None.
        dtype: of activations.

    """

    def __init__(self, matrix: IntMatrix, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # its own would make a matrix in full
        self.in_features, self.out_features = matrix.inputs, matrix.outputs
        self.matrix, self.bias, self.dtype = matrix, cast(Any, bias), dtype

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights in full, made for whoever asks."""
        return self.matrix.decode(self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to [..., I]."""
        return functional.linear(input, self.weight, self.bias)


class IntEmbedding(nn.Embedding):
    """Embeddings in 8 bits.

    Args:
        matrix: the table; the output layer's, where the two are one.
        dtype: of embeddings.

    """

    def __init__(self, matrix: IntMatrix, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = matrix.outputs, matrix.inputs
        self.matrix, self.dtype = matrix, dtype

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The table in full, made for whoever asks."""
        return self.matrix.decode(self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Return the embeddings of ids [...]."""
        return self.matrix.rows(input.flatten(), self.dtype).view(*input.shape, -1)


@torch.no_grad()
def encode(weight_OI: Tensor, kind: Integer) -> IntMatrix:
    """Round a matrix to integers. No weight moves by more than half a step.

    Args:
        weight_OI: of any precision; I is a multiple of 32.
        kind: how many bits.

    """
    make = _eight if kind == "int8" else _four
    parts = [make(_tiled(part.float())) for part in torch.split(weight_OI, SLICE)]
    codes, steps, lows = zip(*parts, strict=True)
    low = None if lows[0] is None else torch.cat(lows)
    return IntMatrix(torch.cat(codes), torch.cat(steps), low, weight_OI.shape[0])


def quantise(model: Any, kind: Integer) -> None:  # noqa: ANN401 - any transformers model
    """Bring linear layers, embeddings and the output of a model into integers, one after the other.

    Embeddings and the output take 8 bits in either case: an error there is nobody's to mend. Other kinds of
    layers (experts in one tensor, convolutions, norms) and layers whose inputs are no multiple of 32 stay.

    """
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and table is not None and head.weight is table.weight
    dtype = table.weight.dtype
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear and module.in_features % GROUP == 0:
            matrix = encode(module.weight, "int8" if module is head else kind)
            made = IntLinear(matrix, module.bias, dtype).eval()
            model.set_submodule(path, made)
            if module is head:
                head = made
            module.weight = cast(Any, None)
    if type(table) is nn.Embedding and table.embedding_dim % GROUP == 0:
        shared = tied and isinstance(head, IntLinear)
        matrix = head.matrix if shared else encode(table.weight, "int8")
        model.set_input_embeddings(IntEmbedding(matrix, dtype).eval())


def join(linears: Sequence[IntLinear]) -> IntMatrix:
    """Lay several matrices with the same inputs into one; each of them becomes a part of it.

    Args:
        linears: of equal bits; the outputs of all but the last are multiples of 32.

    """
    own = [linear.matrix for linear in linears]
    if len(own) == 1:
        return own[0]
    codes, step = torch.cat([x.codes_TIB for x in own]), torch.cat([x.step_TGL for x in own])
    lows = [x.low_TGL for x in own if x.low_TGL is not None]
    low = torch.cat(lows) if lows else None
    start = 0
    for matrix in own:
        stop = start + matrix.codes_TIB.shape[0]
        matrix.codes_TIB, matrix.step_TGL = codes[start:stop], step[start:stop]
        matrix.low_TGL = None if low is None else low[start:stop]
        start = stop
    return IntMatrix(codes, step, low, sum(matrix.outputs for matrix in own))


def has_integers(model: nn.Module) -> bool:
    """Tell whether `quantise` was here."""
    return any(isinstance(module, IntLinear) for module in model.modules())


def precision(linear: nn.Linear) -> torch.dtype:
    """Return the precision that a linear layer computes in, without unpacking it."""
    return linear.dtype if isinstance(linear, IntLinear) else linear.weight.dtype


def device_of(linear: nn.Linear) -> torch.device:
    """Return where a linear layer's weights lie, without unpacking them."""
    return linear.matrix.codes_TIB.device if isinstance(linear, IntLinear) else linear.weight.device


def _tiled(weight_OI: Tensor) -> Tensor:
    """Return [T, I, L], filled up with zeros."""
    filled_OI = functional.pad(weight_OI, (0, 0, 0, -weight_OI.shape[0] % TILE))
    return filled_OI.view(-1, TILE, filled_OI.shape[1]).transpose(1, 2).contiguous()


def _in_groups(x_TIL: Tensor) -> Tensor:
    return x_TIL.view(x_TIL.shape[0], -1, GROUP, TILE)


def _eight(weight_TIL: Tensor) -> tuple[Tensor, Tensor, None]:
    weight_TGIL = _in_groups(weight_TIL)
    step_TGL = _spacing(weight_TGIL.abs().amax(2) / 127)
    codes_TGIL = (weight_TGIL / step_TGL[:, :, None]).round_()
    return codes_TGIL.to(torch.int8).flatten(1, 2), step_TGL, None


def _four(weight_TIL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weight_TGIL = _in_groups(weight_TIL)
    low_TGL = _rounded(weight_TGIL.amin(2), down=True)
    step_TGL = _spacing((weight_TGIL.amax(2) - low_TGL) / 15)
    codes_TGIL = (weight_TGIL - low_TGL[:, :, None]).div_(step_TGL[:, :, None]).round_().clamp_(0, 15)
    codes_TIL = codes_TGIL.to(torch.uint8).flatten(1, 2)
    return codes_TIL[..., : TILE // 2] | codes_TIL[..., TILE // 2 :] << 4, step_TGL, low_TGL


def _spacing(step_TGL: Tensor) -> Tensor:
    """Return steps in bfloat16, rounded up, so that the codes reach from the least weight to the largest."""
    step_TGL = _rounded(step_TGL, down=False)
    return step_TGL.masked_fill_(step_TGL == 0, 1)


def _unpacked(codes_TIB: Tensor) -> Tensor:
    return torch.cat([codes_TIB & 15, codes_TIB >> 4], dim=-1)


def _rounded(x: Tensor, *, down: bool) -> Tensor:
    """Return the next bfloat16 below or above."""
    near = x.bfloat16()
    past = near > x if down else near < x
    return torch.where(past, torch.nextafter(near, near.new_tensor(-torch.inf if down else torch.inf)), near)
