"""The three layers of deduplication against brute force, and what they say of what they remove."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tanzim.core.errors import DataError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.chain import Done, run_step
from tanzim.data.config import StepConfig
from tanzim.data.dedup import members, near
from tanzim.data.dedup.config import DedupExactConfig, DedupFuzzyConfig, DedupSemanticConfig
from tanzim.data.dedup.plain import near_duplicates
from tanzim.data.executor import Local
from tanzim.data.shards import Dataset, write_shards
from tanzim.data.similarity import normalise

ENGLISH = [
    "the",
    "river",
    "rose",
    "quickly",
    "after",
    "heavy",
    "rain",
    "and",
    "people",
    "moved",
    "their",
    "goods",
    "to",
    "higher",
    "ground",
]
PERSIAN = [
    "رودخانه",
    "پس",
    "از",
    "باران",
    "تند",
    "بالا",
    "آمد",
    "و",
    "مردم",
    "کالاهای",
    "خود",
    "را",
    "به",
    "زمین\u200cهای",
    "بلندتر",
    "می\u200cبردند",
]


def document(rng: random.Random, words: Sequence[str], count: int = 60) -> str:
    """Random words, each with a random ending, so that documents share few 5-grams."""
    return " ".join(rng.choice(words) + str(rng.randrange(500)) for _ in range(count))


def edited(rng: random.Random, text: str, edits: int) -> str:
    letters = list(text)
    for place in rng.sample(range(len(letters)), edits):
        letters[place] = rng.choice("xyzپچژ")
    return "".join(letters)


def planted(seed: int, count: int = 50) -> list[str]:
    rng = random.Random(seed)
    texts = [document(rng, (ENGLISH, PERSIAN)[index % 2]) for index in range(count)]
    copies = [edited(rng, rng.choice(texts), rng.choice([0, 1, 3, 6, 10, 15, 25])) for _ in range(count)]
    texts += copies
    texts += [edited(rng, rng.choice(copies), rng.choice([1, 5])) for _ in range(count // 4)]
    rng.shuffle(texts)
    return texts


def shingle_set(text: str) -> set[str]:
    text = normalise(text)
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


def components(alike: np.ndarray) -> list[int]:
    """The least member of each one's connected component."""
    _, labels = connected_components(coo_matrix(alike), directed=False)
    first = {label: index for index, label in reversed(list(enumerate(labels.tolist())))}
    return [first[label] for label in labels.tolist()]


def jaccards(texts: list[str]) -> np.ndarray:
    sets = [shingle_set(text) for text in texts]
    return np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])


def run(
    config: StepConfig, texts: Sequence[Example | str], folder: Path, powers: Powers | None = None
) -> Done:
    examples = [
        text if isinstance(text, Example) else Example("text", Provenance("a.txt", number), text=text)
        for number, text in enumerate(texts, 1)
    ]
    dataset = write_shards(folder / "in", examples)
    return run_step(config, dataset, folder / "cache", seed=3, powers=powers or Powers(), executor=Local(1))


def rejects(done: Done) -> list[dict[str, object]]:
    return [json.loads(line) for path in done.rejected for line in path.read_text("utf-8").splitlines()]


def test_near_duplicates_are_the_components_of_true_jaccard(tmp_path: Path) -> None:
    texts = planted(1)
    alike = jaccards(texts) >= 0.8
    wanted = components(alike)
    assert 45 < len(set(wanted)) < 100 < len(texts)
    assert near_duplicates([texts[:60], texts[60:]], tmp_path).tolist() == wanted


def test_the_estimate_alone_finds_nearly_the_same(tmp_path: Path) -> None:
    texts = planted(2)
    true = jaccards(texts)
    found = np.array(near_duplicates([texts], tmp_path, verify="signature").tolist())
    together = found[:, None] == found[None, :]
    # Further from the threshold than the estimate's error, no pair is mistaken.
    assert together[true >= 0.92].all()
    near_ones = np.array(components(true >= 0.68))
    assert not (together & (near_ones[:, None] != near_ones[None, :])).any()


