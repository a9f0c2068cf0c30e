"""Persian normalisation: what changes, what never does, and that twice is once."""

import json
import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers.properties import examples, soon
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.clean.config import PersianConfig
from tanzim.data.clean.persian.letters import LOOK_ALIKES
from tanzim.data.clean.persian.lexicon import Lexicon, learn
from tanzim.data.clean.persian.normalise import Normaliser, normalise
from tanzim.data.clean.persian.script import is_persian
from tanzim.data.clean.persian.step import Persian
from tanzim.data.step import Survey

Z = "\u200c"
HERE = Provenance("test", 1)


def test_half_spaces() -> None:
    pairs = {
        "من می خواهم بروم": f"من می{Z}خواهم بروم",
        "دیگر نمی روم و نمیدانم": f"دیگر نمی{Z}روم و نمی{Z}دانم",
        "این کتاب ها و کتابهایشان": f"این کتاب{Z}ها و کتاب{Z}هایشان",
        "شهر بزرگ تر و سریعترین راه": f"شهر بزرگ{Z}تر و سریع{Z}ترین راه",
        "خانه ای که خانه اش دور است": f"خانه{Z}ای که خانه{Z}اش دور است",
        "رفته ام و گفتهاند": f"رفته{Z}ام و گفته{Z}اند",
        "خانه ی ما": f"خانه{Z}ی ما",
        "این دادهها در چند مرحلهای که گفتم": f"این داده{Z}ها در چند مرحله{Z}ای که گفتم",
        "بهینهسازی و برچسبگذاری دادههای ما": f"بهینه{Z}سازی و برچسب{Z}گذاری داده{Z}های ما",
        "آب برمیگردد و باز می آید": f"آب برمی{Z}گردد و باز می{Z}آید",
        "دانشآموزان پیشآموزش دیدند": f"دانش{Z}آموزان پیش{Z}آموزش دیدند",
        "بهعنوان نمونه، بهطور کلی": f"به{Z}عنوان نمونه، به{Z}طور کلی",
        "ماه می‌میرد و می میراند": f"ماه می{Z}میرد و می{Z}میراند",
    }
    for before, after in pairs.items():
        assert normalise(before) == after


def test_words_that_only_look_like_it_stay() -> None:
    for text in (
        "تنها راه انتهای میدان است و میوه میان آنها بها دارد",
        "دختر و دکتر در دفتر شیمی و فیلتر بهتر و بیشتر",
        "این کارها و ابزارهای ما در روزهای سرد",  # a half-space would not be seen
        "میزبان میلاد را در میهن دید و الهام و ابهام و سهام را شناخت",
        "توجهی به گروهی نکرد و راهی شد",
        "قرآن و الآن و مآخذ این مرآت",
        "درخواست را به پدر و مادر داد",
    ):
        assert normalise(text) == text


def test_misplaced_half_spaces() -> None:
    assert normalise(f"می{Z}{Z}خواهم {Z}این{Z} کتاب{Z}، را بخوانم{Z}") == f"می{Z}خواهم این کتاب، را بخوانم"
    assert normalise("می\u00acشود و می\u200bرود و می\u00adگوید که") == f"می{Z}شود و می{Z}رود و می{Z}گوید که"
    assert normalise(f"این LLM{Z}ها و ۱۲{Z}ساله را") == f"این LLM{Z}ها و ۱۲{Z}ساله را"


def test_letters() -> None:
    assert normalise("اين كتاب را موسى به چي داد") == "این کتاب را موسی به چی داد"
    assert normalise("ســـلام بر پـدر و هـ") == "سلام بر پدر و هـ"
    assert normalise("۱۳۰۰ و ١٢٣ و 45 تا") == "۱۳۰۰ و ۱۲۳ و 45 تا"


