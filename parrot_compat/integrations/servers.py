"""What this process has learned of servers: which of them are ours, which have no plans, which tell nothing of a model.

A server that is not ours may refuse a request for a field that it does not know, so the `parrot` object goes only
to servers that have shown that they know it. It knows endpoints and nothing of plans or frameworks.

The invariant: that a server is ours is not forgotten while the process lives. What may only stand in its place for a
moment is asked again, after a pause: a short one where nobody was there or a server was still loading, a long one where
somebody said that there is nothing of ours (a server of another kind, or a proxy whose own is being replaced).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import openai

from parrot_compat.core.shown import shown_url

from . import remote
from .process_lock import ProcessLock
from .remote import Endpoint

__all__ = ["is_ours", "learn_whether_ours", "model_card", "plans_refused", "remember_ours", "remember_refusal"]

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 5.0
ASK_AGAIN_S = 30.0
ASK_A_STRANGER_AGAIN_S = 600.0

_lock = ProcessLock()
_ours: set[str] = set()
_refusing: dict[str, float] = {}
"""Until when, in seconds of the monotonic clock, they are sent no plans."""
_asked: dict[str, float] = {}
"""Until when they are not asked again what they can."""
_untold: dict[tuple[str, str | None], float] = {}
"""Until when they are not asked again about this model."""


def is_ours(endpoint: Endpoint) -> bool:
    """It has accepted a plan, or told its capabilities: it knows the `parrot` object of a request."""
    return endpoint.base_url in _ours


def plans_refused(endpoint: Endpoint) -> bool:
    """It has no plans: it was sent one not long ago."""
    return time.monotonic() < _refusing.get(endpoint.base_url, 0.0)


def remember_ours(endpoint: Endpoint) -> None:
    with _lock:
        _ours.add(endpoint.base_url)


def remember_refusal(endpoint: Endpoint) -> None:
    url = endpoint.base_url
    with _lock:
        # Ours has plans: while it is restarted a proxy may say that there is no such path.
        _refusing[url] = time.monotonic() + (ASK_AGAIN_S if url in _ours else ASK_A_STRANGER_AGAIN_S)


def learn_whether_ours(endpoint: Endpoint) -> None:
    """Ask a server, in the background, what it can, until it says so. Whoever wants to know now does without."""
    url, now_s = endpoint.base_url, time.monotonic()
    with _lock:
        if url in _ours or now_s < max(_refusing.get(url, 0.0), _asked.get(url, 0.0)):
            return
        _asked[url] = now_s + ASK_AGAIN_S
    try:
        threading.Thread(target=_ask, args=(endpoint,), name="parrot-capabilities", daemon=True).start()
    except RuntimeError as error:  # no more threads: nobody's call fails for what is a hint
        log.debug("%s cannot be asked what it can: %r", shown_url(url), error)


def model_card(endpoint: Endpoint, model: str | None) -> Mapping[str, Any] | None:
    """As `remote.model_card`. Where nothing could be learned nobody waits for the server again, for a while."""
    key = endpoint.base_url, model
    if time.monotonic() < _untold.get(key, 0.0):
        return None
    card = remote.model_card(endpoint, model)
    with _lock:
        if card is None:
            _untold[key] = time.monotonic() + ASK_AGAIN_S
        else:
            _untold.pop(key, None)
    return card


def _ask(endpoint: Endpoint) -> None:
    try:
        answer = remote.client(endpoint).get(
            "/parrot", cast_to=object, options={"max_retries": 0, "timeout": PROBE_TIMEOUT_S}
        )
    except Exception as error:
        log.debug("%s does not tell what it can: %r", shown_url(endpoint.base_url), error)
        if not _is_away(error):
            _asked[endpoint.base_url] = time.monotonic() + ASK_A_STRANGER_AGAIN_S
        return
    _asked[endpoint.base_url] = time.monotonic() + ASK_A_STRANGER_AGAIN_S
    if isinstance(answer, Mapping) and answer.get("object") == "parrot.capabilities":
        remember_ours(endpoint)


def _is_away(error: Exception) -> bool:
    """Nobody answered, or somebody who says that it can be otherwise later."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)
