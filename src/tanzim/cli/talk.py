"""``tanzim chat``: talk to a model in the terminal, answers shown as they are made."""

from __future__ import annotations

import sys

from rich.markup import escape

from tanzim.cli.show import RichReporter, console
from tanzim.pipeline.chat import Conversation
from tanzim.pipeline.opened import open_models


def talk(model: str, *, message: str | None, system: str | None) -> None:
    """Ask ``message`` once, or talk until /exit or Ctrl-D (/clear forgets what was said)."""
    opened = open_models([model] if model else [], reporter=RichReporter())
    conversation = Conversation(opened, system=system)
    if message is not None:
        _answer(conversation, message)
        return
    console.print(f"[bold]{escape(conversation.name)}[/]  [dim]/clear forgets, /exit or Ctrl-D ends[/]")
    while True:
        try:
            said = console.input("[bold cyan]you ›[/] ").strip()
        except EOFError:
            return
        if said == "/exit":
            return
        if said == "/clear":
            conversation.clear()
        elif said:
            _answer(conversation, said)


def _answer(conversation: Conversation, said: str) -> None:
    """Print the answer piece by piece; Ctrl-C stops this answer alone."""
    try:
        for piece in conversation.ask(said):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        console.print(" [dim](stopped)[/]", end="")
    sys.stdout.write("\n")
