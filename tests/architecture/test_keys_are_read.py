"""Every key of the config is read by something (no key that does nothing)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from tanzim.core.config import _models_in
from tanzim.pipeline.config import Config

SOURCE = Path(__file__).parents[2] / "src" / "tanzim"


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, attribute) of every leaf key."""
    for name, field in model.model_fields.items():
        inner = _models_in(field.annotation)
        for sub in inner:
            yield from keys(sub, f"{prefix}{name}.")
        if not inner:
            yield f"{prefix}{name}", name


def names_read() -> dict[str, set[Path]]:
    """Return which files read each name, as an attribute or (as the columns are) by its text."""
    found: dict[str, set[Path]] = {}
    for file in SOURCE.rglob("*.py"):
        if file.name.endswith("config.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.setdefault(node.attr, set()).add(file)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.setdefault(f"text {node.value}", set()).add(file)
    return found


READ = names_read()
ROOMS = {"train.method": "adapters", "model": "models", "search": "tune"}


@pytest.mark.parametrize(("dotted", "name"), sorted(set(keys(Config))), ids=lambda v: v if "." in v else "")
def test_key_is_read_in_its_room_or_the_pipeline(dotted: str, name: str) -> None:
    if dotted.endswith(".type"):
        return  # read by pydantic, which picks the class by it
    overruled = (room for prefix, room in ROOMS.items() if dotted.startswith(f"{prefix}."))
    section = next(overruled, dotted.partition(".")[0])
    files = set() if dotted.startswith("data.columns.") else READ.get(name, set())
    if dotted.startswith(("data.columns.", "data.card.")):  # read by their names as text
        files = files | READ.get(f"text {name}", set())
    rooms = {file.relative_to(SOURCE).parts[0] for file in files}
    assert rooms & {section, "pipeline"}, f"nothing reads {dotted}"


def test_an_unread_key_is_seen() -> None:
    assert "learning_rat" not in READ
    assert "learning_rate" in READ
