"""What a client may ask for: the request of OpenAI's chat completions, checked.

A field is honoured, or has its neutral value, or is refused by name: none is ignored that would
change the answer. Specification: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

from tanzim.core.records import Json, Message, ToolCall
from tanzim.infer.request import Grammar
from tanzim.serve.tool_calls import ToolFormat
from tanzim.serve.tool_grammar import FUNCTION, check_choice, tool_grammar


def _whole_texts(value: Any) -> None:  # noqa: ANN401 - any JSON value
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text in it holds half a character (a lone surrogate)") from None
    except ValueError:
        raise ValueError("a number in it is not finite") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_UNKNOWN = 8  # fields that a request may have too many before it is not looked at further
_MOST = 256  # entries of an object that a field holds


def _bound(schema: Any) -> None:  # noqa: ANN401 - nested dicts and lists
    """Let every list in a schema end at its first fault."""
    if isinstance(schema, list | tuple):
        for one in schema:
            _bound(one)
    elif isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for name, one in schema.items():
            if name not in ("metadata", "ref", "serialization"):
                _bound(one)


class Strict(BaseModel):
    """Closed to unknown fields, and to what cannot be written as JSON in UTF-8.

    Of a list only the first fault is looked for: pydantic would describe each of a million, in gigabytes.
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """Return the schema, bounded in how much it may find wrong."""
        schema = handler(source)
        _bound(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _few(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        if isinstance(value, dict) and len(value) > len(cls.model_fields) + _UNKNOWN:
            known = {name for name, field in cls.model_fields.items()}
            known |= {field.alias for field in cls.model_fields.values() if field.alias}
            first = next(name for name in value if name not in known)
            raise ValueError(
                f"it has {len(value)} fields, of which '{str(first)[:100]}' and others are unknown"
            )
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        if isinstance(value, dict) and len(value) > _MOST:
            raise ValueError(f"it has {len(value)} entries; {_MOST} can be given")
        texts = [one for one in value if isinstance(one, str | dict)] if isinstance(value, list) else value
        if isinstance(texts, str | list | dict):
            _whole_texts(texts)
        return value


class TextPart(Strict):
    """A piece of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class FunctionCall(Strict):
    """The function an assistant called."""

    name: str
    arguments: str
    """A JSON object, as text."""

    @model_validator(mode="after")
    def _is_object(self) -> FunctionCall:
        self.parsed()
        return self

    def parsed(self) -> Json:
        """Return the arguments as an object."""
        try:
            value = json.loads(self.arguments or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(f"arguments is not JSON ({error})") from None
        except RecursionError:
            raise ValueError("arguments is nested too deeply") from None
        if not isinstance(value, dict):
            raise ValueError("arguments is not a JSON object")
        _whole_texts(value)
        return value


class Call(Strict):
    """One tool call in an assistant message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Strict):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    refusal: None = None

    @model_validator(mode="after")
    def _has_content(self) -> ChatMessage:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"a message of role '{self.role}' needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant message has tool_calls")
        return self

    def message(self) -> Message:
        """Return the record the renderer takes."""
        content = self.content
        return Message(
            role="system" if self.role == "developer" else self.role,
            content="".join(p.text for p in content) if isinstance(content, list) else content or "",
            tool_calls=tuple(
                ToolCall(call.function.name, call.function.parsed(), call.id)
                for call in self.tool_calls or ()
            ),
            tool_call_id=self.tool_call_id,
            name=self.name,
        )


class StreamOptions(Strict):
    """What a stream reports besides the text."""

    include_usage: bool | None = False
    include_obfuscation: Literal[False] | None = None


class TextFormat(Strict):
    """An answer of any form."""

    type: Literal["text"]


class ObjectFormat(Strict):
    """An answer that is a JSON object."""

    type: Literal["json_object"]


class NamedSchema(Strict):
    """A JSON schema, as clients send it; whether it is strict changes nothing: it always is."""

    name: str
    wanted: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(Strict):
    """An answer that a JSON schema accepts."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


AnswerFormat = TextFormat | ObjectFormat | SchemaFormat


MESSAGES = 10_000  # of one request; no context holds more


class Stopped(Strict):
    """What ends before a text that the client names."""

    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=4)] | None = None

    @model_validator(mode="after")
    def _stops_are_texts(self) -> Self:
        if any(not text for text in self.stops):
            raise ValueError("a stop string is empty")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class FunctionName(Strict):
    """A function, by its name."""

    name: str


class NamedChoice(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    function: FunctionName


class ChatRequest(Stopped):
    """The body of ``POST /v1/chat/completions``."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    response_format: AnswerFormat | None = None
    parallel_tool_calls: bool | None = None
    # Accepted where they ask for nothing.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    # Labels that never change an answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        check_choice(self.tools or (), self.choice, parallel=self.parallel_tool_calls is not False)
        held = isinstance(self.response_format, SchemaFormat | ObjectFormat)
        if held and self.choice not in ("none", "auto"):
            raise ValueError("tool_choice and response_format ask for two kinds of answer")
        return self

    @property
    def choice(self) -> str:
        """Which tools must be called (see `tanzim.serve.tool_grammar`)."""
        chosen = self.tool_choice
        return FUNCTION + chosen.function.name if isinstance(chosen, NamedChoice) else chosen or "auto"

    def grammar(self, format: ToolFormat) -> Grammar | None:
        """Return what the answer must keep to, where the model writes calls in a format."""
        calls = tool_grammar(
            self.prompt_tools, self.choice, format, parallel=self.parallel_tool_calls is not False
        )
        if calls is not None:
            return calls
        if isinstance(self.response_format, SchemaFormat):
            return Grammar("json_schema", json.dumps(self.response_format.json_schema.wanted))
        return Grammar("json_object") if isinstance(self.response_format, ObjectFormat) else None

    @property
    def limit(self) -> int | None:
        """Longest answer in tokens, if the request says so."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def prompt_tools(self) -> tuple[Json, ...]:
        """The tools to show to the model."""
        return () if self.tool_choice == "none" else tuple(self.tools or ())