def test_every_presentation_form_is_what_unicode_says() -> None:
    for code in (*range(0xFB50, 0xFDFA), *range(0xFE80, 0xFEFD)):
        if not unicodedata.category(chr(code)).startswith("L"):
            continue
        plain = unicodedata.normalize("NFKC", chr(code))
        want = plain.translate(str.maketrans(LOOK_ALIKES))
        if " " in plain or "ـ" in plain:
            continue
        config = PersianConfig(half_spaces=False, spaces=False, punctuation="keep", change_marked=True)
        got = normalise(f"چه {chr(code)} پژ", config)
        if got != f"چه {chr(code)} پژ":  # left alone where the letter makes the text another language's
            assert got == f"چه {want} پژ", hex(code)


def test_half_space_hidden_in_presentation_forms() -> None:
    shaped = "\ufee3\ufbfd\ufeb7\ufeee\ufea9"  # meem initial, yeh FINAL, sheen initial, waw, dal
    assert normalise(f"این {shaped} که") == f"این می{Z}شود که"


def test_lines_in_reverse() -> None:
    line = "این متن در سال 2024 از فایل PDF خارج شده است."
    reverse = line[::-1].replace("4202", "2024").replace("FDP", "PDF")
    assert normalise(reverse) == line
    by_word = "این متن که از کتاب است برای ما خوب بود."
    turned = " ".join(word.rstrip(".")[::-1] + "." * word.endswith(".") for word in by_word.split())
    assert normalise(turned) == by_word
    assert normalise(reverse, PersianConfig(reversed_lines=False)) != line


def test_punctuation() -> None:
    assert normalise('آيا مي داني?بله ,"این کتاب" را ببین ; خوب است( نه )') == (
        f"آیا می{Z}دانی؟ بله، «این کتاب» را ببین؛ خوب است (نه)"
    )
    kept = PersianConfig(punctuation="keep", spaces=False)
    assert normalise("چه شد ? این , آن", kept) == "چه شد ? این , آن"
    assert normalise("چه شد؟ «این» ، آن", PersianConfig(punctuation="latin")) == 'چه شد? "این", آن'
    assert normalise("قیمت 1,000 تا 2,500 و ساعت ۱۰:۳۰ و عدد ۳.۵ است") == (
        "قیمت 1,000 تا 2,500 و ساعت ۱۰:۳۰ و عدد ۳.۵ است"
    )
    assert normalise("کتاب(ها) را خواندم") == "کتاب(ها) را خواندم"


def test_digits() -> None:
    text = "سال ۱۴۰۳ و ١٤٠٣ و 1403 در GPT-4 و http://a.ir/1 و نسخهٔ 1.2.3"
    assert "۱۴۰۳ و ۱۴۰۳ و ۱۴۰۳ در GPT-4 و http://a.ir/1" in normalise(text, PersianConfig(digits="persian"))
    assert "1403 و 1403 و 1403 در GPT-4" in normalise(text, PersianConfig(digits="latin"))
    assert "١٤٠٣ و ١٤٠٣ و ١٤٠٣ در GPT-4" in normalise(text, PersianConfig(digits="arabic"))
    assert normalise(text, PersianConfig(digits="keep")) == text
    assert "1.2.3" in normalise(text, PersianConfig(digits="persian"))


def test_diacritics() -> None:
    text = "لطفاً مُدیر را بِبین که محمّد آمد"
    assert normalise(text) == text
    assert normalise(text, PersianConfig(diacritics="vowels")) == "لطفاً مدیر را ببین که محمّد آمد"
    assert normalise(text, PersianConfig(diacritics="remove")) == "لطفا مدیر را ببین که محمد آمد"
    verse = "بِسْمِ ٱللَّهِ ٱلرَّحْمَـٰنِ"
    with_verse = f"این آیه که می گوید {verse} را بُخوان"
    assert normalise(with_verse, PersianConfig(diacritics="remove")) == (
        f"این آیه که می{Z}گوید {verse} را بخوان"
    )
    asked = PersianConfig(diacritics="remove", change_marked=True)
    assert "بسم الله" in normalise(with_verse, asked)
    assert normalise("این ﴿قُلْ كَلامًا﴾ را كه", PersianConfig(diacritics="remove")) == "این ﴿قُلْ كَلامًا﴾ را که"


