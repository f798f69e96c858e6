"""What a server says of its own work: how many seconds calls spent in each phase, and how many requests came.

It knows what vLLM and parrot_compat call these at `/metrics`, in Prometheus' text, and nothing of lanes or cells. Both
count by the same phases: in the queue, from the first step to the first token, from there to the last. vLLM counts a
call when it has ended, parrot_compat the first two phases at the first token, also of calls that fail later. In front
of another server `prefill_s` is all that is heard of its queue.

The invariant: a server that does not say something says nothing of it, never 0.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping

__all__ = ["added", "read_counts"]

NAMES: Mapping[str, str] = {
    "parrot_queue_seconds_sum": "queue_s",
    "parrot_prefill_seconds_sum": "prefill_s",
    "parrot_decode_seconds_sum": "decode_s",
    "parrot_call_seconds_count": "calls",
    "parrot_requests_total": "requests",
    "vllm:request_queue_time_seconds_sum": "queue_s",
    "vllm:request_prefill_time_seconds_sum": "prefill_s",
    "vllm:request_decode_time_seconds_sum": "decode_s",
    "vllm:e2e_request_latency_seconds_count": "calls",
    "http_requests_total": "requests",
}
LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)")
WORK = "/v1/"
"""In the labels of requests that are an app's."""
TIMEOUT_S = 10.0


def read_counts(url: str | None) -> dict[str, float]:
    """Everything since the server began. Empty where it does not count, or is not there."""
    if url is None:
        return {}
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return counts(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return {}


def counts(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        name = NAMES.get(match[1]) if match else None
        if match is None or name is None or (name == "requests" and WORK not in (match[2] or "")):
            continue
        found[name] = found.get(name, 0.0) + float(match[3])
    return found


def added(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What came between two looks; a counter that began in between began at 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}
