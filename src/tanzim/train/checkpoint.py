"""Checkpoints: everything a run needs to go on bit for bit, written whole or not at all.

checkpoints/checkpoint-<step>/
  weights.safetensors     the trained parameters, by their name in the model
  optimizer.safetensors   the optimiser's tensors: <parameter>.<kind>, such as exp_avg
  method.safetensors      what the method keeps besides (`Method.state`), if anything
  ema.safetensors         the moving average of the trained parameters, if one is kept
  rng.safetensors         random states of Python, NumPy, torch, and each CUDA device
  trainer_state.json      `State`, and what the run's data, config and base were

Nothing is pickled and nothing touches the network.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tanzim.adapters.method import Method
from tanzim.core.errors import RunError, TrainError
from tanzim.core.files import new_folder, read_json, write_json
from tanzim.core.records import Json
from tanzim.core.units import size
from tanzim.train.ema import Ema
from tanzim.train.ranks import Parameters, Ranks

STATE, WEIGHTS, OPTIMIZER, METHOD, EMA, RNG = (
    "trainer_state.json",
    "weights.safetensors",
    "optimizer.safetensors",
    "method.safetensors",
    "ema.safetensors",
    "rng.safetensors",
)
NUMBER = ":number"


@dataclass
class State:
    """Where a run stands.

    Args:
        tokens_per_pass: tokens per forward pass now; less than configured after memory ran out.
        step: optimiser steps made.
        epoch: the current epoch, from 0.
        step_in_epoch: steps made in it.
        tokens: tokens seen; ``trained_tokens`` are those with a loss weight.
        step_seconds: seconds spent in training steps; ``seconds`` also counts evaluation and saves.
        loss: the last step's training loss.
        best_step: the step of the lowest validation loss (``best_loss``).
        evaluations_since_best: evaluations without a better validation loss.
        metrics_bytes: size of ``metrics.jsonl`` at this point.
        stopped: why the run is over, if it is.
        scaler: state of the fp16 gradient scaler.
        base_loss: the loss before the first step, on a few training documents.

    """

    tokens_per_pass: int
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    step_seconds: float = 0.0
    seconds: float = 0.0
    loss: float | None = None
    best_step: int | None = None
    best_loss: float | None = None
    evaluations_since_best: int = 0
    metrics_bytes: int = 0
    stopped: str | None = None
    scaler: Json | None = None
    base_loss: float | None = None


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie.
        method: what is trained.
        optimizer: over the method's parameters.
        identity: what must not change between a run and its continuation (plain JSON).
        keep: how many of the latest stay, besides the best.
        ema: the average of the weights, if one is kept.
        ranks: the processes of the run; the first one writes and reads, for all.

    """

    def __init__(
        self,
        folder: Path,
        method: Method,
        optimizer: torch.optim.Optimizer,
        *,
        identity: Json,
        keep: int,
        ema: Ema | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.folder = folder
        self.method = method
        self.parameters = method.parameters
        self.optimizer = optimizer
        self.identity = identity
        self.keep = keep
        self.ema = ema
        self.ranks = ranks or Ranks()
        for leftover in folder.glob(".checkpoint-*") if self.ranks.first else ():
            shutil.rmtree(leftover, ignore_errors=True)

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint after ``step`` steps."""
        return self.folder / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """List the steps of the finished checkpoints, oldest first."""
        found: list[int] = self.ranks.same({"steps": finished_steps(self.folder)})["steps"]
        return found

    def save(self, state: State) -> None:
        """Write the checkpoint of ``state``, then remove those that need not stay.

        Raises:
            TrainError: the disk is full; earlier checkpoints stand as they were.

        """
        tensors = self._tensors()
        if not self.ranks.first:
            return
        self._write(self.path(state.step), state, tensors)
        steps = finished_steps(self.folder)
        keep = {*steps[-self.keep :], state.step, state.best_step}
        for step in steps:
            if step not in keep:
                # Renamed first: a kill in the middle must not leave half a checkpoint under its name.
                trash = self.folder / f".checkpoint-{step}.trash"
                os.replace(self.path(step), trash)
                shutil.rmtree(trash, ignore_errors=True)

    def _write(self, path: Path, state: State, tensors: dict[str, dict[str, Tensor]]) -> None:
        tensors = tensors | {RNG: _random_states()}
        needed = sum(t.nbytes for group in tensors.values() for t in group.values())
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._check_space(needed)
            with new_folder(path) as temporary:
                for name, group in tensors.items():
                    save_file(group, temporary / name)
                write_json(temporary / STATE, {"state": asdict(state), "identity": self.identity})
        except (OSError, SafetensorError) as error:
            kept = finished_steps(self.folder)
            resumes = f"it resumes from checkpoint-{kept[-1]}" if kept else "it starts from the beginning"
            raise TrainError(
                f"the checkpoint of step {state.step} ({size(needed)}) could not be written: {error}",
                where=str(path),
                fix=f"free disk space and run the same command again; {resumes}",
            ) from error

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        tensors = {
            WEIGHTS: _weights(self.parameters, self.ranks),
            OPTIMIZER: _moments(self.optimizer, self.parameters, self.ranks),
        }
        if state := self.method.state():
            tensors[METHOD] = {name: value.detach().contiguous() for name, value in state.items()}
        if self.ema is not None:
            tensors[EMA] = {name: value.contiguous() for name, value in self.ema.average.items()}
        return tensors

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(f"the disk has {size(free)} left")

    def rehearse(self, state: State) -> int:
        """Write a checkpoint, read it back, compare every bit, and remove it.

        Returns:
            The bytes of a checkpoint; 0 on a rank that writes none.

        Raises:
            TrainError: it could not be written, or does not read back as it was.

        """
        path = self.folder / ".checkpoint-rehearsal"
        tensors = self._tensors()
        if not self.ranks.first:
            return 0
        self._write(path, state, tensors)
        try:
            for name, group in tensors.items():
                with safe_open(path / name, framework="pt") as read:
                    keys = set(read.keys())
                    # One tensor at a time: a second copy of everything may not fit.
                    wrong = [
                        key
                        for key, value in group.items()
                        if key not in keys or not torch.equal(value.cpu(), read.get_tensor(key))
                    ]
                if wrong or len(keys) != len(group):
                    raise TrainError(
                        f"a checkpoint does not read back as it was written: {wrong[:3]} in {name}",
                        where=str(path),
                        fix="check the disk; training was stopped before any long work",
                    )
            return sum(file.stat().st_size for file in path.iterdir())
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def load(self, step: int) -> State:
        """Put the run back to where it stood after ``step`` steps.

        Raises:
            RunError: the checkpoint is damaged, or is of another config, data or base.

        """
        path = self.path(step)
        try:
            saved = self.ranks.same(read_json(path / STATE) if self.ranks.first else {})
            _refuse_other(saved["identity"], self.identity, path)
            load_weights(self.method, path, self.ranks)
            self._load_ema(path)
            _load_moments(self.optimizer, self.parameters, _read(path / OPTIMIZER, self.ranks), self.ranks)
            _set_random_states(_read(path / RNG, self.ranks))
            return State(**saved["state"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"the checkpoint cannot be read: {error}",
                where=str(path),
                fix="delete this folder; the run then resumes from the one before",
            ) from error

    def choose(self, step: int) -> None:
        """Let the method hold what was evaluated after ``step`` steps: its weights, or their average.

        Raises:
            RunError: names or shapes differ.

        """
        load_weights(self.method, self.path(step), self.ranks)
        self._load_ema(self.path(step))
        if self.ema is not None:
            self.ema.put()

    def _load_ema(self, path: Path) -> None:
        if self.ema is not None:
            saved = _read(path / EMA, self.ranks)
            self.ema.average = {n: saved[n].to(p.device) for n, p in self.parameters.items() if n in saved}


def finished_steps(folder: Path) -> list[int]:
    """List the steps of the finished checkpoints in ``folder``, oldest first."""
    names = [path.parent.name for path in folder.glob(f"checkpoint-*/{STATE}")]
    return sorted(int(name.removeprefix("checkpoint-")) for name in names)


@torch.no_grad()
def load_weights(method: Method, checkpoint: Path, ranks: Ranks | None = None) -> None:
    """Put the trained weights of the folder ``checkpoint``, and the method's own state, into ``method``.

    Args:
        method: what is trained.
        checkpoint: a checkpoint's folder; the first rank reads it.
        ranks: the processes of the run.

    Raises:
        RunError: names or shapes differ.

    """
    ranks = ranks or Ranks()
    saved, parameters = _read(checkpoint / WEIGHTS, ranks), method.parameters
    wrong = {
        name
        for name in saved.keys() | parameters.keys()
        if name not in saved or name not in parameters or saved[name].shape != parameters[name].shape
    }
    if wrong:
        raise RunError(
            f"{len(wrong)} trained parameters differ from the checkpoint's, such as {sorted(wrong)[0]}",
            where=str(checkpoint),
            fix="use the model and train.method that the run began with",
        )
    for name, parameter in parameters.items():
        parameter.copy_(ranks.part(saved[name], parameter))
    if state := _read(checkpoint / METHOD, ranks):
        method.load_state(state)


def _read(path: Path, ranks: Ranks) -> dict[str, Tensor]:
    """Return the tensors of a file, {} if it is not there; the first rank reads it for all."""
    return ranks.tensors(load_file(path) if ranks.first and path.is_file() else {})


def _weights(parameters: Parameters, ranks: Ranks) -> dict[str, Tensor]:
    return {name: ranks.whole(parameter).contiguous() for name, parameter in parameters.items()}


def _moments(optimizer: torch.optim.Optimizer, parameters: Parameters, ranks: Ranks) -> dict[str, Tensor]:
    """Return the optimiser's tensors under ``<parameter>.<kind>``; untouched parameters have none.

    A number, which bitsandbytes keeps, becomes a tensor whose kind ends in NUMBER.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, parameter in parameters.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, int):
                tensors[f"{name}.{kind}{NUMBER}"] = torch.tensor(value)
                continue
            # The parameters of bitsandbytes share one code book; a safetensors file shares nothing.
            whole = ranks.whole(value)
            tensors[f"{name}.{kind}"] = whole.clone() if whole.data_ptr() in seen else whole.contiguous()
            seen.add(whole.data_ptr())
    return tensors


