"""The request of OpenAI's responses, checked.

Specification: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from tanzim.core.records import Json, Message, ToolCall
from tanzim.infer.request import Grammar
from tanzim.serve.schema import FunctionCall, Strict, TextFormat
from tanzim.serve.tool_calls import ToolFormat
from tanzim.serve.tool_grammar import FUNCTION, check_choice, tool_grammar


class InputPart(Strict):
    """A piece of an item's content; only text can be read."""

    type: Literal["input_text", "output_text"]
    text: str
    # What an answer that is sent back has besides.
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=0)] | None = None


class InputItem(Strict):
    """One turn of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]
    # What an answer that is sent back has besides.
    id: str | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None
    phase: None = None

    def message(self) -> Message:
        """Return the record the renderer takes."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return Message("system" if self.role == "developer" else self.role, text)


class CallItem(FunctionCall):
    """A function that the assistant called."""

    type: Literal["function_call"]
    call_id: str
    id: str | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None

    def message(self) -> Message:
        """Return the record the renderer takes."""
        return Message("assistant", tool_calls=(ToolCall(self.name, self.parsed(), self.call_id),))


class ResultItem(Strict):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: str | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None

    def message(self) -> Message:
        """Return the record the renderer takes."""
        return Message("tool", self.output, tool_call_id=self.call_id)


def _kind(item: object) -> str | None:
    if not isinstance(item, dict):
        return None
    return str(item.get("type", "message"))


Item = Annotated[
    Annotated[InputItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(
        _kind,
        custom_error_type="item",
        custom_error_message="an item is a message, a function_call or a function_call_output",
    ),
]


class FunctionTool(Strict):
    """A function that the model may call; no other kind of tool is there."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None

    def shown(self) -> Json:
        """Return the tool as chat completions and templates have it."""
        told = {"name": self.name, "description": self.description, "parameters": self.parameters}
        function = {key: value for key, value in told.items() if value is not None}
        return {"type": "function", "function": function}


class StreamOptions(Strict):
    """What a stream holds besides."""

    include_obfuscation: Literal[False] | None = None


class TextConfig(Strict):
    """How the text is written."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class FunctionChoice(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    name: str


class ResponseRequest(Strict):
    """The body of ``POST /v1/responses``."""

    model: str
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Accepted where they ask for nothing. Answers are not kept, so that none can be gone on from.
    store: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    background: Literal[False] | None = None
    max_tool_calls: None = None
    include: Annotated[list[str], Field(max_length=0)] | None = None
    top_logprobs: Literal[0] | None = None
    reasoning: None = None
    text: TextConfig | None = None
    truncation: Literal["disabled"] | None = None
    # Labels that never change an answer.
    metadata: dict[str, str] | None = Field(None, max_length=16)
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ResponseRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        check_choice(self.prompt_tools, self.choice, parallel=self.parallel_tool_calls is not False)
        return self

    @property
    def choice(self) -> str:
        """Which tools must be called (see `tanzim.serve.tool_grammar`)."""
        chosen = self.tool_choice
        return FUNCTION + chosen.name if isinstance(chosen, FunctionChoice) else chosen or "auto"

    def grammar(self, format: ToolFormat) -> Grammar | None:
        """Return what the answer must keep to, where the model writes calls in a format."""
        return tool_grammar(
            self.prompt_tools, self.choice, format, parallel=self.parallel_tool_calls is not False
        )

    @property
    def messages(self) -> list[Message]:
        """The conversation."""
        first = [] if self.instructions is None else [Message("system", self.instructions)]
        if isinstance(self.input, str):
            return [*first, Message("user", self.input)]
        turns = first
        for item in self.input:
            turn = item.message()
            last = turns[-1] if turns else None
            if last is not None and turn.tool_calls and last.role == "assistant":
                # A text and the calls after it are one turn.
                turns[-1] = replace(last, tool_calls=last.tool_calls + turn.tool_calls)
            else:
                turns.append(turn)
        return turns

    @property
    def prompt_tools(self) -> list[Json]:
        """The tools to show to the model."""
        return [] if self.tool_choice == "none" else [tool.shown() for tool in self.tools or ()]
