"""Strict, typed configuration: YAML with line numbers, overrides, and errors that name the key.

Each room's ``config.py`` derives its section from `Section`; `load` reads a file into one of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tanzim.core.errors import ConfigError

Keys = tuple[str | int, ...]


class Section(BaseModel):
    """A part of ``tanzim.yaml``: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class _Document:
    """A parsed YAML text: its value, and where each key stands."""

    value: dict[str, Any]
    lines: dict[Keys, int]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 2e-4 is a number, as everybody means it."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - any YAML value
        """Return the value of a node; what Python says of 2020-13-45 or !!int x becomes an error of YAML."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            problem = f"'{str(node.value)[:80]}' is no {kind} ({error})"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


_MOST = 100_000  # values of a config: a few hundred are many, and few aliases can stand for millions


def _read(text: str, where: str) -> tuple[Any, dict[Keys, int]]:
    """Return the value of a YAML text, and the lines of its keys.

    Raises:
        YAMLError: it is no YAML.
        ConfigError: a key stands twice, or it is too large or too deep.

    """
    loader = _Loader(text)
    lines: dict[Keys, int] = {}
    try:
        node = loader.get_single_node()
        for number, (keys, line) in enumerate(_walk(node, (), where) if node else ()):
            if number == _MOST:
                raise ConfigError(f"this stands for more than {_MOST:,} values", where=where)
            lines[keys] = line
        return loader.construct_document(node) if node else None, lines
    except RecursionError:
        raise ConfigError("this is nested too deeply, or holds itself", where=where) from None
    finally:
        loader.dispose()


def _parse(text: str, where: str) -> _Document:
    try:
        value, lines = _read(text, where)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(
            f"this is not valid YAML: {error.problem}",
            where=f"{where}, line {line}",
            fix="check the indentation",
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not valid YAML: {error}", where=where) from None
    if value is None:
        return _Document({}, {})
    if not isinstance(value, dict):
        raise ConfigError(f"expected keys and values, found {type(value).__name__}", where=where)
    return _Document(value, lines)


def _walk(node: yaml.Node, keys: Keys, where: str) -> Iterator[tuple[Keys, int]]:
    """Yield the line of every key; refuse a key that stands twice (YAML would keep the last)."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(
                    f"the key '{key}' stands twice (first on line {seen[key]})",
                    where=f"{where}, line {line}",
                    fix="keep one of them",
                )
            seen[key] = line
            yield (*keys, key), line
            yield from _walk(value_node, (*keys, key), where)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*keys, index), item.start_mark.line + 1
            yield from _walk(item, (*keys, index), where)


