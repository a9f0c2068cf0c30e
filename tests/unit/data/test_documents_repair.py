"""Encodings told from bytes, and text decoded wrongly put right: on text garbled here, in both languages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import ftfy
import pytest

from tanzim.core.errors import DataError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.clean.config import RepairTextConfig
from tanzim.data.clean.repair import RepairText, repair_text
from tanzim.data.config import DataConfig
from tanzim.data.ingest.guess import detect_encoding
from tanzim.data.ingest.sources import Source, open_source
from tanzim.data.step import Removed

FA = [
    "سلام، امروز باران می‌بارد و کتاب‌ها خیس شده‌اند.",
    "آیا شما هم به خانه می‌روید؟ من گفتم: «هنوز نه».",
    "قیمت این گوشی ۲۵ میلیون تومان است – نه بیشتر!",
    "پژوهشگران چگونه ژرفای دریا را اندازه گرفتند…",
]
EN = [
    "She didn’t say “yes” – she said café, naïve and résumé.",
    "The price is £25 or €30 • and that’s it…",
    "François and Zoë live in Zürich, near the façade.",
]
CLEAN = [
    *FA,
    *EN,
    "Ça va? Où est l’élève? À bientôt! ÉCOLE ÉTÉ ÎLE",
    "ÀÉÎÕÜ are capital letters; Øresund, Ærø and Århus are places",
    "Привет, как дела? Всё хорошо.",
    "اگرچه عکس‌ها § ۵ و طرح © مینا بود",
    "ع غ ط ظ و ق ف ک گ",
    "Jag är på ön; það er íslenska: ÞÆÖÐ",
]


def wrong(text: str, said: str) -> str:
    return text.encode().decode(said)


@pytest.mark.parametrize("text", CLEAN)
def test_good_text_stays(text: str) -> None:
    counts: Counter[str] = Counter()
    assert repair_text(text, counts) == text
    assert not counts


@pytest.mark.parametrize("said", ["sloppy-windows-1252", "latin-1", "cp1256"])
@pytest.mark.parametrize("text", [*FA, *EN])
def test_utf8_read_as_something_else(text: str, said: str) -> None:
    assert repair_text(wrong(text, said)) == text
    assert repair_text(repair_text(wrong(text, said))) == text


@pytest.mark.parametrize("text", FA)
def test_what_ftfy_does_not_know(text: str) -> None:
    garbled = wrong(text, "cp1256")
    assert ftfy.fix_encoding(garbled) != text
    assert repair_text(garbled) == text
    arabic = text.translate(str.maketrans("ی۲۵", "ي25")).encode("cp1256")
    garbled = arabic.decode("sloppy-windows-1252")
    assert ftfy.fix_encoding(garbled) != arabic.decode("cp1256")
    assert repair_text(garbled) == arabic.decode("cp1256")


def test_text_garbled_twice_and_in_part() -> None:
    twice = wrong(wrong(FA[0], "sloppy-windows-1252"), "sloppy-windows-1252")
    mixed = "\n".join([FA[1], wrong(FA[0], "cp1256"), EN[0], twice])
    counts: Counter[str] = Counter()
    assert repair_text(mixed, counts) == "\n".join([FA[1], FA[0], EN[0], FA[0]])
    assert counts == {
        "UTF-8 read as Windows-1256 (lines)": 1,
        "UTF-8 read as Windows-1252 or the like (lines)": 1,  # ftfy undoes both at once
    }


def test_the_step_counts_and_leaves_what_a_program_reads() -> None:
    bad = wrong(FA[0], "cp1256")
    call = ToolCall("f", {"x": bad})
    turns = (
        Message("user", bad),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", bad),
        Message("assistant", FA[1]),
    )
    examples = [
        Example("messages", Provenance("a", 1), messages=turns),
        Example("text", Provenance("a", 2), text="half \ufffd gone"),
        Example("tagged", Provenance("a", 3), text=bad, words=(bad,), tags=("O",)),
    ]
    step = RepairText(RepairTextConfig(lost="drop"), Powers(), 1)
    first, lost, tagged = step.apply(examples)
    assert isinstance(first, Example)
    assert [turn.content for turn in first.messages] == [FA[0], "", bad, FA[1]]
    assert first.messages[1].tool_calls == (call,)
    assert isinstance(lost, Removed)
    assert lost.detail == "1 of them"
    assert tagged == examples[2]
    assert step.counts["texts repaired"] == 1
    assert step.counts["lost characters (U+FFFD) left"] == 1
    western = Example("text", Provenance("a", 4), text=wrong(EN[0], "sloppy-windows-1252"))
    keep = RepairText(RepairTextConfig(), Powers(), 1)
    assert [one.text for one in keep.apply([western]) if isinstance(one, Example)] == [EN[0]]
    assert keep.counts["signs of wrong decoding before"] > 3
    assert keep.counts["signs of wrong decoding after"] == 0


ARABIC = " ".join(FA * 4).replace("ی", "ي").translate(str.maketrans("۲۵", "25"))
WESTERN = " ".join(EN * 4)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ARABIC, "cp1256"),
        (WESTERN, "cp1252"),
        (WESTERN, "utf-16-le"),
        (ARABIC, "utf-16-be"),
        ("Привет, как дела? Сегодня хорошая погода, и мы идём гулять. " * 5, "cp1251"),
        ("Привет, как дела? Сегодня хорошая погода, и мы идём гулять. " * 5, "koi8-r"),
    ],
)
def test_encodings_told_from_bytes(text: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    source = Source("a.txt", path)
    with pytest.raises(DataError, match=r"set data\.encoding"):
        open_source(source, DataConfig(path="x"))
    opened = open_source(source, DataConfig(path="x", encoding="detect"))
    assert "told from its bytes" in opened.note
    (row,) = opened.rows
    assert row.value["text"] == text.strip("\n")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "data",
    [
        b"caf\x82 and d\x82j\x85 vu, na\x8bve",  # code page 437
        "She didn’t say it’s ‘so’".encode("mac_roman"),
        bytes(range(0x80, 0x100)) * 4,
    ],
)
def test_what_is_not_sure_is_refused(data: bytes, tmp_path: Path) -> None:
    assert detect_encoding(data) is None
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(DataError):
        open_source(Source("a.txt", path), DataConfig(path="x", encoding="detect"))
