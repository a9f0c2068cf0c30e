"""The names that columns, roles and formats go by in the field."""

from __future__ import annotations

from functools import lru_cache

from tanzim.core.records import Role


@lru_cache(maxsize=4096)
def normal(name: str) -> str:
    """Return a column name without the differences of case, spaces and hyphens."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


# Each in order of preference, as `normal` writes them.
MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns")
SYSTEM = ("system", "system_prompt", "system_message")
PROMPT = (
    "prompt", "instruction", "question", "query", "input", "request", "user", "problem", "goal", "anchor",
)  # fmt: skip
COMPLETION = (
    "completion", "response", "answer", "output", "reply", "assistant", "answers", "best_answer",
    "solution", "canonical_solution", "target", "positive",
)  # fmt: skip
CONTEXT = ("context", "passage", "input")
TEXT = (
    "text", "sentence", "comment", "review", "content", "message", "sms", "tweet", "body", "document",
    "article", "paragraph", "utterance", "prompt", "question", "title",
)  # fmt: skip
RAW_TEXT = ("text", "content", "document", "body", "article", "page_content", "raw_content", "markdown")
TEXT_PAIRS = (
    ("sentence1", "sentence2"), ("sent1", "sent2"), ("premise", "hypothesis"), ("q1", "q2"),
    ("question1", "question2"), ("text1", "text2"), ("text_a", "text_b"),
)  # fmt: skip
LABEL = ("label", "labels", "label_id", "label_name", "class", "sentiment", "intent", "emotion", "polarity")
WEAK_LABEL = ("category", "topic", "tag", "type", "rating", "stars", "target")  # may be mere metadata
WORDS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "ner", "entities", "pos_tags", "pos", "chunk_tags", "labels")
TOOLS = ("tools", "functions")
CHOSEN = ("chosen", "chosen_messages", "preferred_output", "chosen_response", "preferred")
REJECTED = (
    "rejected", "rejected_messages", "non_preferred_output", "rejected_response", "dispreferred",
)  # fmt: skip
TWO_ANSWERS = (("response_1", "response_2"), ("response_a", "response_b"), ("answer_1", "answer_2"))
VERDICT = ("label", "winner", "preference", "choice")
CHOICES = ("choices", "candidates", "options", "ans0", "option_a", "endings")
UNPAIRED = ("kto_tag", "label", "labels", "desirable")
MEDIA = (
    "image", "images", "image_name", "image_path", "image_url", "audio", "audios", "audio_path", "video",
    "videos",
)  # fmt: skip
UNANSWERABLE = ("is_impossible", "unanswerable")

MATCHES = ("positive", "negative")  # of an anchor or query: a text that belongs to it, and one that does not

KNOWN_COLUMNS = frozenset(
    {
        *(*MESSAGES, *SYSTEM, *PROMPT, *COMPLETION, *CONTEXT, *TEXT, *RAW_TEXT, *LABEL, *WEAK_LABEL, *TOOLS),
        *(*WORDS, *TAGS, *MATCHES),
        *(*CHOSEN, *REJECTED, *VERDICT, *CHOICES, *MEDIA, *(name for pair in TEXT_PAIRS for name in pair)),
        *("id", "name", "index", "source", "idx", "uuid"),
    }
)

ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
    "tool_response": "tool", "ipython": "tool",
}  # fmt: skip
CALL_ROLES = ("function_call", "tool_call")
