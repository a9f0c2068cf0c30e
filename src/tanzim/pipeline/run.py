"""``tanzim run``: the main job, from a data file to a proven adapter, its report and one answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tanzim.core.progress import Reporter
from tanzim.core.records import Message, Provenance, message_from_json
from tanzim.core.run import RunFolder, read_lines
from tanzim.evaluate.report import EvalReport
from tanzim.infer.engine import Request
from tanzim.pipeline.config import Config
from tanzim.pipeline.evaluate import evaluate_run
from tanzim.pipeline.finetune import Finetuned, finetune
from tanzim.pipeline.opened import open_models
from tanzim.pipeline.routed import route
from tanzim.pipeline.tasks import task_of


@dataclass(frozen=True, slots=True)
class Ran:
    """What a whole run came to.

    Args:
        trained: the training.
        evaluation: base and tuned, side by side.
        report: the HTML page.
        question: one held-out question, "" if the test set has none.
        answer: what the tuned model says to it.
        talks: whether it can be chatted with; a model that labels cannot.

    """

    trained: Finetuned
    evaluation: EvalReport
    report: Path
    question: str
    answer: str
    talks: bool = True


def run(config: Config, *, overwrite: bool = False, reporter: Reporter | None = None) -> Ran:
    """Prepare, plan, train, evaluate before and after, report, and answer one held-out question.

    What is done already is not done again, so the same call goes on after an interruption.

    Args:
        config: the project.
        overwrite: delete an existing run of that name first.
        reporter: takes every automatic choice, and the progress.

    Raises:
        TanzimError: whatever stopped it; see `finetune` and `evaluate_run`.

    """
    reporter = reporter or Reporter()
    trained = finetune(config, overwrite=overwrite, reporter=reporter)
    evaluation = evaluate_run(config, reporter=reporter)
    question, answer = _one_answer(trained.folder, config)
    talks = not task_of(config).headed
    return Ran(trained, evaluation, trained.folder.report, question, answer, talks)


def _one_answer(folder: RunFolder, config: Config) -> tuple[str, str]:
    """Ask the tuned model the first held-out question, through the way chat and serving go."""
    path = folder.evaluation / "items.jsonl"
    item = next(read_lines(path), None) if path.is_file() else None
    if item is None:
        return "", ""
    if not task_of(config).writes:
        return item["messages"][-1]["content"], item["systems"]["tuned"]["answer"]
    messages: list[Message] = [message_from_json(message) for message in item["messages"]]
    opened = open_models([str(folder.path)])
    ways = route(config)
    request = Request(
        opened.renderer.prompt(messages),
        adapter=opened.adapter if ways is None else ways(Provenance(**item["provenance"])),
        max_new_tokens=config.evaluate.max_new_tokens,
    )
    return messages[-1].content, "".join(delta.text for delta in opened.engine.stream(request))
