"""One error tree: every member says what was wrong, where, and what to do next.

TanzimError
├── ConfigError     a key or value in tanzim.yaml or on the command line
├── DataError       a file or row
├── ModelError      a model, tokenizer, chat template or adapter
│   └── WrongBaseError  an adapter made for other base weights
├── RenderError     a conversation that cannot become tokens to train on
├── PlanError       a job that cannot fit this machine
├── TrainError      a run that had to stop (non-finite loss, disk full)
│   └── Interrupted     it was asked to stop; the same command goes on
├── DriftError      an export that does not behave as what was trained
├── RunError        a run directory that is missing, foreign or damaged
└── MissingExtra    an optional package that is not installed
"""

from __future__ import annotations


class TanzimError(Exception):
    """An error for the user: one clear message, never a traceback.

    Args:
        what: what was wrong, with the numbers.
        where: file, row, key or line it was found at.
        fix: what to do next.

    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class ConfigError(TanzimError, ValueError):
    """A key or value in the config is wrong."""


class DataError(TanzimError, ValueError):
    """A data file or row cannot be used."""


class ModelError(TanzimError, ValueError):
    """A model, tokenizer, chat template or adapter cannot be used."""


class WrongBaseError(ModelError):
    """An adapter was made for other base weights than the ones loaded."""


class RenderError(TanzimError, ValueError):
    """A conversation cannot become tokens to train on."""


class PlanError(TanzimError, ValueError):
    """The job cannot fit this machine."""


class TrainError(TanzimError, RuntimeError):
    """A training run had to stop."""


class Interrupted(TrainError):
    """A run was asked to stop (Ctrl-C, SIGTERM); what it had reached is saved."""


class DriftError(TanzimError, RuntimeError):
    """An export does not behave as what was trained."""


class RunError(TanzimError, ValueError):
    """A run directory is missing, foreign or damaged."""


class MissingExtra(TanzimError, ImportError):
    """An optional package is not installed."""
