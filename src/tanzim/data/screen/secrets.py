"""Keys, tokens, private keys and passwords: by the shapes their issuers gave them, and by entropy.

Own rather than ``detect-secrets``, which reads files line by line, finds the first line of a private key
alone, and knows few of today's tokens; `bench/data_screen.py` sets both side by side.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from tanzim.core.records import Example
from tanzim.data.screen.config import SecretsConfig
from tanzim.data.screen.found import Found, replace, settle
from tanzim.data.screen.said import texts_of, with_texts
from tanzim.data.step import Outcome, Removed, Step

_A = r"[A-Za-z0-9]"
_W = r"[A-Za-z0-9_-]"

# Kind → its shape. The prefix in the first column must stand in the text for the pattern to be tried.
_SHAPES: tuple[tuple[str, str, str], ...] = (
    ("-----BEGIN", "PRIVATE_KEY",
     r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[^-]{16,20000}"
     r"(?:-----END (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----)?"),
    ("A", "AWS_KEY_ID", r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("gh", "GITHUB_TOKEN", rf"(?<!\w)gh[pousr]_{_A}{{36,251}}"),
    ("github_pat_", "GITHUB_TOKEN", r"(?<!\w)github_pat_\w{22,255}"),
    ("gl", "GITLAB_TOKEN", rf"(?<!\w)gl(?:pat|dt|rt|ptt|soat|ft|cbt)-{_W}{{20,64}}"),
    ("xox", "SLACK_TOKEN", rf"(?<!\w)xox[abeoprs]-{_W}{{10,250}}"),
    ("xapp-", "SLACK_TOKEN", rf"(?<!\w)xapp-\d-{_W}{{10,250}}"),
    ("hooks.slack.com", "SLACK_WEBHOOK", r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/]{20,100}"),
    ("discord", "DISCORD_WEBHOOK", rf"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d{{10,25}}/{_W}{{40,100}}"),
    ("AIza", "GOOGLE_KEY", rf"(?<!\w)AIza{_W}{{35}}(?!{_W})"),
    ("GOCSPX-", "GOOGLE_SECRET", rf"(?<!\w)GOCSPX-{_W}{{28}}"),
    ("ya29.", "GOOGLE_TOKEN", rf"(?<!\w)ya29\.{_W}{{30,300}}"),
    ("sk-ant-", "ANTHROPIC_KEY", rf"(?<!\w)sk-ant-{_W}{{32,200}}"),
    ("sk-", "OPENAI_KEY", rf"(?<!\w)sk-(?:proj-|svcacct-|admin-|or-v1-)?(?=[A-Za-z_-]*\d){_W}{{32,250}}"),
    ("hf_", "HUGGING_FACE_TOKEN", r"(?<!\w)hf_[A-Za-z]{34}(?!\w)"),
    ("_live_", "STRIPE_KEY", rf"(?<!\w)(?:sk|rk|pk)_live_{_A}{{16,250}}"),
    ("_test_", "STRIPE_KEY", rf"(?<!\w)(?:sk|rk)_test_{_A}{{16,250}}"),
    ("whsec_", "STRIPE_KEY", rf"(?<!\w)whsec_{_A}{{32,64}}"),
    ("SG.", "SENDGRID_KEY", rf"(?<!\w)SG\.{_W}{{22}}\.{_W}{{43}}"),
    ("npm_", "NPM_TOKEN", rf"(?<!\w)npm_{_A}{{36}}(?!\w)"),
    ("pypi-", "PYPI_TOKEN", rf"(?<!\w)pypi-AgE{_W}{{50,500}}"),
    ("SK", "TWILIO_KEY", r"(?<!\w)SK[0-9a-f]{32}(?!\w)"),
    ("key-", "MAILGUN_KEY", r"(?<!\w)key-[0-9a-f]{32}(?!\w)"),
    ("dop_v1_", "DIGITALOCEAN_TOKEN", r"(?<!\w)do[por]_v1_[0-9a-f]{64}"),
    ("dapi", "DATABRICKS_TOKEN", r"(?<!\w)dapi[0-9a-f]{32}(?:-\d)?(?!\w)"),
    ("shp", "SHOPIFY_TOKEN", r"(?<!\w)shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("EAA", "FACEBOOK_TOKEN", rf"(?<!\w)EAA{_A}{{60,300}}"),
    (":AA", "TELEGRAM_TOKEN", rf"(?<!\w)\d{{8,10}}:AA{_W}{{33}}(?!{_W})"),
    ("AccountKey=", "AZURE_KEY", r"(?<=AccountKey=)[A-Za-z0-9+/]{86}=="),
    ("eyJ", "JWT", rf"(?<!\w)eyJ{_W}{{10,2000}}\.eyJ{_W}{{10,4000}}\.{_W}{{10,2000}}"),
)  # fmt: skip
_SHAPED = tuple((sign, kind, re.compile(pattern)) for sign, kind, pattern in _SHAPES)

_URL = re.compile(
    r"(?<![\w+.-])[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@'\"<>]{0,100}:(?P<secret>[^\s/@'\"<>]{3,200})@[\w\[]"
)
_NAMED = re.compile(
    r"(?i)(?<![a-z])(?P<name>(?:[a-z0-9]{1,20}[_-]){0,4}(?:api[_-]?key|apikey|secret|secret[_-]?(?:access[_-]?)?key|"
    r"access[_-]?(?:key|token)|auth[_-]?(?:key|token)|token|client[_-]?secret|private[_-]?key|encryption[_-]?key|credentials?))"
    r"[\"'\]]{0,2}[ \t]{0,4}(?:=>|:=|[:=])[ \t]{0,4}[\"'`]?(?P<secret>[A-Za-z0-9+/_.~=-]{16,200})"
)
_BEARER = re.compile(r"(?i)\b(?:bearer|basic)[ \t]+(?P<secret>[A-Za-z0-9+/_.~-]{20,2000}={0,2})")
_PASSWORD = re.compile(
    r"(?i)(?<![a-z])(?:[a-z0-9]{1,20}[_-]){0,3}(?:password|passwd|pwd|passphrase|"
    r"رمز(?:[ \u200c]?عبور)?|گذرواژه|پسورد)[\"'\]]{0,2}[ \t]{0,4}(?:=>|:=|[:=：]|\bis\b|است)[ \t]{0,4}"
    r"(?P<quote>[\"'`]?)(?P<secret>[^\s\"'`,;<>(){}\[\]]{6,100})"
)
# What stands for a secret in examples and code, and is none.
_NONE = re.compile(
    r"(?i)^(?:\$|%|<|\{|\*+$|x{4,}|\.+$)|your[_-]?|example|placeholder|change[_-]?me|redacted|dummy|sample|"
    r"^(?:none|null|true|false|undefined|string|process\.env|os\.environ|os\.getenv|self|config|settings|secrets?|env)\b|"
    r"^(?:incorrect|required|correct|invalid|wrong|not|too|must|should|protected|optional|hashed|strong|weak)\b"
)  # fmt: skip


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text's characters, in bits per character (Shannon, 1948)."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def find_secrets(text: str, least: float = 3.5) -> list[Found]:
    """Return the secrets in a text, in order and without overlaps.

    Args:
        text: code, configuration or prose.
        least: entropy (bits per character) from which what stands after a word such as api_key= is one.

    """
    found = [
        Found(*match.span(), kind, 1.0 if kind != "OPENAI_KEY" else 0.9)
        for sign, kind, pattern in _SHAPED
        if sign in text
        for match in pattern.finditer(text)
    ]
    if "://" in text:
        found += [
            _inner(m, "URL_PASSWORD", 0.95) for m in _URL.finditer(text) if not _NONE.search(m["secret"])
        ]
    found += [_inner(m, "API_KEY", 0.8) for m in _NAMED.finditer(text) if _random(m["secret"], least)]
    found += [_inner(m, "BEARER_TOKEN", 0.8) for m in _BEARER.finditer(text) if _random(m["secret"], least)]
    found += [_inner(m, "PASSWORD", 0.7) for m in _PASSWORD.finditer(text) if _password(m)]
    return settle(found)


def _inner(match: re.Match[str], kind: str, score: float) -> Found:
    return Found(*match.span("secret"), kind, score)


def _random(secret: str, least: float) -> bool:
    """Say whether a value looks drawn by lot: many kinds of characters, evenly, and no words."""
    classes = sum(bool(re.search(one, secret)) for one in (r"\d", "[a-z]", "[A-Z]"))
    return (
        classes >= 2
        and bool(re.search(r"\d", secret))
        and entropy(secret) >= least
        and not _NONE.search(secret)
    )


def _password(match: re.Match[str]) -> bool:
    """Say whether what follows the word password is one: quoted, or with letters and something else."""
    secret = match["secret"].rstrip(".!?،؛")
    if len(secret) < 6 or _NONE.search(secret):
        return False
    mixed = re.search(r"[A-Za-z]", secret) and re.search(r"\d|[^\w\s]", secret)
    calls = re.search(r"^\w+\.\w+(?:\.\w+)*$|[\\/]{2}", secret)
    return bool(mixed and not calls) or bool(
        match["quote"] and entropy(secret) > 2.5 and not secret.isalpha()
    )


class Secrets(Step[SecretsConfig]):
    """Hide secrets in every turn, thinking and tool argument, or take the example out.

    The words of a tagged example carry tags and stay; what is found in them is counted, or drops it.
    """

    private = True

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example with its secrets hidden, or its removal."""
        yield from map(self._judge, examples)

    def find(self, text: str) -> list[Found]:
        """Return the secrets in a text that are not allowed."""
        found = find_secrets(text, self.config.entropy)
        return [one for one in found if text[one.start : one.end] not in self.config.allow]

    def hide(self, text: str) -> str:
        """Return a text with masks in the place of secrets."""
        return replace(text, self.find(text), lambda one, _: self.config.mask.replace("{entity}", one.entity))

    def _judge(self, example: Example) -> Outcome:
        seen = Counter(one.entity for text in texts_of(example) for one in self.find(text))
        tagged = example.kind == "tagged"
        self.counts.update(
            {f"{'in words with tags: ' if tagged else ''}{kind}": n for kind, n in seen.items()}
        )
        if not seen:
            return example
        if self.config.action == "redact":
            return with_texts(example, self.hide)
        hidden = (
            dataclasses.replace(example, text=self.hide(example.text), words=(), tags=())
            if tagged
            else with_texts(example, self.hide)
        )
        listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(seen.items()))
        return Removed(hidden, "it holds secrets", listed)
