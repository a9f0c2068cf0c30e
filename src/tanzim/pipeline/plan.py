"""``tanzim plan``: what a run will take, before it starts; and afterwards what it took."""

from __future__ import annotations
