"""Personal data in English and Persian: found, redacted, dropped, given one pseudonym; nothing fetched."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import subprocess
import sys

import phonenumbers
import pytest
from presidio_analyzer.predefined_recognizers import CreditCardRecognizer, IbanRecognizer

from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.chain import run_steps
from tanzim.data.screen.checks import digits_of, iban, luhn, luhn_digit, national_id
from tanzim.data.screen.config import PiiConfig
from tanzim.data.screen.found import Found
from tanzim.data.screen.key import pseudonym_key
from tanzim.data.screen.pii import Pii, Screen, spread
from tanzim.data.screen.pseudonym import Pseudonyms
from tanzim.data.shards import write_shards
from tanzim.data.step import Removed

CARD = "603799123456789" + luhn_digit("603799123456789")
KEY = "a key for tests that is long enough"


@pytest.fixture(autouse=True)
def _own_key(monkeypatch, tmp_path):
    monkeypatch.setenv("TANZIM_PSEUDONYM_KEY", KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def example(*turns: str, row: int = 1) -> Example:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(turns))
    return Example("messages", Provenance("a.jsonl", row), messages=messages)


def outcome(config: PiiConfig, one: Example):
    (result,) = Pii(config, Powers(), 0).apply([one])
    return result


def test_english_and_persian_in_one_conversation():
    one = example(
        "I am Margaret Thompson, margaret.t@acme.co.uk, call me at +1 212 736 5000.",
        "آقای رضا محمدی با کد ملی ۰۰۱۳۵۴۲۴۱۹ و همراه ۰۹۱۲۱۲۳۴۵۶۷ ثبت شد.",
    )
    result = outcome(PiiConfig(), one)
    assert [turn.content for turn in result.messages] == [
        "I am [PERSON], [EMAIL_ADDRESS], call me at [PHONE_NUMBER].",
        "آقای [PERSON] با کد ملی [IR_NATIONAL_ID] و همراه [IR_MOBILE] ثبت شد.",
    ]
    assert result.provenance == one.provenance


def test_what_is_nobodys_stays():
    one = example(
        "می‌خواهم ۳ کتاب بخرم؛ سفارش 1234567890 در 2024-05-13.", "Version 3.11.4 of Python, 40% off."
    )
    assert outcome(PiiConfig(), one) is one
    kept = outcome(PiiConfig(allow=["Help@acme.com"]), example("Write to help@acme.com or to eve@acme.com."))
    assert kept.messages[0].content == "Write to help@acme.com or to [EMAIL_ADDRESS]."


def test_actions_by_entity():
    config = PiiConfig(action="pseudonym", actions={"IR_CARD": "drop", "EMAIL_ADDRESS": "keep"})
    dropped = outcome(config, example(f"کارت {CARD} و موبایل 09121234567"))
    assert isinstance(dropped, Removed)
    assert (dropped.reason, dropped.detail) == ("it holds personal data", "IR_CARD (1)")
    assert CARD not in json.dumps(dropped.example.to_json())  # the file of removed rows does not show it
    assert outcome(config, example("eve@acme.com")).messages[0].content == "eve@acme.com"


def test_a_name_that_one_turn_gives_away_is_hidden_in_all():
    whole = {"a: Zoe Castillo left": [Found(3, 15, "PERSON", 0.85)], "zoe? Zoe Castillo! Zoe Castillon": []}
    assert spread(whole) == {**whole, "zoe? Zoe Castillo! Zoe Castillon": [Found(5, 17, "PERSON", 0.85)]}
    one = example("نام: رادین جعفرزاده", "دیروز رادین جعفرزاده را دیدم")
    hidden = outcome(PiiConfig(), one)
    assert [turn.content for turn in hidden.messages] == ["نام: [PERSON]", "دیروز [PERSON] را دیدم"]


def test_counts_are_by_entity():
    step = Pii(PiiConfig(), Powers(), 0)
    list(step.apply([example("a@acme.com b@acme.com"), example("موبایل 09121234567", row=2)]))
    assert step.counts == {"EMAIL_ADDRESS": 2, "IR_MOBILE": 1}


def test_every_kind_of_example_and_what_is_left_alone():
    mail, row = "eve@acme.com", Provenance("a", 1)
    call = ToolCall("send", {"to": [mail], "copies": 2}, id=mail)
    spoken = Message("assistant", f"to {mail}", thinking=f"hm, {mail}", tool_calls=(call,))
    pair = Example(
        "pair",
        row,
        messages=(Message("user", mail),),
        chosen=(spoken,),
        rejected=(Message("assistant", mail),),
    )
    hidden = outcome(PiiConfig(), pair)
    assert hidden.messages[0].content == hidden.rejected[0].content == "[EMAIL_ADDRESS]"
    assert hidden.chosen[0].thinking == "hm, [EMAIL_ADDRESS]"
    assert hidden.chosen[0].tool_calls[0] == ToolCall(
        "send", {"to": ["[EMAIL_ADDRESS]"], "copies": 2}, id=mail
    )
    labelled = outcome(PiiConfig(), Example("labelled", row, text=f"{mail} ok", label=mail))
    assert (labelled.text, labelled.label) == ("[EMAIL_ADDRESS] ok", mail)
    tagged = Example("tagged", row, text=f"write {mail}", words=("write", mail), tags=("O", "B"))
    step = Pii(PiiConfig(), Powers(), 0)
    assert list(step.apply([tagged])) == [tagged]
    assert step.counts == {"in words with tags: EMAIL_ADDRESS": 1}
    dropped = outcome(PiiConfig(action="drop"), tagged)
    assert isinstance(dropped, Removed)
    assert mail not in json.dumps(dropped.example.to_json())


def test_one_person_has_one_pseudonym_and_the_form_stays():
    pseudonyms = Pseudonyms(KEY.encode())
    whole, first, last = (pseudonyms.of("PERSON", name) for name in ("John Smith", "john", "SMITH"))
    assert whole.split() == [first.capitalize(), last.capitalize()]
    assert first.islower()
    assert last.isupper()
    assert pseudonyms.of("PERSON", "علي رضايي") == pseudonyms.of("PERSON", "علی رضایی")
    assert re.fullmatch("[آ-ی]+ [آ-ی]+", pseudonyms.of("PERSON", "علی رضایی"))
    mail = pseudonyms.of("EMAIL_ADDRESS", "John.Smith42@Acme.com")
    assert re.fullmatch(rf"{first}\.{last.lower()}\d\d@[a-z]+\.example", mail)
    assert mail == pseudonyms.of("EMAIL_ADDRESS", "john.smith42@acme.com")
    card = pseudonyms.of("IR_CARD", "6037-9912-۳۴۵۶-7893")
    assert luhn(digits_of(card))
    assert CreditCardRecognizer().validate_result(digits_of(card))
    assert re.fullmatch(r"6037-99\d\d-[۰-۹]{4}-\d{4}", card)
    sheba = pseudonyms.of("IR_SHEBA", "IR58 0540 1051 8002 1273 1130 07")
    assert iban(sheba.replace(" ", ""))
    assert sheba.index(" ") == 4
    assert IbanRecognizer().validate_result(pseudonyms.of("IBAN_CODE", "GB82WEST12345698765432"))
    for shown in ("0013542419", "001-354241-9", "13542419"):
        assert national_id(digits_of(pseudonyms.of("IR_NATIONAL_ID", shown)).zfill(10))
    assert ipaddress.ip_address(pseudonyms.of("IP_ADDRESS", "8.8.8.8")).is_private
    assert ipaddress.ip_address(pseudonyms.of("IP_ADDRESS", "2a00:1450::1")) in ipaddress.ip_network(
        "2001:db8::/32"
    )
    assert (
        int(pseudonyms.of("MAC_ADDRESS", "00:1B:44:11:3A:B7")[:2], 16) & 0b11 == 0b10
    )  # local, one receiver


def test_a_telephone_number_in_all_its_ways_has_one_pseudonym():
    pseudonyms = Pseudonyms(KEY.encode())
    ways = ["09121234567", "+989121234567", "00989121234567", "0912 123 4567", "۰۹۱۲۱۲۳۴۵۶۷"]
    made = [digits_of(pseudonyms.of("IR_MOBILE", way))[-10:] for way in ways]
    assert len(set(made)) == 1
    assert made[0] != "9121234567"
    assert pseudonyms.of("IR_MOBILE", ways[4]).startswith("۰۹")
    number = phonenumbers.parse(pseudonyms.of("IR_MOBILE", ways[1]))
    assert phonenumbers.region_code_for_country_code(number.country_code) == "IR"


def test_another_key_gives_other_pseudonyms():
    one, two = Pseudonyms(KEY.encode()), Pseudonyms(b"another key, also long enough")
    samples = {
        "PERSON": "John Smith",
        "EMAIL_ADDRESS": "j@acme.com",
        "IR_NATIONAL_ID": "0013542419",
        "US_SSN": "219-09-9999",
    }
    assert all(one.of(entity, text) != two.of(entity, text) for entity, text in samples.items())
    assert re.fullmatch(r"\d{3}-\d{2}-\d{4}", one.of("US_SSN", samples["US_SSN"]))


def test_few_people_share_a_pseudonym():
    pseudonyms = Pseudonyms(KEY.encode())
    made = {pseudonyms.of("PERSON", f"Person{chr(97 + n // 26)}{chr(97 + n % 26)}") for n in range(400)}
    assert len(made) > 385


def test_the_key_is_made_once_and_lies_outside(monkeypatch, tmp_path):
    monkeypatch.delenv("TANZIM_PSEUDONYM_KEY")
    key = pseudonym_key("TANZIM_PSEUDONYM_KEY")
    file = tmp_path / "config" / "tanzim" / "pseudonym.key"
    assert len(key) == 64
    assert key == pseudonym_key("TANZIM_PSEUDONYM_KEY") == file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["pseudonym.key"]
    monkeypatch.setenv("TANZIM_PSEUDONYM_KEY", "short")
    with pytest.raises(ConfigError, match="5 bytes; fewer than 16"):
        pseudonym_key("TANZIM_PSEUDONYM_KEY")


def test_through_the_chain_nothing_of_it_is_left(tmp_path, monkeypatch):
    rows = [
        example(f"This is Margaret Thompson, m.thompson@acme.com, row {n}.", "کد ملی ۰۰۱۳۵۴۲۴۱۹", row=n)
        for n in range(1, 7)
    ]
    dataset = write_shards(tmp_path / "in", iter(rows))
    config = PiiConfig(action="pseudonym")
    (done,) = run_steps([config], dataset, tmp_path / "cache", seed=0)
    texts = [one.messages[0].content for shard in done.dataset.shards for one in shard]
    assert len({text.rsplit(",", 1)[0] for text in texts}) == 1  # the same person in every row
    written = json.dumps(done.report.to_json(), ensure_ascii=False)
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            written += file.read_bytes().decode("utf-8", "replace")
    for secret in ("Margaret", "m.thompson", "۰۰۱۳۵۴۲۴۱۹", KEY):
        assert secret not in written
    assert done.report.counts["EMAIL_ADDRESS"] == 6
    assert done.report.changed == 6
    assert next(run_steps([config], dataset, tmp_path / "cache", seed=0)).report.cached
    monkeypatch.setenv("TANZIM_PSEUDONYM_KEY", KEY + "2")
    (other,) = run_steps([config], dataset, tmp_path / "cache", seed=0)
    assert not other.report.cached
    assert other.dataset.fingerprint != done.dataset.fingerprint


def test_nothing_is_fetched(tmp_path):
    program = """
