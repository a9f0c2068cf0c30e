"""A file never passes 600 lines, a function never 100 (STYLE 14)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(f for folder in ("src", "bench", "examples", "tests") for f in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_within_budget(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 100, f"{node.name} has {length} lines"


def test_the_package_stays_near_300_lines_a_file() -> None:
    lengths = sorted(f.read_text(encoding="utf-8").count("\n") for f in (ROOT / "src").rglob("*.py"))
    assert lengths[int(len(lengths) * 0.9)] <= 320
