"""Names of people in Persian text, by cues: a title, a label, or a common given name with a surname.

No Persian model of names is at hand offline, so this finds what is announced and misses what is not.
"""

from __future__ import annotations

import re
from itertools import pairwise

from tanzim.data.screen.found import Found

_WORD = r"[\u0621-\u063a\u0641-\u064a\u067e\u0686\u0698\u06a9\u06af\u06c0\u06cc]+(?:\u200c[\u0621-\u06cc]+)*"
_TITLES = (
    "آقای|اقای|خانم|جناب آقای|سرکار خانم|دکتر|مهندس|استاد|پروفسور|حاج|حاجی|سید|سیده|مرحوم|مرحومه|"
    "شهید|سرهنگ|سروان|همسرم|برادرم|خواهرم|پدرم|مادرم|پسرم|دخترم|دوستم|همکارم"
)
_TITLED = re.compile(rf"(?<![\w\u200c])(?:(?:{_TITLES})\s+)+(?P<name>{_WORD}(?:[ ]+{_WORD}){{0,2}})")
_LABELLED = re.compile(
    rf"(?<![\w\u200c])(?:نام(?:\s+و\s+نام[\s\u200c]خانوادگی|[\s\u200c]خانوادگی|\s+(?:مشتری|بیمار|گیرنده|فرستنده|پدر|کامل))?\s*[:：]"
    rf"|اینجانب|امضا\s*[:：]|گیرنده\s*[:：]|فرستنده\s*[:：]|به\s+نام|اسمم|اسم\s+من|نام\s+من)\s+"
    rf"(?P<name>{_WORD}(?:[ ]+{_WORD}){{0,2}})"
)
_PAIRED = re.compile(rf"(?<![\w\u200c])(?P<name>{_WORD}(?:[ ]+{_WORD}){{1,3}})")

_GIVEN = frozenset(
    str.split(
        "محمد علی حسین حسن رضا مهدی احمد محمود حمید مجید سعید مسعود امیر امیرحسین امیرعلی محمدرضا "
        "علیرضا حمیدرضا غلامرضا عباس جواد کاظم هادی ابوالفضل مرتضی مصطفی مجتبی یوسف ابراهیم "
        "اسماعیل یعقوب داوود بهرام بهروز بهزاد فرهاد فرزاد فرید فریدون کامران کیوان کوروش داریوش "
        "آرش آرمان سیاوش سهراب رستم شهرام شهریار شهاب پرویز منوچهر هوشنگ جمشید ایرج اردشیر میلاد "
        "پویا پیمان نیما سینا سامان ساسان فاطمه زهرا مریم زینب معصومه سمیه رقیه خدیجه صدیقه طاهره "
        "لیلا مینا مهسا مهناز مهین میترا منیژه نرگس نسرین نسترن نازنین نگار نگین نیلوفر ندا الهام "
        "الهه اعظم اکرم اشرف پریسا پروین پروانه ساناز سارا سمانه سمیرا سپیده سحر شیرین شهلا شهناز "
        "شقایق فرشته فریبا فرناز کتایون گلناز هانیه هدیه یاسمن آناهیتا آتنا زهره ژاله سوسن مهشید "
        "مهدیه مژگان مونا رویا"
    )
)
_SURNAMES = re.compile(
    r"(?:زاده|[\u200c]?زاد|پور|نژاد|نیا|فر|منش|وند|لو|یان|دوست|خواه|بخش|چی|خانی|آبادی|پناه|راد|تبار|ور|"
    r"[^\u200c]{2,}ی)$"
)
# What is no name although it stands where one may stand.
_PLAIN = frozenset(
    str.split(
        "از به در با که را و این آن است بود شد شده هست هستم هستند نیست گفت گفتند می نمی برای تا "
        "هم نیز اما یا اگر چون پس هر همه یک دو سه چند خود من تو او ما شما آنها ایشان وی خیلی "
        "بسیار کمی دیگر سپس وقتی جای بعدی قبلی ایرانی فارسی خوبی بزرگی کوچکی کسی چیزی کاری روزی "
        "رئیس مدیر معلم پزشک محترم عزیز گرامی جان رفت آمد کرد کردند دارد داشت داد خواست خدا "
        "خداوند پیامبر امام حضرت میدان خیابان کوچه بلوار شهر استان ملی عمومی اصلی شرکت بانک "
        "دانشگاه بیمارستان اداره سازمان متولد فرزند ساکن اهل دارای درخواست خانه خانواده اینجا "
        "آنجا امروز دیروز فردا چه چرا کجا کی بله خیر بی پر سلام لطفا ممنون متشکرم کد شماره تلفن "
        "ایمیل نشانی آدرس تماس همراه موبایل تاریخ تولد پدر مادر هایی های ها کنید کنم کنیم باشد "
        "بودم بودند میشود حتی ولی زیرا بلکه چنین"
    )
)
_HOLY = re.compile(
    r"(?:امام|حضرت|پیامبر|خیابان|میدان|بلوار|کوچه|بیمارستان|دانشگاه|مسجد|ورزشگاه|شهرک|بزرگراه)\s+$"
)
_FOLD = str.maketrans({"ي": "ی", "ك": "ک", "ة": "ه"})


def find_persian_names(text: str) -> list[Found]:
    """Return names of people in a Persian text that are announced in one of the three ways."""
    plain = text.translate(_FOLD)
    found = []
    for pattern, score in ((_LABELLED, 0.8), (_TITLED, 0.7)):
        for match in pattern.finditer(plain):
            if length := _announced(match["name"]):
                start = match.start("name")
                found.append(Found(start, start + length, "PERSON", score))
    for match in _PAIRED.finditer(plain):
        found += _pairs(plain, match)
    return found


def _announced(name: str) -> int:
    """Return how many characters of the words after a title or label are a name."""
    words = list(re.finditer(_WORD, name))
    if words[0][0] in _PLAIN:
        return 0
    end = words[0].end()
    for before, word in pairwise(words):
        known = before[0] in _GIVEN or word[0] in _GIVEN
        if word[0] in _PLAIN or not (known or _SURNAMES.search(word[0])):
            break
        end = word.end()
    return end


def _pairs(plain: str, match: re.Match[str]) -> list[Found]:
    """Return runs of given names that a surname follows."""
    words = [(m[0], m.start() + match.start(), m.end() + match.start()) for m in re.finditer(_WORD, match[0])]
    found, place = [], 0
    while place < len(words) - 1:
        first = place
        while place < len(words) - 1 and words[place][0] in _GIVEN:
            place += 1
        surname = words[place][0]
        fits = place > first and surname not in _PLAIN and _SURNAMES.search(surname) and len(surname) > 3
        if fits and not _HOLY.search(plain[: words[first][1]]):
            found.append(Found(words[first][1], words[place][2], "PERSON", 0.65))
        place = max(place, first + 1)
    return found
