"""Keywords and regular expressions: what an afternoon without a model gets.

    python examples/support_tickets/baseline.py [--data TEST.jsonl] [--out ANSWERS.jsonl]

An honest short effort in two languages, written with the train split in view (nine fields in ten are
right there) and never the test split. It reads the test messages and writes one
``{"row": …, "answer": …}`` for each.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

# The first intent with a match wins, the surest words first.
INTENTS = {
    "account": r"password|log ?in|sign(ed)? in|account|profile|رمز|حساب ?کاربری|وارد|کد ورود|ایمیل حساب",
    "refund": r"refund|money|reimburse|repaid|paid back|payment back|amount|return"
    r"|پول|وجه|مبلغ|مرجوع|پس (بد|می)",
    "defect": r"not turn on|crack|stopped|broken|fault|hot|noise|repair|not work|that works|stuck|damaged"
    r"|switching|rattles|روشن نم|شکست|خراب|داغ|کار نم|خاموش|گیر کرد|صدا|ترک|از کار",
    "delivery": r"where is|arrive|shipped|track|courier|deliver|reach|warehouse|get here|come|lost|sent"
    r"|کجا|نرسید|می ?رسد|پیک|منتظر|ارسال|می ?فرستید|برسد|تحویل",
}
ITEMS = {
    "headphones": r"headphone|headset|هدفون",
    "phone": r"(?<!head)phone|mobile|گوشی",
    "laptop": r"laptop|لپ ?تاپ",
    "printer": r"printer|پرینتر",
    "camera": r"camera|دوربین",
}
CALM = (
    r"no hurry|not urgent|whenever|no need|can wait|tomorrow is fine"
    r"|عجله ?ای نیست|فوری نیست|هر وقت|صبر می ?کنم|فردا هم|فرقی|وقت هست"
)
URGENT = (
    r"urgent|today|immediately|tomorrow|tonight|as soon as|right now|cannot wait|need it"
    r"|فوری|همین امروز|فردا|امشب|عجله دارم|زودتر|سریع|وقت ندارم|پرواز|مهمان|نمی ?توانم صبر|لازمش"
)
# A wish that is denied says nothing about the intent.
DENIED = r"پول(?:م را)? نمی ?خواهم|do not want (?:my )?money(?: back)?"
# Words beside a four-digit number that say what it is.
ORDER = r"(?:order|purchase|سفارش|خرید)\D{0,15}(\d{4})\b"
NO_ORDER = r"(?:paid|postcode|serial|extension|پستی|سریال|تلفن)\D{0,10}\d{4}|\d{4} تومان"


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
    intent = first(INTENTS, re.sub(DENIED, " ", text)) or "delivery"
    places = {name: found.start() for name, p in ITEMS.items() if (found := re.search(p, text))}
    # Of two products the message is mostly about the first; nobody's account is a product.
    item = min(places, key=lambda name: places[name]) if places and intent != "account" else None
    number = re.search(ORDER, text) or re.search(r"\b(\d{4})\b", re.sub(NO_ORDER, " ", text))
    order = number.group(1) if number else None
    urgency = "high" if re.search(URGENT, text) and not re.search(CALM, text) else "normal"
    ticket = {"intent": intent, "item": item, "order": order, "urgency": urgency}
    return json.dumps(ticket, separators=(",", ":"))


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
