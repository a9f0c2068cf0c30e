"""The models by their names: fixed ones, jobs', those a client loaded, and those of the adapter repository.

A name may come to stand for another adapter: a version is promoted or rolled back, one is loaded in another's
place. Requests take what their model stands for when they come, and end on it (`keeper`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tanzim.adapters.repository_state import Entry
from tanzim.core.errors import ConfigError, RunError, TanzimError
from tanzim.core.records import Json
from tanzim.infer.refusals import GrammarError, TooLongError
from tanzim.infer.residents import GoneError, NoRoomError, TooLargeError, WordlessError
from tanzim.serve.backend import Backend, Unavailable
from tanzim.serve.errors import ApiError
from tanzim.serve.keeper import Keeper, Place
from tanzim.serve.shelf import Shelf, added_at
from tanzim.serve.store.jobs import Models

_SOON = 1.0  # seconds after which an answer may have ended and left room
_LATER = 5.0  # seconds after which a repository, or what computes, may be there again
# What is answered where a model cannot: status, code, the field at fault, and after how long to try again.
_REFUSALS: tuple[tuple[type[TanzimError], int, str, str | None, float | None], ...] = (
    (NoRoomError, 503, "no_room", "model", _SOON),
    (GoneError, 404, "model_not_found", "model", None),
    (TooLargeError, 400, "model_too_large", "model", None),
    (WordlessError, 400, "model_not_available", "model", None),
    (TooLongError, 400, "context_length_exceeded", None, None),
    (GrammarError, 400, "invalid_value", None, None),
    (Unavailable, 503, "engine_unavailable", None, _LATER),
    (ConfigError, 400, "unsupported_model", "model", None),
)
_TUNED = "ft:"  # as the models of jobs are called


@dataclass(frozen=True, slots=True)
class Served:
    """What answers for a model's name.

    Args:
        adapter: what the backend calls it; None is the base.
        project: who asks.
        held: opens a block in which the backend knows it, whatever happens to the name meanwhile.

    """

    adapter: str | None
    project: str
    held: Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An adapter that a client loaded, and when."""

    place: Place
    at: int


