"""The body of POST /v1/parrot/graphs: the calls an app is about to make, before it makes them.

It knows nothing of plans. A planned request is read by the schema of the real one, so that what would be refused
there is refused here, and it is kept as it came, to be shown as it came.

The invariant: every refusal names its field from the top of the body (`calls[3].request.temperature`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from parrot_compat.server.amounts import MOST_PIECES, pieces_in
from parrot_compat.server.bodies import Items, Schema, explain
from parrot_compat.server.errors import invalid, within
from parrot_compat.server.json_values import can_be_sent_back
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.openai.chat_schema import ChatRequest
from parrot_compat.server.sessions.object_schema import Name, StageObject

__all__ = ["CloseRequest", "GraphRequest", "PlannedRequest"]

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class PlannedRequest(Schema):
    id: Name
    function: Name | None = None
    stage: StageObject | None = None
    request: dict[str, Any]
    """A body of /v1/chat/completions, without stream; its content parts may be references."""

    def read(self, path: str) -> ChatRequest:
        """What no planned request can say is refused. Errors: `ApiError` 400, with the path of the field."""
        if pieces_in(self.request, MOST_PIECES) > MOST_PIECES:
            raise invalid(f"{path}.request", f"holds more than {MOST_PIECES} texts, lists, objects and members")
        if not can_be_sent_back(self.request):
            raise invalid(f"{path}.request", "NaN, infinity and numbers of hundreds of digits are not taken")
        try:
            body = ChatRequest.model_validate(self.request)
        except ValidationError as error:
            raise within(explain(error), f"{path}.request") from None
        if body.stream or body.stream_options is not None:
            field = "stream" if body.stream else "stream_options"
            raise invalid(f"{path}.request.{field}", "a planned call has no connection of its own; leave it out")
        if (body.n or 1) != 1:
            raise invalid(f"{path}.request.n", "a planned call has one answer")
        if body.parrot is not None and body.parrot.claim is not None:
            raise invalid(f"{path}.request.parrot.claim", "a planned call cannot be the claim of another")
        return body


class GraphRequest(Schema):
    most_pieces: ClassVar[int] = 8 * MOST_PIECES  # of 2,048 requests two thousand each: 25 tools of five parameters

    session: Name | None = None
    nonce: Name | None = None
    calls: Annotated[Items[PlannedRequest], Field(min_length=1, max_length=10_000)]
    await_: Items[Name] = Field(alias="await", default_factory=list)
    stream: bool | None = None
    ttl_s: Seconds = 30.0
    max_concurrency: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    """Of its calls, as many at once as the app would make."""

    def check(self, limits: RequestLimits) -> None:
        """What no single field can know. Errors: `ApiError` 400."""
        if len(self.calls) > limits.calls:
            raise invalid("calls", f"{len(self.calls)} calls; one graph has at most {limits.calls}")
        seen: dict[str, int] = {}
        for index, call in enumerate(self.calls):
            if call.id in seen:
                raise invalid(f"calls[{index}].id", f"{call.id[:64]!r} is also the id of calls[{seen[call.id]}]")
            seen[call.id] = index
        for index, awaited in enumerate(self.await_):
            if awaited not in seen:
                raise invalid(f"await[{index}]", f"there is no call {awaited[:64]!r} in this graph")


class CloseRequest(Schema):
    taken: Items[Name] = Field(default_factory=list)
