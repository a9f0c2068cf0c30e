"""docs/security.md names a test for each risk; each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)


def test_every_named_test_exists() -> None:
    assert len(NAMED) > 20
    for file, name in NAMED:
        path = ROOT / file
        assert path.is_file(), file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        tests = [one for one in names if one.startswith("test_")]
        assert (name in tests) if name else tests, (file, name)


def test_each_of_the_ten_has_what_is_done_and_a_test() -> None:
    rows = dict(re.findall(r"^\| (API\d+) [^|]*\|(.*)\|$", TEXT, re.MULTILINE))
    assert list(rows) == [f"API{number}" for number in range(1, 11)]
    for risk, row in rows.items():
        done, tests = row.split("|", 1)
        assert len(done.split()) > 8, risk
        assert re.search(r"`tests/[\w/]+\.py", tests), risk
