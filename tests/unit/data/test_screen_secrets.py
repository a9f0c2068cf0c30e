"""Secrets by shape and by entropy; what only looks like one stays."""

from __future__ import annotations

import json
import math
import random
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.screen.config import SecretsConfig
from tanzim.data.screen.secrets import Secrets, entropy, find_secrets
from tanzim.data.step import Removed

RNG = random.Random(11)
ALNUM = string.ascii_letters + string.digits


def some(length: int, letters: str = ALNUM) -> str:
    return "".join(RNG.choices(letters, k=length))


@given(st.text(min_size=1, max_size=60))
def test_entropy_is_scipys(text):
    counts = list(Counter(text).values())
    assert math.isclose(entropy(text), float(scipy_entropy(counts, base=2)), abs_tol=1e-9)


SHAPED = {
    "AWS_KEY_ID": "AKIA" + some(16, string.ascii_uppercase + "234567"),
    "GITHUB_TOKEN": "ghp_" + some(36),
    "GITLAB_TOKEN": "glpat-" + some(20),
    "SLACK_TOKEN": f"xoxb-{some(11, string.digits)}-{some(24)}",
    "GOOGLE_KEY": "AIza" + some(35),
    "ANTHROPIC_KEY": "sk-ant-api03-" + some(80),
    "OPENAI_KEY": "sk-proj-" + some(20) + "7" + some(20),
    "HUGGING_FACE_TOKEN": "hf_" + some(34, string.ascii_letters),
    "STRIPE_KEY": "sk_live_" + some(24),
    "NPM_TOKEN": "npm_" + some(36),
    "TELEGRAM_TOKEN": f"{some(9, '123456789')}:AA{some(33)}",
    "JWT": f"eyJ{some(20)}.eyJ{some(40)}.{some(43)}",
    "SENDGRID_KEY": f"SG.{some(22)}.{some(43)}",
    "PYPI_TOKEN": "pypi-AgE" + some(80),
}


@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize(
    "frame", ["The key is {}, keep it.", "KEY={}", "کلید «{}» را عوض کن", '{{"k": "{}"}}']
)
def test_known_shapes(kind, frame):
    text = frame.format(SHAPED[kind])
    (found,) = find_secrets(text)
    assert text[found.start : found.end] == SHAPED[kind]
    assert found.entity == kind or frame.startswith("KEY")


def test_a_private_key_goes_whole():
    body = "\n".join(some(64, ALNUM + "+/") for _ in range(6))
    text = f"before\n-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nafter"
    (found,) = find_secrets(text)
    assert text[: found.start] + text[found.end :] == "before\n\nafter"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgres://admin:hunter2!x@db.internal:5432/app", "hunter2!x"),
        ("redis://:s3cr3tpw@cache:6379", "s3cr3tpw"),
        ('api_key: "a8Zk2Lq9Xw4Rt7Yv1Nb6"', "a8Zk2Lq9Xw4Rt7Yv1Nb6"),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKEY12345",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKEY12345",
        ),
        ("Authorization: Bearer a8Zk2Lq9Xw4Rt7Yv1Nb6", "a8Zk2Lq9Xw4Rt7Yv1Nb6"),
        ("password = 'tr0ub4dor&3'", "tr0ub4dor&3"),
        ("رمز عبور: tr0ub4dor&3", "tr0ub4dor&3"),
    ],
)
def test_what_stands_after_a_word(text, secret):
    (found,) = find_secrets(text)
    assert text[found.start : found.end] == secret


@pytest.mark.parametrize(
    "text",
    [
        "Fixed in commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12.",
        "id 123e4567-e89b-12d3-a456-426614174000",
        "password = os.environ['DB_PASS']",
        "api_key = 'YOUR_API_KEY_GOES_HERE'",
        "The password is required; a token is a word.",
        "max_tokens = 4096, token: table",
        "https://example.org/a?q=key",
        "رمز عبور خود را فراموش کرده‌ام",
        "postgres://user:$PASSWORD@host/db",
    ],
)
def test_what_is_none(text):
    assert find_secrets(text) == []


def test_step_redacts_drops_and_allows():
    token = SHAPED["GITHUB_TOKEN"]
    turns = (
        Message("user", f"use {token}"),
        Message("assistant", "", tool_calls=(ToolCall("push", {"token": token}),)),
    )
    one = Example("messages", Provenance("a", 1), messages=turns)
    step = Secrets(SecretsConfig(), Powers(), 0)
    (hidden,) = step.apply([one])
    assert hidden.messages[0].content == "use [GITHUB_TOKEN]"
    assert hidden.messages[1].tool_calls[0].arguments == {"token": "[GITHUB_TOKEN]"}
    assert step.counts == {"GITHUB_TOKEN": 2}
    (dropped,) = Secrets(SecretsConfig(action="drop"), Powers(), 0).apply([one])
    assert isinstance(dropped, Removed) and dropped.detail == "GITHUB_TOKEN (2)"  # noqa: PT018
    assert token not in json.dumps(dropped.example.to_json())
    assert list(Secrets(SecretsConfig(allow=[token]), Powers(), 0).apply([one])) == [one]


@pytest.mark.parametrize(
    "text",
    [
        "a_" * 20_000,
        "password" * 4000,
        "://" * 10_000,
        "-----BEGIN " * 3000,
        "eyJ" * 10_000,
        "sk-" * 10_000,
        "token=" * 6000,
    ],
)
def test_hostile_text_ends(text):
    assert isinstance(find_secrets(text), list)
