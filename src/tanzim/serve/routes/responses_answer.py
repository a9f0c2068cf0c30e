"""Answers in the shape of OpenAI's responses, whole and as typed events.

Specification: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence

from pydantic import BaseModel

from tanzim.core.records import Json
from tanzim.infer.request import Delta
from tanzim.serve.errors import ApiError
from tanzim.serve.reply import Reply
from tanzim.serve.routes.responses_schema import ResponseRequest
from tanzim.serve.tool_calls import ToolCalls, ToolFormat

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseAnswer(Reply):
    """One response: messages of one text each, and calls of functions, in the order in which they come.

    Args:
        asked: the request, which the response repeats.
        prompt_tokens: length of the prompt.
        tools: how the model writes calls.

    """

    END = ""  # the last event says that it is

    def __init__(self, asked: ResponseRequest, prompt_tokens: int, tools: ToolFormat) -> None:
        super().__init__("resp", asked.model, prompt_tokens)
        self._asked = asked
        self._calls = ToolCalls(tools) if asked.prompt_tools else None
        self._items: list[Json] = []
        self._number = -1
        self._reason: str | None = None

    def whole(self, choices: Sequence[Sequence[Delta]]) -> Json:
        """Return the finished answer."""
        for delta in choices[0]:
            self.parts(0, delta)
        self.closing()
        return self._response(self._status())

    def opening(self) -> list[Json]:
        """Return what begins the response."""
        begun = self._response("in_progress")
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
        ]

    def parts(self, index: int, delta: Delta) -> list[Json]:
        """Return the events of a piece of text, and of the calls that are complete with it."""
        self._reason = delta.finish_reason
        told: list[str | Json] = [delta.text] if delta.text else []
        if self._calls is not None:
            told = self._calls.push(delta.text)
            told += self._calls.finish() if delta.finish_reason is not None else []
        events = []
        for piece in told:
            if isinstance(piece, dict):
                events += [*self._end("completed"), *self._call(piece)]
                continue
            events += self._begin()
            self._items[-1]["content"][0]["text"] += piece
            kind = "response.output_text.delta"
            events.append(self._event(kind, **self._place(), delta=piece, logprobs=[]))
        return events

    def closing(self) -> list[Json]:
        """Return what ends the last message and the response."""
        status = self._status()
        events = [] if self._items else self._begin()
        events += self._end(status)
        return [*events, self._event(f"response.{status}", response=self._response(status))]

    def _begin(self) -> list[Json]:
        """Begin a message, unless one is being written."""
        if self._items and self._items[-1]["status"] == "in_progress":
            return []
        item = {"id": _id("msg"), "type": "message", "role": "assistant", "status": "in_progress"}
        self._items.append({**item, "content": [_part("")]})
        return [
            self._event("response.output_item.added", **self._at(), item={**item, "content": []}),
            self._event("response.content_part.added", **self._place(), part=_part("")),
        ]

    def _end(self, status: str) -> list[Json]:
        """End the message that is being written, if one is."""
        if not self._items or self._items[-1]["status"] != "in_progress":
            return []
        item = self._items[-1]
        item["status"] = status
        text = item["content"][0]["text"]
        return [
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[]),
            self._event("response.content_part.done", **self._place(), part=_part(text)),
            self._event("response.output_item.done", **self._at(), item=item),
        ]

    def _call(self, call: Json) -> list[Json]:
        """Return the events of a call, which comes whole."""
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        item = {"id": _id("fc"), "type": "function_call", "call_id": call["id"], "name": name}
        begun = {**item, "arguments": "", "status": "in_progress"}
        done = {**item, "arguments": arguments, "status": "completed"}
        self._items.append(done)
        place = {"item_id": item["id"], **self._at()}
        return [
            self._event("response.output_item.added", **self._at(), item=begun),
            self._event("response.function_call_arguments.delta", **place, delta=arguments),
            self._event("response.function_call_arguments.done", **place, name=name, arguments=arguments),
            self._event("response.output_item.done", **self._at(), item=done),
        ]

    def fault(self, error: ApiError) -> Json:
        """Return the event of a response that failed."""
        failed = self._response("failed")
        failed["error"] = {"code": "server_error", "message": error.message}
        return self._event("response.failed", response=failed)

    def event(self, value: Json) -> str:
        """Return an event as the stream has it."""
        return f"event: {value['type']}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"

    def _event(self, kind: str, /, **more: object) -> Json:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **more}

    def _at(self) -> Json:
        return {"output_index": len(self._items) - 1}

    def _place(self) -> Json:
        return {"item_id": self._items[-1]["id"], **self._at(), "content_index": 0}

    def _status(self) -> str:
        return "incomplete" if self._reason in _REASONS else "completed"

    def _response(self, status: str) -> Json:
        asked, ended = self._asked, status in ("completed", "incomplete")
        chosen = asked.tool_choice
        details = {"reason": _REASONS[str(self._reason)]} if status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": details,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": None,
            "model": self.model,
            "output": self._items if ended else [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": chosen.model_dump() if isinstance(chosen, BaseModel) else chosen or "auto",
            "tools": [tool.model_dump() for tool in asked.tools or ()],
            "top_logprobs": 0,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": self._used() if ended else None,
            "user": asked.user,
            "metadata": asked.metadata or {},
        }

    def _used(self) -> Json:
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": self.answer_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.tokens,
        }


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
