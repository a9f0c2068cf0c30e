"""Licences: names as SPDX writes them, expressions, allow and deny lists."""

from __future__ import annotations

import itertools

import pytest
from packaging.licenses import canonicalize_license_expression

from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Provenance
from tanzim.data.screen.config import LicenceConfig
from tanzim.data.screen.licence import _ALIASES, Licence, allowed, spdx
from tanzim.data.step import Removed


def example(licence: str | None, key: str = "licence") -> Example:
    return Example("text", Provenance("a", 1), text="x", about={key: licence, "url": "u"} if licence else {})


def judged(licence: str | None, **settings):
    (outcome,) = Licence(LicenceConfig(**settings), Powers(), 0).apply([example(licence)])
    return outcome


def test_every_alias_is_a_name_that_spdx_has():
    for name in {*_ALIASES.values()}:
        assert canonicalize_license_expression(name) == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("apache-2.0", "Apache-2.0"), ("Apache License, Version 2.0", "Apache-2.0"), ("MIT License", "MIT"),
        ("cc-by-sa-4.0", "CC-BY-SA-4.0"), ("CC BY-NC 4.0", "CC-BY-NC-4.0"), ("CC BY-SA 3.0", "CC-BY-SA-3.0"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0"),
        ("cc by", "CC-BY-4.0"), ("The Unlicense", "Unlicense"), ("GPL", "GPL-3.0-or-later"),
        ("https://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"), ("cc0", "CC0-1.0"),
        ("mit or gpl-3.0-only", "MIT OR GPL-3.0-only"), ("LicenseRef-ours", "LicenseRef-ours"),
        ("unknown", None), ("our own terms", None), ("", None),
    ],
)  # fmt: skip
def test_names(given, name):
    assert spdx(given) == name
    if name:
        assert spdx(name) == name
        assert canonicalize_license_expression(name) == name


def test_allow_deny_and_unknown():
    assert judged("apache-2.0", allow=["Apache-2.0", "MIT"]).about == {"licence": "Apache-2.0", "url": "u"}
    refused = judged("CC BY-NC 4.0", deny=["*-NC-*"])
    assert isinstance(refused, Removed)
    assert (refused.reason, refused.detail) == ("its licence is not allowed", "CC-BY-NC-4.0")
    assert isinstance(judged("gpl-3.0-only", allow=["MIT"]), Removed)
    assert judged("own terms").about["licence"] == "own terms"
    assert judged("own terms", unknown="drop").reason == "its licence is unknown"
    assert judged(None, assume="mit").about == {"licence": "MIT"}
    assert isinstance(judged(None, assume="mit", deny=["MIT"]), Removed)
    (kept,) = Licence(LicenceConfig(), Powers(), 0).apply([example("mit", key="license")])
    assert kept.about == {"licence": "MIT", "url": "u"}


def test_expressions_are_what_python_makes_of_them():
    names = ["MIT", "ISC", "Zlib"]
    shapes = ["{} OR {} AND {}", "({} OR {}) AND {}", "{} AND ({} OR {})", "{} AND {} OR {}"]
    sets = [held for size in range(1, 4) for held in itertools.combinations(names, size)]
    for shape, held in itertools.product(shapes, sets):
        python = shape.replace("AND", "and").replace("OR", "or")
        wanted = eval(python.format(*(name in held for name in names)))
        assert allowed(shape.format(*names), list(held), []) == wanted
    assert allowed("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only"], [])
    assert not allowed("MIT", [], ["mit"])


@pytest.mark.parametrize("settings", [{"allow": ["Apachee-2.0"]}, {"deny": ["what"]}, {"assume": "what"}])
def test_a_name_spdx_does_not_know(settings):
    with pytest.raises(ConfigError, match="SPDX knows no licence"):
        Licence(LicenceConfig(**settings), Powers(), 0)


def test_counts():
    step = Licence(LicenceConfig(), Powers(), 0)
    list(step.apply([example("mit"), example("MIT License"), example(None)]))
    assert step.counts == {"MIT": 2, "unknown": 1}
