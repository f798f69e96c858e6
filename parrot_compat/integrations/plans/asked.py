"""A request on its way out: what answers it if it was planned, and what the server is told of it if it is asked.

It knows the `parrot` object and requests as the SDK takes them.

The invariant: hints go only to servers that know them and cost the app nothing, and the app never sees the receipt for
hints it did not give.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from parrot_compat.integrations.remote import Endpoint
from parrot_compat.integrations.servers import is_ours, learn_whether_ours

from .client import Match
from .sessions import RunSession

__all__ = ["ALONE", "Asked", "Hints", "claim_of"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", ChatCompletion, ChatCompletionChunk)
Hints = Callable[[], Mapping[str, Any]]
"""What is known of a call, as members of the `parrot` object; worked out only if it is to be sent."""


@dataclass(frozen=True, slots=True)
class Asked:
    match: Match | None = None
    """The planned call that the request is."""
    hints: Hints | None = None
    session: RunSession | None = None
    """That the hints tell of."""

    @contextmanager
    def sending(self, endpoint: Endpoint, request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The request as it is sent, for as long as it is on its way: with a claim where there is something to claim,
        and with hints."""
        with nullcontext() if self.session is None else self.session.going_on():
            yield self._request(endpoint, request)

    def _request(self, endpoint: Endpoint, request: Mapping[str, Any]) -> Mapping[str, Any]:
        extra = request.get("extra_body") or {}
        if "parrot" in extra:
            return request  # the app says itself what it wants to say
        claim = self.match.claim() if self.match is not None else None
        told = {**self._told(endpoint), **(claim or {})}
        return {**request, "extra_body": {**extra, "parrot": {"v": 1, **told}}} if told else request

    def _told(self, endpoint: Endpoint) -> Mapping[str, Any]:
        if self.hints is None:
            return {}
        if not is_ours(endpoint):
            learn_whether_ours(endpoint)
            return {}
        try:
            return self.hints()
        except Exception:
            log.debug("what is known of a request could not be told; it is made without", exc_info=True)
            return {}

    def answered(self, request: Mapping[str, Any], answer: ChatCompletion) -> ChatCompletion:
        """The answer as the plain request would have brought it."""
        claimed = claim_of(answer)
        self.settle(claimed, answer.choices[0].message.content if len(answer.choices) == 1 else None)
        return self.plain(request, answer)

    def plain(self, request: Mapping[str, Any], answer: Answer) -> Answer:
        """The answer, or a piece of it, without the receipt, unless the app asked for one."""
        if "parrot" not in (request.get("extra_body") or {}):
            (answer.model_extra or {}).pop("parrot", None)
        return answer

    def settle(self, claimed: bool | None, text: str | None) -> None:
        """How the request was answered in the end."""
        if self.match is None:
            return
        if claimed:
            self.match.answered("claimed", text or "")
        else:
            self.match.answered("direct")


ALONE = Asked()


def claim_of(answer: ChatCompletion | ChatCompletionChunk) -> bool | None:
    """What the receipt says of a claim; `None` where it says nothing."""
    receipt = (answer.model_extra or {}).get("parrot")
    return bool(receipt["claimed"]) if isinstance(receipt, Mapping) and "claimed" in receipt else None
