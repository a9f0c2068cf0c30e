"""The generator for encoder-decoder models: the source is read once, the answer written token by token.

Legend: B rows, S tokens of the longest source, N of the longest answer, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Rows
from typing import Any, NoReturn

import torch
from torch import Tensor

from tanzim.core.errors import ConfigError, ModelError
from tanzim.core.records import Progress, no_progress
from tanzim.infer.engine import Engine
from tanzim.infer.request import AnswerScore, Completion, Delta, Request
from tanzim.infer.sampling import choose, logprobs
from tanzim.infer.scheduler import Scheduler
from tanzim.infer.sequence import Sequence


class Seq2SeqEngine(Engine):
    """Generates text with an encoder-decoder model; its prompts are sources (see `Engine`).

    Rows that began together end together: there is no joining of later requests, and so no serving.
    """

    def scheduler(self, max_batch: int, *, join_at: int = 1, mix: bool = True) -> Scheduler:
        """Refuse.

        Raises:
            ModelError: always.

        """
        _refuse()

    def server(self, max_batch: int, *, cache_tokens: int | None = None, speculate: bool = False) -> NoReturn:
        """Refuse.

        Raises:
            ModelError: always.

        """
        _refuse()

    def generate(
        self, requests: Rows[Request], *, max_batch: int = 16, progress: Progress = no_progress
    ) -> list[Completion]:
        """Answer every request; the order of the answers is that of the requests.

        Args:
            requests: sources of any lengths, for any adapters.
            max_batch: most requests computed together.
            progress: told after each batch.

        Raises:
            ModelError: an adapter is unknown, or a source does not fit the model's positions.

        """
        sequences = [self.sequence(request) for request in requests]
        order = sorted(sequences, key=lambda s: (s.request.adapter or "", -len(s.request.prompt_ids)))
        done = 0
        while done < len(order):
            adapter = order[done].request.adapter
            batch = [s for s in order[done : done + max_batch] if s.request.adapter == adapter]
            for _ in self._write(batch):
                pass
            done += len(batch)
            progress(done, len(sequences), "answers")
        return [sequence.completion() for sequence in sequences]

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer one request piece by piece.

        Raises:
            ModelError: the adapter is unknown, or the source does not fit the model's positions.

        """
        sequence = self.sequence(request)
        for _ in self._write([sequence]):
            delta = sequence.take()
            if delta is not None:
                yield delta

    def score_answers(
        self,
        items: Rows[tuple[list[int], list[list[int]]]],
        adapter: str | None = None,
        *,
        max_batch: int = 16,
        progress: Progress = no_progress,
    ) -> list[list[AnswerScore]]:
        """Return how likely each candidate answer is after its source (see `Engine.score_answers`)."""
        if any(not source or not all(answers) for source, answers in items):
            raise ConfigError("a prompt or a candidate answer is empty", fix="give each at least one token")
        pairs = [(place, source, answer) for place, (source, many) in enumerate(items) for answer in many]
        order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index][1]) - len(pairs[index][2]))
        found: dict[int, AnswerScore] = {}
        with self._weights.using(adapter):
            for start in range(0, len(order), max_batch):
                batch = order[start : start + max_batch]
                rows = self._score([pairs[i][1] for i in batch], [pairs[i][2] for i in batch])
                found |= dict(zip(batch, rows, strict=True))
                progress(start + len(batch), len(order), "answers scored")
        scores: list[list[AnswerScore]] = [[] for _ in items]
        for index, (place, _, _) in enumerate(pairs):
            scores[place].append(found[index])
        return scores

    @torch.inference_mode()
    def _write(self, sequences: Rows[Sequence]) -> Iterator[None]:
        """Write the answers of one batch for one adapter, yielding after each token."""
        model = self._weights.bare
        with self._weights.using(sequences[0].request.adapter):
            source_BS, seen_BS = self._padded([s.request.prompt_ids for s in sequences])
            read = model.get_encoder()(input_ids=source_BS, attention_mask=seen_BS)
            last_B1 = source_BS.new_full((len(sequences), 1), self._first_token())
            cache = None
            while any(sequence.finish_reason is None for sequence in sequences):
                output = model(
                    encoder_outputs=read,
                    attention_mask=seen_BS,
                    decoder_input_ids=last_B1,
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = output.past_key_values
                last_B1 = self._sample(output.logits[:, -1], sequences)
                yield

    def _sample(self, logits_BV: Tensor, sequences: Rows[Sequence]) -> Tensor:
        """Give each unfinished answer its next token; finished ones get one that nobody reads."""
        samplers = [sequence.sampler for sequence in sequences]
        chosen = choose(logits_BV, samplers)
        details = logprobs(logits_BV, chosen, samplers)
        for sequence, token, detail in zip(sequences, chosen, details, strict=True):
            if sequence.finish_reason is None:
                sequence.append(token, detail)
        return torch.tensor([[token] for token in chosen], device=logits_BV.device)

    @torch.inference_mode()
    def _score(self, sources: Rows[list[int]], answers: Rows[list[int]]) -> list[AnswerScore]:
        source_BS, seen_BS = self._padded(sources)
        answer_BN, _ = self._padded(answers)
        first_B1 = answer_BN.new_full((len(answers), 1), self._first_token())
        logits_BNV = self._weights.bare(
            input_ids=source_BS,
            attention_mask=seen_BS,
            decoder_input_ids=torch.cat([first_B1, answer_BN[:, :-1]], dim=1),
            use_cache=False,
        ).logits
        logprob_BN = logits_BNV.float().log_softmax(-1).gather(2, answer_BN[:, :, None])[:, :, 0]
        rows = zip(logprob_BN.tolist(), answers, strict=True)
        return [AnswerScore(tuple(values[: len(answer)])) for values, answer in rows]

    def _padded(self, rows: Rows[list[int]]) -> tuple[Tensor, Tensor]:
        """Return rows filled up at their ends, and 1 where there is a token."""
        longest, device = max(map(len, rows)), self._forward.device
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
        seen = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
        return ids, seen

    def _first_token(self) -> int:
        """Return what the decoder begins with."""
        config: Any = self._weights.bare.config
        first: int | None = config.decoder_start_token_id
        if first is None:
            raise ModelError(
                "the model does not say what its decoder begins with",
                fix="set decoder_start_token_id in its config.json",
            )
        return first


def _refuse() -> NoReturn:
    raise ModelError(
        "encoder-decoder models cannot be served yet",
        fix="tanzim chat answers with one, or load its folder with transformers",
    )
