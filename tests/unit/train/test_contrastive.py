"""The contrastive objective against closed forms, one pass against many, and a tiny encoder that learns."""

import random

import pytest
import torch
from tiny_train import VOCABULARY, fit, lines, store, tiny_method
from torch.nn import functional
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from tanzim.core.errors import TrainError
from tanzim.core.records import Provenance, Rendered
from tanzim.core.run import RunFolder
from tanzim.train.batches import collate
from tanzim.train.config import TrainConfig
from tanzim.train.engine import train
from tanzim.train.objectives.config import ContrastiveConfig
from tanzim.train.objectives.contrastive import Contrastive, texts
from tanzim.train.objectives.info_nce import info_nce, negatives, pool
from tanzim.train.ranks import Ranks

SETTINGS = {"type": "contrastive", "temperature": 0.1}


def encoder(dtype=torch.float32, dropout=0.0):
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    return BertModel(config, add_pooling_layer=False).to(dtype)


def pairs(count, seed=0, hard=True, words=40):
    """Make anchors of one known token among noise; the match holds that token's partner."""
    draw, made = random.Random(seed), []
    for row in range(1, count + 1):
        topic = draw.randrange(words)
        parts = [[5 + topic], [5 + words + topic]]
        if hard and draw.random() < 0.5:
            parts.append([5 + words + (topic + 1) % words])
        parts = [
            draw.sample([*part, *draw.choices((1, 2, 3), k=draw.randint(1, 4))], k=2) + part for part in parts
        ]
        ids = tuple(token for part in parts for token in part)
        weights = (1.0, *(0.0,) * (len(ids) - 1))
        lengths = tuple(len(part) for part in parts)
        made.append(Rendered(ids, weights, (), Provenance(f"pairs-{seed}.jsonl", row), (lengths,)))
    return made


def test_loss_is_cross_entropy_over_all_candidates():
    torch.manual_seed(0)
    anchor, match, hard = (torch.randn(n, 6, dtype=torch.float64) for n in (5, 5, 3))
    rows = torch.tensor([0, 2, 3])
    got = info_nce(
        anchor[rows], torch.cat([match, hard]), rows, torch.ones(3, 8, dtype=torch.bool), temperature=0.3
    )
    # Multiple negatives ranking: similarities divided by the temperature, the match's place is the class.
    want = functional.cross_entropy(
        anchor @ torch.cat([match, hard]).T / 0.3, torch.arange(5), reduction="none"
    )
    torch.testing.assert_close(got, want[rows])


def test_equal_texts_are_no_negatives_of_each_other():
    anchors = [(1,), (2,), (1,), (3,)]
    matches = [(7,), (8,), (9,), (8,)]
    found = negatives(anchors, matches, [(9,), (4,)], [0, 1, 2, 3])
    # Candidates 7 8 9 8 9 4: anchor 1 matches 7 and 9, anchors 2 and 3 match 8.
    assert found.int().tolist() == [
        [0, 1, 0, 1, 0, 1],
        [1, 0, 1, 0, 1, 1],
        [0, 1, 0, 1, 0, 1],
        [1, 0, 1, 0, 1, 1],
    ]


def test_pooling():
    hidden, seen = torch.randn(2, 4, 3), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    torch.testing.assert_close(pool(hidden, seen, "mean")[1], hidden[1, :2].mean(0))
    assert torch.equal(pool(hidden, seen, "last"), torch.stack([hidden[0, 3], hidden[1, 1]]))
    assert torch.equal(pool(hidden, seen, "cls"), hidden[:, 0])


def own_loss(model, documents, config):
    """Compute every text alone, and the loss by its formula, one anchor at a time."""

    def vector(text):
        hidden = model(input_ids=torch.tensor([text])).last_hidden_state[0]
        one = {"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[config.pooling]
        return one / one.norm() if config.normalize else one

    parts = [texts(document) for document in documents]
    known = [[vector(text) for text in part] for part in parts]

    def nearest(left, right, further):
        total = 0.0
        for i, one in enumerate(known):
            mine = {parts[j][right] for j in range(len(parts)) if parts[j][left] == parts[i][left]}
            own = (one[left] @ one[right] / config.temperature).exp()
            rest = sum(
                (one[left] @ vector_ / config.temperature).exp()
                for text, vector_ in further
                if text not in mine
            )
            total = total - (own / (own + rest)).log()
        return total

    candidates = [(part[1], vectors[1]) for part, vectors in zip(parts, known, strict=True)]
    hard = [
        pair
        for part, vectors in zip(parts, known, strict=True)
        for pair in zip(part[2:], vectors[2:], strict=True)
    ]
    loss = nearest(0, 1, [*candidates, *hard])
    if config.symmetric:
        back = [(part[0], vectors[0]) for part, vectors in zip(parts, known, strict=True)]
        loss = (loss + nearest(1, 0, back)) / 2
    return loss


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": True},
        {"pooling": "cls", "normalize": False, "temperature": 1.0},
        {"pooling": "last"},
    ],
    ids=str,
)
def test_many_passes_equal_one_and_the_formula(options, tmp_path):
    documents = list(store(tmp_path / "pairs.arrow", pairs(9)))
    config, model = ContrastiveConfig.model_validate(SETTINGS | options), encoder(torch.float64)
    parameters = [p for name, p in model.named_parameters()]
    want = own_loss(model, documents, config)
    want_grads = torch.autograd.grad(want, parameters, allow_unused=True)
    objective = Contrastive(model, config)
    for passes in ([documents], [documents[:2], documents[2:7], documents[7:]]):
        objective.prepare(passes)
        losses = [objective.loss_sum(collate(part), scale=0.5) for part in passes]
        torch.testing.assert_close(2 * sum(losses), want, rtol=1e-6, atol=1e-9)
        grads = torch.autograd.grad(sum(losses) * 2, parameters, allow_unused=True)
        for ours, theirs in zip(grads, want_grads, strict=True):
            if theirs is None:
                assert ours is None
                continue
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_a_pass_meets_the_same_dropout_twice(tmp_path):
    documents = list(store(tmp_path / "pairs.arrow", pairs(6)))
    objective = Contrastive(encoder(dropout=0.3).train(), ContrastiveConfig.model_validate(SETTINGS))
    objective.prepare([documents[:3], documents[3:]])
    before = torch.stack(objective._group.embedded[: sum(len(texts(d)) for d in documents[:3])])
    again = objective._embed([text for document in documents[:3] for text in texts(document)], 0)
    assert torch.equal(before, again)
    other = objective._embed([text for document in documents[:3] for text in texts(document)], 1)
    assert not torch.equal(before, other)


