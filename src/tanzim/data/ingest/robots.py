"""What sites ask robots to leave alone (RFC 9309), and how long to wait between requests."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tanzim.core.optional import need
from tanzim.data.ingest.client import AGENT, Bounds, Unreachable, get
from tanzim.data.ingest.guard import Guard

_TOKEN = AGENT.partition("/")[0]
_LONGEST = 500 * 1024  # bytes of robots.txt that have to be read (RFC 9309, 2.5)
_PATIENCE = 60.0  # seconds between two requests that a site may ask for


@dataclass(slots=True)
class Robots:
    """Asks each site's robots.txt once.

    Args:
        guard: says which addresses may be connected to.
        bounds: what reading one robots.txt may cost.
        delay: seconds between two requests to one host, where the site does not ask for more.

    """

    guard: Guard
    bounds: Bounds
    delay: float
    _rules: dict[str, Any] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)

    def check(self, url: str) -> None:
        """Return when ``url`` may be asked for, after the time its host wants between requests.

        Raises:
            Unreachable: its robots.txt forbids it, or cannot be had (which forbids everything).

        """
        parts = urlsplit(url)
        site = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        if site not in self._rules:
            self._rules[site] = self._read(f"{site}/robots.txt")
        rules = self._rules[site]
        if isinstance(rules, str):
            raise Unreachable(url, "robots.txt cannot be had, which forbids everything", rules)
        if not rules.can_fetch(url, _TOKEN):
            raise Unreachable(url, "robots.txt forbids it")
        self._wait(site, max(self.delay, min(_PATIENCE, rules.crawl_delay(_TOKEN) or 0.0)))

    def _wait(self, site: str, seconds: float) -> None:
        left = self._last.get(site, float("-inf")) + seconds - time.monotonic()
        if left > 0:
            time.sleep(left)
        self._last[site] = time.monotonic()

    def _read(self, url: str) -> Any:  # noqa: ANN401 - protego's rules
        protego: Any = need("protego", "web")
        text = b""
        try:
            with get(url, self.guard, self.bounds) as answer:
                if 400 <= answer.status < 500 and answer.status != 429:
                    return protego.Protego.parse("")
                if answer.status != 200:
                    return f"the server answers {answer.status}"
                for chunk in answer.chunks():
                    text += chunk
                    if len(text) >= _LONGEST:
                        break
        except Unreachable as error:
            if error.reason == "the address is not public":
                raise
            return error.what
        whole = text[:_LONGEST] if len(text) < _LONGEST else text[:_LONGEST].rpartition(b"\n")[0]
        return protego.Protego.parse(whole.decode("utf-8", "replace").removeprefix("\ufeff"))
