"""What may be used by its licence, whose name is written as SPDX writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from tanzim.core.errors import ConfigError
from tanzim.core.optional import need
from tanzim.core.powers import Powers
from tanzim.core.records import Example
from tanzim.data.screen.config import LicenceConfig
from tanzim.data.step import Outcome, Removed, Step

# What people and hubs write → what SPDX writes; LicenseRef- where it has no name.
_ALIASES = {
    "apache": "Apache-2.0", "apache 2": "Apache-2.0", "apache2": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "apache v2": "Apache-2.0", "apache v2.0": "Apache-2.0", "expat": "MIT", "bsd": "BSD-3-Clause",
    "bsd 3 clause": "BSD-3-Clause", "bsd 2 clause": "BSD-2-Clause", "new bsd": "BSD-3-Clause",
    "gpl": "GPL-3.0-or-later", "gpl 2.0": "GPL-2.0-only", "gplv2": "GPL-2.0-only", "gpl 3.0": "GPL-3.0-only",
    "gplv3": "GPL-3.0-only", "lgpl 3.0": "LGPL-3.0-only", "lgplv3": "LGPL-3.0-only",
    "lgpl 2.1": "LGPL-2.1-only", "agpl 3.0": "AGPL-3.0-only", "agplv3": "AGPL-3.0-only", "mpl 2.0": "MPL-2.0",
    "cc0": "CC0-1.0", "cc0 1.0": "CC0-1.0", "cc zero": "CC0-1.0", "pddl": "PDDL-1.0", "odbl": "ODbL-1.0",
    "odc by": "ODC-By-1.0", "odc by 1.0": "ODC-By-1.0", "public domain": "LicenseRef-public-domain",
    "cc": "LicenseRef-unversioned-cc",
}  # fmt: skip
_CREATIVE = re.compile(
    r"^(?:cc|creative commons)[ -]*(?P<terms>by(?:[ -](?:nc|sa|nd))*)(?:[ -]*v?(?P<version>\d(?:\.\d)?))?$"
)
_CREATIVE_WORDS = (
    ("attribution", "by"), ("noncommercial", "nc"), ("non commercial", "nc"), ("share alike", "sa"),
    ("sharealike", "sa"), ("noderivatives", "nd"), ("noderivs", "nd"), ("no derivatives", "nd"),
)  # fmt: skip
_CREATIVE_URL = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<terms>[a-z-]+)/(?P<version>\d\.\d)|publicdomain/zero)"
)
_UNKNOWN = {"", "unknown", "other", "none", "unlicensed", "n/a", "na", "-", "not stated", "proprietary?"}


def spdx(name: str) -> str | None:
    """Return a licence as SPDX writes it (a name, or an expression with AND, OR, WITH); None if unknown.

    A Creative Commons licence without a version is taken as 4.0, "GPL" as the newest.
    """
    plain = re.sub(r"[\s_,()]+", " ", name.strip().lower()).strip()
    if plain in _UNKNOWN:
        return None
    if url := _CREATIVE_URL.search(plain):
        return f"CC-{url['terms'].upper()}-{url['version']}" if url["terms"] else "CC0-1.0"
    for words, short in _CREATIVE_WORDS:
        plain = plain.replace(words, short)
    plain = re.sub(r" (?:international|unported|generic|licen[cs]e|deed|version|software)(?= |$)", "", plain)
    plain = plain.removeprefix("the ")
    plain = re.sub(r"^creative commons\b", "cc", plain)
    if found := _CREATIVE.match(plain):
        version = found["version"] or "4.0"
        terms = re.sub(r" ", "-", found["terms"]).upper()
        return f"CC-{terms}-{version if '.' in version else version + '.0'}"
    alias = _ALIASES.get(plain) or _ALIASES.get(plain.replace("-", " "))
    return alias or _expression(name.strip()) or _expression(plain)


def _expression(name: str) -> str | None:
    licences = need("packaging.licenses", "screen")
    name = re.sub(r"\b(and|or|with)\b", lambda m: m[0].upper(), name, flags=re.IGNORECASE)
    try:
        return str(licences.canonicalize_license_expression(name))
    except licences.InvalidLicenseExpression:
        return None


def allowed(expression: str, allow: list[str], deny: list[str]) -> bool:
    """Say whether an SPDX expression may be used: of OR one side is enough, of AND both must be.

    Args:
        expression: as `spdx` returns it.
        allow: names or patterns; empty allows what is not denied.
        deny: names or patterns that are refused whatever ``allow`` says.

    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    value, rest = _either(tokens, [p.lower() for p in allow], [p.lower() for p in deny])
    assert not rest
    return value


def _either(tokens: list[str], allow: list[str], deny: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens, allow, deny)
    while tokens and tokens[0] == "OR":
        other, tokens = _both(tokens[1:], allow, deny)
        value = value or other
    return value, tokens


def _both(tokens: list[str], allow: list[str], deny: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens, allow, deny)
    while tokens and tokens[0] == "AND":
        other, tokens = _one(tokens[1:], allow, deny)
        value = value and other
    return value, tokens


def _one(tokens: list[str], allow: list[str], deny: list[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        value, tokens = _either(tokens[1:], allow, deny)
        return value, tokens[1:]
    name, tokens = tokens[0].lower(), tokens[1:]
    if tokens and tokens[0] == "WITH":
        tokens = tokens[2:]  # an exception only permits more
    denied = any(fnmatchcase(name, pattern) for pattern in deny)
    return not denied and (not allow or any(fnmatchcase(name, pattern) for pattern in allow)), tokens


class Licence(Step[LicenceConfig]):
    """Keep examples by ``about.licence`` (or ``about.license``), which is then written as SPDX writes it."""

    def __init__(self, config: LicenceConfig, powers: Powers, seed: int) -> None:
        super().__init__(config, powers, seed)
        self._allow, self._deny = _patterns(config.allow, "allow"), _patterns(config.deny, "deny")
        self._assumed = spdx(config.assume) if config.assume else None
        if config.assume and self._assumed is None:
            raise ConfigError(
                f"SPDX knows no licence '{config.assume}'",
                where="data.steps: licence.assume",
                fix="take a name of spdx.org/licenses, or LicenseRef- and a name of your own",
            )

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example with its licence, or its removal."""
        for example in examples:
            given = str(example.about.get("licence") or example.about.get("license") or "")
            name = spdx(given) if given else self._assumed
            self.counts[name or "unknown"] += 1
            if name is None and self.config.unknown == "drop":
                yield Removed(example, "its licence is unknown", given)
            elif name is None:
                yield example
            elif allowed(name, self._allow, self._deny):
                about = {key: value for key, value in example.about.items() if key != "license"}
                yield replace(example, about={**about, "licence": name})
            else:
                yield Removed(example, "its licence is not allowed", name)


def _patterns(names: list[str], key: str) -> list[str]:
    """Return patterns as they are and names as SPDX writes them."""
    found = []
    for name in names:
        known = name if "*" in name else spdx(name)
        if known is None:
            raise ConfigError(
                f"SPDX knows no licence '{name}'",
                where=f"data.steps: licence.{key}",
                fix="take a name of spdx.org/licenses, or a pattern such as CC-BY-*",
            )
        found.append(known)
    return found
