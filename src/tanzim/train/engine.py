"""The training engine: tokens in, chosen weights out.

Left out here, because other files say it: how documents become steps and passes (`batches`), the loss
(`objectives`), one step and one evaluation (`step`), the learning rate (`schedule`), what a checkpoint
holds (`checkpoint`), and how several processes share a step (`ranks`).
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError

from tanzim.adapters.config import form
from tanzim.adapters.method import Method
from tanzim.core.errors import Interrupted, TrainError
from tanzim.core.files import new_folder
from tanzim.core.records import Json
from tanzim.core.run import RunFolder
from tanzim.core.seeds import derive
from tanzim.core.units import size
from tanzim.train.balanced import BalancedSampler, make_sampler
from tanzim.train.batches import Sampler
from tanzim.train.checkpoint import Checkpoints, State
from tanzim.train.config import TrainConfig
from tanzim.train.ema import Ema
from tanzim.train.gradients import noise_in_words
from tanzim.train.log import MetricsLog, OnLine, Unheard
from tanzim.train.memory import peak_memory, recompute_activations
from tanzim.train.neftune import Neftune
from tanzim.train.objectives.base import Joint, Objective
from tanzim.train.objectives.choose import make_objective
from tanzim.train.objectives.classification import LabelObjective
from tanzim.train.objectives.distillation import Teacher
from tanzim.train.optimizers import make_optimizer
from tanzim.train.ranks import Ranks
from tanzim.train.step import Stepper, seed_everything
from tanzim.train.tokens import TokenStore
from tanzim.train.trackers import check_trackers, open_trackers
from tanzim.train.training import Training

# What may change between a run and its continuation: nothing here changes what is learnt (other passes
# sum the same gradients in another order).
FREE_KEYS = {
    "trackers",
    "keep_checkpoints",
    "keep_epochs",
    "save_steps",
    "tokens_per_pass",
    "gradient_checkpointing",
    "offload_activations",
    "compile",
    "watch_steps",
}


# Weights worse than the base by more than noise and dropout explain are no result.
WORSE, WORSE_NATS = 1.1, 0.1
LITTLE = 0.98


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run came to.

    Args:
        output: the folder of the chosen weights (adapter or model).
        step: optimiser steps made; ``total_steps`` were planned.
        stopped: why it ended.
        best_step: the step whose weights were chosen, and ``best_loss`` its validation loss.
        loss: the last step's training loss.
        tokens: tokens seen; ``trained_tokens`` of them had a loss weight.
        seconds: wall time, all parts of a resumed run together; ``tokens_per_s`` is over steps alone.
        peak_memory: bytes, of this process.
        checkpoint_bytes: bytes of one checkpoint.
        tokens_per_pass: tokens per pass at the end.

    """

    output: Path
    step: int
    total_steps: int
    stopped: str
    best_step: int
    best_loss: float | None
    loss: float | None
    tokens: int
    trained_tokens: int
    seconds: float
    tokens_per_s: float
    peak_memory: int
    checkpoint_bytes: int
    tokens_per_pass: int


