"""A claim: an ordinary request with a hint, by which it takes over a planned call.

It knows requests as the SDK takes them, and answers; it sends nothing.

The invariant: the app never sees the hint's receipt. It did not ask for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai.types.chat import ChatCompletion

from .plan_client import Match

__all__ = ["claiming", "settle_claim", "without_receipt"]


def claiming(request: Mapping[str, Any], match: Match) -> Mapping[str, Any]:
    """The request, with the claim in it where there is something to claim."""
    claim = match.claim()
    if claim is None:
        return request
    return {**request, "extra_body": {**(request.get("extra_body") or {}), "parrot": claim}}


def without_receipt(answer: ChatCompletion, match: Match) -> ChatCompletion:
    """The answer to a claim as the answer to the plain request."""
    receipt = (answer.model_extra or {}).pop("parrot", None)
    claimed = bool(receipt.get("claimed")) if isinstance(receipt, Mapping) else False
    settle_claim(match, claimed, answer.choices[0].message.content if len(answer.choices) == 1 else None)
    return answer


def settle_claim(match: Match, claimed: bool, text: str | None) -> None:
    if claimed:
        match.answered("claimed", text or "")
    else:
        match.answered("direct")
