"""The planner: sees a synthesizer begin, sends what it will ask ahead of it, and answers it with that.

The hook is LlamaIndex's own instrumentation: the planner is one more span handler of the root dispatcher. When
`get_response` of a synthesizer begins, its calls are found (`walks`) and sent as one plan; LlamaIndex then runs as it
always does, and each call of a `ParrotLLM` says here what it is about to ask.

The invariant: whatever goes wrong in here, the app does not notice.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.response_synthesizers import BaseSynthesizer, CompactAndRefine
from llama_index.core.response_synthesizers.compact_and_accumulate import CompactAndAccumulate
from llama_index_instrumentation import get_dispatcher
from pydantic import PrivateAttr

from parrot_compat.integrations.plans.asked import Asked
from parrot_compat.integrations.plans.book import PlanBook
from parrot_compat.integrations.plans.drafting import PlanTooLarge, answers_as_ours
from parrot_compat.integrations.plans.matching import asked_softly, first_match
from parrot_compat.integrations.plans.sessions import RunSession, labelled
from parrot_compat.integrations.plans.switches import is_on
from parrot_compat.integrations.remote import Endpoint

from .drafts import CannotPlan, Drafts
from .provenance import hints_of
from .run_plan import Lingering, RunPlan, is_stream
from .settings import ParrotSettings
from .spans import Span, Spans
from .walks import SynthesizerInput, walk_of

__all__ = ["Planner", "listen", "planner", "records", "stats"]

log = logging.getLogger(__name__)

RESPONDING = ("get_response", "aget_response")
DECIDING = (
    *("chat", "complete", "stream_chat", "stream_complete", "predict", "stream"),
    *("achat", "acomplete", "astream_chat", "astream_complete", "apredict", "astream"),
)
"""What between an app's call and our server deals with messages and answers."""


class Planner(BaseSpanHandler[BaseSpan]):
    """The span handler. There is one per process."""

    _spans: Spans = PrivateAttr(default_factory=Spans)
    _book: PlanBook = PrivateAttr(default_factory=PlanBook)
    _lingering: Lingering = PrivateAttr(default_factory=Lingering)

    @classmethod
    def class_name(cls) -> str:
        return "ParrotPlanner"

    @property
    def book(self) -> PlanBook:
        return self._book

    # ---- what the instrumentation tells ---------------------------------------------------------------

    def new_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        span = self._spans.begin(id_, parent_span_id, instance, bound_args.arguments)
        if not isinstance(instance, BaseSynthesizer) or span.method not in RESPONDING or not is_on():
            return
        if any(outer.plan is not None and outer.plan.covers(instance) for outer in span.around):
            return
        try:
            span.plan = self._planned(span)
        except Exception:
            log.debug("the planner failed on %s; the app goes on without", id_, exc_info=True)

    def prepare_to_exit_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        result: Any = None,
        **kwargs: Any,
    ) -> None:
        span = self._spans.end(id_)
        if span is None or span.plan is None:
            return
        if is_stream(result) and not span.plan.is_answered:
            self._lingering.keep(span.plan, result)
        else:
            span.plan.run_ended(failed=False)

    def prepare_to_drop_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        span = self._spans.end(id_)
        if span is not None and span.plan is not None:
            span.plan.run_ended(failed=True)

    # ---- planning -------------------------------------------------------------------------------------

    def _planned(self, span: Span) -> RunPlan | None:
        synthesizer, arguments = span.instance, dict(span.arguments)
        walk, llm = walk_of(synthesizer), getattr(synthesizer, "_llm", None)
        if walk is None or not isinstance(llm, ParrotSettings) or not _can_be_planned(llm):
            return None
        given = _input(arguments)
        if given is None:
            return None
        drafts = Drafts(llm, self._book.is_refused)
        is_whole = False
        try:
            is_whole = walk(synthesizer, given, drafts)
        except (CannotPlan, PlanTooLarge):
            log.debug("%s is planned for %d calls only", span.id, len(drafts.found))
        # These call themselves once more with what they have packed, whose first calls are these.
        is_packed = bool(drafts.found) and isinstance(synthesizer, CompactAndRefine | CompactAndAccumulate)
        plan = RunPlan(self._book, type(synthesizer).__name__, synthesizer, is_only=is_whole or is_packed)
        session = labelled(span.session)
        # A synthesizer that is seen to its end, in nothing else, is a session by itself.
        is_alone = is_whole and span.parent is None and session is span.session
        plan.send(drafts.found, streamed=bool(synthesizer._streaming), session=None if is_alone else session)
        return plan

    # ---- answering ------------------------------------------------------------------------------------

    def asked(self, endpoint: Endpoint, request: Mapping[str, Any]) -> Asked:
        """The planned call that this request of a model is, and what is known of it. Never raises, never blocks."""
        return asked_softly(self._book, lambda: self._asked(endpoint, request))

    def _asked(self, endpoint: Endpoint, request: Mapping[str, Any]) -> Asked:
        span = self._spans.current()
        around = [outer.plan for outer in span.around if outer.plan is not None] if span is not None else []
        # What is read late is made in no span; that it equals a planned call is all that counts.
        found = first_match((*around, *self._lingering.plans()), endpoint, request)
        session = labelled(span.session if span is not None else RunSession())
        return Asked(found, lambda: session.hints(endpoint) | hints_of(span, request["messages"]), session)

    def stream_ended(self) -> None:
        """A streamed answer has been read to its end."""
        self._lingering.end_answered()


def _can_be_planned(llm: ParrotSettings) -> bool:
    """Nothing stands between the app and the server, or looks at what comes from there."""
    if llm.rate_limiter is not None or llm.output_parser is not None:
        return False
    return answers_as_ours(type(llm), DECIDING, "llama_index.core")


def _input(arguments: dict[str, Any]) -> SynthesizerInput | None:
    query, chunks = arguments.get("query_str"), arguments.get("text_chunks")
    previous = arguments.get("prev_response")
    if (
        not isinstance(query, str)
        or not isinstance(chunks, list | tuple)
        or not (previous is None or isinstance(previous, str))
    ):
        return None
    values = {name: value for name, value in (arguments.get("response_kwargs") or {}).items()}
    values.update(arguments.get("kwargs") or {})
    return SynthesizerInput(query=query, chunks=tuple(chunks), previous=previous, values=values)


planner = Planner()
get_dispatcher().add_span_handler(planner)

# The process's own planner is what an app asks: how often has it helped, and how did the last plans go?
stats = planner.book.stats
records = planner.book.records
listen = planner.book.listen