LEFT_ALONE = [
    "`كتاب ها می شود`",
    "```python\nx = 'كتاب ها'  # می شود ?\n```",
    "https://example.com/كتاب?q=می,شود",
    "آدرس:http://example.com/كتاب?q=می,شود",
    "آدرس=www.example.com/كتاب?q=می,شود",
    "ali.reza@example.com",
    '{"name": "كتاب ها", "n": [1, 2]}',
    "<a href='x?y=1,2'>",
    "<tool_call>{'نام': 'كتاب ها'}</tool_call>",
    "#تنظيم_دقیق",
    "👨‍👩‍👧 🇮🇷 ❤️",
    "$x_1 , y ?$",
    "GPT-4o, v1.2",
    "Hello , world ?",
    "- [ ] x",
]


@pytest.mark.parametrize("part", LEFT_ALONE)
def test_machine_text_and_latin_stay_to_the_letter(part: str) -> None:
    for config in (PersianConfig(), PersianConfig(digits="persian", diacritics="remove", phrases="join")):
        assert part in normalise(f"این را كه می بینی: {part} و كتاب ها را بخوان", config)


@pytest.mark.parametrize(
    "text",
    [
        "هذا كتاب جديد في المدرسة وأنا أحب القراءة ,فهل تحبها ?",
        "يہ ایک کتاب ہے ، اور وہ میز پر ہے ?",
        "ئەم کتێبە زۆر باشە و من دەیخوێنمەوە ,",
        "Just English , with   spaces ?",
        "",
        "۱۲۳ 456",
        "   ",
    ],
)
def test_other_languages_stay(text: str) -> None:
    assert normalise(text) == text


def test_arabic_line_in_a_persian_text_stays() -> None:
    arabic = "الحمد لله الذي هدانا لهذا , وما كنا لنهتدي"
    text = f"این دعا را كه می خوانی:\n{arabic}\nو پس از آن می روی"
    assert normalise(text).split("\n") == [f"این دعا را که می{Z}خوانی:", arabic, f"و پس از آن می{Z}روی"]


def test_lines_and_layout_stay() -> None:
    text = "# عنوان  \n\n    کد پیش از این\n- مورد یک\n\t- مورد  دو\n| الف | ب |\n|---|---|\n"
    assert normalise(text) == text.replace("مورد  دو", "مورد دو")


def test_line_wraps() -> None:
    paragraph = (
        "این بند را ناشر به سطرهای کوتاه شکسته است تا در ستون روزنامه جا شود و ما آن را دوباره یکی می‌کنیم "
        "تا هر جمله در یک سطر بماند و خواندن آن برای ماشین و انسان آسان شود و پاره‌های آن از هم جدا نماند."
    )
    lines: list[str] = [""]
    for word in paragraph.split():
        if len(lines[-1]) + 1 + len(word) > 46:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    wrapped = "\n".join(lines)
    text = f"{wrapped}\n\n{wrapped}\n\n- یک\n- دو"
    join = PersianConfig(line_wraps="join")
    assert normalise(text, join) == f"{paragraph}\n\n{paragraph}\n\n- یک\n- دو"
    assert normalise(normalise(text, join), join) == normalise(text, join)
    assert normalise(text) == text
    poem = "\n".join(
        ["تو را من چشم در راهم شباهنگام", "که می‌گیرند در شاخ", "سایه‌ها رنگ سیاهی", "وزان دل خستگان"]
    )
    assert normalise(poem, join).count("\n") == 3


