"""The embedded scorer beside PyTorch's LSTM and its authors' figures; a pickle of which nothing runs."""

from __future__ import annotations

import collections
import pickle

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from tanzim.core.errors import ConfigError, ModelError
from tanzim.pipeline.power_judge import CATEGORIES, ToxicComments, open_judge, word_index

# Printed in the package's own documentation, made there with TensorFlow.
INSULT = "You are so dumb and stupid!"
PRINTED = (0.9889403, 0.07256772, 0.62042928, 0.01934846, 0.86640751, 0.04072948)


@pytest.fixture(scope="module")
def embedded() -> ToxicComments:
    judge = open_judge("toxic-comment-classifier")
    assert isinstance(judge, ToxicComments)
    return judge


def test_the_figures_its_authors_print(embedded):
    (found,) = embedded([INSULT])
    assert tuple(found) == CATEGORIES
    np.testing.assert_allclose(list(found.values()), PRINTED, atol=1e-5)


def test_the_lstm_is_pytorchs(embedded):
    arrays = {name: torch.from_numpy(value) for name, value in embedded._arrays.items()}
    lstm = torch.nn.LSTM(50, 50, batch_first=True, bidirectional=True)
    for way, suffix in (("forward", ""), ("backward", "_reverse")):
        getattr(lstm, f"weight_ih_l0{suffix}").data = arrays[f"{way}_input"].T.contiguous()
        getattr(lstm, f"weight_hh_l0{suffix}").data = arrays[f"{way}_hidden"].T.contiguous()
        getattr(lstm, f"bias_ih_l0{suffix}").data = arrays[f"{way}_bias"]
        getattr(lstm, f"bias_hh_l0{suffix}").data.zero_()
    ids = torch.randint(0, 20_000, (7, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pooled = lstm(arrays["embedding"][ids])[0].max(1).values
        hidden = (pooled @ arrays["dense"] + arrays["dense_bias"]).relu()
        wanted = (hidden @ arrays["out"] + arrays["out_bias"]).sigmoid()
    np.testing.assert_allclose(embedded.scores(ids.numpy()), wanted.numpy(), atol=1e-5)


def test_long_texts_are_judged_by_their_worst_part(embedded):
    kind = "the weather is nice and the garden is green today "
    (clean, rude) = embedded([kind * 60, kind * 30 + INSULT + " " + kind * 30])
    assert clean["toxic"] < 0.2
    assert rude["toxic"] > 0.5
    assert embedded([]) == []


class Evil:
    """Would end the tests if it were unpickled."""

    def __reduce__(self):
        return (pytest.exit, ("the pickle was run",))


class Vocabulary:
    """Pickled as Keras' Tokenizer is: with its state in a dict."""

    def __init__(self, words):
        self.word_counts = collections.OrderedDict.fromkeys(words, 3)
        self.docs = collections.defaultdict(int, {"a": 1})
        self.evil = Evil()
        self.word_index = {word: number for number, word in enumerate(words, 1)}


def test_nothing_of_a_pickle_is_run(tmp_path):
    words = [f"word{n}" for n in range(3000)] + ["سلام"]
    file = tmp_path / "tokenizer.pickle"
    file.write_bytes(pickle.dumps(Vocabulary(words), protocol=4))
    assert word_index(file) == {word: number for number, word in enumerate(words, 1)}


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\x80\x04N.", b"no pickle", pickle.dumps({"a": 1})])
def test_what_is_no_vocabulary(tmp_path, content):
    file = tmp_path / "tokenizer.pickle"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="vocabulary"):
        word_index(file)


def test_a_classifier_of_ones_own(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "سلام"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "hate", 1: "harm", 2: "fine"}, label2id={"hate": 0, "harm": 1, "fine": 2},
    )  # fmt: skip
    torch.manual_seed(2)
    model = BertForSequenceClassification(config).eval()
    texts = ["good", "bad bad bad", "سلام good"]
    for kind, squash in (
        ("single_label_classification", lambda x: x.softmax(-1)),
        ("multi_label_classification", torch.sigmoid),
    ):
        model.config.problem_type = kind
        folder = tmp_path / kind
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found = open_judge(str(folder))(texts)
        with torch.no_grad():
            wanted = [squash(model(**tokenizer(text, return_tensors="pt")).logits)[0] for text in texts]
        assert [list(one) for one in found] == [["hate", "harm", "fine"]] * 3
        np.testing.assert_allclose([list(one.values()) for one in found], torch.stack(wanted), atol=1e-5)


def test_there_is_no_such_scorer(tmp_path):
    with pytest.raises(ConfigError, match="no scorer"):
        open_judge(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be opened"):
        open_judge(str(tmp_path / "empty"))
