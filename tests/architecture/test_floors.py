"""A room imports only lower floors; rooms on one floor never import each other (HOUSE: floors)."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tanzim"
FLOORS = {
    "core": 0,
    **dict.fromkeys(("data", "models", "adapters", "tune", "launch"), 1),
    "infer": 2,
    **dict.fromkeys(("score", "retrieve"), 3),
    **dict.fromkeys(("train", "evaluate", "export"), 4),
    **dict.fromkeys(("serve", "monitor", "trust"), 5),
    "pipeline": 6,
    **dict.fromkeys(("cli", "studio"), 7),
}
FILES = sorted(SOURCE.rglob("*.py"))
TOP = {"__init__.py": 6, "__main__.py": 8}  # the package's face: the pipelines, and the command


def imported_rooms(tree: ast.AST) -> set[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the floor"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("tanzim.")}


def forbidden(room: str, floor: int, others: set[str]) -> set[str]:
    return {other for other in others if other != room and FLOORS.get(other, -1) >= floor}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_point_downwards(file: Path) -> None:
    parts = file.relative_to(SOURCE).parts
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if len(parts) == 1:
        if parts[0] in TOP:
            assert not forbidden("", TOP[parts[0]] + 1, imported_rooms(tree))
        return
    room = parts[0]
    assert room in FLOORS, f"{room} is no room of the house"
    if parts[-1].endswith("config.py"):  # checked without torch, so it sees configs only
        modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        ours = [m for m in modules if m.startswith("tanzim.")]
        assert all(m.startswith("tanzim.core") or m.endswith("config") for m in ours), ours
    assert not forbidden(room, FLOORS[room], imported_rooms(tree))


def test_a_wrong_arrow_is_seen() -> None:
    tree = ast.parse("from tanzim.train.engine import train\nimport tanzim.data.store")
    assert forbidden("models", FLOORS["models"], imported_rooms(tree)) == {"train", "data"}
    assert not forbidden("pipeline", FLOORS["pipeline"], imported_rooms(tree))
