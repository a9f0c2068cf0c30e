"""Write datatrove_decisions.json: what datatrove's filters decide on texts of our own.

Run in an environment of its own: pip install "datatrove[processing]" nltk regex spacy
"""

import json
from importlib.metadata import version
from pathlib import Path

ENGLISH = [
    "The old lighthouse stands on a cliff above the bay, and its keeper has lived there for thirty years.",
    "Every evening he climbs the narrow stairs to clean the lamp and to write a few lines in his log.",
    "Ships that pass by night still look for the light, although most of them have better instruments now.",
    "In winter the wind is so strong that the door must be held with both hands.",
    "He says that he would not have any other work, because the sea never tells the same story twice.",
    "His daughter brings bread and newspapers on Sundays, and they have lunch together with the window open.",
    "Last spring a storm broke the northern wall, and it took the village four weeks to repair it.",
    "Nobody was paid for the stones, but the baker gave cake to all who carried them.",
]
PERSIAN = [
    "فانوس دریایی قدیمی روی صخره‌ای بالای خلیج ایستاده است و نگهبان آن سی سال است که در آنجا زندگی می‌کند.",
    "هر شب از پله‌های باریک بالا می‌رود تا چراغ را تمیز کند و چند خط در دفتر خود بنویسد.",
    "کشتی‌هایی که شب از آنجا می‌گذرند هنوز به دنبال این نور می‌گردند، هرچند ابزارهای بهتری دارند.",
    "در زمستان باد آن‌قدر تند است که باید در را با دو دست نگه داشت.",
    "او می‌گوید کار دیگری را دوست ندارد، چون دریا هیچ داستانی را دو بار به یک شکل نمی‌گوید.",
    "دخترش روزهای جمعه نان و روزنامه می‌آورد و با هم کنار پنجره‌ی باز ناهار می‌خورند.",
    "بهار گذشته توفان دیوار شمالی را خراب کرد و مردم روستا چهار هفته برای ساختن آن کار کردند.",
    "هیچ‌کس برای سنگ‌ها پولی نگرفت، اما نانوا به همه‌ی کسانی که آنها را آوردند شیرینی داد.",
]


def documents(lines: list[str]) -> dict[str, str]:
    """Return documents that each break one rule, or none."""
    article = "\n".join(lines)
    words = article.replace("\n", " ").split()
    plain = [word.strip(".,،") for word in words]
    persian = lines is PERSIAN
    names = [word for word in words if len(word) > 4]
    long, short = ("ساختمان‌سازی‌های‌ناهماهنگ", "او") if persian else ("internationalisation", "ab")
    return {
        "article": article,
        "article in one line": " ".join(lines),
        "article in paragraphs": "\n\n".join(lines),
        "too short": " ".join(lines[:2]),
        "words too long": "\n".join(f"{line} {' '.join([long] * 24)}." for line in lines),
        "words too short": "\n".join(f"{line} {' '.join([short, short[:1]] * 40)}." for line in lines),
        "hash signs": "\n".join(line.replace(" ", " # ") for line in lines),
        "ellipses": "\n".join(line.replace(" ", " ... ", 8) for line in lines),
        "bullets": "\n".join(f"• {line}" for line in lines),
        "half bullets": "\n".join(f"• {line}" if at % 2 else line for at, line in enumerate(lines)),
        "ends with ellipses": "\n".join(line[:-1] + (".", "...")[at % 2] for at, line in enumerate(lines)),
        "numbers": "\n".join(
            f"{line} {' '.join(str(7 * n + len(line)) for n in range(30))}" for line in lines
        ),
        "names alone": " ".join(name.strip(".,،") for name in names * 2),
        "short lines": "\n".join(" ".join(words[at : at + 2]) for at in range(0, len(words), 2)),
        "list": "\n".join(words),
        "short sentences": "\n".join(f"{' '.join(plain[at : at + 5])}." for at in range(0, len(plain), 5)),
        "blank lines": ("\n" * 12).join(lines),
        "no ends": article.replace(".", ""),
        "one end": article.replace(".", "").rstrip() + ".",
        "a line four times": "\n".join([*lines[:4], *[lines[4]] * 4]),
        "a line twice": "\n".join([*lines, lines[3]]),
        "paragraphs twice": "\n\n".join([*lines[:4], *lines[:4]]),
        "a phrase in each line": "\n".join(f"{' '.join(words[:7])} {line}" for line in lines),
        "a name in each sentence": "\n".join(f"{line} {' '.join(names[:3])} {line[::-1]}" for line in lines),
        "ten words twice": article + "\n" + " ".join(words[:10]),
        "half again": article + " " + " ".join(words[: len(words) // 2]),
        "lorem ipsum": article + "\nHere stands lorem ipsum until the text is ready.",
        "curly bracket": article + "\nThe program says { and then it waits.",
        "four sentences": "\n".join(lines[:4]),
        "script notice": article + "\nPlease enable JavaScript to see all of the page.",
        "policy notice": article + "\nBy going on you accept our privacy policy and the use of cookies.",
        "citations": article.replace(".", "[12]."),
        "titles between": "\n".join(f"{' '.join(line.split()[:4])}\n{line}" for line in lines),
    }  # fmt: skip


def main() -> None:
    """Ask each filter about each document."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    cases = []
    for language, code, lines in (("en", "eng", ENGLISH), ("fa", "fas", PERSIAN)):
        stop = None if language == "en" else ["و", "در", "به", "از", "که", "این", "را", "با"]
        filters = {
            "gopher_quality": GopherQualityFilter(language=code, stop_words=stop),
            "gopher_repetition": GopherRepetitionFilter(language=code),
            "fineweb": FineWebQualityFilter(language=code, char_duplicates_ratio=0.1),
            "c4": C4QualityFilter(language=code, filter_no_terminal_punct=language == "en"),
        }
        for name, text in documents(lines).items():
            decisions, kept = {}, ""
            for which, one in filters.items():
                document = Document(text=text, id=name)
                decision = one.filter(document)
                decisions[which] = (
                    decision[1] if isinstance(decision, tuple) else ("" if decision else "removed")
                )
                kept = document.text if which == "c4" else kept
            cut = {} if kept == text else {"c4_text": kept}
            cases.append({"language": language, "name": name, "decisions": decisions, **cut})
    made = {"datatrove": version("datatrove"), "spacy": version("spacy"), "cases": cases}
    path = Path(__file__).with_name("datatrove_decisions.json")
    path.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
