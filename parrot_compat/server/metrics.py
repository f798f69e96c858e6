"""Metrics: GET /metrics for Prometheus, counted from the one stream of events.

It knows no endpoint and keeps no text: labels are served models, engines, routes and classes of errors, never what a
client has chosen, so that there is a bounded number of them and none tells one tenant of another.

How long it took to begin is counted when a call begins to answer, not when it ends: under load those that are left
before their end are the slow ones, and who saw only the others would see a server that does well.

The invariant: a counter counts each event once, and is there at 0 before the first one where its labels are known by
then; gauges are read when they are asked for.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector

from parrot_compat import __version__
from parrot_compat.core import errors
from parrot_compat.core.call import Finish, Usage
from parrot_compat.core.events import (
    CallFailed,
    CallFinished,
    CallRetried,
    CallSubmitted,
    EngineGone,
    EngineJoined,
    Event,
    FirstToken,
    InputsEmbedded,
    PlanEnded,
)
from parrot_compat.core.manager import Manager

__all__ = ["Metrics", "router"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5),
)
"""Of one token: a small model on a large device takes a millisecond, and what takes 0.1 s is read as it comes."""
_FAILURES = (
    errors.Cancelled,
    errors.UpstreamFailed,
    errors.EngineError,
    errors.EngineLost,
    errors.ContextLost,
    errors.ModelAway,
    errors.NoEngineForModel,
    errors.PromptTooLong,
    errors.BadPrompt,
    errors.TransformFailed,
    errors.QueueFull,
)
"""What an accepted call usually fails with; any other class has its series from its first failure on."""
_OUTCOMES = ("taken", "claimed", "cancelled", "unused")


class Metrics:
    """Of one manager, from now on."""

    def __init__(self, manager: Manager) -> None:
        self.registry = _Registry()
        self.registry.register(_Gauges(manager))
        self._of_models: list[Counter | Histogram] = []  # labelled by model alone
        self._submitted = self._counter("calls_submitted", "Calls accepted", "model")
        self._finished = self._counter("calls_finished", "Calls that ended well", "model", "finish")
        self._failed = self._counter("calls_failed", "Calls that failed or were cancelled", "model", "error")
        self._retried = self._counter("calls_retried", "Calls that went back into the queue: their engine was lost")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts of calls that are over", "model")
        self._cached = self._counter("cached_tokens", "Of those of finished calls, not computed again", "model")
        self._output = self._counter("output_tokens", "Tokens drawn by calls that are over", "model")
        self._waited = self._histogram("wait_seconds", "From acceptance to an engine, waiting for inputs included")
        self._queued = self._histogram("queue_seconds", "From having its inputs to its first step in an engine")
        self._first = self._histogram("first_token_seconds", "From acceptance to the first token")
        self._prefill = self._histogram("prefill_seconds", "From its first step to its first token")
        self._decode = self._histogram("decode_seconds", "From its first token to its last")
        self._token = self._histogram("output_token_seconds", "Of each output token but the first", _TOKEN_SECONDS)
        self._whole = self._histogram("call_seconds", "From acceptance to the end")
        self._embeddings = self._counter("embeddings", "Requests for vectors that were answered", "model")
        self._embedded = self._counter("embedded_inputs", "Inputs of those: one vector each", "model")
        self._embedded_tokens = self._counter("embedded_tokens", "Tokens of those inputs", "model")
        self._plans = self._counter("plans", "Plans that have ended")
        self._planned = self._counter("planned_calls", "Planned calls by what became of them", "outcome")
        self._wasted = self._counter("wasted_tokens", "Drawn for planned calls that nobody took")
        self._lost = self._counter("engines_lost", "Engines that went while they served", "model")
        self._requests = self._counter("requests", "HTTP requests by route and status", "route", "status")
        for outcome in _OUTCOMES:
            self._planned.labels(outcome)
        for model in manager.fleet.models():
            self._begin(model)
        manager.events.subscribe(self._hear)

    def answered(self, route: str, status: int) -> None:
        """A request was answered; `route` is the path as it is declared, with names in place of what was sent."""
        self._requests.labels(route, str(status)).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)

    # ---- inside ----------------------------------------------------------------------------------------

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        counter = Counter(f"parrot_{name}", what, labels, registry=self.registry)
        if labels == ("model",):
            self._of_models.append(counter)
        return counter

    def _histogram(self, name: str, what: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        histogram = Histogram(f"parrot_{name}", what, ("model",), registry=self.registry, buckets=buckets)
        self._of_models.append(histogram)
        return histogram

    def _begin(self, model: str) -> None:
        """`increase` does not see the event that a series begins with, which may be the one that an alert is for."""
        for metric in self._of_models:
            metric.labels(model)
        for finish in Finish:
            self._finished.labels(model, finish.value)
        for failure in _FAILURES:
            self._failed.labels(model, failure.__name__)

    def _hear(self, event: Event) -> None:
        match event:
            case CallSubmitted():
                self._submitted.labels(event.model).inc()
            case FirstToken():
                self._hear_first_token(event)
            case CallFinished():
                self._hear_finished(event)
            case CallFailed():
                self._failed.labels(event.model, type(event.error).__name__).inc()
                self._count_tokens(event.model, event.usage)
            case InputsEmbedded():
                self._embeddings.labels(event.model).inc()
                self._embedded.labels(event.model).inc(event.inputs)
                self._embedded_tokens.labels(event.model).inc(event.prompt_tokens)
            case CallRetried():
                self._retried.inc()
            case PlanEnded():
                self._hear_plan(event)
            case EngineJoined():
                self._begin(event.info.model)
            case EngineGone():
                self._lost.labels(event.model).inc()

    def _hear_first_token(self, event: FirstToken) -> None:
        model = event.model
        begun_s = event.started_s + event.waited_s
        self._waited.labels(model).observe(max(0.0, event.started_s - event.submitted_s))
        self._queued.labels(model).observe(max(0.0, begun_s - event.ready_s))
        self._first.labels(model).observe(max(0.0, event.at_s - event.submitted_s))
        self._prefill.labels(model).observe(max(0.0, event.at_s - begun_s))

    def _hear_finished(self, event: CallFinished) -> None:
        model = event.model
        self._finished.labels(model, event.finish.value).inc()
        self._count_tokens(model, event.usage)
        decode_s = max(0.0, event.at_s - event.first_token_s)
        self._decode.labels(model).observe(decode_s)
        if event.usage.output_tokens > 1:
            self._token.labels(model).observe(decode_s / (event.usage.output_tokens - 1))
        self._whole.labels(model).observe(max(0.0, event.at_s - event.submitted_s))

    def _hear_plan(self, event: PlanEnded) -> None:
        self._plans.inc()
        unused = event.calls - event.taken - event.claimed - event.cancelled
        for outcome, calls in zip(_OUTCOMES, (event.taken, event.claimed, event.cancelled, unused), strict=True):
            self._planned.labels(outcome).inc(max(0, calls))
        self._wasted.inc(event.wasted_tokens)

    def _count_tokens(self, model: str, usage: Usage) -> None:
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._output.labels(model).inc(usage.output_tokens)


class _Registry(CollectorRegistry):
    """Leaves out when each series began, which Prometheus does not ask for in this format. The library's own switch
    for that is one for the whole process, in which others may count too."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _Gauges(Collector):
    """What is so at this moment."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def collect(self) -> Iterable[GaugeMetricFamily]:
        manager = self._manager
        build = _gauge("build_info", "Always 1; what serves is in the labels", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _gauge("open_calls", "Calls accepted and not over", manager.open_calls)
        yield _gauge("queued_calls", "Calls ready and without an engine", manager.queued_calls)
        yield _gauge("open_sessions", "Sessions open now", len(manager.sessions()))
        engines = _gauge("engines", "Engines that serve a model", labels=["model"])
        here = Tally(member.info.model for member in manager.fleet)
        for model in manager.fleet.models():  # 0 where they are all being started again
            engines.add_metric([model], here[model])
        yield engines
        yield from self._of_engines()

    def _of_engines(self) -> Iterable[GaugeMetricFamily]:
        labels = ["engine", "model"]
        running = _gauge("engine_running", "Sequences that take part in steps", labels=labels)
        waiting = _gauge("engine_waiting", "Sequences accepted and not yet started", labels=labels)
        free = _gauge("engine_free_tokens", "Tokens of KV free or evictable at once", labels=labels)
        capacity = _gauge("engine_capacity_tokens", "Tokens of KV that fit at once", labels=labels)
        for member in self._manager.fleet:
            load, here = member.engine.load(), [member.info.name, member.info.model]
            running.add_metric(here, load.running)
            waiting.add_metric(here, load.waiting)
            if load.free_tokens is not None:
                free.add_metric(here, load.free_tokens)
            if member.info.capacity_tokens is not None:
                capacity.add_metric(here, member.info.capacity_tokens)
        yield from (running, waiting, free, capacity)


def _gauge(name: str, what: str, value: Any = None, labels: list[str] | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"parrot_{name}", what, value=value, labels=labels)


def router(metrics: Metrics) -> APIRouter:
    routes = APIRouter()

    @routes.get("/metrics", summary="Counters and gauges for Prometheus", tags=["probes"])
    async def read_metrics() -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE_PLAIN_1_0_0})

    return routes