def test_parts_and_portions_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = planted(3)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = near_duplicates([texts], tmp_path / "whole").tolist()
    monkeypatch.setattr(near, "_ROWS", 20)
    monkeypatch.setattr(near, "_PAIRS", 32)
    monkeypatch.setattr(near, "_FEW", 4)
    monkeypatch.setattr(near, "_TOGETHER", 2000)
    assert (
        near_duplicates([texts[i : i + 7] for i in range(0, len(texts), 7)], tmp_path / "parts").tolist()
        == whole
    )


def test_nothing_and_empty_texts(tmp_path: Path) -> None:
    assert near_duplicates([], tmp_path).tolist() == []
    assert near_duplicates([["", "a", "", "b", " \n"]], tmp_path).tolist() == [0, 1, 0, 3, 0]


def test_many_copies_of_one_text_are_one_group(tmp_path: Path) -> None:
    rng = random.Random(4)
    texts = [document(rng, ENGLISH)] * 3000 + [document(rng, PERSIAN) for _ in range(20)]
    assert near_duplicates([texts], tmp_path).tolist() == [0] * 3000 + list(range(3000, 3020))


@pytest.mark.parametrize("config", [DedupExactConfig(), DedupFuzzyConfig()])
def test_step_takes_out_what_another_stands_for(config: StepConfig, tmp_path: Path) -> None:
    texts = planted(5)
    alike = (
        jaccards(texts) >= 0.8
        if config.type == "dedup_fuzzy"
        else np.array([[normalise(a) == normalise(b) for b in texts] for a in texts])
    )
    wanted = components(alike)
    done = run(config, texts, tmp_path)
    kept = {example.provenance.row - 1 for example in done.dataset}
    assert kept == set(wanted)
    gone = rejects(done)
    assert len(gone) == len(texts) - len(kept)
    true = jaccards(texts)
    for line in gone:
        row, detail = int(str(line["row"])) - 1, str(line["detail"])
        assert f"a.txt, row {wanted[row] + 1}" in detail
        assert "kept as the first" in detail
        if config.type == "dedup_fuzzy":
            assert f"({true[row, wanted[row]]:.2f};" in detail
    sizes = np.bincount(wanted)
    assert done.report.findings["groups"] == (sizes > 1).sum()
    assert done.report.findings["largest"][0]["size"] == sizes.max()


def test_blocks_of_rows_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = planted(6)
    one = run(DedupFuzzyConfig(keep="longest"), texts, tmp_path / "one")
    monkeypatch.setattr(members, "_BLOCK", 16)
    two = run(DedupFuzzyConfig(keep="longest"), texts, tmp_path / "two")
    assert rejects(one) == rejects(two)
    assert one.report.findings == two.report.findings


def test_held_out_first_then_longest_then_best(tmp_path: Path) -> None:
    text = "سلام! کتاب‌های خوب را می‌خوانم، و باز هم می‌خوانم تا یاد بگیرم."
    longer = text + "  "  # the same once normalised
    scored = [
        Example("text", Provenance("a.txt", 1), text=text, about={"quality": 0.2}),
        Example("text", Provenance("a.txt", 2), text=longer, about={"quality": 0.9}),
        Example("text", Provenance("a.txt", 3), text=text.replace("ی", "ي"), about={"quality": 0.5}),
    ]
    for keep, row in (("first", 1), ("longest", 2), ("best", 2)):
        for config in (DedupExactConfig(keep=keep), DedupFuzzyConfig(keep=keep)):  # type: ignore[arg-type]
            done = run(config, scored, tmp_path / f"{config.type}-{keep}")
            assert [example.provenance.row for example in done.dataset] == [row]
            assert done.report.findings["largest"][0]["why"] == f"the {keep}"
    parts = [
        write_shards(tmp_path / name, [example], origin=origin)
        for name, example, origin in (("t", scored[1], 0), ("v", scored[2], 1), ("u", scored[0], 0))
    ]
    dataset = Dataset(tuple(shard for part in parts for shard in part.shards))
    done = run_step(
        DedupExactConfig(keep="longest"), dataset, tmp_path / "c", seed=0, powers=Powers(), executor=Local(1)
    )
    assert [example.provenance.row for example in done.dataset] == [3]
    assert {str(line["detail"]) for line in rejects(done)} == {"the same as a.txt, row 3 (kept as held out)"}