def recall(model, held_out, config):
    """Share of anchors whose match is the nearest of all matches."""
    objective = Contrastive(model.eval(), config)
    with torch.no_grad():
        anchors, matches = (
            objective.embed([tuple(part) for part in side])
            for side in zip(*([p[:2] for p in map(parts_of, held_out)]), strict=True)
        )
    return float(((anchors @ matches.T).argmax(1) == torch.arange(len(held_out))).float().mean())


def parts_of(one):
    cuts, start = [], 0
    for length in one.targets[0]:
        cuts.append(one.ids[start : start + length])
        start += length
    return cuts


def test_a_tiny_encoder_learns_to_find_and_resumes_bit_equal(tmp_path):
    config = ContrastiveConfig.model_validate(SETTINGS)
    held_out = list({parts_of(p)[0][-1]: p for p in pairs(200, seed=2, words=12)}.values())
    settings = {
        "train_documents": pairs(120, words=12),
        "validation_documents": pairs(12, seed=1, words=12),
        "objective": SETTINGS,
        "method": {"type": "full"},
        "epochs": 4,
        "tokens_per_step": 256,
        "tokens_per_pass": 100,
        "learning_rate": 5e-3,
        "save_steps": 6,
        "eval_steps": 20,
    }
    before = recall(encoder(), held_out, config)
    whole = tiny_method(encoder(dropout=0.1), type="full")
    fit(tmp_path / "whole", prepared=whole, **settings)
    assert recall(whole.model, held_out, config) > max(0.7, before + 0.4)

    class Stopped(Exception):
        pass

    def stop(line):
        if line["kind"] == "train" and line["step"] == 9:
            raise Stopped

    with pytest.raises(Stopped):
        fit(
            tmp_path / "cut",
            prepared=tiny_method(encoder(dropout=0.1), type="full"),
            on_line=stop,
            **settings,
        )
    resumed = tiny_method(encoder(dropout=0.1), type="full")
    fit(tmp_path / "cut", prepared=resumed, **settings)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "whole", "train")
    for name, value in whole.parameters.items():
        assert torch.equal(resumed.parameters[name], value)


def test_smaller_passes_learn_the_same(tmp_path):
    trained = {}
    for tokens in (60, 256):
        method = tiny_method(encoder(), type="lora", rank=4)
        fit(
            tmp_path / str(tokens),
            prepared=method,
            train_documents=pairs(40),
            validation_documents=pairs(6, seed=1),
            objective=SETTINGS,
            tokens_per_step=256,
            tokens_per_pass=tokens,
            max_steps=3,
        )
        trained[tokens] = dict(method.parameters)
    for name, value in trained[60].items():
        torch.testing.assert_close(value, trained[256][name], rtol=0, atol=1e-5)


def test_a_causal_model_gives_embeddings_by_its_last_token():
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaModel(LlamaConfig(vocab_size=VOCABULARY, **sizes)).eval()
    objective = Contrastive(model, ContrastiveConfig(pooling="last"))
    with torch.no_grad():
        alone = [model(torch.tensor([text])).last_hidden_state[0, -1] for text in ((5, 6, 7), (8, 9))]
        got = objective.embed([(5, 6, 7), (8, 9)])
    torch.testing.assert_close(got, functional.normalize(torch.stack(alone), dim=-1), rtol=1e-5, atol=1e-6)


def test_optimisers_that_see_no_step_as_a_whole_are_refused(tmp_path):
    with pytest.raises(ValueError, match="pairs of a step together"):
        fit(tmp_path, objective=SETTINGS, optimizer={"type": "mezo"})


def test_several_processes_are_refused(tmp_path):
    class Two(Ranks):
        world = 2

    method, tokens = tiny_method(encoder(), type="lora", rank=4), store(tmp_path / "t.arrow", pairs(4))
    config = TrainConfig.model_validate({"objective": SETTINGS})
    with pytest.raises(TrainError, match="2 processes"):
        train(method, tokens, None, config, RunFolder(tmp_path / "run"), seed=1, ranks=Two())
