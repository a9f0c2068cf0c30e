"""A mess of English and Persian sources for `real_chain`: real rows in many formats, and known dirt among them.

Every dirty row is on record with what was done to it, so that the chain can be held to it.
"""

# ruff: noqa: E501, D102 - tables of texts, one to a line

from __future__ import annotations

import csv
import gzip
import html
import json
import random
import re
import shutil
import sqlite3
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_screen_texts import ENGLISH, PARAPHRASES, PERSIAN, Makers, fill, secrets_texts

ZWNJ = "\u200c"
Key = tuple[str, int]  # file and row, as provenance names them

OTHERS = {
    "de": "Am Morgen fährt der Zug pünktlich nach Hamburg ab.|Die Kinder spielen seit Stunden im Garten hinter dem Haus.|Wir haben gestern lange über den Vertrag gesprochen.|Der Bericht wird erst in der nächsten Woche fertig.|Niemand wusste, woher das Geräusch in der Nacht kam.|Für das Rezept braucht man frische Eier und etwas Mehl.|Meine Schwester lernt seit zwei Jahren Geige.|Das Museum ist montags leider geschlossen.",
    "fr": "Le train de sept heures est encore en retard aujourd'hui.|Nous avons trouvé un petit restaurant près de la rivière.|Les enfants apprennent à nager pendant l'été.|Le rapport sera publié à la fin du mois prochain.|Il faut ajouter un peu de sel et beaucoup de beurre.|Personne ne savait pourquoi la porte était ouverte.|Ma voisine cultive des tomates sur son balcon.|La bibliothèque ferme plus tôt le samedi.",
    "ar": "وصل القطار متأخراً هذا الصباح بسبب الأمطار الغزيرة.|يلعب الأطفال في الحديقة خلف البيت كل يوم.|تحدثنا طويلاً عن العقد الجديد مع الشركة.|سوف ينشر التقرير في نهاية الشهر القادم.|لم يعرف أحد من أين جاء ذلك الصوت في الليل.|نحتاج إلى بعض الملح والزيت لهذه الوصفة.|تتعلم أختي العزف على العود منذ سنتين.|المكتبة مغلقة يوم الجمعة في هذه المدينة.",
    "tr": "Tren bu sabah yağmur yüzünden geç geldi.|Çocuklar her gün evin arkasındaki bahçede oynuyor.|Dün yeni sözleşme hakkında uzun uzun konuştuk.|Rapor gelecek ayın sonunda yayımlanacak.|Gece o sesin nereden geldiğini kimse bilmiyordu.|Bu tarif için biraz tuz ve tereyağı gerekiyor.|Kız kardeşim iki yıldır keman çalmayı öğreniyor.|Kütüphane cumartesi günleri daha erken kapanıyor.",
}  # fmt: skip
COOKIES = {
    "en": "We use cookies to improve your experience. By continuing you accept our policy.",
    "fa": "تمامی حقوق این وب‌سایت برای ناشر محفوظ است و نقل مطالب تنها با ذکر منبع آزاد است.",
}
MISSING = ("N/A", "null", "-", "ندارد", "نامشخص", "none", "[empty]", "؟")
ITALIAN = ("Quindi cerchi", "Certamente, non")  # read by eye: prompts of others that are in a third language
ANSWERS = (
    "Thank you, the ticket was passed on to the team.", "We will look into it today.", "Noted, and answered by letter.",
    "درخواست شما ثبت شد.", "به زودی پاسخ می‌دهیم.", "همکاران ما پیگیری می‌کنند.",
)  # fmt: skip


