"""Names, words of gender and places, in English and in Persian: lists of our own.

Names that are also common words (Grace, Mark, امید, بهار) are left out: they would be changed where nobody
is meant. Of each list the same place is no translation: any name may stand for any other of its list.
"""

from __future__ import annotations

NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "f": tuple(
            str.split(
                "Mary Jennifer Linda Elizabeth Susan Jessica Sarah Karen Lisa Nancy Emily Emma Olivia "
                "Laura Hannah Sophie Chloe Aisha Fatima Leila Mei Yuki Priya Ananya Ingrid Olga Svetlana "
                "Maria Lucia Camila Keisha Latoya Imani Amara Ngozi Zainab Nadia Yasmin"
            )
        ),
        "m": tuple(
            str.split(
                "James Robert John Michael David William Richard Joseph Thomas Daniel Matthew Anthony Andrew "
                "Peter Kevin Brian George Edward Oliver Jacob Omar Hassan Mohammed Ali Wei Hiroshi Raj Arjun "
                "Sven Ivan Dmitri Carlos Diego Luis Jamal Darnell Kwame Chidi Tariq Yusuf"
            )
        ),
    },
    "fa": {
        "f": tuple(
            str.split(
                "فاطمه زهرا مریم زینب سمیه لیلا مینا مهسا مهناز نرگس نسرین نیلوفر الهام الهه پریسا پروین "
                "ساناز سارا سمانه سمیرا شهلا شهناز فرشته فریبا کتایون گلناز هانیه ژاله مهشید مژگان"
            )
        ),
        "m": tuple(
            str.split(
                "محمد علی حسین حسن رضا مهدی احمد محمود حمید مجید مسعود امیر عباس جواد کاظم مرتضی مصطفی مجتبی "
                "یوسف ابراهیم بهرام بهروز فرهاد کامران کوروش داریوش سیاوش سهراب شهرام پرویز جمشید نیما"
            )
        ),
    },
}
"""Language → gender → given names."""

PAIRS: dict[str, dict[str, str]] = {
    "en": {
        "he": "she",
        "himself": "herself",
        "man": "woman",
        "men": "women",
        "boy": "girl",
        "boys": "girls",
        "father": "mother",
        "dad": "mum",
        "son": "daughter",
        "sons": "daughters",
        "brother": "sister",
        "brothers": "sisters",
        "uncle": "aunt",
        "nephew": "niece",
        "husband": "wife",
        "grandfather": "grandmother",
        "gentleman": "lady",
        "gentlemen": "ladies",
        "Mr": "Mrs",
    },
    "fa": {
        "آقای": "خانم",
        "پدر": "مادر",
        "پدرم": "مادرم",
        "پسر": "دختر",
        "پسرم": "دخترم",
        "برادر": "خواهر",
        "برادرم": "خواهرم",
        "مرد": "زن",
        "مردان": "زنان",
        "عمو": "عمه",
        "دایی": "خاله",
        "پدربزرگ": "مادربزرگ",
    },
}
"""Language → word for a man → word for a woman, read in both directions."""

PLACES: dict[str, tuple[str, ...]] = {
    "en": tuple(
        str.split(
            "London Paris Berlin Madrid Vienna Warsaw Moscow Istanbul Tehran Baghdad Cairo Lagos Nairobi "
            "Accra Mumbai Dhaka Karachi Kabul Beijing Shanghai Seoul Tokyo Manila Jakarta Sydney Toronto "
            "Chicago Houston Boston Seattle Lima Bogota Santiago"
        )
    ),
    "fa": tuple(
        str.split(
            "تهران مشهد اصفهان شیراز تبریز کرج قم اهواز کرمانشاه ارومیه رشت زاهدان همدان کرمان یزد اردبیل "
            "بندرعباس قزوین زنجان سنندج گرگان ساری بوشهر بیرجند ایلام کابل هرات دوشنبه بغداد استانبول"
        )
    ),
}
"""Language → towns."""
