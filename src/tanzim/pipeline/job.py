"""The process of one fine-tuning job: ``python -m tanzim.pipeline.job FOLDER [LEASE]``, started for a server.

It needs nothing of the server while it runs. Killed at any moment, the same command goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import FrameType

import torch

from tanzim.adapters.config import form
from tanzim.adapters.whole import save_whole
from tanzim.core.config import load, with_values
from tanzim.core.errors import DataError, Interrupted, TanzimError
from tanzim.core.files import read_json, write_json
from tanzim.core.progress import Reporter
from tanzim.core.records import Json
from tanzim.core.run import append_line, read_lines
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.store import ExampleStore
from tanzim.models.load import base_kind, load_model, pick_device, pick_dtype
from tanzim.models.resolve import resolve
from tanzim.pipeline.config import Config
from tanzim.pipeline.finetune import Finetuned, finetune
from tanzim.pipeline.tokens import prepared, ready
from tanzim.pipeline.workshop import CONFIG, EPOCHS, FEW, ORDER
from tanzim.serve.jobs.lease import leased
from tanzim.serve.jobs.process import CHECKED, EVENTS, OUTCOME, JobFolder
from tanzim.serve.store.words import storable

_CHECKING = "checking"
_SHOWN = 5  # faulty rows that an error names
_SAMPLE = 1000  # examples that the size of a batch is measured on
_LONG = 5.0  # seconds of waiting that clients are told of
_PATIENT = 10  # how far the process stands back behind the server that answers people


class _Log(Reporter):
    """Writes what clients see as events; after an interruption, no step a second time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.is_file():  # what a full disk cut off would spoil the next line
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        lines = list(read_lines(path)) if path.is_file() else []
        self._told = {(line["kind"], line["step"]) for line in lines if "step" in line}

    def line(self, line: Json) -> None:
        """Take a line of ``metrics.jsonl``."""
        key = line["kind"], line["step"]
        if line["kind"] in ("train", "eval") and key not in self._told:
            self._told.add(key)
            wanted = {name: line[name] for name in ("kind", "step", "steps", "loss") if name in line}
            append_line(self._path, wanted | {"time": time.time()})

    def tell(self, message: str) -> None:
        """Write a message."""
        append_line(self._path, {"kind": "message", "message": message, "time": time.time()})


def main(folder: Path, lease: float | None = None) -> int:
    """Train as the folder says; write how it ended.

    Args:
        folder: of the job.
        lease: seconds of the lease to hold meanwhile; None: who started this knows that it is alone, unless
            the job was begun in a cluster.

    Returns:
        The exit status: 0 if the job has come to an end.

    """
    signal.signal(signal.SIGTERM, _leave)
    os.nice(_PATIENT)
    with leased(folder, lease) as waited:
        log = _Log(folder / EVENTS)
        if waited > _LONG:
            log.tell(f"Waited {waited:.0f} s, until an earlier process of the job had surely ended")
        return _work(folder, log)


def _leave(number: int, frame: FrameType | None) -> None:
    """End as one who was asked to, and let go of what is held."""
    sys.exit(1)


def _work(folder: Path, log: _Log) -> int:
    if (folder / OUTCOME).is_file():
        return 0
    JobFolder(folder).sign(os.getpid())
    try:
        config = _chosen(folder, log)
        trained = finetune(config, reporter=log)
        adapter = _adapter(folder, config, trained)
        write_json(folder / OUTCOME, _success(folder, trained, adapter))
        if adapter != trained.output:
            shutil.rmtree(trained.output)  # the same weights
        shutil.rmtree(trained.folder.checkpoints, ignore_errors=True)  # nothing goes on from them
    except Interrupted:
        return 1
    except TanzimError as error:
        write_json(folder / OUTCOME, _failure(folder, error))
    except Exception:  # noqa: BLE001 - whatever it was, the client must learn that the job is over
        traceback.print_exc()  # into the job's log
        message = "an unexpected fault; the server's owner finds it in the job's log"
        write_json(folder / OUTCOME, {"status": "failed", "code": "server_error", "message": message})
    return 0


def _chosen(folder: Path, log: _Log) -> Config:
    """Check the data and choose what was left to us; what was chosen once stays."""
    chosen = folder / CHECKED
    config = load(Config, folder / CONFIG)
    if not chosen.is_file():
        asked = read_json(folder / ORDER)["hyperparameters"]
        place, found = folder / _CHECKING, {}
        report = prepare(config.data, place, seed=config.seed)
        if asked.get("n_epochs", "auto") == "auto" and "epochs" not in config.train.model_fields_set:
            found["train.epochs"] = EPOCHS if report.splits["train"] <= FEW else 1
        if asked.get("batch_size", "auto") != "auto":
            tokens = max(1, round(asked["batch_size"] * _mean_tokens(config, report, place)))
            found["train.tokens_per_step"] = tokens
            found["train.tokens_per_pass"] = min(config.train.tokens_per_pass, tokens)
        shutil.rmtree(place)
        for key, value in found.items():
            log.tell(f"{key}: {value} (chosen automatically)")
        write_json(chosen, found)
    return with_values(config, read_json(chosen), where="hyperparameters")


def _mean_tokens(config: Config, report: DataReport, place: Path) -> float:
    """Return the mean tokens of a training example."""
    setup = ready(config, report.labels, Reporter())
    store = ExampleStore(place / "train.arrow")
    some = list(islice(prepared(store, config, list(report.labels)), _SAMPLE))
    lengths = [len(one.ids) for one in setup.encoder.render_many(some)]
    return sum(lengths) / max(len(lengths), 1)


def _adapter(folder: Path, config: Config, trained: Finetuned) -> Path:
    """Return the folder of what was trained as an adapter of the server's base."""
    if form(config.train.method) == "adapter":
        return trained.output
    base, device = resolve(config.model), torch.device("cpu")
    dtype = pick_dtype(config.model, pick_device(config.model))
    kind = base_kind(base)
    tuned, before = (
        load_model(one, dtype=dtype, device=device, kind=kind)
        for one in (replace(base, path=trained.output), base)
    )
    save_whole(tuned, before, folder / "whole", base_hash=base.hash, base_name=base.name)
    return folder / "whole"


def _success(folder: Path, trained: Finetuned, adapter: Path) -> Json:
    result = trained.result
    shutil.rmtree(trained.folder.epoch(result["best_step"]), ignore_errors=True)  # it is the result itself
    return {
        "status": "succeeded",
        "adapter": str(adapter.relative_to(folder)),
        "step": result["best_step"],
        "epochs": [
            {"adapter": str(trained.folder.epoch(step).relative_to(folder)), "step": step}
            for step in trained.folder.epoch_steps()
        ],
        "trained_tokens": result["trained_tokens"],
        "train_loss": result["loss"],
        "valid_loss": result["best_loss"],
    }


def _failure(folder: Path, error: TanzimError) -> Json:
    if not isinstance(error, DataError):
        return {"status": "failed", "code": "job_failed", "message": storable(error.what)}
    message = storable("; ".join([error.what, *_faults(folder / _CHECKING / "rejected.jsonl")]))
    return {"status": "failed", "code": "invalid_file_format", "message": message, "param": "training_file"}


def _faults(path: Path) -> list[str]:
    """Return what is wrong with the first rows that cannot be used, each with its place."""
    lines = islice(read_lines(path), _SHOWN) if path.is_file() else ()
    return [f"line {line['row']}: {line['reason']} ({line['detail']})" for line in lines]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), *map(float, sys.argv[2:])))
