"""``tanzim data preview``: the tokens of some examples, as they will be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tanzim.core.files import write_text
from tanzim.core.progress import Reporter
from tanzim.core.records import Rendered
from tanzim.data.store import ExampleStore
from tanzim.pipeline.config import Config
from tanzim.pipeline.prepare import conversations, prepare_data, ready
from tanzim.pipeline.preview_page import preview_page
from tanzim.pipeline.workspace import open_run

_QUIET = Reporter()


@dataclass(frozen=True, slots=True)
class Previewed:
    """One example as tokens, and the text of each token."""

    rendered: Rendered
    texts: tuple[str, ...]


def preview(
    config: Config, *, count: int = 3, html: str | Path | None = None, reporter: Reporter = _QUIET
) -> Sequence[Previewed]:
    """Render the first training examples, with their trained and ignored tokens.

    Args:
        config: the project.
        count: how many examples.
        html: where to write an offline page of them, too.
        reporter: takes the progress.

    Raises:
        DataError: the data cannot be used.
        RenderError: a sample has no trained token, or an untrained end.
    """
    report = prepare_data(config, reporter=reporter)
    setup = ready(config.model, reporter)
    store = ExampleStore(open_run(config).data / "train.arrow")
    examples = [store[index] for index in range(min(count, len(store)))]
    rendered = [setup.renderer.render(e) for e in conversations(examples, config.data, list(report.labels))]
    shown = [Previewed(one, setup.renderer.token_texts(one.ids)) for one in rendered]
    if html is not None:
        page = preview_page([(one.rendered, list(one.texts)) for one in shown])
        write_text(Path(html), page)
    return shown