def test_lossless_changes_letters_and_nothing_else() -> None:
    text = "اين كتاب ها را , مي خواهم ?  ســلام ١٢ «آن»"
    out = normalise(text, PersianConfig(lossless=True))
    assert out == "این کتاب ها را , می خواهم ?  ســلام ۱۲ «آن»"
    assert len(out) == len(text)


# --- twice is once --------------------------------------------------------------------------------------

WORDS = """
می نمی خواهم میخواهم کتاب کتابها كتاب ها های ای ام اند است شده شدهاند به عنوان بهعنوان بزرگ تر ترین
بزرگتر خانه ی خانهای مرحلهای داده دادهها سازی بهینه روز روزهای گفت رفت تنها آنها میدان دانشآموز و که
از این را بین المللی پيش اش شان بی نظیر هیچ گونه می‌ ‌ها کرده‌اند لطفاً مُدیر ســلام قلب گفته یی ئی
هایم هام درخواستهای فرمانده اي
""".split()  # noqa: SIM905
SIGNS = [
    " ",
    " ",
    " ",
    "  ",
    Z,
    Z + Z,
    "\n",
    "،",
    ",",
    "?",
    "؟",
    ".",
    ":",
    "(",
    ")",
    "«",
    "»",
    '"',
    ";",
    "!",
    "ـ",
    "\t",
    "۱",
    "٢",
    "3",
    "A",
    "LLM",
    "`",
    "{",
    "}",
    "<b>",
    "http://a.b/ج",
    "a@b.co",
    "😀",
    "\u00ac",
    "\u200b",
    "\u0651",
    "ﻣﯽ",
    "ﺷﻮد",
    "ﷲ",
    "ٱ",
    "ۖ",
    "ة",
    "ہ",
    "الله",
    "في",
    "$",
    "|",
    "#",
    "-",
    "\u00ad",
    "[",
    "]",
    "...",
]
TEXTS = st.lists(st.sampled_from(WORDS + SIGNS + [" "] * 30), max_size=30).map("".join)
LETTERS = st.text(
    st.sampled_from(
        "ابپتجچدرزژسشکگلمنوهیيكىةآأئ " + Z + "ـًَُّ.،؟?,;:()«»\"'123۱۲٣\n" + string.ascii_letters[:6]
    ),
    max_size=60,
)
# Everything that has to do with the script, and what surrounds it on a page.
BLOCKS = st.text(
    st.one_of(
        st.characters(min_codepoint=0x600, max_codepoint=0x6FF),
        st.characters(min_codepoint=0xFB50, max_codepoint=0xFDFF),
        st.characters(min_codepoint=0xFE70, max_codepoint=0xFEFF),
        st.characters(min_codepoint=0x20, max_codepoint=0xFF),
        st.characters(min_codepoint=0x2000, max_codepoint=0x206F),
        st.sampled_from("۰۱۲٠١٢012 یک"),
    ),
    max_size=40,
)
MACHINE = """
https://a.ir/ب?q=1,2 http:// www. `x` ``` ~~~ <code> </code> <!-- --> {"a":1} {} $x$ $$ \\( \\) ﴿ ﴾ “ ” „ ’
% ٪ ۲a 2a a.b 1.2.3 @نام #نشان ] [ ( ) ; , ؛ \u200d \u200f \u202b \u202c \ue000
""".split()  # noqa: SIM905
MIXED = st.lists(st.sampled_from([*WORDS, *SIGNS, *MACHINE, *" \u00a0\r"]), max_size=20).map("".join)
CONFIGS = [
    PersianConfig(),
    PersianConfig(lossless=True),
    PersianConfig(
        digits="persian", diacritics="remove", phrases="join", line_wraps="join", change_marked=True
    ),
    PersianConfig(digits="latin", punctuation="latin", diacritics="vowels"),
    PersianConfig(half_spaces=False, spaces=False, kashida="keep", letters=False),
    PersianConfig(digits="arabic", punctuation="keep", letters=False, change_marked=True),
]
# What a rule wrote, and another read when it came again; each was found at random.
FOUND = [
    (";٣b", {"digits": "latin", "punctuation": "latin", "diacritics": "vowels"}),
    ("ک;۲a", {"digits": "latin"}),
    ("۱http://ب;ک", {"digits": "latin"}),
    ("۵http://اي", {"digits": "latin", "lossless": True}),
    ("ا ها.با", {}),
    ("] , ی", {}),
    ("۲ ; اند", {}),
    ("چـّـب", {}),
    ("باhttp://\u200c.~~~  ب", {}),
    ("ی-\u200chttp://ب?", {"spaces": False}),
    ("ک!-\u200ca", {}),
    ("کwww\u200c.’ ،", {"digits": "persian", "diacritics": "remove"}),
    ("ک؟2ًa", {"diacritics": "remove"}),
    ("،.َaک", {"diacritics": "remove"}),
    ("یaُhttp://ﶹ", {"diacritics": "remove", "change_marked": True}),
    ("( ٪aبا", {"punctuation": "latin"}),
    ("٪www.ک؟", {"punctuation": "latin"}),
    ("http://ی\u200c;~~~«", {"punctuation": "latin", "diacritics": "remove"}),
    ("ﯵ گ ﲈ", {"letters": False}),
    ("گ ﯵ ﶙ", {"letters": False, "spaces": False, "kashida": "keep", "half_spaces": False}),
    ("ﻒaﱷ ک", {"letters": False, "diacritics": "remove", "change_marked": True}),
]


