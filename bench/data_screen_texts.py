"""Texts with personal data, secrets and paraphrases planted in them, each with where it stands.

All of it is made here: names are drawn from lists the recognisers do not have (but for some common Persian
given names), numbers by chance, with right or wrong check digits.
"""

# ruff: noqa: D102, E501 - tables of texts, one to a line

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from tanzim.data.screen.checks import iban_check, luhn_digit, national_id_digit

PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
ARABIC_DIGITS = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")

EN_GIVEN = (
    "Amara Bjorn Chidi Dmitri Eleanor Fatima Giovanni Hannah Ingrid Jamal Katarzyna Liam Mei Nadia Oscar "
)
EN_GIVEN += (
    "Priya Quentin Rosa Sanjay Thomas Ulrike Victor Wendy Ximena Yusuf Zoe Margaret Kevin Daniel Emily"
)
EN_FAMILY = (
    "Abbott Becker Castillo Donovan Eriksen Fernandez Gallagher Hughes Ivanova Jankowski Kapoor Lindqvist "
)
EN_FAMILY += (
    "Martinez Nakamura Okafor Petersen Quinn Rossi Schneider Thompson Underwood Vargas Whitfield Yamada"
)
FA_GIVEN = (
    "ماهان کیارش رادین پرهام آرتین سورنا هیراد بردیا هلیا باران ترانه رها آوا یلدا ملیکا کیمیا علی رضا مریم "
)
FA_GIVEN += "زهرا حسین فاطمه سارا نیما"
FA_FAMILY = "کریمی رحیمی صادقی موسوی قاسمی نوروزی اسکندری بهشتی شریفی طاهری جعفرزاده حسن‌پور فتحی‌نژاد رستگار "
FA_FAMILY += "کاویان بهرامیان خسروی مرادخانی تهرانی سلیمانی‌فر"


@dataclass(frozen=True, slots=True)
class Planted:
    """A text and what was planted in it: (kind, start, end)."""

    text: str
    spans: tuple[tuple[str, int, int], ...]


def fill(template: str, makers: dict[str, Callable[[], str]]) -> Planted:
    """Fill {KIND} with what its maker makes; a KIND in small letters is no personal data."""
    text, spans = "", []
    for literal, kind, _, _ in string.Formatter().parse(template):
        text += literal
        if kind:
            value = makers[kind]()
            if kind.isupper():
                spans.append((kind, len(text), len(text) + len(value)))
            text += value
    return Planted(text, tuple(spans))


