"""``tanzim data preview``: the tokens of some examples, as they will be trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tanzim.core.files import write_text
from tanzim.core.progress import Reporter
from tanzim.data.store import ExampleStore
from tanzim.pipeline.config import Config
from tanzim.pipeline.prepare import prepare_data
from tanzim.pipeline.preview_page import Sample, preview_page, token_texts
from tanzim.pipeline.tokens import prepared, ready
from tanzim.pipeline.workspace import open_run


@dataclass(frozen=True, slots=True)
class Preview:
    """Examples as tokens, each with the text of its tokens; and which tokens are special."""

    samples: tuple[Sample, ...]
    special_ids: frozenset[int]


def preview(
    config: Config, *, count: int = 3, html: str | Path | None = None, reporter: Reporter | None = None
) -> Preview:
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
    reporter = reporter or Reporter()
    report = prepare_data(config, reporter=reporter)
    setup = ready(config, report.labels, reporter)
    store = ExampleStore(open_run(config).data / "train.arrow")
    examples = [store[index] for index in range(min(count, len(store)))]
    rendered = setup.encoder.render_many(prepared(examples, config, setup.labels))
    decode = partial(setup.tokenizer.decode, clean_up_tokenization_spaces=False)
    samples = tuple((one, token_texts(one.ids, decode, one.segments)) for one in rendered)
    special = frozenset(setup.tokenizer.all_special_ids)
    if html is not None:
        notes = [f"Model: {setup.base.name}. Trained turns: {config.model.train_on}."]
        page = preview_page(samples, notes=notes, special_ids=special, stop_ids=setup.stop_ids)
        write_text(Path(html), page)
    return Preview(samples, special)
