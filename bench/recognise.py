"""What the data room takes each file of a folder for: a table, and a check of what is known.

    python bench/recognise.py PATH

PATH is a folder with the public data sets named in `EXPECTED`; the last line is JSON, and the exit
status is 1 if a file that is there was taken for something else, or a row was lost.
"""

import argparse
import json
import sys
from pathlib import Path

from tanzim.core.errors import TanzimError
from tanzim.data.config import DataConfig
from tanzim.data.ingest.detect import detect
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.rows import Row
from tanzim.data.ingest.sources import Source, open_source

EXPECTED = {
    "alpaca/alpaca_10k.json": "alpaca",
    "alpaca/alpaca_en_demo.json": "alpaca",
    "dolly/dolly_3k.json": "alpaca",
    "sharegpt/dummy_conversation.json": "sharegpt",
    "toolcall/glaive_toolcall_en_demo.json": "sharegpt",
    "formats/v1_sft_demo.jsonl": "messages",
    "formats/v1_dpo_demo.jsonl": "preference",
    "preference/auto_j_testdata_pairwise.jsonl": "preference",
    "preference/dpo_en_demo.json": "preference",
    "preference/hh_harmless_base_test.jsonl.gz": "preference",
    "preference/kto_en_demo.json": "kto",
    "gsm8k/train.jsonl": "prompt_completion",
    "gsm8k/test.jsonl": "prompt_completion",
    "sms_spam/SMSSpamCollection.tsv": "labelled",
    "persian/snappfood_test.csv": "labelled",
    "persian/persianqa_test.json": "prompt_completion",
    "persian/parsinlu/entailment_dev.csv": "labelled",
    "persian/parsinlu/entailment_train.csv": "labelled",
    "persian/parsinlu/qqp_train.jsonl": "labelled",
    "persian/parsinlu/sentiment_food.jsonl": "labelled",
    "persian/parsinlu/mc_train.jsonl": "multiple_choice",
    "persian/parsinlu/mc_valid.jsonl": "multiple_choice",
    "persian/parsinlu/translation_quran_1500.fa.makarem.norm.txt": "text",
    "text/c4_demo.jsonl": "text",
    "text/wiki_demo.txt": "text",
    "eval/HumanEval.jsonl.gz": "prompt_completion",
    "eval/TruthfulQA.csv": "prompt_completion",
    "eval/ARC-Easy_validation.jsonl": "multiple_choice",
    "eval/hellaswag_val_1000.jsonl": "multiple_choice",
    "eval/mmlu/philosophy_test.jsonl": "multiple_choice",
    "oasst/oasst_en_100_tree.jsonl": "message_tree",
    "safety/prompt_injections_train.csv": "labelled",
    "dedup/articles_1000.train.txt": "text",
    "pdf/habibi.pdf": "refused",
}
ROWS = {
    "alpaca/alpaca_10k.json": 10000,
    "gsm8k/train.jsonl": 7473,
    "sms_spam/SMSSpamCollection.tsv": 5574,
    "persian/snappfood_test.csv": 14000,
    "persian/persianqa_test.json": 930,
    "eval/TruthfulQA.csv": 817,
    "preference/hh_harmless_base_test.jsonl.gz": 2285,
    "persian/parsinlu/translation_quran_1500.fa.makarem.norm.txt": 1500,
}


def recognise(path: Path) -> dict[str, object]:
    """Return what a file was taken for, and where its rows went."""
    config = DataConfig(path=str(path), max_rejected=1.0)
    source = Source(str(path), path)
    try:
        one = ingest(source, config)
        for _ in one.items():
            pass
    except TanzimError as error:
        return refused(source, config, error)
    detection = one.detection
    return {
        "format": detection.format if detection else "none",
        "reason": detection.reason if detection else "no row could be read",
        "read": one.read,
        "kept": one.kept,
        "rejected": dict(one.rejected.most_common()),
    }


def refused(source: Source, config: DataConfig, error: TanzimError) -> dict[str, object]:
    """Name a format that is recognised but not trained on, or the refusal of the file."""
    result: dict[str, object] = {
        "format": "refused",
        "reason": error.what,
        "read": 0,
        "kept": 0,
        "rejected": {},
    }
    try:
        rows = [row.value for row in open_source(source, config).rows if isinstance(row, Row)]
        found = detect(rows[:200], config)
    except TanzimError:
        return result
    return {**result, "format": found.format, "reason": found.reason, "read": len(rows)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    folder = parser.parse_args().path
    faults, table = [], {}
    for name, expected in EXPECTED.items():
        if not (folder / name).is_file():
            continue
        result = table[name] = recognise(folder / name)
        right = result["format"] == expected and result["read"] == ROWS.get(name, result["read"])
        print(
            f"{'  ' if right else '! '}{name:<62}{result['format']:<19}{result['read']:>7} read "
            f"{result['kept']:>7} kept {sum(result['rejected'].values()):>5} rejected",  # type: ignore[attr-defined]
            flush=True,
        )
        print(f"      {result['reason']}")
        if not right:
            faults.append(name)
    print(json.dumps({"files": len(table), "faults": faults, "found": table}, ensure_ascii=False))
    return 1 if faults or not table else 0


if __name__ == "__main__":
    sys.exit(main())
