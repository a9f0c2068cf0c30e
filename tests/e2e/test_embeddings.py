"""A tiny encoder through the pipeline: pairs of texts, an adapter, what it finds, exports."""

import json
import random
from pathlib import Path

import pytest

from tanzim.core.errors import ConfigError, DataError, RunError
from tanzim.core.files import read_json
from tanzim.core.run import read_lines
from tanzim.pipeline.config import Config
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.export import export_run
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.opened import open_models
from tanzim.pipeline.workspace import load_config

TOPICS = {
    "password": "گذرواژه", "invoice": "صورتحساب", "delivery": "ارسال", "refund": "بازپرداخت",
    "colour": "رنگ", "weight": "وزن", "garden": "باغ", "kitchen": "آشپزخانه",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    corpus = [f"{a} {b} 0 1 2 3 4 5 6 7 8 9 how is my where the" for a, b in TOPICS.items()]
    words.train_from_iterator(corpus, trainers.WordLevelTrainer(special_tokens=special))
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        pad_token_id=0,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("model") / "tiny-bert"
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw, path = random.Random(2), tmp_path_factory.mktemp("data") / "triplets.jsonl"
    rows, topics = [], list(TOPICS)
    for number in range(160):
        topic = topics[number % len(topics)]
        other = topics[(number + 1) % len(topics)]
        asked = " ".join(draw.choices("0123456789", k=3))
        rows.append(
            {
                "anchor": f"how is my {topic} {asked}",
                "positive": f"{TOPICS[topic]} {asked}",
                "negative": f"{TOPICS[other]} {asked}",
            }
        )
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def config(root: Path, data: Path, model: Path, name: str, *more: str) -> Config:
    places = [f"runs_dir={root / 'runs'}", f"name={name}", f"data.path={data}", f"model.name={model}"]
    settings = [
        "train.objective.type=contrastive",
        "train.tokens_per_step=1024",
        "train.tokens_per_pass=512",
        "train.learning_rate=1e-2",
        "train.epochs=16",
        "model.device=cpu",
        "data.split.leakage=allow",
    ]
    return load_config(None, [*places, *settings, *more])


@pytest.mark.slow
def test_an_encoder_learns_to_find_and_its_vectors_leave_as_they_were(
    tmp_path: Path, tiny_bert: Path, triplets: Path
) -> None:
    wanted = config(tmp_path, triplets, tiny_bert, "find")
    folder = finetune(wanted).folder
    assert read_json(folder.adapter / "tanzim.json")["embedding"] == {"pooling": "mean", "normalize": True}
    report = evaluate_run(wanted)
    tuned, base = report.system("tuned").metrics, report.system("base").metrics
    assert tuned["recall@1"]["all"].value > base["recall@1"]["all"].value + 0.3
    assert tuned["mrr"]["all"].low <= tuned["mrr"]["all"].value <= tuned["mrr"]["all"].high
    item = next(read_lines(folder.evaluation / "items.jsonl"))
    assert item["reference"].split()[0] in TOPICS.values()
    assert "recall@10" in (folder.report).read_text(encoding="utf-8")

    # Plain transformers and an independent mean pooling rank as the evaluation did.
    import torch
    from transformers import AutoModel, AutoTokenizer

    merged = export_run(wanted, merge=True)
    assert "vectors of" in merged.proof[0]
    assert export_run(wanted).path.is_dir()
    model, tokenizer = (
        AutoModel.from_pretrained(merged.path).eval(),
        AutoTokenizer.from_pretrained(merged.path),
    )

    def vector(text: str) -> torch.Tensor:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = hidden.mean(0)
        return mean / mean.norm()

    lines = list(read_lines(folder.evaluation / "items.jsonl"))
    texts = sorted({line["reference"] for line in lines})
    for line in lines[:4]:
        asked = vector(line["messages"][-1]["content"])
        answer = line["systems"]["tuned"]["answer"]
        assert asked @ vector(answer) >= max(asked @ vector(text) for text in texts) - 1e-5

    with pytest.raises(RunError, match="gives texts vectors"):
        open_models([str(folder.path)])


def test_pairs_that_cannot_be_are_one_clear_message(tmp_path: Path, tiny_bert: Path, triplets: Path) -> None:
    with pytest.raises(ConfigError, match="lost one of its texts"):
        finetune(config(tmp_path, triplets, tiny_bert, "cut", "model.overlong=truncate"))
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"how is my password {n}"}) + "\n" for n in range(40)))
    with pytest.raises(DataError, match="texts that belong together"):
        finetune(config(tmp_path, text, tiny_bert, "text"))
