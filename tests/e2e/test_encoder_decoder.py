"""A tiny T5 through the pipeline: sources and targets, an adapter, answers, scores, exports."""

import json
import random
from pathlib import Path

import pytest

from tanzim.core.errors import ModelError, RenderError
from tanzim.core.files import read_json
from tanzim.core.records import Message
from tanzim.pipeline.chat import chat
from tanzim.pipeline.config import Config
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.export import export_run
from tanzim.pipeline.finetune import finetune
from tanzim.pipeline.opened import open_models
from tanzim.pipeline.workspace import load_config

COLOURS = {"apple": "red", "plum": "blue", "pear": "green", "سیب": "سرخ", "گلابی": "زرد"}


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in Hugging Face layout: two layers, 32 wide, byte-level BPE that adds </s>."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    corpus = [f"colour of {fruit}: {colour}" for fruit, colour in COLOURS.items()] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet)
    bpe.train_from_iterator(corpus, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    torch.manual_seed(0)
    config = T5Config(**sizes, vocab_size=len(tokenizer), dropout_rate=0.0, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    torch.nn.init.normal_(model.shared.weight, std=2.0)  # wide enough for an adapter to be sure of a token
    folder = tmp_path_factory.mktemp("model") / "tiny-t5"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw, path = random.Random(2), tmp_path_factory.mktemp("data") / "colours.jsonl"
    rows = []
    for number in range(150):
        fruit = list(COLOURS)[number % len(COLOURS)]
        rows.append({"prompt": f"{draw.randrange(1000)}: colour of {fruit}", "completion": COLOURS[fruit]})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def config(root: Path, data: Path, model: Path, name: str, *more: str) -> Config:
    places = [f"runs_dir={root / 'runs'}", f"name={name}", f"data.path={data}", f"model.name={model}"]
    settings = [
        "train.objective.type=seq2seq",
        "train.tokens_per_step=512",
        "train.tokens_per_pass=512",
        "train.learning_rate=1e-2",
        "train.epochs=16",
        "evaluate.max_new_tokens=8",
        "model.device=cpu",
        "export.new_tokens=6",
    ]
    return load_config(None, [*places, *settings, *more])


@pytest.mark.slow
def test_an_adapter_of_an_encoder_decoder_is_trained_proven_evaluated_and_exported(
    tmp_path: Path, tiny_t5: Path, colours: Path
) -> None:
    wanted = config(tmp_path, colours, tiny_t5, "colours")
    folder = finetune(wanted).folder
    assert read_json(folder.adapter / "adapter_config.json")["task_type"] == "SEQ_2_SEQ_LM"
    assert "AutoModelForSeq2SeqLM" in (folder.adapter / "README.md").read_text()

    report = evaluate_run(wanted)
    scores = {system.name: system.metrics for system in report.systems}
    metric = "accuracy" if "accuracy" in scores["tuned"] else report.metrics[0]
    assert scores["tuned"][metric]["all"].value > scores["base"][metric]["all"].value + 0.5
    losses = {system.name: system.loss for system in report.systems}
    assert losses["tuned"] < losses["base"] / 2

    assert "".join(chat(str(folder.path), "7: colour of plum")) == "blue"

    # Plain transformers reads the merged model and answers as the adapter does.
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    merged = export_run(wanted, merge=True)
    assert export_run(wanted).path.is_dir()
    model = AutoModelForSeq2SeqLM.from_pretrained(merged.path)
    tokenizer = AutoTokenizer.from_pretrained(merged.path)
    opened = open_models([str(folder.path)])
    for fruit in ("apple", "سیب"):
        asked = f"9: colour of {fruit}"
        ids = model.generate(**tokenizer(asked, return_tensors="pt"), max_new_tokens=8, do_sample=False)
        assert tokenizer.decode(ids[0], skip_special_tokens=True) == COLOURS[fruit]
        assert opened.renderer.prompt([Message("user", asked)]) == tokenizer(asked).input_ids


@pytest.mark.slow
def test_every_weight_of_an_encoder_decoder(tmp_path: Path, tiny_t5: Path, colours: Path) -> None:
    more = ("train.method.type=full", "train.learning_rate=5e-3", "train.max_steps=3")
    made = finetune(config(tmp_path, colours, tiny_t5, "full", *more))
    assert read_json(made.output / "config.json")["is_encoder_decoder"] is True
    assert made.result["loss"] > 0


def test_shapes_that_do_not_fit_are_one_clear_message(
    tmp_path: Path, tiny_t5: Path, tiny_model: Path, colours: Path
) -> None:
    with pytest.raises((ModelError, RenderError)) as causal:
        finetune(config(tmp_path, colours, tiny_t5, "a", "train.objective.type=language_model"))
    assert "seq2seq" in str(causal.value)
    with pytest.raises((ModelError, RenderError)) as seq2seq:
        finetune(config(tmp_path, colours, tiny_model, "b"))
    assert "encoder-decoder" in str(seq2seq.value)
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"pear and plum {n}"}) + "\n" for n in range(40)))
    with pytest.raises(RenderError, match="no question and answer"):
        finetune(config(tmp_path, text, tiny_t5, "c"))