class Catalogue:
    """Finds what answers for a name, for the thread of the event loop.

    Args:
        backend: what answers.
        models: name that clients ask for → the backend's adapter (None: the base).
        tuned: the models that jobs made, each for its project.
        root: the server's folder, where their adapters are.
        shelf: the adapter repository, whose models every project may ask.

    """

    def __init__(
        self,
        backend: Backend,
        models: Mapping[str, str | None],
        tuned: Models,
        root: Path,
        shelf: Shelf | None = None,
    ) -> None:
        self._backend = backend
        self._models = {name: Place(adapter) for name, adapter in models.items()}
        self._loaded: dict[tuple[str, str], _Loaded] = {}  # by project and name
        self._loads, self._loading = 0, asyncio.Lock()
        self._tuned, self._root, self._shelf = tuned, root, shelf
        self._created = int(time.time())
        self._keeper = Keeper(backend)

    @property
    def bases(self) -> list[str]:
        """The names of the models that can be fine-tuned."""
        return [name for name, place in self._models.items() if place.adapter is None]

    async def models(self, project: str) -> Json:
        """Return every model that a project may ask, as OpenAI lists them."""
        shown = {name: _shown(name, self._created) for name in self._models}
        for (owner, name), loaded in self._loaded.items():
            if owner == project:
                shown[name] = _shown(name, loaded.at, project)
        for row in await asyncio.to_thread(self._tuned.all, project):
            shown[row["id"]] = _shown(row["id"], row["created_at"], project)
        for name, entry in await self._on_shelf():
            shown.setdefault(name, _shown(name, added_at(entry), root=entry.ref))
        return {"object": "list", "data": list(shown.values())}

    async def model(self, project: str, name: str) -> Json:
        """Return one model's entry.

        Raises:
            ApiError: there is none of this name (404), or the repository cannot be read (503).

        """
        if name in self._models:
            return _shown(name, self._created)
        if (project, name) in self._loaded:
            return _shown(name, self._loaded[project, name].at, project)
        row = await asyncio.to_thread(self._tuned.get, project, name) if name.startswith(_TUNED) else None
        if row is not None:
            return _shown(name, row["created_at"], project)
        entry = await self._found(name)
        if entry is None:
            raise self._unknown(name)
        return _shown(name, added_at(entry), root=entry.ref)

    async def find(self, project: str, name: str) -> Served:
        """Return what answers for a model's name now; the backend can be asked for it.

        Raises:
            ApiError: the project has no such model, or its files are gone (404); it is larger than the
                memory for adapters, or writes no text (400); it cannot be loaded (500); the repository does
                not answer (503).

        """
        try:
            place = self._place(project, name) or await self._tuned_place(project, name)
            if place is not None:
                await self._keeper.ensure(place)
            else:
                place = await self._shelf_place(name)
        except TanzimError as error:
            raise refusal_of(error, f"The model '{name}' cannot be asked") from error
        if place is None:
            raise self._unknown(name)
        return Served(place.adapter, project, partial(self._keeper.hold, place))

    async def load(self, project: str, name: str, folder: Path, *, in_place: bool = False) -> None:
        """Load an adapter for a project, until it is unloaded or the server ends.

        Args:
            project: whose it will be.
            name: what it will be called.
            folder: where it lies.
            in_place: take the place of the adapter of this name, if there is one: requests that come from
                now on are answered by the new one, those under way by the old one.

        Raises:
            ApiError: the name is another model's, or the folder holds no adapter for this base (400); there
                is no room for it just now (503).

        """
        if name in self._models or name.startswith(_TUNED) or await self._found(name):
            message = f"'{name}' is, or may become, the name of another model; choose another."
            raise ApiError(400, message, code="invalid_value", param="lora_name")
        async with self._loading:
            before = self._loaded.get((project, name))
            if before is not None and not in_place:
                message = f"An adapter '{name}' is loaded. To load another in its place, set load_inplace."
                raise ApiError(400, message, code="invalid_value", param="lora_name")
            self._loads += 1
            adapter = f"loaded/{project}/{name}/{self._loads}"
            try:
                await self._backend.add_adapter(adapter, folder)
            except NoRoomError as error:
                raise refusal_of(error, "The adapter cannot be loaded") from error
            except TanzimError as error:
                message = f"The adapter cannot be loaded: {error.what}"
                raise ApiError(400, message, param="lora_path") from error
            self._loaded[project, name] = _Loaded(Place(adapter, folder), int(time.time()))
            self._keeper.stands(project, name, adapter)

    async def unload(self, project: str, name: str) -> None:
        """Forget an adapter that `load` loaded; answers under way end on it.

        Raises:
            ApiError: there is none of this name (404).

        """
        if self._loaded.pop((project, name), None) is None:
            message = f"The adapter '{name}' was not loaded by /v1/load_lora_adapter."
            raise ApiError(404, message, code="not_found", param="lora_name")
        self._keeper.stands(project, name, None)

    async def delete(self, project: str, name: str) -> None:
        """Delete a model that a job made, with its files; answers under way end on it.

        Raises:
            ApiError: it is no job's (403), or there is no such model (404).

        """
        if name in self._models:
            raise ApiError(403, f"'{name}' was named when the server was started; it cannot be deleted.")
        row = await asyncio.to_thread(self._tuned.get, project, name)
        if row is None and await self._found(name):
            raise ApiError(403, f"'{name}' is the adapter repository's; tanzim adapters delete removes it.")
        if row is None or not await asyncio.to_thread(self._tuned.delete, project, name):
            raise self._unknown(name)
        self._keeper.stands(project, name, None)
        await asyncio.to_thread(_delete, self._root / row["adapter"])

    def _unknown(self, name: str) -> ApiError:
        known = ", ".join(self._models)
        message = f"The model '{name}' does not exist. Models here: {known}, and those of your own jobs."
        return ApiError(404, message, code="model_not_found", param="model")

    def _place(self, project: str, name: str) -> Place | None:
        """Return where a model lies that is not found by looking further."""
        loaded = self._loaded.get((project, name))
        return self._models.get(name) or (None if loaded is None else loaded.place)

    async def _tuned_place(self, project: str, name: str) -> Place | None:
        """Return where a job's model lies."""
        if not name.startswith(_TUNED):
            return None
        row = await asyncio.to_thread(self._tuned.get, project, name)
        self._keeper.stands(project, name, None if row is None else name)
        return None if row is None else Place(name, self._root / row["adapter"])

    async def _shelf_place(self, name: str) -> Place | None:
        """Return where a model of the repository lies on this machine; the backend knows it."""
        entry = await self._found(name)
        while entry is not None and self._shelf is not None:
            try:
                place = Place(f"repository/{entry.id}", await self._shelf.folder(entry))
                await self._keeper.ensure(place)
            except (RunError, GoneError) as error:
                before, entry = entry, await self._shelf.find(name, now=True)
                if entry == before:
                    raise _unreachable(error) from error
            else:
                self._keeper.stands("", name, place.adapter)
                return place
        self._keeper.stands("", name, None)
        return None

    async def _found(self, name: str) -> Entry | None:
        """Return what a name stands for in the repository."""
        try:
            return None if self._shelf is None else await self._shelf.find(name)
        except RunError as error:
            raise _unreachable(error) from error

    async def _on_shelf(self) -> list[tuple[str, Entry]]:
        """Return the names of the repository's models."""
        try:
            return [] if self._shelf is None else await self._shelf.models()
        except RunError as error:
            raise _unreachable(error) from error


def refusal_of(error: TanzimError, what: str = "The model cannot answer") -> ApiError:
    """Return what a client is told where a model cannot answer.

    Args:
        error: why.
        what: the beginning of the sentence.

    """
    message = f"{what}: {error.what}."
    for kind, status, code, param, later in _REFUSALS:
        if isinstance(error, kind):
            return ApiError(status, message, code=code, param=param, retry_after=later)
    return ApiError(500, message)


def _delete(folder: Path) -> None:
    """Delete a folder, of which nobody sees a half."""
    gone = folder.with_name(f".{folder.name}.gone")
    try:
        os.replace(folder, gone)
    except FileNotFoundError:  # on the machine of another server, or already gone
        return
    shutil.rmtree(gone)


def _unreachable(error: TanzimError) -> ApiError:
    message = f"The adapter repository does not give this model now: {error.what}."
    return ApiError(503, message, code="repository_unavailable", param="model", retry_after=_LATER)


def _shown(name: str, created: int, owner: str = "tanzim", **more: str) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": owner, **more}
