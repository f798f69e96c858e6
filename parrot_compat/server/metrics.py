"""Metrics: GET /metrics for Prometheus, counted from the one stream of events.

It knows no endpoint and keeps no text: labels are served models, engines, routes and classes of errors, never what a
client has chosen, so that there is a bounded number of them and none tells one tenant of another.

The invariant: a counter counts each event once; gauges are read when they are asked for.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector

from parrot_compat.core.events import (
    CallFailed,
    CallFinished,
    CallRetried,
    CallSubmitted,
    EngineGone,
    Event,
    PlanEnded,
)
from parrot_compat.core.manager import Manager

__all__ = ["Metrics", "router"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Of one manager, from now on."""

    def __init__(self, manager: Manager) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(manager))
        self._submitted = self._counter("calls_submitted", "Calls accepted", "model")
        self._finished = self._counter("calls_finished", "Calls that ended well", "model", "finish")
        self._failed = self._counter("calls_failed", "Calls that failed or were cancelled", "model", "error")
        self._retried = self._counter("calls_retried", "Calls that went back into the queue: their engine was lost")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts of finished calls", "model")
        self._cached = self._counter("cached_tokens", "Of those, not computed again", "model")
        self._output = self._counter("output_tokens", "Tokens drawn by finished calls", "model")
        self._waited = self._histogram("wait_seconds", "From acceptance to an engine, waiting for inputs included")
        self._queued = self._histogram("queue_seconds", "From having its inputs to its first step in an engine")
        self._first = self._histogram("first_token_seconds", "From acceptance to the first token")
        self._prefill = self._histogram("prefill_seconds", "From its first step to its first token")
        self._decode = self._histogram("decode_seconds", "From its first token to its last")
        self._whole = self._histogram("call_seconds", "From acceptance to the end")
        self._plans = self._counter("plans", "Plans that have ended")
        self._planned = self._counter("planned_calls", "Planned calls by what became of them", "outcome")
        self._wasted = self._counter("wasted_tokens", "Drawn for planned calls that nobody took")
        self._lost = self._counter("engines_lost", "Engines that went while they served", "model")
        self._requests = self._counter("requests", "HTTP requests by route and status", "route", "status")
        manager.events.subscribe(self._hear)

    def answered(self, route: str, status: int) -> None:
        """A request was answered; `route` is the path as it is declared, with names in place of what was sent."""
        self._requests.labels(route, str(status)).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)

    # ---- inside ----------------------------------------------------------------------------------------

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"parrot_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str) -> Histogram:
        return Histogram(f"parrot_{name}", what, ("model",), registry=self.registry, buckets=_SECONDS)

    def _hear(self, event: Event) -> None:
        match event:
            case CallSubmitted():
                self._submitted.labels(event.model).inc()
            case CallFinished():
                self._hear_finished(event)
            case CallFailed():
                self._failed.labels(event.model, type(event.error).__name__).inc()
            case CallRetried():
                self._retried.inc()
            case PlanEnded():
                self._plans.inc()
                for outcome, calls in (
                    ("taken", event.taken),
                    ("claimed", event.claimed),
                    ("cancelled", event.cancelled),
                    ("unused", event.calls - event.taken - event.claimed - event.cancelled),
                ):
                    self._planned.labels(outcome).inc(max(0, calls))
                self._wasted.inc(event.wasted_tokens)
            case EngineGone():
                self._lost.labels(event.model).inc()

    def _hear_finished(self, event: CallFinished) -> None:
        model = event.model
        self._finished.labels(model, event.finish.value).inc()
        self._prompt.labels(model).inc(event.usage.prompt_tokens)
        self._cached.labels(model).inc(event.usage.cached_tokens)
        self._output.labels(model).inc(event.usage.output_tokens)
        self._waited.labels(model).observe(max(0.0, event.started_s - event.submitted_s))
        begun_s = event.started_s + event.usage.waited_s
        self._queued.labels(model).observe(max(0.0, begun_s - event.ready_s))
        self._first.labels(model).observe(max(0.0, event.first_token_s - event.submitted_s))
        self._prefill.labels(model).observe(max(0.0, event.first_token_s - begun_s))
        self._decode.labels(model).observe(max(0.0, event.at_s - event.first_token_s))
        self._whole.labels(model).observe(max(0.0, event.at_s - event.submitted_s))


class _Gauges(Collector):
    """What is so at this moment."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def collect(self) -> Iterable[GaugeMetricFamily]:
        manager = self._manager
        yield _gauge("open_calls", "Calls accepted and not over", manager.open_calls)
        yield _gauge("queued_calls", "Calls ready and without an engine", manager.queued_calls)
        yield _gauge("open_sessions", "Sessions open now", len(manager.sessions()))
        engines = _gauge("engines", "Engines that serve a model", labels=["model"])
        here = Tally(member.info.model for member in manager.fleet)
        for model in manager.fleet.models():  # 0 where they are all being started again
            engines.add_metric([model], here[model])
        yield engines
        running = _gauge("engine_running", "Sequences that take part in steps", labels=["engine"])
        waiting = _gauge("engine_waiting", "Sequences accepted and not yet started", labels=["engine"])
        free = _gauge("engine_free_tokens", "Tokens of KV free or evictable at once", labels=["engine"])
        for member in manager.fleet:
            load = member.engine.load()
            running.add_metric([member.info.name], load.running)
            waiting.add_metric([member.info.name], load.waiting)
            if load.free_tokens is not None:
                free.add_metric([member.info.name], load.free_tokens)
        yield from (running, waiting, free)


def _gauge(name: str, what: str, value: Any = None, labels: list[str] | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"parrot_{name}", what, value=value, labels=labels)


def router(metrics: Metrics) -> APIRouter:
    routes = APIRouter()

    @routes.get("/metrics", summary="Counters and gauges for Prometheus", tags=["probes"])
    async def read_metrics() -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE_PLAIN_1_0_0})

    return routes
