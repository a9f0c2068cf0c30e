"""Answers in the shape of OpenAI's responses, whole and as typed events.

Specification: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence

from tanzim.core.records import Json
from tanzim.infer.request import Delta
from tanzim.serve.errors import ApiError
from tanzim.serve.reply import Reply
from tanzim.serve.routes.responses_schema import ResponseRequest

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseAnswer(Reply):
    """One response: a message with one text.

    Args:
        asked: the request, which the response repeats.
        prompt_tokens: length of the prompt.

    """

    END = ""  # the last event says that it is

    def __init__(self, asked: ResponseRequest, prompt_tokens: int) -> None:
        super().__init__("resp", asked.model, prompt_tokens)
        self._asked = asked
        self._item = f"msg_{secrets.token_hex(12)}"
        self._number = -1
        self._reason: str | None = None

    def whole(self, choices: Sequence[Sequence[Delta]]) -> Json:
        """Return the finished answer."""
        self._reason = choices[0][-1].finish_reason
        return self._response(self._status())

    def opening(self) -> list[Json]:
        """Return what begins the response, its message and its text."""
        begun = self._response("in_progress")
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=self._message("in_progress")),
            self._event("response.content_part.added", **self._place(), part=self._part("")),
        ]

    def parts(self, index: int, delta: Delta) -> list[Json]:
        """Return the event of a piece of text."""
        self._reason = delta.finish_reason
        if not delta.text:
            return []
        return [self._event("response.output_text.delta", **self._place(), delta=delta.text, logprobs=[])]

    def closing(self) -> list[Json]:
        """Return what ends the text, its message and the response."""
        status = self._status()
        return [
            self._event("response.output_text.done", **self._place(), text=self.text, logprobs=[]),
            self._event("response.content_part.done", **self._place(), part=self._part(self.text)),
            self._event("response.output_item.done", output_index=0, item=self._message(status)),
            self._event(f"response.{status}", response=self._response(status)),
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

    def _place(self) -> Json:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _status(self) -> str:
        return "incomplete" if self._reason in _REASONS else "completed"

    def _part(self, text: str) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _message(self, status: str) -> Json:
        content = [] if status == "in_progress" else [self._part(self.text)]
        head = {"id": self._item, "type": "message", "role": "assistant"}
        return {**head, "status": status, "content": content}

    def _response(self, status: str) -> Json:
        asked, ended = self._asked, status in ("completed", "incomplete")
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
            "output": [self._message(status)] if ended else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": [],
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