import socket
def refused(*args, **kwargs):
    raise SystemExit("it called out")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
from tanzim.data.screen.config import PiiConfig
from tanzim.data.screen.pii import Screen
text = "Ask Margaret Thompson at m@acme.co.uk or +44 20 7946 0958, https://acme.com"
screen = Screen(PiiConfig())
print(screen.hide(text, screen.find([text])[0]))
"""
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "Ask [PERSON] at [EMAIL_ADDRESS] or [PHONE_NUMBER], https://acme.com"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


@pytest.mark.parametrize(
    "text", ["a." * 20_000, "1" * 30_000, "0912-" * 5000, "@" * 10_000, "آ" * 20_000, "A B" * 3000]
)
def test_hostile_text_ends(text):
    screen = Screen(PiiConfig(actions={"PERSON": "keep"}))
    (found,) = screen.find([text])
    assert all(0 <= one.start < one.end <= len(text) for one in found)


def test_what_spans_two_parts_of_a_long_text_is_found_once():
    text = "x " * 9_995 + "write to margaret.thompson@acme.com now " + "y " * 9_000
    assert 20_000 > text.index("margaret") > 19_900 or text.index("@") > 19_990
    (found,) = Screen(PiiConfig(actions={"PERSON": "keep"})).find([text])
    assert [text[one.start : one.end] for one in found] == ["margaret.thompson@acme.com"]