def train(  # noqa: PLR0913 - a run's inputs, each of which is used once
    method: Method,
    train_tokens: TokenStore,
    validation_tokens: TokenStore | None,
    config: TrainConfig,
    folder: RunFolder,
    *,
    seed: int,
    autocast: torch.dtype | None = None,
    teacher: Teacher | None = None,
    on_line: OnLine = lambda line: None,
    resume: bool = True,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train what ``method`` prepared, and write the chosen weights.

    Args:
        method: the model, prepared by its method, on its device.
        train_tokens: the documents to learn from.
        validation_tokens: the documents to choose the best checkpoint by; None or empty for the last.
        config: the ``train`` section.
        folder: where metrics, checkpoints and the result go.
        seed: everything random is derived from it.
        autocast: precision of the products where it differs from the weights' (float16 scales its loss).
        teacher: the model to learn from, for the objectives that have one.
        on_line: called with every line of ``metrics.jsonl``, for progress.
        resume: go on from the newest checkpoint; otherwise earlier ones are removed.
        ranks: the processes that train together; this one alone, unless it is given.

    Raises:
        TrainError: loss or gradient is not finite, memory or disk ran out, or the run was interrupted.
        RunError: the checkpoints belong to another config, data or base.
        MissingExtra: a tracker asked for is not installed.

    """
    ranks = ranks or Ranks()
    ranks.check(config.optimizer.type, averaged=bool(config.ema_decay))
    check_trackers(config.trackers)
    _refuse_nothing_to_learn(train_tokens)
    if not resume and ranks.first:
        _forget(folder)

    # The model and its loss.
    seed_everything(derive(seed, "train"))
    if config.gradient_checkpointing:
        recompute_activations(method.model, offload=config.offload_activations)
    objective = make_objective(method.model, config.objective, autocast=autocast, teacher=teacher)
    way = _choose(objective, train_tokens, ranks)
    scaler = torch.amp.GradScaler(objective.device.type, enabled=autocast == torch.float16)

    sampler = _sampler(train_tokens, objective, config, seed)
    if isinstance(sampler, BalancedSampler) and isinstance(objective, LabelObjective):
        way = f"{way}; {sampler.repeats(objective.labels)}"

    # Where the run stands: at the start, or at its newest checkpoint.
    optimizer = make_optimizer(method.parameters, config)
    ranks.separate(optimizer)
    ema = Ema(method.parameters, config.ema_decay) if config.ema_decay else None
    identity = _identity(seed, method, teacher, config) | {
        "tokens": train_tokens.fingerprint,
        "validation_tokens": validation_tokens.fingerprint if validation_tokens is not None else None,
    }
    ranks.check_alike(identity, method.parameters)
    keep = config.keep_checkpoints
    checkpoints = Checkpoints(
        folder.checkpoints, method, optimizer, identity=identity, keep=keep, ema=ema, ranks=ranks
    )
    state = State(tokens_per_pass=config.tokens_per_pass)
    if finished := checkpoints.steps():
        state = checkpoints.load(finished[-1])
        state.tokens_per_pass = min(state.tokens_per_pass, config.tokens_per_pass)
        scaler.load_state_dict(state.scaler or {})

    settings = config.model_dump(mode="json") | {"seed": seed, "base": method.base_hash}
    with closing(_log(config, folder, state, settings, on_line) if ranks.first else Unheard()) as log:
        log.event(state.step, way)
        if finished:
            log.event(state.step, f"resumed from checkpoint-{state.step}")
        training = Training(config, objective, method, optimizer, scaler, sampler, state, log, ema, ranks)
        stepper = Stepper(training)
        if state.step == 0:
            state.base_loss = training.watch.base_loss = stepper.sample_loss(train_tokens)
        method.model.train()
        neftune = Neftune(method.model, config.neftune_alpha) if config.neftune_alpha else None
        _loop(stepper, checkpoints, folder, train_tokens, validation_tokens)
        if neftune is not None:
            neftune.remove()

        # The chosen weights.
        chosen = state.best_step or state.step
        checkpoints.choose(chosen)
        method.model.eval()
        said = [method.finish(), noise_in_words(log.lines(), state.tokens / state.step)]
        said += [_beside_base(stepper.sample_loss(train_tokens), state, checkpoints.path(chosen), config)]
        for message in filter(None, said):
            log.event(state.step, message)
        output = folder.adapter if form(config.method) == "adapter" else folder.model
        _write(output, method, ranks)
        log.event(state.step, f"{state.stopped}; weights of step {chosen} written to {output.name}/")
    return _result(training, checkpoints, output, chosen)


def _forget(folder: RunFolder) -> None:
    """Remove what an earlier training left."""
    for earlier in (folder.checkpoints, folder.epochs):
        shutil.rmtree(earlier, ignore_errors=True)


def _choose(objective: Objective, tokens: TokenStore, ranks: Ranks) -> str:
    """Settle how the loss is computed; refuse to divide among processes what is looked at together."""
    if isinstance(objective, Joint) and ranks.world > 1:
        raise TrainError(
            "this objective looks at the pairs of a step together, and each of "
            f"{ranks.world} processes would see only its own",
            where="train.objective.type",
            fix="run it in one process; more pairs in a step come with train.tokens_per_step",
        )
    return objective.choose(tokens)


def _sampler(tokens: TokenStore, objective: Objective, config: TrainConfig, seed: int) -> Sampler:
    """Return the data in its order."""
    return make_sampler(
        tokens.lengths,
        config,
        seed=seed,
        layout=objective.layout,
        classes=tokens.classes if config.balanced_batches else None,
    )


def _identity(seed: int, method: Method, teacher: Teacher | None, config: TrainConfig) -> Json:
    """Return what, with its data, makes a run the run it is."""
    return {
        "seed": seed,
        "base": method.base_hash,
        "teacher": teacher.hash if teacher is not None else None,
        "train": config.model_dump(mode="json", exclude=FREE_KEYS),
    }


def _log(config: TrainConfig, folder: RunFolder, state: State, settings: Json, on_line: OnLine) -> MetricsLog:
    trackers = open_trackers(config.trackers, folder, settings, state.step + 1)
    return MetricsLog(folder.metrics, state.metrics_bytes, trackers, on_line)


def _loop(
    stepper: Stepper,
    checkpoints: Checkpoints,
    folder: RunFolder,
    train_tokens: TokenStore,
    validation_tokens: TokenStore | None,
) -> None:
    """Step, evaluate and save until the run is over."""
    training, ranks = stepper.training, stepper.training.ranks
    config, state, log = training.config, training.state, training.log
    every = config.eval_steps or max(1, training.total // 10)
    start, earlier, rehearsed = time.monotonic(), state.seconds, False
    with _interrupts(insistent=ranks.world == 1) as interrupted:
        while state.stopped is None:
            steps = training.sampler.steps(state.epoch)
            stepper.step([train_tokens[index] for index in steps[state.step_in_epoch]], len(steps))
            epoch_ends = state.step_in_epoch == len(steps)
            if state.step == training.total:
                state.stopped = "all steps done"
            elif ranks.any(training.watch.exploded):
                state.stopped = "the loss exploded"
            if not rehearsed:
                _rehearse(checkpoints, training)
                rehearsed = True

            due, improved = state.step % every == 0 or epoch_ends or state.stopped is not None, False
            if due and validation_tokens is not None and len(validation_tokens):
                improved = stepper.evaluate(validation_tokens)
                if config.patience and state.evaluations_since_best >= config.patience:
                    state.stopped = f"no better validation loss in {config.patience} evaluations"
            if epoch_ends:
                state.epoch, state.step_in_epoch = state.epoch + 1, 0
                _keep_epoch(folder, training)

            due_save = state.step % config.save_steps == 0 if config.save_steps else due
            asked = ranks.any(interrupted())
            if due_save or improved or state.stopped or asked:
                ranks.beat("working")
                state.seconds = earlier + time.monotonic() - start
                state.scaler = training.scaler.state_dict() or None
                state.metrics_bytes = log.size
                checkpoints.save(state)
            if asked and state.stopped is None:
                ranks.wait()
                raise Interrupted(
                    f"interrupted after step {state.step} of {training.total}; its checkpoint is saved",
                    where=str(checkpoints.path(state.step)),
                    fix="run the same command again to go on from there",
                )


def _keep_epoch(folder: RunFolder, training: Training) -> None:
    """Write the adapter as it is after an epoch, as it would be chosen; remove those that need not stay."""
    config, ema = training.config, training.ema
    if not config.keep_epochs or form(config.method) != "adapter":
        return
    with ema.swapped() if ema is not None else nullcontext():
        _write(folder.epoch(training.state.step), training.method, training.ranks)
    for step in folder.epoch_steps()[: -config.keep_epochs] if training.ranks.first else ():
        shutil.rmtree(folder.epoch(step))


def _refuse_nothing_to_learn(tokens: TokenStore) -> None:
    """Refuse data without documents, and documents without a trained token."""
    if len(tokens) == 0:
        raise TrainError("there is no document to train on", where=str(tokens.path))
    untrained = (tokens.trained == 0).nonzero()[0]
    if len(untrained):
        raise TrainError(
            f"{len(untrained)} documents have no trained token",
            where=str(tokens[int(untrained[0])].provenance),
            fix="look at them with tanzim data preview",
        )


def _beside_base(loss: float, state: State, chosen: Path, config: TrainConfig) -> str:
    """Say what training brought; refuse weights worse than the base on the documents they were trained on."""
    base = state.base_loss
    if base is None:
        return ""
    if not loss <= WORSE * base + WORSE_NATS:
        raise TrainError(
            f"training made the model worse: its loss on training documents is {loss:.3f} and was {base:.3f} "
            "before; these weights are not written",
            where=str(chosen),
            fix=f"lower train.learning_rate to a tenth (it was {config.learning_rate:g}) and start again "
            "with --overwrite; tanzim range-test finds a rate",
        )
    little = ", which is little: see the diagnosis" if loss > LITTLE * base else ""
    return f"loss on the first training documents: {base:.3f} before training, {loss:.3f} after{little}"


def _rehearse(checkpoints: Checkpoints, training: Training) -> None:
    """Go through all of the saving once, before long work depends on it."""
    written = checkpoints.rehearse(training.state)
    trial = checkpoints.folder / ".checkpoint-output"
    try:
        _write(trial, training.method, training.ranks)
    finally:
        if training.ranks.first:
            shutil.rmtree(trial, ignore_errors=True)
    said = f"rehearsed saving: a checkpoint is {size(written)} and reads back equal"
    training.log.event(training.state.step, said)


def _write(output: Path, method: Method, ranks: Ranks) -> None:
    try:
        with ranks.assembled(method.model):
            if not ranks.first:
                return
            with new_folder(output) as temporary:
                method.save(temporary)
    except (OSError, SafetensorError) as error:
        raise TrainError(
            f"the weights could not be written: {error}",
            where=str(output),
            fix="free disk space and run the same command again; finished checkpoints stand",
        ) from error


@contextmanager
def _interrupts(*, insistent: bool) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM wait for the end of a step; if ``insistent``, a second one stops at once."""
    seen: list[int] = []
    before: dict[int, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if insistent:  # a scheduler may signal every process of a job by several ways
            signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, remember)
    try:
        yield lambda: bool(seen)
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def _result(training: Training, checkpoints: Checkpoints, output: Path, chosen: int) -> TrainResult:
    state = training.state
    files = checkpoints.path(chosen).glob("*")  # on another machine there are none
    return TrainResult(
        output=output,
        step=state.step,
        total_steps=training.total,
        stopped=state.stopped or "",
        best_step=chosen,
        best_loss=state.best_loss,
        loss=state.loss,
        tokens=state.tokens,
        trained_tokens=state.trained_tokens,
        seconds=state.seconds,
        tokens_per_s=state.tokens / state.step_seconds,
        peak_memory=peak_memory(training.objective.device),
        checkpoint_bytes=sum(file.stat().st_size for file in files),
        tokens_per_pass=state.tokens_per_pass,
    )
