"""NEFTune: uniform noise on the embeddings, while training (Jain et al. 2023, arXiv:2310.05914).

x ← x + u · α / √(L·d), u uniform in [−1, 1] for each entry, L the tokens of the document, d the width of
an embedding. In a packed row each document has its own L, so packing does not make the noise smaller.
Padded rows count their padding into L, as they do in transformers.
It keeps a model from learning short instruction data by heart; with α = 5 the paper gains most on
conversations. Of little use for raw text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tanzim.train.objectives.base import inner_model


class Neftune:
    """Noise on the output of a model's input embeddings, in training mode only.

    Args:
        model: a transformers model, or a PEFT model around one.
        alpha: size of the noise.

    """

    def __init__(self, model: nn.Module, alpha: float) -> None:
        self.alpha = alpha
        self.borders: Tensor | None = None
        inner = inner_model(model)
        embeddings = inner.get_input_embeddings()
        self.handles = [
            # The model inside is called with the borders of packed documents by every objective.
            module.register_forward_pre_hook(self._remember, with_kwargs=True)
            for module in inner.modules()
            if embeddings in module.children()
        ]
        self.handles.append(embeddings.register_forward_hook(self._disturb))

    def remove(self) -> None:
        """Take the noise off the model."""
        for handle in self.handles:
            handle.remove()

    def _remember(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.borders = kwargs.get("cu_seq_lens_q")

    def _disturb(self, module: nn.Module, args: tuple[Any, ...], embedded_BTD: Tensor) -> Tensor:
        if not module.training:
            return embedded_BTD
        rows, tokens, width = embedded_BTD.shape
        size: Tensor | float = self.alpha / (tokens * width) ** 0.5
        if self.borders is not None and rows == 1 and int(self.borders[-1]) == tokens:
            lengths_N = self.borders.diff().to(embedded_BTD.device)
            lengths_T1 = lengths_N.repeat_interleave(lengths_N, output_size=tokens)[:, None]
            size = (self.alpha / (lengths_T1 * width).sqrt()).to(embedded_BTD.dtype)
        noise_BTD = torch.empty_like(embedded_BTD).uniform_(-1, 1)
        return embedded_BTD + noise_BTD * size