@pytest.mark.parametrize(("text", "config"), FOUND)
def test_twice_is_once_where_it_was_not(text: str, config: dict[str, object]) -> None:
    asked = PersianConfig.model_validate(config)
    for whole in (text, f"این که از {text}"):
        once = normalise(whole, asked)
        assert normalise(once, asked) == once


@examples(150)
@given(TEXTS | LETTERS | BLOCKS | MIXED, st.sampled_from(CONFIGS))
@soon()
def test_twice_is_once(text: str, config: PersianConfig) -> None:
    once = normalise("این که از " + text, config)
    assert normalise(once, config) == once
    alone = normalise(text, config)
    assert normalise(alone, config) == alone


LEXICON = learn(
    [
        "این راه‌حل از راه‌حل و راه‌حل است که به‌طور و به‌طور و به‌طور گفتم مجموعه داده و مجموعه داده "
        "در مرحله مرحله مرحله"
    ]
    * 4
).trimmed()


@examples(100)
@given(TEXTS | MIXED)
@soon()
def test_twice_is_once_with_a_corpus(text: str) -> None:
    normaliser = Normaliser(PersianConfig(lexicon="corpus", cut_words=True), LEXICON)
    once = normaliser("این که از " + text)
    assert normaliser(once) == once


@examples(60)
@given(TEXTS)
@soon()
def test_only_spaces_half_spaces_letters_and_signs_change(text: str) -> None:
    """Once look-alikes are one and spacing is put aside, the same letters stand in the same order."""

    def bare(value: str) -> str:
        folded = unicodedata.normalize("NFKC", value).translate(str.maketrans(LOOK_ALIKES))
        return re.sub(r"[\W_ـ]|[\u064b-\u0652]", "", folded).translate(str.maketrans("٢٣", "۲۳"))

    whole = "این که از " + text
    assert bare(normalise(whole, PersianConfig(reversed_lines=False))) == bare(whole)


@examples(60)
@given(TEXTS)
@soon()
def test_lossless_keeps_the_number_of_letters(text: str) -> None:
    out = normalise(text, PersianConfig(lossless=True))
    table = str.maketrans(LOOK_ALIKES | {"٢": "۲", "٣": "۳"})

    def bare(value: str) -> str:
        return unicodedata.normalize("NFKC", value).translate(table).replace(Z, "")

    assert bare(out) == bare(text)