def _load_moments(
    optimizer: torch.optim.Optimizer, parameters: Parameters, saved: dict[str, Tensor], ranks: Ranks
) -> None:
    names = {id(parameter): name for name, parameter in parameters.items()}
    state: dict[int, dict[str, Tensor | int]] = {}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_name: dict[str, dict[str, Tensor | int]] = {}
    for key, value in saved.items():
        name, _, kind = key.rpartition(".")
        number = kind.endswith(NUMBER)
        by_name.setdefault(name, {})[kind.removesuffix(NUMBER)] = int(value) if number else value
    for index, parameter in enumerate(ordered):
        if moments := by_name.get(names[id(parameter)]):
            state[index] = {
                kind: value if isinstance(value, int) else ranks.part(value, parameter)
                for kind, value in moments.items()
            }
    # The optimiser's own loading puts each tensor on the device that its variant wants.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _random_states() -> dict[str, Tensor]:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert (version, name) == (3, "MT19937")
    states = {
        "python.words": torch.tensor(words, dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy.keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy.position": torch.tensor([position, has_gauss], dtype=torch.int64),
        "numpy.cached": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _set_random_states(states: dict[str, Tensor]) -> None:
    gauss = states["python.gauss"].tolist()
    random.setstate((3, tuple(states["python.words"].tolist()), gauss[0] if gauss else None))
    position, has_gauss = states["numpy.position"].tolist()
    keys = states["numpy.keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, states["numpy.cached"].item()))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"cuda.{index}" in states:
                torch.cuda.set_rng_state(states[f"cuda.{index}"], index)


def _refuse_other(saved: Json, now: Json, path: Path) -> None:
    """Refuse to go on with another config, data or base, and name what differs."""
    before, after = dict(_flat(saved)), dict(_flat(now))
    changed = [
        f"{key} was {before.get(key)!r} and is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise RunError(
            f"this run began differently: {'; '.join(changed)}",
            where=str(path),
            fix="put it back to resume, or take another name for a new run",
        )


def _flat(value: Json, prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, inner in value.items():
        pairs += _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else [(f"{prefix}{key}", inner)]
    return pairs
