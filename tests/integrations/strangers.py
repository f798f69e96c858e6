"""A server that starts is a stranger to this process, and may be one again after a while."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from parrot_compat.integrations import servers

__all__ = ["is_a_stranger", "pass_time"]


def is_a_stranger(url: str) -> None:
    """Forget what is known of a server at this URL: one that has ended may have had the same port."""
    servers._ours.difference_update([other for other in servers._ours if other.startswith(url)])
    for until in (servers._refusing, servers._asked):
        for other in [other for other in until if other.startswith(url)]:
            del until[other]
    for model in [model for model in servers._untold if model[0].startswith(url)]:
        del servers._untold[model]


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """For what is known of servers, so much time has passed."""
    monkeypatch.setattr(servers, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + seconds))
