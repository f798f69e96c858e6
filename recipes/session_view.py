"""A session as its server describes it: the graph, and a table of its calls.

All times are the server's: `ready` is when the last input of a call was there, `started` when an engine took it.
`cached` are prompt tokens that were not computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drawing import draw, numbered
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Description = Mapping[str, Any]


def show_session(console: Console, session: Description) -> None:
    """`session` is what `Session.describe()` returns, or `GET /v1/parrot/sessions/{id}`."""
    console.print(Text(drawing(session, console.width), no_wrap=True))
    console.print(table(session))


def drawing(session: Description, width: int = 80) -> str:
    producers = {call["output"]: call["id"] for call in session["calls"]}
    reads = {
        call["id"]: {producers[variable] for variable in call["inputs"] if variable in producers}
        for call in session["calls"]
    }
    return draw(_names(session), reads, width)


def table(session: Description) -> Table:
    calls = session["calls"]
    began = min((call["submitted_s"] for call in calls), default=0.0)
    many = "1 call" if len(calls) == 1 else f"{len(calls)} calls"
    shown = Table(
        title=many, caption="seconds since the first was submitted; tokens", box=box.SIMPLE_HEAD, pad_edge=False
    )
    shown.add_column("call", no_wrap=True)
    shown.add_column("objective", no_wrap=True)
    for title in ("ready", "started", "finished", "prompt", "cached", "output"):
        shown.add_column(title, justify="right", no_wrap=True)
    labels = numbered(_names(session))
    for call in calls:
        moments = call["ready_s"], call["started_s"], call["finished_s"]
        times = ("-" if moment is None else f"{moment - began:.2f}" for moment in moments)
        counts = call["prompt_tokens"], call["cached_tokens"], call["output_tokens"]
        tokens = ("-" if count is None else f"{count:,}" for count in counts)
        style = "red" if call["error"] else None
        shown.add_row(labels[call["id"]], call["objective"], *times, *tokens, style=style)
    return shown


def _names(session: Description) -> dict[str, str]:
    return {call["id"]: call["function"] or "call" for call in session["calls"]}