@dataclass
class Sown:
    """A row that was written on purpose: its kind of dirt, itself, how it was before, the row it repeats."""

    kind: str
    text: str
    clean: str = ""
    of: Key | None = None
    values: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class Sources:
    """Writes the files, and remembers what is in them.

    Args:
        data: the folder of public data sets.
        folder: where to write.

    """

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder, self.rng = data, folder, random.Random(20261121)
        self.truth: dict[Key, Sown] = {}
        self.seen: set[str] = set()
        self.said: dict[str, list[str]] = {}
        folder.mkdir(parents=True)

    def write(self) -> None:
        """Write all sources."""
        self.as_they_are()
        english, persian = list(self.english()), list(self.persian())
        self.rng.shuffle(english)
        self.rng.shuffle(persian)
        dirty = list(self.dirt(english, "en")) + list(self.dirt(persian, "fa"))
        self.rng.shuffle(dirty)
        thirds = [[one for i, one in enumerate(dirty) if i % 3 == part] for part in range(3)]
        self.rows("mess.jsonl.gz", [*thirds[0], *self.copies(thirds[0])])
        self.rows("mess.csv", [*thirds[1], *self.copies(thirds[1])])
        self.rows("mess.xlsx", [*thirds[2], *self.copies(thirds[2])])
        self.rows("tickets.jsonl", self.tickets())
        self.documents(english[-12:], persian[-12:])

    # What others have written, as it is.

    def as_they_are(self) -> None:
        data, out = self.data, self.folder
        lines = (data / "sms_spam/SMSSpamCollection.tsv").read_bytes().splitlines(keepends=True)[:400]
        (out / "sms.tsv").write_bytes(b"".join(lines))
        rows = json.loads((data / "alpaca/alpaca_10k.json").read_text("utf-8"))[:150]
        (out / "alpaca.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
        with (data / "persian/snappfood_test.csv").open(encoding="utf-8", newline="") as file:
            found = list(csv.reader(file))
        happy = [row for row in found[1:] if row[1] == "0"][:250]
        with (out / "comments.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([found[0], *happy, *[row for row in found[1:] if row[1] == "1"][:80]])
        for number, path in enumerate(sorted((data / "persian/hamshahri").glob("*.txt"))[:30]):
            text = path.read_text("utf-8", errors="replace").replace("\ufffd", "")
            one = out / "hamshahri" / f"{number:02d}.txt"
            one.parent.mkdir(exist_ok=True)  # every second one as an old Windows would have written it
            one.write_bytes(text.encode("cp1256", "ignore") if number % 2 else text.encode())
        (out / "pages").mkdir()
        for path in sorted((data / "web/en_html").glob("*.html.gz"))[:10]:
            (out / "pages" / path.name[:12]).with_suffix(".html").write_bytes(
                gzip.decompress(path.read_bytes())
            )
        for path in sorted((data / "web/fa_html").glob("*.html")):
            shutil.copy(path, out / "pages")
        (out / "papers").mkdir()
        for path in sorted((data / "pdf").glob("*.pdf")):
            shutil.copy(path, out / "papers")
        shutil.copy(data / "persian/guide/lesson_fa.md", out)
        with sqlite3.connect(out / "shop.db") as shop:
            shop.execute("CREATE TABLE reviews (id INTEGER PRIMARY KEY, review TEXT, label TEXT)")
            reviews = map(json.loads, (data / "persian/parsinlu/sentiment_food.jsonl").open(encoding="utf-8"))
            shop.executemany(
                "INSERT INTO reviews (review, label) VALUES (?, ?)",
                [(one["review"], "happy" if int(one["sentiment"]) > 0 else "sad") for one in reviews][:150],
            )

    # Texts to make dirty: of some length, clean, no two alike.

    def english(self) -> Iterator[str]:
        for line in (self.data / "text/c4_demo.jsonl").open(encoding="utf-8"):
            yield from self.fit(json.loads(line)["text"])
        lines = (self.data / "dedup/articles_1000.train.txt").read_text("utf-8").splitlines()
        known = {
            pair.split()[1]
            for pair in (self.data / "dedup/articles_1000.truth.txt").read_text("utf-8").splitlines()
        }
        for line in lines[:400]:
            number, _, text = line.partition(" ")
            if number not in known:
                yield from self.fit(text)

    def persian(self) -> Iterator[str]:
        articles = json.loads((self.data / "persian/persianqa_test.json").read_text("utf-8"))["data"]
        for article in articles:
            for part in article["paragraphs"]:
                yield from self.fit(part["context"])
        for name in ("makarem.norm",):
            verses = (
                (self.data / f"persian/parsinlu/translation_quran_1500.fa.{name}.txt")
                .read_text("utf-8")
                .splitlines()
            )
            for start in range(0, 1400, 4):
                yield from self.fit(" ".join(verses[start : start + 4]))

    def fit(self, text: str) -> Iterator[str]:
        text = " ".join(text.split())
        if 80 <= len(text.split()) <= 260 and text not in self.seen:
            self.seen.add(text)
            yield text

    # Known dirt.

    def dirt(self, texts: list[str], language: str) -> Iterator[Sown]:
        """Yield dirty rows of every kind, and 60 that are left as they are."""
        left = iter(texts[:-12])
        marked = iter([text for text in texts[:-12] if not text.isascii()])
        used: set[str] = set()
        for _ in range(15):
            clean = next(one for one in marked if one not in used)
            used.add(clean)
            yield Sown("encoding", garbled(clean, language, self.rng), clean)
        spaced = iter([text for text in texts[:-12] if text.count(ZWNJ) >= 2])

        def take(source: Iterator[str] = left) -> str:
            text = next(one for one in source if one not in used)
            used.add(text)
            return text

        for _ in range(15 if language == "fa" else 0):
            clean = take(spaced)
            yield Sown("half-spaces", clean.replace(ZWNJ, " "), clean)
            clean = take(spaced)
            yield Sown("letters", clean.translate(str.maketrans("یک", "يك")), clean)
        for _ in range(15):
            clean = take()
            yield Sown("html", wrapped(clean, self.rng), clean)
            yield Sown("repetition", " ".join([*clean.split()[:30], *clean.split()[30:38] * 14]), clean)
            yield Sown(
                "licence", take(), extra={"licence": self.rng.choice(["CC-BY-NC-4.0", "CC BY-NC-SA 4.0"])}
            )
            yield Sown("licence ok", take(), extra={"licence": self.rng.choice(["MIT", "CC-BY-4.0"])})
            yield Sown("junk", self.junk(language))
        for _ in range(12):
            clean = take()
            yield Sown("boilerplate", f"{clean}\n{COOKIES[language]}", clean)
        for other in OTHERS.values() if language == "en" else ():
            for _ in range(8):
                yield Sown("language", " ".join(self.rng.sample(other.split("|"), 7)))
        for _ in range(60):
            yield Sown("clean", take())
        for placeholder in MISSING:
            yield Sown("missing", placeholder)

    def junk(self, language: str) -> str:
        """Return what no one should learn from: menus, symbols, filling."""
        menu = (
            "Home About Contact Login Cart Search Help Blog Terms Jobs"
            if language == "en"
            else "خانه درباره تماس ورود سبد جستجو راهنما وبلاگ قوانین"
        )
        kinds = (
            lambda: "\n".join(f"• {self.rng.choice(menu.split())}" for _ in range(70)),
            lambda: " ".join(
                self.rng.choice(["###", "|||", "$$", "->", "12", "...", "%%%"]) for _ in range(60)
            ),
            lambda: "Lorem ipsum dolor sit amet " + " ".join(self.rng.sample(menu.split() * 9, 60)),
            lambda: " ".join(str(self.rng.randint(10, 99999)) for _ in range(80)),
        )
        return self.rng.choice(kinds)()

    def copies(self, rows: list[Sown]) -> list[Sown]:
        """Return repeats of rows that stay: the same but for case and letters; with some words changed."""
        clean = [index for index, one in enumerate(rows) if one.kind == "clean"]
        made = []
        for index in self.rng.sample(clean, 9):
            text = rows[index].text
            text = (
                text.upper()
                if text.isascii()
                else text.translate(str.maketrans("یک", "يك")).replace(" ", "  ")
            )
            made.append(Sown("exact copy", text, of=("", index + 1)))
        for index in self.rng.sample(clean, 9):
            words = rows[index].text.split()
            for place in self.rng.sample(range(len(words)), max(2, len(words) // 60)):
                words[place] = self.rng.choice(
                    ["indeed", "today", "perhaps"] if words[place].isascii() else ["البته", "امروز", "شاید"]
                )
            made.append(Sown("near copy", " ".join(words), of=("", index + 1)))
        return made

    def tickets(self) -> list[Sown]:
        """Return conversations with personal data, secrets, evaluation items, hate, and with none of it."""
        made, rows = Makers(5), []
        for templates, makers in ((ENGLISH, made.english()), (PERSIAN, made.persian())):
            for template in templates * 6:
                one = fill(template, makers)
                values = tuple(one.text[a:b] for _, a, b in one.spans)
                rows.append(Sown("pii" if values else "no pii", one.text, values=values))
        for one in secrets_texts(11, 90):
            values = tuple(one.text[a:b] for _, a, b in one.spans)
            rows.append(Sown("secret" if values else "no secret", one.text, values=values))
        tests = [json.loads(line) for line in (self.data / "gsm8k/test.jsonl").open(encoding="utf-8")]
        trains = [json.loads(line) for line in (self.data / "gsm8k/train.jsonl").open(encoding="utf-8")]
        rows += [Sown("evaluation item", f"Solve this: {one['question'].lower()}") for one in tests[:30]]
        rows += [Sown("no evaluation item", f"Solve this: {one['question']}") for one in trains[:60]]
        with gzip.open(
            self.data / "safety/openai_moderation_samples.jsonl.gz", "rt", encoding="utf-8"
        ) as file:
            judged = [json.loads(line) for line in file]
        none = [
            one
            for one in judged
            if set(one) > {"S", "H", "V"} and not any(v for k, v in one.items() if k != "prompt")
        ]
        rows += [Sown("hate", one["prompt"]) for one in judged if one.get("H") == 1 and not one.get("S")][:40]
        rows += [
            Sown("language" if one["prompt"].startswith(ITALIAN) else "no hate", one["prompt"])
            for one in none[:80]
        ]
        for first, second in PARAPHRASES[:15]:
            rows += [Sown("paraphrased", first), Sown("paraphrase", second, values=(first,))]
        self.rng.shuffle(rows)
        rows.sort(key=lambda one: one.kind == "paraphrase")
        return rows

    # Files.

    def rows(self, name: str, rows: list[Sown]) -> None:
        """Write rows to a file, in the format that its name says, and remember where each stands."""
        path = self.folder / name
        for number, one in enumerate(rows, 1):
            one.of = (name, one.of[1]) if one.of else None
            self.truth[name, number] = one
        if name == "tickets.jsonl":
            values: Iterable[dict[str, Any]] = (
                {
                    "messages": [
                        {"role": "user", "content": one.text},
                        {"role": "assistant", "content": self.rng.choice(ANSWERS)},
                    ]
                }
                for one in rows
            )
        else:
            values = [{"text": one.text, "licence": one.extra.get("licence", "")} for one in rows]
        if ".jsonl" in name:
            opened: Callable[..., Any] = gzip.open if name.endswith(".gz") else open
            with opened(path, "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        elif name.endswith(".csv"):
            with path.open("w", encoding="utf-16", newline="") as file:
                table = csv.DictWriter(file, ["text", "licence"])
                table.writeheader()
                table.writerows(values)
        else:
            from openpyxl import Workbook

            book = Workbook()
            book.active.append(["text", "licence"])
            for value in values:
                book.active.append([value["text"], value["licence"]])
            book.save(path)

    def documents(self, english: list[str], persian: list[str]) -> None:
        """Write some texts as Word and PDF files, one text to a page, and remember what they said."""
        from docx import Document
        from reportlab.lib.styles import getSampleStyleSheet
        from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

        (self.folder / "office").mkdir()
        word = Document()
        for number, text in enumerate([*english[:6], *persian[:6]], 1):
            word.add_heading(f"{'Report' if number <= 6 else 'گزارش'} {number}", 1)
            word.add_paragraph(text)
        word.save(self.folder / "office/reports.docx")
        style = getSampleStyleSheet()["Normal"]
        pages = [part for text in english[6:] for part in (Paragraph(html.escape(text), style), PageBreak())]
        SimpleDocTemplate(str(self.folder / "office/english.pdf")).build(pages)
        self.said = {"reports.docx": [*english[:6], *persian[:6]], "english.pdf": english[6:]}
        if browser := shutil.which("chromium"):  # the only one here that shapes Persian letters
            body = "".join(f'<p style="break-after: page">{html.escape(text)}</p>' for text in persian[6:])
            with tempfile.TemporaryDirectory() as scratch:
                page = Path(scratch) / "page.html"
                page.write_text(f'<html lang="fa" dir="rtl"><meta charset="utf-8">{body}</html>', "utf-8")
                options = (
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    f"--user-data-dir={scratch}/profile",
                )
                out = f"--print-to-pdf={self.folder / 'office/persian.pdf'}"
                subprocess.run(
                    [browser, *options, "--no-pdf-header-footer", out, page.as_uri()],
                    check=True,
                    capture_output=True,
                )
            self.said["persian.pdf"] = persian[6:]


def garbled(text: str, language: str, rng: random.Random) -> str:
    """Return UTF-8 read as Windows-1252 or, of Persian, as Windows-1256 (undefined bytes as Latin-1 has them)."""
    codec = rng.choice(["cp1252", "cp1256"]) if language == "fa" else "cp1252"
    out = ""
    for byte in text.encode():
        try:
            out += bytes([byte]).decode(codec)
        except UnicodeDecodeError:
            out += chr(byte)
    return out


def wrapped(text: str, rng: random.Random) -> str:
    """Return a text as a page's source has it."""
    body = re.sub(
        r"\w{6,}", lambda found: f"<b>{found[0]}</b>" if rng.random() < 0.1 else found[0], html.escape(text)
    )
    return (
        f'<div class="post"><script>track("{rng.randint(1, 9999)}");</script><p>{body}</p>&nbsp;<br/></div>'
    )


def words(text: str) -> list[str]:
    """Return the words of a text, without marks and case."""
    return [
        word for word in (part.strip(string.punctuation + "،؛؟«»") for part in text.lower().split()) if word
    ]
