"""Keywords and regular expressions: what an afternoon without a model gets.

    python examples/support_tickets/baseline.py [--data TEST.jsonl] [--out ANSWERS.jsonl]

An honest short effort in two languages, written with the train split in view and never the test
split. It reads the test messages and writes one ``{"row": …, "answer": …}`` for each.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

# The first intent with a match wins, the surest words first.
INTENTS = {
    "account": r"password|log ?in|login|sign(ed)?[ -]in|my account is|profile"
    r"|رمز|حساب ?کاربری|وارد (حساب|سایت)|کد ورود|ایمیل",
    "invoice": r"invoice|receipt|\bbill\b|tax|فاکتور|رسید (لازم|.* پیدا)|کد اقتصادی",
    "refund": r"(?<!want a )refund|money|reimburse|repaid|paid back|payment back|returned"
    r"|پول|وجه|مبلغ|مرجوع|پس بد",
    "cancel": r"(?<!do not )cancel|call off|do not (send|ship)|withdraw|off my order|drop|stop the"
    r"|لغو|کنسل|حذف|نفرستید|منصرف|ارسال نکنید",
    "defect": r"not turn on|crack|stopped working|broken|fault|not work|stuck|damaged|noise|switching"
    r"|روشن نم|شکست|خراب|داغ|کار نم|خاموش|گیر کرد|آسیب|سالم",
    "delivery": r"where is|arrive|shipped|track|courier|deliver|reach|waiting|warehouse|came"
    r"|کجا|نرسید|رسید|رهگیری|پیک|منتظر|ارسال",
}
ITEMS = {
    "phone": r"phone(?!s)|mobile|گوشی|موبایل",
    "laptop": r"laptop|لپ ?تاپ",
    "headphones": r"headphone|headset|هدفون|هدست",
    "charger": r"charger|شارژر",
    "watch": r"watch|ساعت",
    "camera": r"camera|دوربین",
    "printer": r"printer|پرینتر|چاپگر",
    "keyboard": r"keyboard|کیبورد|صفحه ?کلید",
}
URGENCIES = {
    "low": r"no hurry|not urgent|take your time|whenever|no need|can wait|convenient|next month"
    r"|عجله ?ای نیست|فوری نیست|هر وقت|ماه بعد|لازم نیست امروز|صبر می",
    "high": r"urgent|today|immediately|tomorrow|tonight|evening|as soon as|right now|every hour|without it"
    r"|فوری|امروز|فردا|امشب|عجله دارم|زودتر|بدون آن|خوابیده",
}
# Words before a five-digit number that say what it is.
ORDER = r"(?:order|purchase|ordered it|سفارش|خرید|شماره)\D{0,15}(\d{5})\b"
NO_ORDER = r"(?:paid|price|postcode|serial|extension|ticket|پستی|سریال|داخلی)\D{0,12}\d{5}|\d{5} تومان"


def normalise(message: str) -> str:
    """Fold case, half-spaces, Arabic letters and Persian digits."""
    folded = message.lower().replace("\u200c", " ").replace("ي", "ی").replace("ك", "ک")
    return folded.translate(str.maketrans("۰۱۲۳۴۵۶۷۸۹", "0123456789"))


def first(patterns: dict[str, str], text: str) -> str | None:
    """Return the first name whose pattern occurs in ``text``."""
    return next((name for name, pattern in patterns.items() if re.search(pattern, text)), None)


def answer(message: str) -> str:
    """Return the ticket for a customer's message, as JSON."""
    text = normalise(message)
    intent = first(INTENTS, text) or "defect"
    places = {name: found.start() for name, p in ITEMS.items() if (found := re.search(p, text))}
    # Of two products the message is mostly about the first; nobody's account is a product.
    item = min(places, key=lambda name: places[name]) if places and intent != "account" else None
    number = re.search(ORDER, text) or re.search(r"\b(\d{5})\b", re.sub(NO_ORDER, " ", text))
    urgency = first(URGENCIES, text) or "normal"
    order = number.group(1) if number else None
    return json.dumps({"intent": intent, "item": item, "order": order, "urgency": urgency})


def main() -> None:
    """Answer every row of the test split."""
    folder = Path(__file__).parent / "data"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=folder / "test.jsonl")
    parser.add_argument("--out", type=Path, default=folder / "baseline.jsonl")
    arguments = parser.parse_args()
    with arguments.data.open(encoding="utf-8") as rows, arguments.out.open("w", encoding="utf-8") as out:
        for number, row in enumerate(rows, 1):
            user = next(turn for turn in json.loads(row)["messages"] if turn["role"] == "user")
            out.write(json.dumps({"row": number, "answer": answer(user["content"])}) + "\n")
    print(f"{arguments.out}: written")


if __name__ == "__main__":
    main()
