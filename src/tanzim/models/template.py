"""A tokenizer's chat template as a function from messages to text, the same on every day and machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import RenderError
from tanzim.core.records import Json, Message

# What ``strftime_now`` says in a template that writes the date (Llama 3.1's own fallback date).
DATE = date(2024, 7, 26)
# For tokenizers without a template: roles in words, the end-of-text token after each answer.
PLAIN = (
    "{% for message in messages %}"
    "{{ '### ' + message['role'] | capitalize + ':\n' + message['content'] }}"
    "{{ eos_token + '\n\n' if message['role'] == 'assistant' else '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)
# What a template can raise on messages it does not like.
_TEMPLATE_FAULTS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)
_FORMAT = re.compile(r"strftime_now\(\s*(['\"])(.+?)\1\s*\)")


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: it, with or without a template of its own.
        thinking: what ``enable_thinking`` says to the template.

    Raises:
        RenderError: there is neither a template nor an end-of-text token to make one with.

    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, thinking: bool) -> None:
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.source = "tokenizer" if tokenizer.chat_template else "default"
        if self.source == "default" and tokenizer.eos_token is None:
            raise RenderError(
                "the tokenizer has neither a chat template nor an end-of-text token",
                where=str(tokenizer.name_or_path),
                fix="set chat_template in its tokenizer_config.json",
            )
        self._pinned: dict[str, str] = {}

    def written(self, tools: Sequence[Json] = ()) -> str:
        """Return the template's text as the tokenizer holds it (there may be one for tools)."""
        if self.source == "default":
            adds_bos = self.tokenizer.bos_token and self.tokenizer("a").input_ids[:1] == [
                self.tokenizer.bos_token_id
            ]
            return "{{ bos_token }}" + PLAIN if adds_bos else PLAIN
        return str(self.tokenizer.get_chat_template(tools=list(tools) or None))

    def sha256(self) -> str:
        """Return the SHA-256 of the template's text."""
        return hashlib.sha256(self.written().encode()).hexdigest()

    def text(
        self,
        messages: Sequence[Message],
        tools: Sequence[Json] = (),
        *,
        prompt: bool = False,
        thinking: bool | None = None,
    ) -> str:
        """Render a conversation.

        Args:
            messages: the turns.
            tools: function definitions (JSON Schema, OpenAI format).
            prompt: add the generation prompt.
            thinking: another ``enable_thinking`` than the usual one.

        Raises:
            RenderError: the template refuses these messages.

        """
        try:
            written = self.written(tools)
            rendered = self.tokenizer.apply_chat_template(
                [as_dict(message) for message in messages],
                tools=list(tools) or None,
                chat_template=self._pin(written),
                add_generation_prompt=prompt,
                tokenize=False,
                enable_thinking=self.thinking if thinking is None else thinking,
            )
        except _TEMPLATE_FAULTS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RenderError(f"the chat template refuses this conversation: {reason}") from error
        return str(rendered)

    def _pin(self, written: str) -> str:
        """Let ``strftime_now`` say the same date for ever, by a macro of that name in front."""
        if written not in self._pinned:
            pinned = written
            if "strftime_now" in written:
                formats = sorted({match[2] for match in _FORMAT.finditer(written)})
                cases = "".join(
                    f"{{%- if format == {format!r} -%}}{DATE.strftime(format)}{{%- endif -%}}"
                    for format in formats
                )
                other = f"{{%- if format not in {formats!r} -%}}{DATE.isoformat()}{{%- endif -%}}"
                pinned = f"{{%- macro strftime_now(format) -%}}{cases}{other}{{%- endmacro -%}}{written}"
            self._pinned[written] = pinned
        return self._pinned[written]


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as the dictionary that chat templates expect."""
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking is not None:
        value["reasoning_content"] = message.thinking
    if message.tool_calls:
        value["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": call.name, "arguments": _plain(call.arguments)},
                **({"id": call.id} if call.id is not None else {}),
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        value["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        value["name"] = message.name
    return value


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return dict(arguments)