HOSTILE = {
    "kashida": "ـ" * 50_000,
    "signs": "این " + "?!" * 20_000,
    "half-spaces": "این " + Z * 50_000,
    "one word": "این " + "ب" * 50_000,
    "one word of ها": "این " + "ها" * 20_000,
    "dots": "این " + "." * 50_000,
    "digits": "این " + "1" * 50_000,
    "comments": "این " + "<!--" * 10_000,
    "tags": "این " + "<code>" * 5_000,
    "braces": "این " + '{"' * 10_000,
    "deep": "این " + '{"a":' * 10_000,
    "dollars": "این " + "$ " * 10_000,
    "brackets": "این " + "\\(" * 10_000,
    "verses": "این " + "﴿" * 20_000,
    "quotes": "این " + '"' * 50_001,
    "spaces": "این " + " " * 50_000 + "،",
    "dashes": "این " + "-_" * 30_000,
    "at": "این " + "a." * 20_000,
    "می": "می " * 20_000,
    "addresses": "این " + "ب۲http://" * 5_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_no_time(name: str) -> None:
    """Each would take minutes if a pattern went back over it."""
    with soon():
        out = normalise(HOSTILE[name])
        assert normalise(out) == out


# --- language -------------------------------------------------------------------------------------------


def test_what_is_persian() -> None:
    assert is_persian("گل")
    assert is_persian("اين كتاب را از من گرفت")
    assert is_persian("سلام دنیا")
    assert not is_persian("كتاب جديد")  # Arabic as well as Persian, and with Arabic's letters
    assert not is_persian("ذهب الولد إلى المدرسة")
    assert not is_persian("میں نے کتاب پڑھی ہے")
    assert not is_persian("hello")


# --- the corpus -----------------------------------------------------------------------------------------


def test_the_corpus_decides_what_rules_cannot() -> None:
    whole = [f"این راه{Z}حل از آن راه{Z}حل بهتر است که به{Z}طور دیگر"] * 3 + ["این سامانه سامان ندارد"]
    lexicon = learn(whole).trimmed()
    asked = PersianConfig(lexicon="corpus")
    assert normalise("این راه حل و راهحل به طور دیگر") == "این راه حل و راهحل به طور دیگر"
    assert normalise("این راه حل و راهحل به طور دیگر", asked, lexicon) == (
        f"این راه{Z}حل و راه{Z}حل به{Z}طور دیگر"
    )


def test_glued_words_of_a_corpus_without_half_spaces() -> None:
    corpus = [
        "این مجموعه و آن مجموعه و داده و داده و داده که داده داده",
        "مجموعه مجموعه",
        "این پخله و پخله است",
    ]
    lexicon = learn(corpus).trimmed()
    asked = PersianConfig(lexicon="corpus")
    assert normalise("این مجموعهداده و پخلهای", asked, lexicon) == f"این مجموعه{Z}داده و پخله{Z}ای"
    assert normalise("این پخلهای") == f"این پخل{Z}های"


def test_cut_words_and_words_run_together() -> None:
    lexicon = learn(["این مسئولیت از مدیر است که دولت داد"] * 30).trimmed()
    asked = PersianConfig(lexicon="corpus", cut_words=True)
    assert normalise("این مسئو لیت و مدیراست که", asked, lexicon) == "این مسئولیت و مدیر است که"
    assert normalise("این مسئو لیت که", PersianConfig(lexicon="corpus"), lexicon) == "این مسئو لیت که"


def test_lexicon_counts_and_comes_back(tmp_path) -> None:
    one = learn([f"این کتاب{Z}ها و کتاب ها که كتاب", "English", "هذا كتاب في المدرسة"])
    pair = {f"کتاب{Z}ها": 1}
    assert (one.words["کتاب"], one.halves, one.spaced) == (3, pair, pair)
    one.save(tmp_path / "a")
    assert Lexicon.load(tmp_path / "a") == one
    one.add(Lexicon.load(tmp_path / "a"))
    assert (one.words["کتاب"], one.trimmed().halves) == (6, {f"کتاب{Z}ها": 2})


# --- the step -------------------------------------------------------------------------------------------


def _examples() -> list[Example]:
    call = ToolCall("find", {"q": "كتاب ها"})
    turns = (
        Message("system", "اين دستيار است"),
        Message("user", "كتاب ها را می خواهم"),
        Message("assistant", "", tool_calls=(call,), thinking="باید كتاب ها را بیابم"),
        Message("tool", '{"نتیجه": "كتاب ها"}'),
        Message("assistant", "این هم كتاب ها"),
    )
    return [
        Example("messages", HERE, messages=turns),
        Example("text", HERE, text="اين را می خواهم"),
        Example("labelled", HERE, text="اين را می خواهم", label="خوب ي"),
        Example("tagged", HERE, text="اين كتاب", words=("اين", "كتاب"), tags=("D", "N")),
        Example(
            "pair",
            HERE,
            messages=turns[:2],
            chosen=(turns[4],),
            rejected=(Message("assistant", "نمی دانم كه"),),
        ),
        Example("text", HERE, text="plain English , kept"),
    ]


def test_step_changes_what_people_say_and_leaves_what_programs_read() -> None:
    step = Persian(PersianConfig(), Powers(), 1)
    out = list(step.apply(_examples()))
    talk, text, labelled, tagged, pair, english = out
    said = [turn.content for turn in talk.messages]
    assert said == [
        "این دستیار است",
        f"کتاب{Z}ها را می{Z}خواهم",
        "",
        '{"نتیجه": "كتاب ها"}',
        f"این هم کتاب{Z}ها",
    ]
    assert talk.messages[2].tool_calls[0].arguments == {"q": "كتاب ها"}
    assert talk.messages[2].thinking == f"باید کتاب{Z}ها را بیابم"
    assert text.text == f"این را می{Z}خواهم"
    assert (labelled.text, labelled.label) == (text.text, "خوب ي")
    assert (tagged, english) == (_examples()[3], _examples()[5])
    assert pair.rejected[0].content == f"نمی{Z}دانم که"
    assert step.counts == {"texts changed": 10, "half-spaces put in": 10}


@pytest.mark.parametrize("lexicon", ["rules", "corpus"])
def test_step_in_shards_is_step_at_once(tmp_path, lexicon: str) -> None:
    config = PersianConfig(lexicon=lexicon)
    examples = [Example("text", HERE, text=f"این راه{Z}حل از راه{Z}حل و راه{Z}حل است")] * 3 + [
        Example("text", HERE, text="این راه حل است که می خواهم")
    ]
    surveys = []
    for number, shard in enumerate((examples[:2], examples[2:])):
        path = tmp_path / str(number)
        Persian(config, Powers(), 1).survey(shard, path)
        surveys.append(Survey(path, len(shard), 0))
    found = Persian(config, Powers(), 1).decide(surveys, tmp_path / "verdict", lambda *_: None)
    out = []
    for first, shard in ((0, examples[:2]), (2, examples[2:])):
        out += list(Persian(config, Powers(), 1).judge(iter(shard), tmp_path / "verdict", first))
    assert out == list(Persian(config, Powers(), 1).apply(examples))
    want = f"این راه{Z}حل است که می{Z}خواهم" if lexicon == "corpus" else f"این راه حل است که می{Z}خواهم"
    assert out[-1].text == want
    assert found == ({"words": 6, "words with a half-space": 1} if lexicon == "corpus" else {})


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ValidationError):
        PersianConfig(digits="roman")


def test_json_text_stays_valid() -> None:
    text = 'پاسخ این است که: {"شهر": "اصفهان ,", "كليد": "می شود"}'
    out = normalise(text)
    assert json.loads(out[out.index("{") :]) == {"شهر": "اصفهان ,", "كليد": "می شود"}
