"""Precision and recall of encoding detection and of the repair of wrongly decoded text, in both languages.

Lines of real Persian and English text are encoded, or decoded wrongly, here; what comes back is right only
if it is the same, letter by letter. Beside it the naive ways: whatever charset-normalizer deems best, always
Windows-1252, and ftfy alone.

    python bench/data_encoding.py ../shared/data
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import ftfy
from charset_normalizer import from_bytes

from tanzim.data.clean.repair import repair_text
from tanzim.data.ingest.guess import detect_encoding

EACH = 60


def texts(data: Path) -> tuple[list[str], list[str]]:
    qa = json.loads((data / "persian" / "persianqa_test.json").read_text(encoding="utf-8"))
    persian = [part["context"] for article in qa["data"] for part in article["paragraphs"]]
    rows = (data / "text" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    english = [json.loads(row)["text"] for row in rows]
    return (
        [text for text in dict.fromkeys(persian) if "\ufffd" not in text][:EACH],
        [text for text in english if not text[:300].isascii() and "\ufffd" not in text][:EACH],
    )


def detection(persian: list[str], english: list[str]) -> dict[str, dict[str, float]]:
    arabic = [text.replace("ی", "ي") for text in persian]
    sources = [(arabic, ("cp1256", "iso8859_6", "utf-16-le", "utf-16-be"))]
    sources.append((english, ("cp1252", "utf-16-le", "mac_roman", "cp437")))
    cases = [
        (text[:size].encode(code, "ignore"), code)
        for found, codes in sources
        for size in (300, 2000)
        for code in codes
        for text in found
    ]
    cases = [(data, code) for data, code in cases if not data.isascii()]

    def best(data: bytes) -> str | None:
        found = from_bytes(data).best()
        return found.encoding if found else None

    ways: dict[str, Callable[[bytes], str | None]] = {
        "tanzim": detect_encoding, "charset-normalizer": best, "always cp1252": lambda _: "cp1252",
    }  # fmt: skip
    result = {}
    for name, way in ways.items():
        told = [(data, code, way(data)) for data, code in cases]
        right = sum(data.decode(said, "replace") == data.decode(code) for data, code, said in told if said)
        given = sum(said is not None for *_, said in told)
        result[name] = {"precision": round(right / max(1, given), 4), "recall": round(right / len(cases), 4)}
        print(f"detection of {len(cases)}: {name:20} {result[name]}")
    return result


def repair(persian: list[str], english: list[str]) -> dict[str, dict[str, float]]:
    lines = {
        "fa": [line for text in persian for line in text.split("\n") if len(line) > 20],
        "en": [line for text in english for line in text.split("\n") if not line.isascii()],
    }
    pairs: list[tuple[str, str]] = []
    for name, found in lines.items():
        pairs += [(line, line) for line in found]  # good text, to be left alone
        for said in ("sloppy-windows-1252", "latin-1", "cp1256"):
            pairs += [(line, line.encode().decode(said)) for line in found]
        if name == "fa":
            arabic = [line.replace("ی", "ي").encode("cp1256", "ignore") for line in found]
            pairs += [(data.decode("cp1256"), data.decode("sloppy-windows-1252")) for data in arabic]
    ways: dict[str, Callable[[str], str]] = {
        "tanzim": repair_text, "ftfy.fix_encoding": ftfy.fix_encoding, "ftfy.fix_text": ftfy.fix_text,
    }  # fmt: skip
    result = {}
    wrong = sum(good != bad for good, bad in pairs)
    for name, way in ways.items():
        after = [(good, bad, way(bad)) for good, bad in pairs]
        changed = [(good, bad, text) for good, bad, text in after if text != bad]
        right = sum(text == good for good, _, text in changed)
        precision, recall = right / max(1, len(changed)), right / wrong
        result[name] = {"precision": round(precision, 4), "recall": round(recall, 4)}
        print(f"repair of {wrong} lines among {len(pairs)}: {name:20} {result[name]}")
    return result


def main() -> None:
    persian, english = texts(Path(sys.argv[1]))
    print(json.dumps({"detection": detection(persian, english), "repair": repair(persian, english)}))


if __name__ == "__main__":
    main()
