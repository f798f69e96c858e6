"""A paragraph for each workload: where the time of its apps goes in each lane, and what bounds it.

They are made of the rows of results alone (`phases` says how seconds are divided), so that nothing is said that was not
measured. It knows rows and words.

The invariant: every lane that was measured is explained, and by its own numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .phases import PHASES
from .results import MAIN, Row
from .tables import Case, cases

__all__ = ["explained"]

WORDS: Mapping[str, str] = {
    "app_code": "the app's own code",
    "tools": "tools",
    "queue": "waiting for an engine",
    "prefill": "reading prompts",
    "decode": "drawing answers",
    "outside": "outside the engine (distance, HTTP, the client's library)",
    "in_calls": "calls (their server does not say at what)",
}
IDLE = ("queue", "tools")
"""While an app does these, it is others that use the processors."""
ENGINES = ("prefill", "decode")
BUSY = 0.85
"""Of all cores: from here on there is no more to be had by doing things side by side."""
LEAST_SHARE = 0.005
"""What is less is not worth a word."""


def explained(rows: Sequence[Row], lanes: Sequence[str]) -> str:
    """Markdown: for each model one paragraph for each case, of a sentence or two for each lane."""
    parts = []
    for model in sorted({row.model for row in rows}):
        parts.append(f"## {model}")
        for case, systems in cases(row for row in rows if row.model == model).items():
            told = [_lane(case, lane, systems[lane]) for lane in lanes if MAIN in systems.get(lane, {})]
            parts.append(f"**{case.title}, {case.rtt_ms:g} ms.** {' '.join(told)}")
    return "\n\n".join(parts)


def _lane(case: Case, lane: str, found: Mapping[str, Row]) -> str:
    seconds = {phase: found[f"time_{phase}"].p50 for phase in PHASES if f"time_{phase}" in found}
    whole = sum(seconds.values())
    said = f"{lane}: {found[MAIN].p50:.3g} s"
    if "speedup" in found:
        said += f" ({found['speedup'].p50:.2f}x)"
    if whole <= 0:
        return f"{said}."
    shares = sorted(((value / whole, phase) for phase, value in seconds.items()), reverse=True)
    said += ", " + ", ".join(f"{share:.0%} {WORDS[phase]}" for share, phase in shares if share >= LEAST_SHARE)
    if "path_calls" in found:
        calls = found["path_calls"].p50
        said += f"; {calls:.3g} calls one after another"
        if case.rtt_ms:
            said += f" ({calls * case.rtt_ms / 1000:.3g} s of distance if each is asked for)"
    if "requests" in found:
        requests = round(found["requests"].p50)
        said += f", {requests} request{'' if requests == 1 else 's'}"
    return f"{said}. {_bound([phase for _, phase in shares], found)}"


def _bound(phases: Sequence[str], found: Mapping[str, Row]) -> str:
    """`phases`: the greatest first."""
    most = next((phase for phase in phases if phase not in IDLE), phases[0])
    if "busy_cores" not in found:
        return f"Bound by {WORDS[phases[0]]}."
    busy, cores = found["busy_cores"].p50, _cores(found["busy_cores"].hardware)
    of = f"{busy:.1f} of {cores} cores are busy" if cores else f"{busy:.1f} cores are busy"
    if cores and busy >= BUSY * cores:
        return f"Bound by the processors, most of all for {WORDS[most]}: {of}."
    if phases[0] == "queue":
        work = next((phase for phase in phases if phase in ENGINES), most)
        return f"Bound by the engine, which is at other calls, most of all {WORDS[work]}; {of}."
    return f"Bound by {WORDS[phases[0]]}; {of}."


def _cores(hardware: str) -> int:
    """0 where the description does not say."""
    number = re.search(r"(\d+) x ", hardware)
    return int(number[1]) if number else 0