class Makers:
    """Makes values by chance."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def digits(self, count: int) -> str:
        return "".join(self.rng.choices(string.digits, k=count))

    def pick(self, *values: str) -> str:
        return self.rng.choice(values)

    def national(self, *, valid: bool) -> str:
        nine = self.digits(9)
        while nine[3:] == "000000":
            nine = self.digits(9)
        check = national_id_digit(nine)
        return nine + (check if valid else self.pick(*(d for d in string.digits if d != check)))

    def card(self, head: str, *, valid: bool) -> str:
        new = head + self.digits(15 - len(head))
        check = luhn_digit(new)
        new += check if valid else self.pick(*(d for d in string.digits if d != check))
        return self.pick(new, " ".join(new[i : i + 4] for i in range(0, 16, 4)), "-".join(new[i : i + 4] for i in range(0, 16, 4)))  # fmt: skip

    def sheba(self, *, valid: bool) -> str:
        rest = "0" + self.pick("12", "17", "54", "55", "62") + self.digits(19)
        check = iban_check("IR", rest)
        check = check if valid else f"{(int(check) + 1) % 98:02d}"
        code = f"IR{check}{rest}"
        return self.pick(code, " ".join(code[i : i + 4] for i in range(0, 26, 4)))

    def iban(self) -> str:
        country, rest = self.pick("DE", "GB"), ""
        rest = self.digits(18) if country == "DE" else "WEST" + self.digits(14)
        return f"{country}{iban_check(country, rest)}{rest}"

    def mobile(self) -> str:
        head, rest = self.pick("912", "935", "901", "990", "921"), self.digits(7)
        return self.pick(f"0{head}{rest}", f"+98{head}{rest}", f"0{head} {rest[:3]} {rest[3:]}", f"0{head}-{rest}", f"0098{head}{rest}")  # fmt: skip

    def landline(self) -> str:
        area, rest = self.pick("21", "31", "51", "71", "26"), self.pick(*"3456789") + self.digits(7)
        return self.pick(
            f"0{area}{rest}", f"0{area}-{rest}", f"(0{area}) {rest}", f"+98 {area} {rest[:4]} {rest[4:]}"
        )

    def postal(self) -> str:
        five = "".join(self.rng.choices("13456789", k=4)) + self.pick(*"134679")
        return self.pick(five + self.digits(5), f"{five}-{self.digits(5)}")

    def phone(self) -> str:
        a, b = self.pick("212", "415", "617", "312"), self.pick("234", "482", "697") + "-" + self.digits(4)
        return self.pick(
            f"{a}-{b}", f"({a}) {b}", f"+1 {a} {b.replace('-', ' ')}", f"+44 20 7946 {self.digits(4)}"
        )

    def email(self) -> str:
        name = (
            self.pick(*EN_GIVEN.lower().split())
            + self.pick(".", "_", "")
            + self.pick(*EN_FAMILY.lower().split())
        )
        return f"{name}{self.pick('', self.digits(2))}@{self.pick('gmail.com', 'acme-corp.co.uk', 'mail.ir', 'uni-berlin.de')}"

    def ip(self) -> str:
        return ".".join(str(self.rng.randint(1, 254)) for _ in range(4))

    def ssn(self) -> str:
        return f"{self.rng.randint(100, 665)}-{self.rng.randint(10, 99)}-{self.rng.randint(1000, 9999)}"

    def english(self) -> dict[str, Callable[[], str]]:
        """Return the makers of the English templates."""
        given, family = EN_GIVEN.split(), EN_FAMILY.split()
        return {
            "PERSON": lambda: f"{self.pick(*given)} {self.pick(*family)}",
            "EMAIL": self.email, "PHONE": self.phone, "IP": self.ip, "SSN": self.ssn, "IBAN": self.iban,
            "CARD": lambda: self.card(self.pick("4", "51", "55"), valid=True),
            "NATIONAL": lambda: self.national(valid=True),
            "bad_card": lambda: self.card("4", valid=False),
            "bad_national": lambda: self.national(valid=False),
            "order": lambda: self.digits(10), "number": lambda: self.digits(self.rng.randint(2, 6)),
            "version": lambda: f"{self.digits(1)}.{self.digits(2)}.{self.digits(1)}",
            "date": lambda: f"20{self.digits(2)}-0{self.rng.randint(1, 9)}-1{self.digits(1)}",
            "thing": lambda: self.pick("Red Velvet Cake", "Machine Learning", "Python", "Windows Update", "Golden Gate"),
        }  # fmt: skip

    def persian(self) -> dict[str, Callable[[], str]]:
        """Return the makers of the Persian templates; digits in one of three scripts."""

        def written(make: Callable[[], str]) -> Callable[[], str]:
            def maker() -> str:
                value = make()
                script = self.rng.choice([PERSIAN_DIGITS, PERSIAN_DIGITS, ARABIC_DIGITS, {}])
                return value if value[:2] == "IR" and self.rng.random() < 0.5 else value.translate(script)

            return maker

        given, family = FA_GIVEN.split(), FA_FAMILY.split()
        numbers = {
            "NATIONAL": lambda: self.national(valid=True), "MOBILE": self.mobile, "LANDLINE": self.landline,
            "SHEBA": lambda: self.sheba(valid=True), "POSTAL": self.postal,
            "CARD": lambda: self.card(self.pick("603799", "610433", "621986", "502229"), valid=True),
            "bad_national": lambda: self.national(valid=False),
            "bad_card": lambda: self.card("603799", valid=False), "bad_sheba": lambda: self.sheba(valid=False),
            "order": lambda: self.digits(10), "number": lambda: self.digits(self.rng.randint(2, 6)),
            "date": lambda: f"14{self.digits(2)}/0{self.rng.randint(1, 9)}/1{self.digits(1)}",
        }  # fmt: skip
        return {name: written(make) for name, make in numbers.items()} | {
            "PERSON": lambda: f"{self.pick(*given)} {self.pick(*family)}",
            "FAMILY": lambda: self.pick(*family),
            "EMAIL": self.email,
        }


ENGLISH = (
    "Hi, this is {PERSON}. You can reach me at {EMAIL} or call {PHONE}.",
    "Please update the account of {PERSON}, SSN {SSN}, and send the receipt to {EMAIL}.",
    "The meeting with {PERSON} and {PERSON} was moved to {date}; nothing else changed.",
    "My card number is {CARD}, it was declined twice. {PERSON}",
    "Order {order} was shipped on {date}; tracking number {order}, weight {number} grams.",
    "Upgrade to version {version} and rerun the {number} tests on the staging server.",
    "Server log: login from {IP} failed {number} times for user {EMAIL}.",
    "According to {PERSON}, the {thing} recipe needs {number} minutes in the oven.",
    "Wire the deposit to {IBAN}, reference {order}.",
    "Her Iranian national id is {NATIONAL} and her phone is {PHONE}.",
    "The test card {bad_card} must be refused by the checksum, and so must the national id {bad_national}.",
    "What is {thing} and why did sales rise by {number} percent in {date}?",
    "Dear {PERSON},\nThank you for your letter of {date}.\nSincerely,\n{PERSON}",
    "I asked {PERSON} from the London office whether invoice {order} had been paid.",
)
PERSIAN = (
    "سلام، من {PERSON} هستم و کد ملی من {NATIONAL} است.",
    "لطفاً با شماره {MOBILE} تماس بگیرید یا به {EMAIL} نامه بزنید.",
    "آقای {PERSON} گفت که جلسه به {date} موکول شد.",
    "خانم {FAMILY} امروز به دفتر نیامد و {number} نفر منتظر ماندند.",
    "شماره کارت من {CARD} و شبای حسابم {SHEBA} است.",
    "نام و نام خانوادگی: {PERSON}\nکد ملی: {NATIONAL}\nکد پستی: {POSTAL}\nتلفن: {LANDLINE}",
    "سفارش شماره {order} در تاریخ {date} ارسال شد و {number} تومان هزینه داشت.",
    "کد ملی {bad_national} معتبر نیست و کارت {bad_card} هم پذیرفته نشد.",
    "شبای {bad_sheba} اشتباه وارد شده است؛ کد رهگیری {order} را نگه دارید.",
    "دکتر {PERSON} ساعت {number} در مطب است؛ تلفن مطب {LANDLINE}.",
    "اینجانب {PERSON} به شماره ملی {NATIONAL} متعهد می‌شوم.",
    "می‌خواهم کتاب‌های زیادی دربارهٔ تاریخ ایران بخوانم و {number} صفحه بنویسم.",
    "دیروز {PERSON} را در کتابخانه دیدم و دربارهٔ پروژه حرف زدیم.",
    "موبایل {MOBILE} به نام {PERSON} ثبت شده است.",
)


def secrets_texts(seed: int, count: int) -> list[Planted]:
    """Return texts with secrets of known shapes, with passwords, and with what only looks like one."""
    rng = random.Random(seed)

    def some(letters: str, length: int) -> str:
        return "".join(rng.choices(letters, k=length))

    alnum, hexa = string.ascii_letters + string.digits, "0123456789abcdef"
    body = lambda: "\n".join(some(alnum + "+/", 64) for _ in range(5))  # noqa: E731
    makers: dict[str, Callable[[], str]] = {
        "AWS": lambda: "AKIA" + some(string.ascii_uppercase + "234567", 16),
        "AWS_SECRET": lambda: some(alnum + "+/", 40),
        "GITHUB": lambda: "ghp_" + some(alnum, 36), "GITLAB": lambda: "glpat-" + some(alnum, 20),
        "SLACK": lambda: f"xoxb-{some(string.digits, 12)}-{some(string.digits, 12)}-{some(alnum, 24)}",
        "GOOGLE": lambda: "AIza" + some(alnum, 35), "OPENAI": lambda: "sk-proj-" + some(alnum, 48),
        "ANTHROPIC": lambda: "sk-ant-api03-" + some(alnum, 80), "HF": lambda: "hf_" + some(string.ascii_letters, 34),
        "STRIPE": lambda: "sk_live_" + some(alnum, 24), "NPM": lambda: "npm_" + some(alnum, 36),
        "JWT": lambda: f"eyJ{some(alnum, 30)}.eyJ{some(alnum, 60)}.{some(alnum, 43)}",
        "TELEGRAM": lambda: f"{some('123456789', 10)}:AA{some(alnum, 33)}",
        "PEM": lambda: f"-----BEGIN RSA PRIVATE KEY-----\n{body()}\n-----END RSA PRIVATE KEY-----",
        "KEY": lambda: some(alnum, 32), "PASSWORD": lambda: some(string.ascii_lowercase, 5) + some("!#%+", 1) + some(string.digits, 4),
        "sha": lambda: some(hexa, 40), "uuid": lambda: "-".join(some(hexa, n) for n in (8, 4, 4, 4, 12)),
        "word": lambda: rng.choice(["table", "config", "Tehran", "result"]), "b64": lambda: some(alnum + "+/", 80),
    }  # fmt: skip
    templates = (
        "aws_access_key_id = {AWS}\naws_secret_access_key = {AWS_SECRET}", "export GITHUB_TOKEN={GITHUB}",
        "curl -H 'PRIVATE-TOKEN: {GITLAB}' https://git.example.org/api", "The bot token is {SLACK}, please rotate.",
        "const key = '{GOOGLE}';", "OPENAI_API_KEY={OPENAI}", "client = Client('{ANTHROPIC}')",
        "login(token='{HF}')", "stripe.api_key = '{STRIPE}'", "//registry.npmjs.org/:_authToken={NPM}",
        "Authorization: Bearer {JWT}", "ربات با توکن {TELEGRAM} بالا آمد.", "{PEM}",
        "api_key: \"{KEY}\"", "DATABASE_URL=postgres://admin:{PASSWORD}@db.internal:5432/app",
        "password = '{PASSWORD}'", "رمز عبور: {PASSWORD}", "client_secret={KEY}&grant_type=x",
        "Fixed in commit {sha}.", "request id {uuid} failed", "token: {word}", "password = os.environ['DB_PASS']",
        "The password is required, and the secret is to practise daily.", "data:image/png;base64,{b64}",
        "api_key = 'YOUR_API_KEY_GOES_HERE'", "sha256: {sha}", "Set the token in settings.py, not in {word}.py",
        "https://example.org/{word}?q=key&token_type=bearer", "رمز عبور خود را فراموش کرده‌ام", "primary_key={uuid}",
    )  # fmt: skip
    return [fill(templates[index % len(templates)], makers) for index in range(count)]


# An item and the same said in other words; each list by our own hand.
PARAPHRASES = (
    ("How many planets in our solar system have rings around them?", "Around which number of the sun's planets can rings be found?"),
    ("Explain why the sky looks blue during the day.", "What makes the daytime sky appear blue? Give the reason."),
    ("What is the boiling point of water at the top of Mount Everest?", "On Everest's summit, at which temperature does water boil?"),
    ("A farmer has 17 sheep and all but 9 run away. How many are left?", "Of a farmer's seventeen sheep, every one except nine escapes. How many does he still have?"),
    ("Which vitamin does the human body make when skin is exposed to sunlight?", "Sunshine on the skin lets people produce which vitamin?"),
    ("Translate the sentence 'I am hungry' into French.", "How does one say 'I am hungry' in French?"),
    ("Who wrote the play Romeo and Juliet?", "Name the author of Romeo and Juliet, the play."),
    ("Describe the main causes of the First World War.", "What were the chief reasons that World War One broke out?"),
    ("How can I remove a red wine stain from a white carpet?", "What is the way to get spilled red wine out of a white rug?"),
    ("Write a short poem about autumn leaves falling.", "Compose a brief poem on leaves that fall in autumn."),
    ("What is the capital city of Australia?", "Which city is Australia's capital?"),
    ("At what age can citizens vote in the United States?", "How old must an American be to cast a vote?"),
    ("List three advantages of renewable energy.", "Name three benefits that renewable energy sources have."),
    ("How does a vaccine protect a person from disease?", "In what way do vaccines keep people from falling ill?"),
    ("What is the difference between a crocodile and an alligator?", "How do alligators differ from crocodiles?"),
    ("پایتخت کشور استرالیا کدام شهر است؟", "کدام شهر پایتخت استرالیاست؟"),
    ("چرا آسمان در روز آبی دیده می‌شود؟", "علت آبی بودن آسمان در طول روز چیست؟"),
    ("نویسندهٔ کتاب بوستان کیست؟", "کتاب بوستان را چه کسی نوشته است؟"),
    ("چگونه لکهٔ چای را از لباس سفید پاک کنم؟", "برای از بین بردن لکهٔ چای روی پیراهن سفید چه باید کرد؟"),
    ("سه مزیت انرژی خورشیدی را نام ببرید.", "سه فایدهٔ استفاده از انرژی خورشید را بنویسید."),
    ("آب در چه دمایی یخ می‌زند؟", "نقطهٔ انجماد آب چند درجه است؟"),
    ("بلندترین قلهٔ ایران چه نام دارد؟", "نام مرتفع‌ترین کوه ایران چیست؟"),
)  # fmt: skip
