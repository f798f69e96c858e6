"""Where the time of a cell's apps went: into their own code, their tools, and what their calls waited for.

    completion = app code + tools + queue + prefill + decode + outside        seconds, means over the apps

A moment at which a call of an app is open belongs to its calls, one at which a tool runs to the tool, any other to its
code and its framework's. What belongs to calls is divided as the server says that the calls of this cell spent their
time (`server_counts`); what it does not know of is outside: distance, HTTP, the client's library. It knows cells, and
nothing of lanes or rounds.

The invariant: the parts add up to the mean completion; a server that does not count leaves one part, `in_calls`.
"""

from __future__ import annotations

import statistics

from .cells import AppRecord, Cell
from .clients import CallRecord

__all__ = ["PHASES", "path", "phases"]

PHASES = ("app_code", "tools", "queue", "prefill", "decode", "outside", "in_calls")
INSIDE = ("queue", "prefill", "decode")
"""What servers count."""


def phases(cell: Cell) -> dict[str, tuple[float, str]]:
    """Value and unit by the name of the metric."""
    apps = [app for app in cell.foreground if app.finished is not None]
    if not apps:
        return {}
    in_calls_s = statistics.fmean(_in_calls_s(app) for app in apps)
    tools_s = statistics.fmean(app.waited_s for app in apps)
    code_s = statistics.fmean(app.completion_s for app in apps) - in_calls_s - tools_s
    spent = {"app_code": code_s, "tools": tools_s}
    spent |= {phase: share * in_calls_s for phase, share in _shares(cell).items()}
    found = {f"time_{phase}": (seconds, "s") for phase, seconds in spent.items()}
    found["path_calls"] = (statistics.fmean(len(path(app)) for app in apps), "calls")
    found["busy_cores"] = ((cell.spent.client_s + cell.spent.servers_s) / cell.spent.elapsed_s, "cores")
    if "requests" in cell.server:
        found["requests"] = (cell.server["requests"], "requests")
    return found


def path(app: AppRecord) -> list[CallRecord]:
    """The calls that the app waited for one after another, the last first: each is the one that ended last of those
    that were over when the one behind it began."""
    found: list[CallRecord] = []
    begun = float("inf")
    for call in sorted(_finished(app), key=lambda call: call.finished or 0.0, reverse=True):
        assert call.finished is not None
        if call.finished <= begun:
            found.append(call)
            begun = call.submitted
    return found


def _in_calls_s(app: AppRecord) -> float:
    """How long at least one of its calls was open."""
    total, until = 0.0, app.started
    for call in sorted(_finished(app), key=lambda call: call.submitted):
        assert call.finished is not None
        total += max(0.0, call.finished - max(call.submitted, until))
        until = max(until, call.finished)
    return total


def _shares(cell: Cell) -> dict[str, float]:
    """Of the time of this cell's calls. A planned call may have waited in the server before the app asked for it: then
    the server knows of more than the app has seen, and nothing is outside."""
    counted = [cell.server.get(f"{phase}_s") for phase in INSIDE]
    known = [seconds for seconds in counted if seconds is not None]
    seen_s = sum((call.finished or call.submitted) - call.submitted for app in cell.apps for call in _finished(app))
    whole_s = max(seen_s, sum(known))
    if len(known) < len(INSIDE) or whole_s <= 0:
        return {"in_calls": 1.0}
    inside = {phase: seconds / whole_s for phase, seconds in zip(INSIDE, known, strict=True)}
    return inside | {"outside": 1.0 - sum(inside.values())}


def _finished(app: AppRecord) -> list[CallRecord]:
    return [call for call in app.calls if call.finished is not None]
