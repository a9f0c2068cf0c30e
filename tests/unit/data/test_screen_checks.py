"""Check digits beside published examples and Presidio's own checks; Iranian numbers in three scripts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from presidio_analyzer.predefined_recognizers import CreditCardRecognizer, IbanRecognizer

from helpers.properties import examples
from tanzim.data.screen.checks import (
    digits_of,
    iban,
    iban_check,
    like_digits,
    luhn,
    luhn_digit,
    national_id,
    national_id_digit,
)
from tanzim.data.screen.found import Found, replace, settle
from tanzim.data.screen.iranian import find_iranian

CARDS, IBANS = CreditCardRecognizer(), IbanRecognizer()
PERSIAN = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


@given(st.text("0123456789", min_size=12, max_size=16))
def test_luhn_is_presidios(number):
    assert luhn(number) == CARDS.validate_result(number)
    assert CARDS.validate_result(number + luhn_digit(number))


@given(st.text("0123456789", min_size=18, max_size=18))
def test_check_digits_of_an_iban_are_those_presidio_accepts(rest):
    code = f"DE{iban_check('DE', rest)}{rest}"
    assert iban(code)
    assert IBANS.validate_result(code)


@pytest.mark.parametrize(
    "code", ["GB82WEST12345698765432", "DE89370400440532013000", "IR580540105180021273113007"]
)
def test_published_ibans(code):
    """The examples of the SWIFT IBAN registry."""
    assert iban(code)
    assert not iban(code[:-1] + str((int(code[-1]) + 1) % 10))
    assert not iban(code[:2] + "01" + code[4:])


@given(st.integers(0, 10**9 - 1))
def test_national_ids_by_their_definition(number):
    nine = f"{number:09d}"
    weighted = sum(int(nine[place]) * (10 - place) for place in range(9))
    right = weighted % 11 if weighted % 11 < 2 else 11 - weighted % 11
    assert national_id_digit(nine) == str(right)
    made = f"{nine}{right}"
    assert national_id(made) == (len(set(made)) > 1 and made[3:9] != "000000")
    assert not national_id(nine + str((right + 1) % 10))


def test_digits_keep_their_script_and_their_places():
    assert like_digits("987654", "۱۲-34 ٥٦") == "۹۸-76 ٥٤"
    assert digits_of("۱۲-34 ٥٦") == "123456"


SHEBA, CARD, NATIONAL = "IR580540105180021273113007", "6037991234567893", "0013542419"


@pytest.mark.parametrize("script", [{}, PERSIAN, ARABIC], ids=["ascii", "persian", "arabic"])
@pytest.mark.parametrize(
    ("text", "number", "entity"),
    [
        ("کد ملی من {} است", NATIONAL, "IR_NATIONAL_ID"),
        ("شمارهٔ من {} است", "09121234567", "IR_MOBILE"),
        ("با {} تماس بگیر", "+98 912 123 4567", "IR_MOBILE"),
        ("دفتر: {}", "021-88776655", "IR_LANDLINE"),
        ("حساب {} به نام ماست", SHEBA, "IR_SHEBA"),
        ("حساب {} به نام ماست", "IR58 0540 1051 8002 1273 1130 07", "IR_SHEBA"),
        ("شبا {}", SHEBA[2:], "IR_SHEBA"),
        ("کارت {} را شارژ کن", CARD[:15] + luhn_digit(CARD[:15]), "IR_CARD"),
        ("کد پستی: {}", "1969813455", "IR_POSTAL_CODE"),
        ("كد ملي {}", NATIONAL, "IR_NATIONAL_ID"),
    ],
)
def test_iranian_numbers(text, number, entity, script):
    number = number.translate(script)
    whole = text.format(number)
    found = settle(find_iranian(whole))
    assert [(whole[one.start : one.end], one.entity) for one in found] == [(number, entity)]


@pytest.mark.parametrize(
    "text",
    [
        "کد ملی 0013542418 درست نیست",  # wrong check digit
        "سفارش 0013542419 ارسال شد",  # right by chance, but an order
        "شبا IR580540105180021273113008",
        "کارت 6037991234567890",
        "در سال 1403 حدود 1234567 نفر",
        "1111111111",
        "1969813455 نسخه",
    ],
)
def test_what_only_looks_like_one(text):
    assert find_iranian(text) == []


@examples(200)
@given(
    st.lists(
        st.builds(
            lambda start, length, score: Found(start, start + length, "X", score),
            st.integers(0, 60), st.integers(1, 12), st.sampled_from([0.5, 0.7, 1.0]),
        )
    )
)  # fmt: skip
def test_settling_keeps_the_surest_and_no_overlap(found):
    kept = settle(found)
    assert all(one.end <= two.start for one, two in itertools.pairwise(kept))
    for one in found:  # what was left out gave way to something at least as sure
        assert one in kept or any(
            other.start < one.end and one.start < other.end and other.score >= one.score for other in kept
        )
    text = "x" * 80
    hidden = replace(text, kept, lambda one, _: "")
    assert len(hidden) == 80 - sum(one.end - one.start for one in kept)
