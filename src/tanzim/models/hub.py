"""Fetch a model from the Hugging Face hub, or from its local cache when there is no network.

HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE are read by the hub client.
"""

from __future__ import annotations

from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tanzim.core.errors import ModelError
from tanzim.core.records import Progress, no_progress
from tanzim.models import quiet  # noqa: F401 - switches the hub's telemetry off before its first request

# Weights as safetensors, configs, tokenizer files and the card; no pickles, no code, no other formats.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "README.md"]
UNWANTED = ["*/*", "consolidated*"]


def download(repository: str, revision: str | None, *, progress: Progress = no_progress) -> Path:
    """Return the local folder of a hub repository.

    Args:
        repository: hub id, owner/name.
        revision: branch, tag or commit; None for the main branch.
        progress: told when the search starts.

    Raises:
        ModelError: no such repository or revision, no permission, or no network and nothing cached.

    """
    where = f"{repository}@{revision}" if revision else repository
    progress(0, None, f"looking for {where} in the hub's cache and on the hub")
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED
        )
    except GatedRepoError as error:
        raise ModelError(
            "the owner of this model wants its terms accepted first",
            where=where,
            fix="accept them on the model's page, then set HF_TOKEN to a token of that account",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"the repository has no revision '{revision}'", where=where, fix="check model.revision"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            "there is no such folder here, and no such repository on the hub (or it is private)",
            where=where,
            fix="check model.name; for a private repository set HF_TOKEN",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ModelError(
            "the hub cannot be reached, and the model is not whole in its cache",
            where=where,
            fix="go online once (unset HF_HUB_OFFLINE), set HF_ENDPOINT to a mirror, or copy the model "
            "folder here and give its path as model.name",
        ) from error
    return Path(folder)