def test_best_without_a_score_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no number named 'quality'") as error:
        run(DedupFuzzyConfig(keep="best"), ["سلام دنیا"], tmp_path)
    assert "a.txt, row 1" in str(error.value)


def test_by_prompt_compares_the_question_alone(tmp_path: Path) -> None:
    turns = [
        Example(
            "messages",
            Provenance("c.jsonl", row),
            messages=(Message("user", "پایتخت ایران کجاست؟"), Message("assistant", answer)),
        )
        for row, answer in enumerate(("تهران", "شهر تهران است که بزرگ‌ترین شهر ایران هم هست."), 1)
    ]
    for kind in (DedupExactConfig, DedupFuzzyConfig):
        assert run(kind(), turns, tmp_path / f"{kind.__name__}e").dataset.rows == 2
        assert run(kind(by="prompt"), turns, tmp_path / f"{kind.__name__}p").dataset.rows == 1


def fake_embed(texts: Sequence[str]) -> np.ndarray:
    """A text is "topic/variant": variants of a topic lie near it."""
    rows = []
    for text in texts:
        topic, variant = map(int, text.split("/"))
        vector = np.random.default_rng(topic).normal(size=32)
        vector += 0.35 * (variant > 0) * np.random.default_rng([topic, variant]).normal(size=32)
        rows.append(vector / np.linalg.norm(vector))
    return np.array(rows, np.float32)


def test_semantic_groups_are_those_of_all_pairs(tmp_path: Path) -> None:
    rng = random.Random(8)
    texts = [f"{topic}/{variant}" for topic in range(150) for variant in range(rng.randrange(4))]
    rng.shuffle(texts)
    vectors = fake_embed(texts).astype(np.float16).astype(np.float32)
    cosine = vectors @ vectors.T
    powers = Powers(embed=lambda name: fake_embed)
    wanted = components(cosine >= 0.9)
    whole = run(DedupSemanticConfig(cluster=10_000), texts, tmp_path / "one", powers)
    assert whole.report.findings["clusters"] == 1
    assert {example.provenance.row - 1 for example in whole.dataset} == set(wanted)
    assert 10 < whole.report.removed.total() < len(texts) // 2
    for line in rejects(whole):
        row = int(str(line["row"])) - 1
        assert f"a.txt, row {wanted[row] + 1} (cosine {cosine[row, wanted[row]]:.2f}" in str(line["detail"])
    parted = run(DedupSemanticConfig(cluster=20), texts, tmp_path / "many", powers)
    assert parted.report.findings["clusters"] > 5
    kept = {example.provenance.row - 1 for example in parted.dataset}
    assert set(wanted) <= kept  # clusters may lose a pair, and find none that is not there
    assert len(kept) - len(set(wanted)) <= 0.05 * whole.report.removed.total()


def test_semantic_leaves_alone_what_the_model_does_not_know(tmp_path: Path) -> None:
    """To a model of English all Persian texts are alike: they would all go but one."""
    persian = ["پایتخت ایران تهران است.", "هوا امروز ابری است.", "کتاب‌ها روی میز است."]
    texts = [*persian, "one", "one and one", "two"]

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.array([[1, 0] if text[0] != "t" else [0, 1] for text in texts], np.float32)

    powers = Powers(embed=lambda name: embed)
    done = run(DedupSemanticConfig(), texts, tmp_path / "embedded", powers)
    assert [example.text for example in done.dataset] == [*persian, "one", "two"]
    assert done.report.findings["not compared: in another language"] == 3
    alone = run(DedupSemanticConfig(), persian, tmp_path / "alone", powers)
    assert alone.dataset.rows == 3
    for number, other in enumerate((DedupSemanticConfig(languages=[]), DedupSemanticConfig(model="e5"))):
        all_known = run(other, texts, tmp_path / str(number), powers)
        assert [example.text for example in all_known.dataset] == [persian[0], "two"]
        assert "not compared: in another language" not in all_known.report.findings


def test_semantic_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="numbers of shape"):
        run(DedupSemanticConfig(), ["1/0"], tmp_path, Powers(embed=lambda _: lambda texts: np.zeros(3)))
