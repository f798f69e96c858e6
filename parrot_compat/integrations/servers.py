"""What this process has learned of servers: which of them are ours, and which have no plans.

A server that is not ours may refuse a request for a field that it does not know, so the `parrot` object goes only
to servers that have shown that they know it. It knows endpoints and nothing of plans or frameworks.

The invariant: nothing is forgotten while the process lives, and nothing is asked twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from . import remote
from .process_lock import ProcessLock
from .remote import Endpoint

__all__ = ["is_ours", "learn_whether_ours", "plans_refused", "remember_ours", "remember_refusal"]

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 5.0

_lock = ProcessLock()
_ours: set[str] = set()
_refusing: set[str] = set()
_asked: set[str] = set()


def is_ours(endpoint: Endpoint) -> bool:
    """It has accepted a plan, or told its capabilities: it knows the `parrot` object of a request."""
    return endpoint.base_url in _ours


def plans_refused(endpoint: Endpoint) -> bool:
    """It has no plans: it was sent one once."""
    return endpoint.base_url in _refusing


def remember_ours(endpoint: Endpoint) -> None:
    with _lock:
        _ours.add(endpoint.base_url)


def remember_refusal(endpoint: Endpoint) -> None:
    with _lock:
        _refusing.add(endpoint.base_url)


def learn_whether_ours(endpoint: Endpoint) -> None:
    """Ask a server once, in the background, what it can. Whoever wants to know now does without."""
    with _lock:
        known = _ours | _refusing | _asked
        if endpoint.base_url in known:
            return
        _asked.add(endpoint.base_url)
    threading.Thread(target=_ask, args=(endpoint,), name="parrot-capabilities", daemon=True).start()


def _ask(endpoint: Endpoint) -> None:
    try:
        answer = remote.client(endpoint).get(
            "/parrot", cast_to=object, options={"max_retries": 0, "timeout": PROBE_TIMEOUT_S}
        )
    except Exception as error:
        log.debug("%s does not tell what it can: %r", endpoint.base_url, error)
        return
    if isinstance(answer, Mapping) and answer.get("object") == "parrot.capabilities":
        remember_ours(endpoint)