def _override(value: dict[str, Any], assignment: str) -> Keys:
    """Put ``a.b=c`` into ``value``; return its keys."""
    name, equals, text = assignment.partition("=")
    keys = tuple(name.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(
            f"'{assignment}' is not an override",
            where="command line",
            fix="write key=value, such as train.epochs=2",
        )
    here = _inner(value, keys, "command line")
    try:
        here[keys[-1]] = _read(text, f"command line, {name}")[0]
    except yaml.YAMLError as error:
        raise ConfigError(f"'{text[:200]}' is not a YAML value", where=f"command line, {name}") from error
    return keys


def assigned(assignments: Sequence[str]) -> dict[str, Any]:
    """Return what ``key=value`` assignments say, with YAML values and dotted keys.

    Raises:
        ConfigError: one is no assignment.

    """
    value: dict[str, Any] = {}
    for assignment in assignments:
        _override(value, assignment)
    return value


def _inner(value: dict[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
    """Return the dict inside ``value`` that holds the last of ``keys``; make those on the way."""
    for key in keys[:-1]:
        inner = value.get(key)
        if inner is None:
            inner = value[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"'{key}' in '{'.'.join(keys)}' holds a value, not keys", where=where)
        value = inner
    return value


def with_values(config: SectionT, values: Mapping[str, Any], *, where: str) -> SectionT:
    """Return ``config`` with other values at dotted keys, checked as strictly as a file.

    Args:
        config: a section; what was not set in it keeps its default.
        values: such as ``{"train.learning_rate": 1e-4}``; later ones go over earlier ones.
        where: the place of these values that an error names.

    Raises:
        ConfigError: a key is unknown or a value refused; the message names the nearest known key.

    """
    document = config.model_dump(mode="json", exclude_unset=True)
    for name, value in values.items():
        keys = name.split(".")
        _inner(document, keys, where)[keys[-1]] = value
    try:
        return type(config).model_validate(document)
    except ValidationError as error:
        refused = _explain(error, type(config), _Document(document, {}), set(), where)
        refused.where = where  # also where several faults name it one by one
        raise refused from None


def load(model: type[SectionT], path: Path | None, overrides: Sequence[str] = ()) -> SectionT:
    """Read a config file into ``model``, with ``key=value`` overrides on top.

    Args:
        model: the root section.
        path: the YAML file; None for the overrides alone.
        overrides: assignments such as ``train.learning_rate=1e-4``; the value is YAML.

    Raises:
        ConfigError: the file is missing, not YAML, or has keys or values that ``model`` refuses;
            the message names the line, the key, and the nearest known key.

    """
    if path is None:
        document, name = _Document({}, {}), "config"
    else:
        if not path.is_file():
            raise ConfigError(
                "there is no such config file", where=str(path), fix="tanzim init FILE writes one"
            )
        try:
            document, name = _parse(path.read_text(encoding="utf-8-sig"), path.name), path.name
        except UnicodeDecodeError:
            raise ConfigError(
                "the config is not UTF-8 text", where=str(path), fix="save it as UTF-8"
            ) from None
    given = {_override(document.value, assignment) for assignment in overrides}
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        raise _explain(error, model, document, given, name) from None


def _explain(
    error: ValidationError, model: type[Section], document: _Document, given: set[Keys], name: str
) -> ConfigError:
    """Say each fault of a config in one line: where, which key, what to do."""
    faults, wheres = [], []
    for fault in error.errors(include_url=False):
        if fault["type"] == "default_factory_not_called":
            continue  # a default that waits for the value of a key at fault
        keys = _present(fault["loc"], document.value)
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):  # a check that knows more exactly which key it is about
            inside = [k for k in (*document.lines, *given) if f"{cause.where}.".startswith(_dots(k))]
            keys = max(inside, key=len, default=keys)
        dotted = ".".join(map(str, keys))
        if any(keys[: len(g)] == g for g in given):
            where = "command line"
        else:
            known = next((keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in document.lines), ())
            where = f"{name}, line {document.lines[known]}" if known else name
        if isinstance(cause, ConfigError):
            text = f"{cause.where}: {cause.what}"
        elif fault["type"] == "extra_forbidden":
            hint = _nearest(str(keys[-1]), _siblings(model, keys[:-1], document.value))
            text = f"unknown key '{dotted}'{hint}"
        elif fault["type"] == "union_tag_invalid":
            known_types = fault["ctx"]["expected_tags"].replace("'", "")
            hint = _nearest(str(fault["ctx"]["tag"]), known_types.split(", "))
            text = f"{dotted}.type: should be one of {known_types} (found {fault['ctx']['tag']!r}){hint}"
        elif fault["type"] == "missing":
            text = f"the key '{'.'.join(map(str, fault['loc']))}' is missing"
        else:
            message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            expected = "" if fault["msg"].startswith("Value error") else "should be "
            text = f"{dotted or 'config'}: {expected}{message} (found {fault['input']!r})"[:400]
        wheres.append(where)
        faults.append(f"{where}: {text}")
    if len(faults) == 1:
        return ConfigError(faults[0].removeprefix(f"{wheres[0]}: "), where=wheres[0])
    return ConfigError("\n".join([f"{len(faults)} faults in the config", *(f"  {line}" for line in faults)]))


def _dots(keys: Keys) -> str:
    return "".join(f"{key}." for key in keys)


def _present(loc: Keys, value: Any) -> Keys:  # noqa: ANN401 - any YAML value
    """Keep those parts of a pydantic location that are real keys (not the names of union branches)."""
    keys: list[str | int] = []
    for index, key in enumerate(loc):
        inside = (isinstance(value, dict) and key in value) or (
            isinstance(value, list) and isinstance(key, int) and key < len(value)
        )
        if inside:
            value = value[key]
            keys.append(key)
        elif index == len(loc) - 1 and not keys:
            keys.append(key)
    return tuple(keys)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _siblings(model: type[BaseModel], keys: Keys, value: Any) -> list[str]:  # noqa: ANN401 - any YAML value
    """Name the keys that ``model`` knows at ``keys`` (of every branch, where a union's ``type`` is unset)."""
    models = [model]
    for key in keys:
        value = value[key]
        if isinstance(key, int):  # an entry of a list: its type says which branch
            named = [m for m in models if "type" in m.model_fields and _type_of(m) == value.get("type")]
            models = named or models
            continue
        fields = [m.model_fields[str(key)].annotation for m in models if str(key) in m.model_fields]
        models = [m for annotation in fields for m in _models_in(annotation)]
    return sorted({name for m in models for name in m.model_fields})


def _type_of(model: type[BaseModel]) -> Any:  # noqa: ANN401 - any default
    return model.model_fields["type"].default


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in get_args(annotation) for m in _models_in(part)]
