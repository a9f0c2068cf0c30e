"""What an answer must be where tools must be called, or at most one of them: a grammar for the generator.

The calls are written as the model's `ToolFormat` reads them. Syntax: llguidance's variant of Lark,
https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tanzim.core.records import Json
from tanzim.infer.grammar import JSON_OPTIONS
from tanzim.infer.request import Grammar
from tanzim.serve.tool_calls import Amount, ToolFormat

Choice = str  # none, auto, required, or the name of a function after FUNCTION
FUNCTION = "function:"


def check_choice(tools: Sequence[Json], choice: Choice, *, parallel: bool) -> None:
    """Refuse a choice that its tools do not allow (see `tool_grammar`).

    Raises:
        ValueError: there are no tools, one has no name or no schema, or none has the name asked for.

    """
    if choice == "none" or (choice == "auto" and (parallel or not tools)):
        return
    if not tools:
        raise ValueError("tool_choice needs tools")
    names = []
    for index, tool in enumerate(tools):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"tools.{index} is no function with a name")
        if not isinstance(function.get("parameters") or {}, dict):
            raise ValueError(f"tools.{index}: the parameters are no JSON schema")
        names.append(function["name"])
    if choice.startswith(FUNCTION) and choice.removeprefix(FUNCTION) not in names:
        raise ValueError(
            f"tool_choice: there is no function '{choice.removeprefix(FUNCTION)}' among the tools"
        )


def tool_grammar(
    tools: Sequence[Json], choice: Choice, format: ToolFormat, *, parallel: bool
) -> Grammar | None:
    """Return what holds an answer to the calls that a client wants; None if any answer will do.

    Args:
        tools: as chat completions have them.
        choice: auto, required, or a function's name after ``FUNCTION``, which is then called once.
        format: how the model writes calls.
        parallel: whether there may be several calls.

    """
    if not tools or choice == "none" or (choice == "auto" and parallel):
        return None
    name = choice.removeprefix(FUNCTION) if choice.startswith(FUNCTION) else None
    functions = [tool["function"] for tool in tools if name in (None, tool["function"]["name"])]
    amount: Amount = "at most one" if choice == "auto" else "some" if parallel and name is None else "one"
    rules = format.rules([function["name"] for function in functions], amount)
    for index, function in enumerate(functions):
        schema = function.get("parameters") or {"type": "object", "additionalProperties": False}
        # Each schema by itself, so that what refers to its root still does.
        rules.append(f"arguments_{index}: %json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}")
    return Grammar("lark", "\n".join(rules))
