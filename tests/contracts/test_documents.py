"""The documents say what the code does: verbs, functions, links, folders, Persian spelling."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import tanzim
from tanzim.cli.main import app, data_app

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.fa.md")
DOCUMENTS = (*READMES, "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def verbs() -> set[str]:
    named = {command.name or command.callback.__name__ for command in app.registered_commands}
    return named | {f"data {command.name}" for command in data_app.registered_commands}


def table(name: str) -> dict[str, str]:
    """Return the table of verbs: verb → Python name."""
    rows = re.findall(
        r"^\| (?:`|<code[^>]*>)([a-z -]+)[^|]*\|[^|]*\| `tanzim\.([\w.]+)` \|$", read(name), re.M
    )
    return {verb.strip(): function for verb, function in rows}


@pytest.mark.parametrize("name", READMES)
def test_every_verb_is_in_the_table_with_a_function_that_exists(name):
    found = table(name)
    assert set(found) == verbs()
    for function in found.values():
        head = function.split(".")[0]
        assert head in tanzim.__all__, function


def test_both_readmes_hold_the_same_commands_and_code():
    def blocks(name: str) -> list[str]:
        found = re.findall(r"```(\w+)\n(.*?)```", read(name), re.DOTALL)
        return [
            "\n".join(re.sub(r"\s*#.*|\"[^\"]*\"\)\)\)", "", line) for line in text.splitlines())
            for _, text in found
        ]

    assert blocks("README.md") == blocks("README.fa.md")
    assert table("README.md") == table("README.fa.md")


@pytest.mark.parametrize("name", READMES)
def test_the_example_of_python_and_of_the_config_are_valid(name, tmp_path):
    from tanzim.pipeline.workspace import load_config

    code = re.findall(r"```python\n(.*?)```", read(name), re.DOTALL)[0]
    used = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tanzim"
    }
    assert used <= set(tanzim.__all__)
    (text,) = re.findall(r"```yaml\n(.*?)```", read(name), re.DOTALL)
    (tmp_path / "tanzim.yaml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "tanzim.yaml").train.learning_rate == 2e-4


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_within_the_repository_lead_somewhere(name):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", read(name)):
        assert ((ROOT / name).parent / target).exists(), target


@pytest.mark.parametrize("name", READMES)
def test_checks_that_are_named_exist(name):
    for path in re.findall(r"`((?:tests|bench)/[\w./]+)`", read(name)):
        assert (ROOT / path).exists(), path


def test_the_picture_names_every_room_and_the_table_too():
    rooms = {path.name for path in (ROOT / "src" / "tanzim").iterdir() if (path / "__init__.py").is_file()}
    picture = ET.fromstring(read("docs/architecture.svg"))
    texts = {element.text for element in picture.iter() if element.tag.endswith("text")}
    assert rooms <= texts
    assert rooms <= set(re.findall(r"^\| \d \| `(\w+)`", read("docs/architecture.md"), re.M))


def test_persian_is_spelled_with_half_spaces_and_persian_letters():
    text = re.sub(r"```.*?```", "", read("README.fa.md"), flags=re.DOTALL)
    assert not re.findall("[يكة٠-٩]", text)
    assert not re.findall(r"(?<![\w\u200c])(?:ن)?می [آ-ی]", text)
    assert not re.findall(r"[آ-ی] (?:ها|های|هایی|تر|ترین|ام|اند)(?![\w\u200c])", text)
