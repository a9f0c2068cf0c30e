"""The evaluation with the real generator: answers and label scores against plain transformers."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tanzim.core.records import Example, Message, Provenance, Rendered
from tanzim.evaluate.answers import System
from tanzim.evaluate.config import EvaluateConfig
from tanzim.evaluate.measure import evaluate
from tanzim.infer.engine import Engine

LABELS = ["hello world", "lazy dog"]


class BareRenderer:
    """<s>question</s>answer</s>, without role names."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.stop_ids = tokenizer, (tokenizer.eos_token_id,)

    def prompt(self, messages: Sequence[Message], tools: Sequence = ()) -> list[int]:
        text = "".join(message.content for message in messages)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [self.tokenizer.bos_token_id, *ids, self.tokenizer.eos_token_id]

    def render(self, example: Example) -> Rendered:
        answer = self.tokenizer(example.messages[-1].content, add_special_tokens=False)["input_ids"]
        ids = [*self.prompt(example.messages[:-1]), *answer, self.tokenizer.eos_token_id]
        return Rendered(tuple(ids), (1.0,) * len(ids), (), example.provenance)


@pytest.fixture
def lines(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> list:
    questions = ["the quick fox", "سلام دنیا، می‌روم", "hello", "jumps over the dog", "🙂 می‌آیم", "world"]
    examples = [
        Example(
            "messages",
            Provenance("test.jsonl", row),
            messages=(Message("user", question), Message("assistant", LABELS[row % 2])),
        )
        for row, question in enumerate(questions, 1)
    ]
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[tiny_tokenizer.eos_token_id], base_hash="h")
    evaluate(
        examples,
        [System("base", engine, None, "h")],
        renderer=BareRenderer(tiny_tokenizer),
        config=EvaluateConfig(max_new_tokens=9, batch_size=4, resamples=100),
        out=tmp_path,
        seed=0,
        labels=LABELS,
    )
    text = (tmp_path / "items.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_answers_equal_generate(lines, tiny_model, tiny_tokenizer) -> None:
    renderer = BareRenderer(tiny_tokenizer)
    for line in lines:
        ids = torch.tensor([renderer.prompt([Message("user", line["messages"][0]["content"])])])
        made = tiny_model.generate(
            ids, max_new_tokens=9, do_sample=False, attention_mask=torch.ones_like(ids)
        )
        expected = tiny_tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        # The generator holds back a letter whose last bytes the limit cut off.
        assert line["systems"]["base"]["answer"] == expected.rstrip("\ufffd")


def test_label_scores_equal_one_forward_pass(lines, tiny_model, tiny_tokenizer) -> None:
    renderer = BareRenderer(tiny_tokenizer)
    for line in lines:
        question = Message("user", line["messages"][0]["content"])
        prompt = renderer.prompt([question])
        for label in LABELS:
            whole = renderer.render(
                Example("messages", Provenance("", 1), messages=(question, Message("assistant", label)))
            ).ids
            with torch.no_grad():
                logprobs = tiny_model(torch.tensor([whole])).logits[0].log_softmax(-1)
            steps = range(len(prompt), len(whole))
            expected = sum(float(logprobs[step - 1, whole[step]]) for step in steps)
            assert line["systems"]["base"]["label_logprobs"][label] == pytest.approx(expected, abs=1e-3)
