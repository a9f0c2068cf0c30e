"""``tanzim range-test``: which learning rate a few steps of growing rate speak for."""

from __future__ import annotations

from tanzim.core.progress import Reporter
from tanzim.models.load import pick_device
from tanzim.models.quiet import quiet
from tanzim.pipeline.config import Config
from tanzim.pipeline.finetune import prepare_method
from tanzim.pipeline.prepare import prepare_data
from tanzim.pipeline.teacher import load_teacher
from tanzim.pipeline.tokens import ready, tokenise
from tanzim.pipeline.workspace import open_run
from tanzim.train.range_test import RangeTest, sweep
from tanzim.train.ranks import Ranks
from tanzim.train.tokens import TokenStore


def range_test(config: Config, *, steps: int = 40, reporter: Reporter | None = None) -> RangeTest:
    """Sweep the learning rate upwards in ``steps`` steps and suggest one; the run itself is not changed.

    Args:
        config: the project; its data is prepared and tokenised for this, as for a plan.
        steps: optimiser steps of the sweep, at least 10.
        reporter: takes the progress.

    Raises:
        DataError: the data cannot be used.
        TrainError: too few steps, or training is not possible at the lowest rates either.

    """
    reporter = reporter or Reporter()
    report = prepare_data(config, reporter=reporter)
    folder = open_run(config)
    setup = ready(config, report.labels, reporter)
    tokenise(config, folder, setup, list(report.labels), reporter)
    method, autocast = prepare_method(config, setup, reporter, Ranks())
    teacher = load_teacher(config, setup.tokenizer, device=pick_device(config.model), reporter=reporter)
    with reporter.task("sweeping the learning rate") as progress, quiet():

        def show(step: int, rate: float, share: float) -> None:
            progress(step, steps, f"rate {rate:.1e} · loss {share:.1%} of the base's")

        return sweep(
            method,
            TokenStore(folder.tokens / "train.arrow"),
            config.train,
            seed=config.seed,
            steps=steps,
            autocast=autocast,
            teacher=teacher,
            on_step=show,
        )
