"""A server that starts is a stranger to this process."""

from __future__ import annotations

from parrot_compat.integrations import servers

__all__ = ["is_a_stranger"]


def is_a_stranger(url: str) -> None:
    """Forget what is known of a server at this URL: one that has ended may have had the same port."""
    servers._ours.difference_update([other for other in servers._ours if other.startswith(url)])
    for until in (servers._refusing, servers._asked):
        for other in [other for other in until if other.startswith(url)]:
            del until[other]
    for model in [model for model in servers._untold if model[0].startswith(url)]:
        del servers._untold[model]
