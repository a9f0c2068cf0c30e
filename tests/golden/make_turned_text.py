"""Write turned_text.json: texts of our own as python-bidi turns and arabic-reshaper joins them.

Run in an environment of its own: pip install python-bidi arabic-reshaper
"""

import json
from importlib.metadata import version
from pathlib import Path

from arabic_reshaper import ArabicReshaper
from bidi import get_display

TEXTS = [
    "سلام دنیا",
    "می‌خواهم کتاب‌ها را بخوانم.",
    "قیمت ۱۲۳ تومان شد، یعنی ۴۵٪ گران‌تر!",
    "شماره 12,500 و 3.14 و ۲٫۵ است.",
    "او گفت: «فردا می‌آیم» و رفت.",
    "برنامهٔ Tanzim نسخهٔ 2.1 را نصب کنید.",
    "لا اله، لأن، إلا، الآن، ملا",
    "Delivery took 45 minutes (کباب) was fine.",
    "He said سلام and left.",
    "پژوهش گچ چای ژاله",
    "الف) یک ب) دو",
    "تلفن: 021-1234567 داخلی ۱۲",
    "a سلام b دنیا c",
    "سلام hello world دنیا",
    "ســـلام",
    "۵ + ۳ = ۸",
    "نشانی https://example.org/a?b=1 است",
    "[یک] {دو} <سه>",
    "١٢٣ كتاب علي",
    "plain English only, 100%",
    "بد نبود - ولی عالی هم نبود…",
    "حروف جدا: د ذ ر ز ژ و ا",
]

reshaper = ArabicReshaper({"delete_harakat": False, "support_zwj": True, "ALLAH": False})
turned = [get_display(reshaper.reshape(text)) for text in TEXTS]
value = {
    "made_by": [f"{name} {version(name)}" for name in ("python-bidi", "arabic-reshaper")],
    "turned": dict(zip(TEXTS, turned, strict=True)),
}
Path(__file__).with_name("turned_text.json").write_text(
    json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
)
