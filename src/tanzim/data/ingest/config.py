"""Sources that are fetched before they are read: databases, web pages, Airbyte connectors."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tanzim.core.config import Section
from tanzim.core.errors import ConfigError

_HIDDEN = re.compile(r"\$\{[A-Za-z_]\w*\}")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<place>[^/?#]*)")


def without_password(url: str) -> str:
    """Refuse a URL with a password in it, or any other text that should not stand in a file.

    A password is written as ``${NAME}``, and taken from the environment when it is needed.

    Raises:
        ConfigError: the URL holds a password (which the message does not repeat).

    """
    match = _URL.match(url)
    user, at, _ = match["place"].rpartition("@") if match else ("", "", "")
    name, colon, password = user.partition(":")
    if at and colon and password and not _HIDDEN.fullmatch(password):
        scheme = match["scheme"] if match else ""
        raise ConfigError(
            f"a password does not belong into a config file: write {scheme}://{name}:${{MY_PASSWORD}}@… "
            "and set that variable in the environment",
            where="url",
        )
    return url


def check_host(entry: str) -> str:
    """Refuse what is neither the name of a host, nor an address, nor a network such as 10.0.0.0/8.

    Raises:
        ValueError: the entry is a URL, or a network with bits set that it leaves open.

    """
    if "/" in entry and "://" not in entry:
        ipaddress.ip_network(entry)
    elif not re.fullmatch(r"[^\s/@\[\]]+", entry) or (":" in entry and not _is_address(entry)):
        raise ValueError(f"'{entry}' should be a host such as intranet.example, an address, or a network")
    return entry


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class _Fetched(Section):
    """What all of them have in common."""

    name: str | None = Field(None, min_length=1)
    """What reports and provenance call it; unset takes its URL or its connector."""
    use: Literal["split", "validation", "test"] = "split"
    """Which examples these are: to be split (or all trained on), for validation alone, or for test alone."""


class SqlSource(_Fetched):
    """The rows of a query, read with SQLAlchemy in a transaction that cannot write."""

    type: Literal["sql"]
    url: str
    """Such as sqlite:///shop.db or postgresql+psycopg://reader@host/shop; a password comes from the
    environment: as ${NAME} in the URL, or as PGPASSWORD and the other variables of the database's client."""
    query: str = Field(min_length=1)
    """One SELECT; with ORDER BY, the order of the examples is the same each time it is run."""
    connect_timeout_s: int = Field(30, ge=1)
    """How long to wait for the database to answer at all."""

    _no_password = field_validator("url")(without_password)

    @field_validator("query")
    @classmethod
    def _reads(cls, value: str) -> str:
        bare = re.sub(r"\A(?:\s|--[^\n]*\n|/\*.*?\*/|\()+", "", value, flags=re.DOTALL)
        if bare.split(None, 1)[:1] and re.match(r"[a-z]+", bare.lower()):
            word = re.match(r"[a-z]+", bare.lower())
            if word and word[0] in ("select", "with", "values", "table"):
                return value
        raise ValueError("the query should start with SELECT, WITH, VALUES or TABLE: nothing is written")


class WebSource(_Fetched):
    """Web pages: their main text, without menus, advertisements and comments."""

    type: Literal["web"]
    urls: list[str] = Field(default_factory=list)
    """Pages to read."""
    sitemaps: list[str] = Field(default_factory=list)
    """Sitemaps (XML, or one URL a line; also gzipped, and indexes of them) whose pages are read."""
    depth: int = Field(0, ge=0, le=20)
    """How many links to follow from these pages, within their hosts; 0 follows none."""
    max_pages: int = Field(1000, ge=1)
    """Pages asked for at the most, those that could not be had included."""
    delay_s: float = Field(1.0, ge=0)
    """Time between two requests to one host; longer where its robots.txt asks for it (up to a minute)."""
    timeout_s: float = Field(30.0, gt=0)
    """The longest that one page may take, from the first connection to its last byte."""
    max_page_mb: float = Field(5.0, gt=0)
    """The largest page (MB, once unzipped); real pages are below, traps are above."""
    max_redirects: int = Field(5, ge=0, le=20)
    """Redirects followed for one page; each is checked as the first address was."""

    @field_validator("urls", "sitemaps", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:  # noqa: ANN401 - any YAML value
        return [value] if isinstance(value, str) else value

    @field_validator("urls", "sitemaps")
    @classmethod
    def _web(cls, value: list[str]) -> list[str]:
        for url in value:
            if urlsplit(url).scheme.lower() not in ("http", "https") or not urlsplit(url).hostname:
                raise ValueError(f"'{url}' should start with http:// or https:// and name a host")
            without_password(url)
        return value

    @model_validator(mode="after")
    def _some(self) -> WebSource:
        if not self.urls and not self.sitemaps:
            raise ValueError("name pages in urls, or sitemaps in sitemaps")
        return self


class AirbyteSource(_Fetched):
    """Streams of an Airbyte source connector, which runs in an environment of its own."""

    type: Literal["airbyte"]
    connector: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[\w,-]+\])?(==[\w.!+]+)?$")
    """Its package, best with a version: airbyte-source-faker==7.2.1."""
    config: dict[str, Any] = Field(default_factory=dict)
    """What the connector wants to know; ${NAME} in a text is taken from the environment, and what the
    connector calls a secret is accepted in no other way."""
    streams: list[str] = Field(default_factory=list)
    """Streams to read; none named reads all of them."""
    python: str | None = None
    """The interpreter of its environment, for a connector that wants another Python than this one."""


SourceConfig = Annotated[SqlSource | WebSource | AirbyteSource, Field(discriminator="type")]
