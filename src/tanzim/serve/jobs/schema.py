"""What a client may ask to be trained, checked: the request of OpenAI's fine-tuning jobs.

Specification: https://platform.openai.com/docs/api-reference/fine-tuning/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import RowMapping

from tanzim.core.records import Json
from tanzim.serve.schema import Strict

Auto = Literal["auto"]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
ENDED = ("succeeded", "failed", "cancelled")


class Hyperparameters(Strict):
    """What OpenAI lets one set; auto leaves it to Tanzim."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=100)] = "auto"


class Supervised(Strict):
    """Training on the answers of conversations."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Strict):
    """How the model learns; the ways that are not here are refused by name."""

    type: Literal["supervised"] = "supervised"
    supervised: Supervised = Supervised()


class Extension(Strict):
    """What Tanzim can do besides (the client's ``extra_body``)."""

    train: dict[str, Any] = Field(default_factory=dict)
    """Keys of the ``train`` section, such as method.type: dora."""


class JobRequest(Strict):
    """The body of ``POST /v1/fine_tuning/jobs``."""

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: Hyperparameters | None = None
    """The old place of method.supervised.hyperparameters."""
    method: Method | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    seed: int | None = Field(None, ge=0, lt=2**31)
    metadata: Metadata | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None
    tanzim: Extension = Extension()

    @model_validator(mode="after")
    def _one_place(self) -> JobRequest:
        if self.hyperparameters is not None and self.method is not None:
            raise ValueError("hyperparameters stand in method.supervised; give one of the two")
        return self

    @property
    def chosen(self) -> Method:
        """The method, wherever its settings stand."""
        if self.method is not None:
            return self.method
        return Method(supervised=Supervised(hyperparameters=self.hyperparameters or Hyperparameters()))


def job_object(row: RowMapping) -> Json:
    """Return a job as OpenAI's API shows it. What was asked of it shows at once."""
    ended = row["status"] in ENDED
    asked = {"cancel": "cancelled", "pause": "paused", "run": row["status"]}[row["wanted"]]
    method = row["method"]
    return {
        "id": row["id"],
        "object": "fine_tuning.job",
        "created_at": row["created_at"],
        "finished_at": row["finished_at"],
        "model": row["model"],
        "fine_tuned_model": row["fine_tuned_model"],
        "organization_id": row["project"],
        "status": row["status"] if ended else asked,
        "hyperparameters": method[method["type"]]["hyperparameters"],
        "method": method,
        "training_file": row["training_file"],
        "validation_file": row["validation_file"],
        "result_files": [row["result_file"]] if row["result_file"] else [],
        "trained_tokens": row["trained_tokens"],
        "error": row["error"],
        "seed": row["seed"],
        "user_provided_suffix": row["suffix"],
        "estimated_finish": row["estimated_finish"],
        "integrations": [],
        "metadata": row["metadata"],
    }


def event_object(row: RowMapping) -> Json:
    """Return an event of a job as OpenAI's API shows it."""
    return {
        "id": row["id"],
        "object": "fine_tuning.job.event",
        "created_at": row["created_at"],
        "level": row["level"],
        "message": row["message"],
        "type": row["type"],
        "data": row["data"],
    }


def checkpoint_object(row: RowMapping) -> Json:
    """Return a model that a job made as OpenAI's API shows its checkpoints."""
    return {
        "id": f"ftckpt-{row['job'].removeprefix('ftjob-')}-{row['step']}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": row["created_at"],
        "fine_tuned_model_checkpoint": row["id"],
        "fine_tuning_job_id": row["job"],
        "metrics": row["metrics"] or {},
        "step_number": row["step"],
    }
