"""The encoder-decoder generator against transformers' own generate and loss."""

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from tanzim.core.errors import ModelError
from tanzim.infer.request import Request
from tanzim.infer.seq2seq import Seq2SeqEngine

SOURCES = [[5, 6, 7, 2], [9, 2], [30, 31, 32, 33, 34, 35, 36, 2], [12, 13, 2]]


def random_model(kind):
    torch.manual_seed(1)
    if kind == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
        config = T5Config(**sizes, vocab_size=300, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0)
        model = T5ForConditionalGeneration(config)
    else:
        sides = {
            f"{side}_{key}": n
            for side in ("encoder", "decoder")
            for key, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))
        }
        ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "forced_eos_token_id": None}
        config = BartConfig(
            vocab_size=300, d_model=32, max_position_embeddings=64, **sides, **ends, decoder_start_token_id=2
        )
        model = BartForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(params=["t5", "bart"])
def model(request):
    return random_model(request.param)


@pytest.fixture
def engine(model, tiny_tokenizer):
    return Seq2SeqEngine(model, tiny_tokenizer, stop_ids=[2], base_hash="b")


def test_greedy_answers_equal_transformers_generate(model, engine):
    answers = engine.generate([Request(source, max_new_tokens=12) for source in SOURCES], max_batch=3)
    for source, answer in zip(SOURCES, answers, strict=True):
        want = model.generate(
            torch.tensor([source]), max_new_tokens=12, do_sample=False, num_beams=1, min_length=0
        )[0, 1:].tolist()
        assert list(answer.ids) == want
        assert answer.finish_reason == ("stop" if want[-1] == 2 else "length")
        streamed = "".join(delta.text for delta in engine.stream(Request(source, max_new_tokens=12)))
        assert streamed == answer.text


def test_sampling_depends_on_the_seed_alone(engine):
    requests = [Request(source, max_new_tokens=8, temperature=1.0, seed=4) for source in SOURCES]
    together = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]


def test_scores_equal_the_models_own_loss(model, engine):
    candidates = [[40, 41, 2], [42, 2]]
    scored = engine.score_answers([(source, candidates) for source in SOURCES], max_batch=3)
    for source, scores in zip(SOURCES, scored, strict=True):
        for answer, score in zip(candidates, scores, strict=True):
            with torch.no_grad():
                own = model(input_ids=torch.tensor([source]), labels=torch.tensor([answer])).loss
            assert score.mean == pytest.approx(-float(own), rel=1e-5)


def test_serving_is_refused(engine):
    with pytest.raises(ModelError, match="cannot be served"):
        engine.scheduler(4)
