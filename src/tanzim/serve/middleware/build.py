"""From ``serve.middleware`` to the chain that it describes."""

from __future__ import annotations

from collections.abc import Sequence

from tanzim.serve.middleware.config import FakeConfig, MiddlewareConfig
from tanzim.serve.middleware.fake import Fake
from tanzim.serve.middleware.seam import Chain, Middleware


def build_chain(configs: Sequence[MiddlewareConfig]) -> Chain:
    """Return the chain; empty, it lets everything pass as it is.

    Raises:
        MissingExtra: a package that one of them needs is not installed.

    """
    links: list[Middleware] = []
    for config in configs:
        if isinstance(config, FakeConfig):
            links.append(Fake(config))
        else:
            from tanzim.serve.middleware.redact_pii import RedactPii

            links.append(RedactPii(config))
    return Chain(links)
